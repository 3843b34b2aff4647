"""README and docs: links lead somewhere, every command that they show is run or checked, and the README stays one page."""

import dataclasses
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT, blocks

from percept_jax import train
from percept_jax.cli.commands import COMMANDS, OPTIONS
from percept_jax.cli.main import main
from percept_jax.cli.request import parse
from percept_jax.cli.sweep_request import SweepRequest
from percept_jax.data.images import encode_png
from percept_jax.data.readers.toy import TOYS
from percept_jax.data.registry import PREPARABLE
from percept_jax.errors import PerceptError

PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}
LAUNCHER = (ROOT / "launch.sh").read_text()
# What launch.sh does itself: the cases of its last `case`, such as "  setup) ...".
OWN = set(re.findall(r"^  ([a-z]+)\)", LAUNCHER.rpartition("case $1 in")[2], re.MULTILINE))
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
# What a reader replaces by something of theirs, beside runs/<experiment>/<id>.
PLACEHOLDERS = {"RUN_DIR", "DIR", "image.png", "photos/"}
ASSIGNMENT = re.compile(r"([A-Z_]+)=(\S+)")


def prose(text):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page, text):
    """The relative links of a page that lead to no file, or to no heading of one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        if target.startswith(("http://", "https://")):
            continue
        if not there.exists() or (anchor and anchor not in anchors(there.read_text())):
            yield target


def shown(text):
    """The commands of a page: each line of a shell block, and what its prose shows that starts with ./launch.sh."""
    for block in blocks(text, "(?:sh|bash)"):
        for line in block.replace("\\\n", " ").splitlines():
            if command := re.sub(r"(^|\s+)#.*$", "", line).strip():
                yield command
    for inline in re.findall(r"`((?:[A-Z_]+=\S+\s+)*\./launch\.sh\s[^`]+)`", prose(text)):
        yield " ".join(inline.split())


def split(command):
    """The environment and the words of a command, with braces as a shell expands them."""
    words, environment = shlex.split(command), {}
    while match := ASSIGNMENT.fullmatch(words[0]):
        environment[match[1]] = match[2]
        words.pop(0)
    assert words.pop(0) == "./launch.sh", f"{command}: this test knows launch.sh only"
    return environment, [word for text in words for word in spread(text)]


def spread(text):
    """What a shell makes of a word with braces."""
    match = re.fullmatch(r"(--\w+=)\{([^{}]*,[^{}]*)\}", text)
    return [match[1] + value for value in match[2].split(",")] if match else [text]


def check(command, folder):
    """Runs a command where that costs little, with --dry_run where it trains, or else parses it. Raises where it is wrong."""
    environment, words = split(command)
    assert environment.keys() <= {"JAX_NUM_CPU_DEVICES", "PERCEPT_EXTRAS"}, command
    assert set(filter(None, environment.get("PERCEPT_EXTRAS", "").split(","))) <= EXTRAS, command
    name, *rest = words
    if name in OWN:
        check_own(name, rest)
    elif name == "list":
        assert main([*words, f"--data_dir={folder}"]) == 0
    elif "--help" in words:
        assert main(words) == 0
    elif name in COMMANDS and COMMANDS[name].named:
        check_command(COMMANDS[name], words)
    else:
        assert name.endswith((".flags", ".sweep")), f"{command}: this test does not know how to check it"
        check_training(words, folder, environment.get("JAX_NUM_CPU_DEVICES", "1"))


def check_own(name, rest):
    """A command that launch.sh runs without percept_jax's command line."""
    if name == "bench":
        missing = [benchmark for benchmark in rest if not (ROOT / "benchmarks" / f"{benchmark}.py").is_file()]
    elif name == "test":
        missing = [word for word in rest if word != "--slow" and not (ROOT / word.partition("::")[0]).exists()]
    else:
        assert name == "setup", f"{name}: this test does not know how to check it"
        missing = rest
    assert not missing, f"{name}: {missing}"


def check_command(command, words):
    """A command that needs a trained model or files: each flag is one that it takes, each file exists or stands for yours."""
    request = parse(words)
    refused = [flag for flag in request.origins if not command.accepts(flag, request.options, OPTIONS)]
    assert not refused, f"{command.name}: {refused}"
    if request.file:
        request.experiment.validate()
    _, *positional = request.words
    if command.name == "prepare":
        assert positional[0] in PREPARABLE, positional
        assert request.options["from"] in ("", *PLACEHOLDERS), request.options
        assert request.options["file_format"] in ("array_record", "tfrecord"), request.options
        return
    files = positional[:1] if command.name == "predict" and not re.search(r"\.png|/$", " ".join(positional)) else positional
    for file in files:
        assert exists(file), f"{command.name}: {file}"
    assert positional or request.file, command.usage


def check_training(words, folder, devices):
    """A flag file or a sweep: --dry_run, or where data or weights are not at hand, all settings of all arms are validated."""
    request = parse(words)
    experiments = [s.experiment for s in request.arms] if isinstance(request, SweepRequest) else [request.experiment]
    known = {"digits", *TOYS} if isinstance(request, SweepRequest) else {"digits", *TOYS, *PREPARABLE}
    for experiment in experiments:
        experiment.validate()
        assert not experiment.init_from or exists(experiment.init_from), experiment.init_from
    if all(experiment.dataset in known and not experiment.init_from for experiment in experiments):
        more = [f"--devices={devices}", f"--run_dir={folder / 'run'}"]
        assert main([*(word for word in words if word != "--dry_run"), "--dry_run", *more]) == 0
        assert not (folder / "run").exists()


def exists(path):
    """Whether a file is there, or the name stands for a run of a shipped experiment, or for something of the reader's."""
    if run := re.fullmatch(r"runs/(\w+)(/<id>)?", path):
        return any((ROOT / "experiments" / f"{run[1]}.{kind}").is_file() for kind in ("flags", "sweep"))
    return path in PLACEHOLDERS or (ROOT / path).exists()


COMMANDS_SHOWN = {command: page for page, text in PAGES.items() for command in shown(text)}


@pytest.fixture
def uncompiled(monkeypatch):
    """Dry runs that compile no step and measure no width: all else of them is as it is."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        "percept_jax.cli.dry_run._program", lambda *_: {"parameters": 0, "memory_bytes": 0, "flops_per_step": None}
    )
    monkeypatch.setattr("percept_jax.sweeps.describe._estimate", lambda *_: (1, 0.0))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert not [*broken_links(page, PAGES[page])]


@pytest.mark.parametrize("command", COMMANDS_SHOWN)
def test_a_command_works(command, tmp_path, uncompiled):
    check(command, tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "make all",
        "./launch.sh explain runs/digits_lenet/<id>",
        "./launch.sh experiments/no_such.flags",
        "./launch.sh experiments/no_such.sweep",
        "./launch.sh experiments/digits_mlp.flags --hiden=64",
        "./launch.sh experiments/digits_mlp.flags --seed=-1",
        "./launch.sh experiments/digits_mlp.flags --learning_rate={0.03,0.1}",
        "./launch.sh experiments/digits_activations.sweep --design=all",
        "./launch.sh experiments/finetune_digits.flags --init_from=runs/no_such/<id>",
        "./launch.sh evaluate runs/no_such/<id>",
        "./launch.sh evaluate runs/digits_lenet/<id> --learning_rate=1",
        "./launch.sh predict nowhere image.png",
        "./launch.sh plot --augmentations experiments/no_such.flags",
        "./launch.sh prepare no_such",
        "./launch.sh list --seed=3",
        "./launch.sh bench no_such",
        "./launch.sh test --no_such",
        "./launch.sh setup cuda",
        "PERCEPT_EXTRAS=no_such ./launch.sh setup",
        "NO_SUCH=1 ./launch.sh list",
    ],
)
def test_a_wrong_command_is_noticed(command, tmp_path, uncompiled):
    with pytest.raises((AssertionError, PerceptError)):
        check(command, tmp_path)


def test_wrong_links_are_noticed_and_all_commands_found():
    page = "[a](docs/data.md#splits) [b](no_such.md) ![c](docs/none.png) [d](docs/data.md#none) [e](https://example.com/x)\n"
    assert [*broken_links("README.md", page)] == ["no_such.md", "docs/none.png", "docs/data.md#none"]
    page = "```bash\n# only a comment\n./launch.sh a  # why\nX=1 ./launch.sh b \\\n  c\n```\nSee `./launch.sh\nd` and `launch`.\n"
    assert [*shown(page)] == ["./launch.sh a", "X=1 ./launch.sh b    c", "./launch.sh d"]


def test_every_page_is_linked_from_the_readme_which_is_one_page():
    assert len(PAGES["README.md"].splitlines()) <= 150
    assert not [page for page in PAGES if page.startswith("docs/") and f"]({page})" not in PAGES["README.md"]]


def test_the_readme_lists_every_command():
    assert {"setup", "test", "bench"} <= OWN
    kinds = {".flags": "train", ".sweep": "sweep"}
    (section,) = re.findall(r"^## Commands$(.*?)^## ", PAGES["README.md"], re.MULTILINE | re.DOTALL)
    firsts = [split(command)[1][0] for block in blocks(section, "sh") for command in shown(f"```sh\n{block}```")]
    assert {kinds.get(Path(word).suffix, word) for word in firsts} - {"--help"} == {*COMMANDS, *OWN}
    assert "--help" in firsts


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS_SHOWN if re.search(r"experiments/\w+\.flags", c) and " plot " not in c])
def test_a_dry_run_compiles(command, tmp_path, monkeypatch):
    """Those of flag files; how long a sweep takes is measured in test_sweeps.py."""
    monkeypatch.chdir(ROOT)
    check(command, tmp_path)


@pytest.mark.slow
def test_commands_on_a_run_work(small, tmp_path, monkeypatch, digits):
    """Those of the digits' run and of the points' run, with these in the place of <id>."""
    images, points = tmp_path / "run", tmp_path / "points"
    train(small)
    train(dataclasses.replace(small, dataset="moons", run_dir=str(points)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for path in ("image.png", "photos/one.png"):
        (tmp_path / path).write_bytes(encode_png(digits.inputs[0]))
    ran = set()
    for command in COMMANDS_SHOWN:
        place = points if "--boundary" in command or "runs/moons_mlp" in command else images
        words = [re.sub(r"^(RUN_DIR|runs/(digits_lenet|moons_mlp)/<id>)$", str(place), word) for word in split(command)[1]]
        if str(place) in words:
            assert main(words) == 0, command
            ran.add(words[0])
    assert ran == {"evaluate", "predict", "plot", "export"}
    assert (tmp_path / "lenet.safetensors").exists()


def test_files_that_are_named_are_there():
    for page, text in PAGES.items():
        for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.py)`", text):
            assert (ROOT / "percept_jax" / name).is_file() or (ROOT / name).is_file(), f"{page}: {name}"
