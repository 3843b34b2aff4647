"""The command line and flag files: what is understood, and what is refused in one line with nothing written."""

import dataclasses
import json
import os
import re
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from percept_jax.cli.commands import OPTIONS
from percept_jax.cli.flagfile import FREE_TEXT
from percept_jax.cli.main import main
from percept_jax.cli.request import parse
from percept_jax.data.registry import parts
from percept_jax.errors import UsageError
from percept_jax.experiment import TYPES, Experiment
from percept_jax.training.identity import flag_lines
from percept_jax.training.optim import OPTIMIZERS, SCHEDULES

ROOT = Path(__file__).parent.parent


@pytest.fixture
def write(tmp_path):
    """Writes flag files: name=text ... -> the path of the last."""

    def files(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name}.flags"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(path)

    return files


def test_values_come_from_nested_files_and_the_last_word_wins(tmp_path, write, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.flags").write_text("# a base\n\n--model=mlp\n--learning_rate=0.5\n--hidden=8,4\n--momentum=0.5\n")
    (tmp_path / "sub" / "my.flags").write_text("// of mine\n--flagfile=../base.flags\n--momentum=0.25\n")
    monkeypatch.chdir(tmp_path)
    request = parse(["sub/my.flags", "--seed=3", "--epochs", "2", "--nofresh"])
    experiment = request.experiment
    assert (experiment.model, experiment.learning_rate, experiment.momentum, experiment.seed) == ("mlp", 0.5, 0.25, 3)
    assert experiment.knobs == {"hidden": (8, 4)}
    assert experiment.epochs == 2
    assert request.name == "my"
    assert request.origins["learning_rate"] == "sub/../base.flags:4"
    assert request.origins["momentum"] == "sub/my.flags:3"
    assert request.origins["seed"] == "command line"


def test_of_steps_and_epochs_the_last_one_counts(write):
    path = write(my="--epochs=3\n")
    assert (parse([path, "--steps=20"]).experiment.steps, parse([path, "--steps=20"]).experiment.epochs) == (20, 0)
    assert (parse(["--steps=20", path]).experiment.steps, parse(["--steps=20", path]).experiment.epochs) == (0, 3)


def test_steps_and_epochs_on_one_command_line_contradict_each_other(tmp_path, capsys):
    sweep = tmp_path / "my.sweep"
    sweep.write_text("--momentum={0,0.5}\n")
    for args in ([], [str(sweep)], ["--sweep", "--momentum={0,0.5}"]):
        assert main([*args, "--steps=20", "--epochs=3"]) == 2
        said = "command line: --epochs: give either --epochs or --steps; --steps is on the command line too\n"
        assert capsys.readouterr().err == said
    assert parse(["--steps=20", "--epochs=0"]).experiment.steps == 20


def test_a_flag_file_of_one_model_serves_another(write):
    """--model on the command line changes which knobs there are; those of the file that it has not are an error."""
    path = write(my="--model=mlp\n--hidden=5\n--epochs=1\n")
    with pytest.raises(UsageError, match=r"my\.flags:2: --hidden: a knob of mlp, cnn, rnn and 5 more, not of lenet5"):
        parse([path, "--model=lenet5"])


FAULTS = {
    "--epochs=1\n--learning_rat=0.1": "my.flags:2: unknown name '--learning_rat'; did you mean '--learning_rate'?",
    "--model=linear\n--epochs=1\n--hidden=3": "my.flags:3: --hidden: a knob of mlp, cnn, rnn and 5 more, not of linear (its own: "
    "initializer)",
    "--epochs=1\nlearning_rate=0.1": "my.flags:2: 'learning_rate=0.1' is not a setting; write --learning_rate=0.1",
    "--epochs=1\n--learning_rate 0.1": "my.flags:2: '--learning_rate 0.1' is not a setting; write --learning_rate=0.1",
    "--epochs=1\n  # slower": "my.flags:2: a comment starts in the first column",
    "--epochs=1\n--model='mlp'": "my.flags:2: --model: quotes would be part of the value; write --model=mlp",
    '--epochs=1\n--data_dir="/x"': "my.flags:2: --data_dir: quotes would be part of the value; write --data_dir=/x",
    "--epochs=1  # short": "my.flags:1: --epochs: a comment would be part of the value; give it a line of its own",
    "--epochs= 1": "my.flags:1: --epochs: no space after the sign; write --epochs=1",
    "--epochs=1\n--model=5": "my.flags:2: --model: unknown name '5'; see --help",
    "--epochs=1\n--model": "my.flags:2: --model: needs a value: --model=VALUE",
    "--epochs=1\n--dataset=digitz": "my.flags:2: --dataset: unknown name 'digitz'; did you mean 'digits'?",
    "--epochs=1\n--optimizer=0.1": "my.flags:2: --optimizer: unknown name '0.1'; choose from sgd, nesterov, adam",
    "--epochs=1\n--pooling=avg": "my.flags:2: --pooling: unknown name 'avg'; ",
    "--epochs=1\n--learning_rate=fast": "my.flags:2: --learning_rate: 'fast' is not a number",
    "--epochs=1\n--learning_rate=nan": "my.flags:2: --learning_rate: nan is not a finite number",
    "--epochs=1\n--learning_rate=inf": "my.flags:2: --learning_rate: inf is not a finite number",
    "--epochs=1\n--learning_rate=0": "my.flags:2: --learning_rate: 0.0 is outside (0, inf)",
    "--epochs=1\n--momentum=1": "my.flags:2: --momentum: 1.0 is outside [0, 1)",
    "--epochs=1\n--dropout_rate=1": "my.flags:2: --dropout_rate: 1.0 is outside [0, 1)",
    "--epochs=1e300": "my.flags:1: --epochs: 1e+300 is too large for float32",
    "--epochs=1e12": "my.flags:1: --epochs: 1000000000000.0 are 16828125000000 steps; at most 2147483647 are possible",
    "--epochs=1\n--learning_rate=1e300": "my.flags:2: --learning_rate: 1e+300 is too large for float32",
    "# only a comment": "my.flags: --epochs: give either --epochs or --steps",
    "--epochs=1\n--seed=-1": "my.flags:2: --seed: -1 is outside [0, 4294967295]",
    "--epochs=1\n--batch_size=6.5": "my.flags:2: --batch_size: '6.5' is not a whole number or all",
    "--epochs=1\n--batch_size=0": "my.flags:2: --batch_size: 0 is outside [1, 1000000]",
    "--epochs=1\n--fresh=maybe": "my.flags:2: --fresh: 'maybe' is not true or false",
    "--epochs=1\n--model=mlp\n--hidden=3,x": "my.flags:3: --hidden: '3,x' is not whole numbers",
    "--epochs=1\n--model=mlp\n--hidden=3,0": "my.flags:3: --hidden: 0 is outside [1, 1000000]",
    "--epochs=1\n--model=linear\n--dropout_rate=0.5": "my.flags:3: --dropout_rate: linear has no dropout",
    "--model=mlp": "my.flags: --epochs: give either --epochs or --steps",
    "--epochs=1\n--batch_size=30\n--devices=4": "my.flags:2: --batch_size: 30 examples cannot be split evenly over 4 devices",
    "--epochs=1\n--devices=9": "my.flags:2: --devices: 9 asked for, 8 here (cpu)",
    "--epochs=1\n--image_size=8": "my.flags:2: --image_size: lenet5 cannot take images of 8 pixels a side; it wants 32",
    "--epochs=1\n--flagfile=none.flags": "my.flags:2: --flagfile: {folder}/none.flags: no such file",
    "--epochs=1\n--flagfile=my.flags": "my.flags:2: --flagfile: {folder}/my.flags includes itself",
    "--epochs=1\n--flagfile": "my.flags:2: --flagfile: needs a path: --flagfile=PATH",
    "--epochs=1\n--flagfile=.": "my.flags:2: --flagfile: {folder} is a folder, not a file",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_in_a_flag_file_is_one_line_exit_2_and_nothing_written(text, write, tmp_path, capsys):
    path = write(my=text + "\n")
    run_dir = tmp_path / "run"
    assert main([path, f"--run_dir={run_dir}"]) == 2
    out, err = capsys.readouterr()
    wanted = FAULTS[text].format(folder=tmp_path)
    assert err.count("\n") == 1
    assert err.strip().removeprefix(f"{tmp_path}/").startswith(wanted), err
    assert not out
    assert not run_dir.exists()


FREE = "folder:my data #2 // x"


@pytest.mark.parametrize("kind", ["flags", "sweep"])
@pytest.mark.parametrize("name", sorted(FREE_TEXT - {"flagfile", "baseline", "to", "from"}))
def test_a_path_or_a_pattern_is_kept_whole_in_both_kinds_of_file(name, kind, tmp_path):
    path = tmp_path / f"my.{kind}"
    path.write_text(
        f"# a comment\n// another\n--epochs=1\n--{name}={FREE}\n" + "--seeds=2\n[x]\n--momentum=0\n" * (kind == "sweep")
    )
    request = parse([str(path)])
    experiments = [arm.experiment for arm in request.arms] if kind == "sweep" else [request.experiment]
    assert {getattr(experiment, name) for experiment in experiments} == {FREE}


def test_every_flag_of_free_text_is_known_to_the_reader():
    assert {name for name, hint in TYPES.items() if hint is str} - {"model"} <= FREE_TEXT
    paths = {name for name in ("to", "from", "predictions", "cache_dir") if name in OPTIONS}
    assert paths <= FREE_TEXT <= {*TYPES, *OPTIONS, "flagfile"}


@pytest.mark.parametrize("kind", ["flags", "sweep"])
@pytest.mark.parametrize("line", ["--momentum=0.5  # half", "--momentum=0.5 // half", "--model=mlp\t# small", "--fresh=true #"])
def test_what_looks_like_a_comment_is_refused_elsewhere_in_both_kinds_of_file(line, kind, tmp_path, capsys):
    path = tmp_path / f"my.{kind}"
    path.write_text(f"--epochs=1\n{line}\n")
    assert main([str(path)]) == 2
    said = f"{path}:2: {line.partition('=')[0]}: a comment would be part of the value; give it a line of its own\n"
    assert capsys.readouterr().err == said


def chain(folder, files, lines, names=("a",)):
    """Flag files that include the next one under each of the names; the last has so many lines."""
    for i in range(files):
        (folder / f"{i}.flags").write_text("".join(f"--flagfile={i + 1}.flags\n" for _ in names))
    (folder / f"{files}.flags").write_text("--epochs=1\n" * lines)
    return str(folder / "0.flags")


@pytest.mark.parametrize("kind", ["flags", "sweep"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"--epochs=1\n" * 10_001, "my.{kind}:10001: more than 10,000 settings"),
        (b"#" * (2**20 + 1), "my.{kind}: larger than 1 MiB"),
        (b"--dataset=" + b"x" * 2**16, "my.{kind}:1: a line of more than 64 KiB"),
        ("--epochs=1\n".encode("utf-16"), "my.{kind}: not a text file"),
        (b"--epochs=1\n\0", "my.{kind}: not a text file"),
        (b"\xff", "my.{kind}: not a text file"),
        ("--run_dir=a\u2028b\n".encode(), "my.{kind}:1: U+2028 is no character for a setting"),
        (b"--run_dir=a\x0bb\n", "my.{kind}:1: U+000B is no character for a setting"),
        (b"--flagfile=/dev/zero\n", "my.{kind}:1: --flagfile: /dev/zero is a pipe"),
        (b"--flagfile=pipe\n", "my.{kind}:1: --flagfile: {folder}/pipe is a pipe"),
        (b"--flagfile=~nosuchuser/x.flags\n", "my.{kind}:1: --flagfile: ~nosuchuser/x.flags: there is no user ~nosuchuser"),
        (b"--flagfile=loop\n", "my.{kind}:1: --flagfile: {folder}/loop: a loop of symbolic links"),
        (b"--flagfile=" + b"x" * 300, "my.{kind}:1: --flagfile: " + "x" * 40 + "...: the path is too long"),
        (b"--flagfile=0.flags\n", "{folder}/2.flags:988: more than 10,000 settings"),
        (b"--flagfile=deep/0.flags\n", "{folder}/deep/14.flags:1: --flagfile: {folder}/deep/15.flags: more than 16 files"),
    ],
)
def test_files_that_are_none_or_do_not_end_are_refused(content, said, kind, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    chain(tmp_path, 2, 1000, "aaaaaaaaa")
    (tmp_path / "deep").mkdir()
    chain(tmp_path / "deep", 1500, 1)
    (tmp_path / f"my.{kind}").write_bytes(content)
    begun = time.perf_counter()
    assert main([str(tmp_path / f"my.{kind}"), "--steps=1"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said.format(kind=kind, folder=tmp_path) in err
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("name", ["pipe.flags", "pipe.sweep", "folder.flags", "folder.sweep"])
def test_a_pipe_or_a_folder_is_no_flag_file(name, tmp_path, capsys):
    os.mkfifo(tmp_path / name) if name.startswith("pipe") else (tmp_path / name).mkdir()
    assert main([str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.startswith(f"command line: {tmp_path / name} is a ")


def test_a_home_folder_is_expanded_for_flag_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.flags").write_text("--steps=3\n")
    (tmp_path / "b.flags").write_text("--flagfile=~/a.flags\n")
    (tmp_path / "c.sweep").write_text("--flagfile=~/a.flags\n--momentum={0.1,0.2}\n")
    assert parse(["~/b.flags"]).experiment.steps == parse(["--flagfile=~/a.flags"]).experiment.steps == 3
    assert [arm.experiment.steps for arm in parse(["~/c.sweep"]).arms] == [3, 3]


NUMBERS = {
    "--batch_size=1_0": "'1_0' is not a whole number or all",
    "--batch_size=\u0661\u0660": "'\u0661\u0660' is not a whole number or all",
    "--seed=1_0": "'1_0' is not a whole number",
    "--seed=\uff11": "'\uff11' is not a whole number",
    "--seed=0x1F": "'0x1F' is not a whole number",
    "--seed=1e5": "'1e5' is not a whole number; write 100000",
    "--seed=7.0": "'7.0' is not a whole number; write 7",
    "--seed=++1": "'++1' is not a whole number",
    "--seed=": "'' is not a whole number",
    "--seed=9223372036854775808": "'9223372036854775808' is too large for a whole number",
    f"--seed={'9' * 5000}": f"'{'9' * 57}...' is too large for a whole number",
    "--learning_rate=1_0": "'1_0' is not a number",
    "--learning_rate=0.\u0661": "'0.\u0661' is not a number",
    "--learning_rate=0.1\u00a0": "'0.1\\xa0' is not a number",
    "--learning_rate=0x1p3": "'0x1p3' is not a number",
    "--learning_rate=.": "'.' is not a number",
    "--learning_rate=1e": "'1e' is not a number",
    "--learning_rate=0,1": "'0,1' is not a number",
    "--learning_rate=-inf": "-inf is not a finite number",
    "--learning_rate=NaN": "NaN is not a finite number",
    "--learning_rate=1e400": "'1e400' is too large for a number",
    "--weight_decay=1e-400": "'1e-400' is too small for a number",
    "--hidden=300,,100": "'300,,100' is not whole numbers: '' is not a whole number",
    "--hidden=300,": "'300,' is not whole numbers",
    "--hidden=1_0,5": "'1_0,5' is not whole numbers",
    "--hidden=300, 100": "'300, 100' is not whole numbers: ' 100' is not a whole number",
    "--hidden=9223372036854775808": "'9223372036854775808' is not whole numbers: '9223372036854775808' is too large",
    "--decay_at=0.5,nan": "'0.5,nan' is not numbers: nan is not a finite number",
    "--random_flip=maybe": "'maybe' is not true or false",
    "--random_flip=": "'' is not true or false",
    "--norandom_flip=1": "write --random_flip=true or --random_flip=false; --norandom_flip takes no value",
    "--norandom_flip=false": "write --random_flip=true or --random_flip=false; --norandom_flip takes no value",
    "--nofresh=true": "write --fresh=true or --fresh=false; --nofresh takes no value",
    "--fresh=maybe": "'maybe' is not true or false",
}


ONE = [line for line in NUMBERS if "," not in line and line[-1] != "=" and not re.match("--(no)?(fresh|seed)", line)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [*((line, kind) for kind in ("line", "flags", "sweep") for line in NUMBERS), *((line, "factor") for line in ONE)],
)
def test_what_a_person_would_not_write_is_refused_in_every_place(line, kind, tmp_path, capsys):
    path = tmp_path / f"my.{'sweep' if kind == 'factor' else kind}"
    name, _, text = line.removeprefix("--").partition("=")
    line = f"--{name}={{{text}}}" if kind == "factor" else line
    path.write_text(f"--model=mlp\n--epochs=1\n{line}\n")
    args = ["--model=mlp", "--epochs=1", line] if kind == "line" else [str(path)]
    with pytest.raises(UsageError) as caught:
        parse(args)
    where = "command line" if kind == "line" else f"{path}:3"
    flag = name.removeprefix("no") if name.startswith("no") and name != "normalize" else name
    assert str(caught.value).startswith(f"{where}: --{flag}: {NUMBERS[f'--{name}={text}']}") or (name, kind) == ("seed", "sweep")
    assert main(args) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("text", ["+1", ".5", "1.", "1e-3", "1E+2", "007", "-.5e1"])
def test_what_a_person_writes_is_a_number(text):
    assert parse([f"--learning_rate={text}"]).experiment.learning_rate == float(text)


@pytest.mark.parametrize(
    "text", ["{0x0..9}", "{1_0..20:3}", "{\u0661..9}", "{1..\u0669:3}", "{1..9:\u0663}", "{log:1_0..100:3}", "{1..1e400:3}"]
)
@pytest.mark.parametrize("flag", ["momentum", "seeds"])
def test_ranges_are_of_numbers_that_a_person_writes(text, flag):
    with pytest.raises(UsageError, match=f"command line: --{flag}: .* (is not a|is too large for a)"):
        parse(["--sweep", "--steps=1", f"--{flag}={text}"])


@pytest.mark.parametrize(
    "flag", ["--pack=\u0663", "--pack=1_0", "--shard=\u0660/\u0662", "--shard=0/1_0", f"--pack={'1' * 5000}"]
)
def test_options_of_a_sweep_are_ascii_numbers(flag, capsys):
    assert main(["--sweep", "--steps=1", "--momentum={0,0.5}", flag]) == 2
    assert capsys.readouterr().err.startswith(f"command line: {flag.partition('=')[0]}: ")


@pytest.mark.parametrize("knob", ["--hidden=9223372036854775807", "--hidden=10000000000", "--hidden=1000001"])
def test_a_width_has_a_bound(knob, capsys):
    assert main(["--model=mlp", "--steps=1", knob]) == 2
    assert "is outside [1, 1000000]" in capsys.readouterr().err


def test_an_empty_argument_is_refused(capsys):
    for args in ([""], ["list", ""], ["--steps=1", ""]):
        assert main(args) == 2
        assert capsys.readouterr().err == "command line: an empty argument\n"


def test_a_typo_in_a_nested_file_is_told_with_that_file_s_line(write, tmp_path, capsys):
    path = write(inner="--epochs=1\n\n--momentun=0.5\n", outer="--flagfile=inner.flags\n")
    assert main([path]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path}/inner.flags:3: unknown name '--momentun'")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epohs=1"], "command line: unknown name '--epohs'; did you mean '--epochs'?"),
        (["trian"], "command line: unknown name 'trian'"),
        (["digits_lenet.flags"], "command line: digits_lenet.flags: no such file"),
        (["list", "--learning_rate=1"], "command line: --learning_rate: does not apply to list"),
        (["evaluate", "x", "--seed=1"], "command line: --seed: does not apply to evaluate"),
        (["--epochs=1", "--top_k=2"], "command line: --top_k: does not apply to training"),
        (["list", "more"], "usage: list"),
        ([], "command line: nothing to run"),
        (["evaluate"], "usage: evaluate RUN_DIR"),
        (["predict", "runs"], "usage: predict RUN_DIR IMAGE_OR_FOLDER..."),
        (["prepare"], "usage: prepare NAME"),
        (["--random_flip", "false"], "command line: write --random_flip=false"),
        (["plot"], "usage: plot RUN_DIR"),
        (["plot", "x", "--seed=1"], "command line: --seed: does not apply to plot"),
        (["--epochs=1", "--from=x"], "command line: --from: does not apply to training"),
        (["evaluate", "/no/such/run"], "/no/such/run: not a run directory"),
    ],
)
def test_a_fault_on_the_command_line(args, message, capsys):
    assert main(args) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_fault_is_told_to_programs_too(capsys):
    assert main(["--momentum=2", "--epochs=1", "--json"]) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"error": "command line: --momentum: 2.0 is outside [0, 1)"}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--json=1"], True),
        (["--json=t"], True),
        (["-json"], True),
        (["--json=maybe"], True),
        (["--nojson", "--json"], True),
        (["--json", "--nojson"], False),
        (["--json", "--json=false"], False),
        (["--json=0"], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("command", [["--momentum=2", "--epochs=1"], ["none.flags"], ["prepare", "nothing"]])
def test_programs_are_told_where_they_ask_for_it(args, told, command, capsys):
    assert main([*command, *args]) == 2
    out, err = capsys.readouterr()
    last = (out.splitlines() or [""])[-1]
    assert last.startswith("{") == told
    assert not told or json.loads(last) == {"error": err.strip()}


def test_json_in_a_file_is_heard(write, capsys):
    assert main(["list", write(my="--json\n")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("{")


def test_a_fault_is_one_line_whatever_is_in_it(capsys):
    for args in (["--a\nb=1"], ["a\nb"], ["--model=a\u2028b"], ["--run_dir=a\nb", "--steps=1"], ["--metric=a\rb", "--sweep"]):
        assert main(args) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


FOLDERS = {
    "~nosuchuser/x": "there is no user ~nosuchuser",
    "{folder}/loop/x": "a loop of symbolic links",
    "x" * 300: "x" * 40 + "...: the path is too long",
    "{folder}/a\nb": "has U+000A in it|a path has no line break",
    "{folder}/a\0b": "has U+0000 in it|a path has no line break and no NUL",
    "{folder}/\udcff": "is not UTF-8",
    "{folder}/x\ud800": "is not UTF-8",
    "{folder}/file/below": "{folder}/file is not a folder|Not a dir|neither a sweep|not a run|no such file|not a directory",
}


@pytest.mark.parametrize("text", FOLDERS)
@pytest.mark.parametrize(
    "args",
    [
        ["--steps=1", "--run_dir={}"],
        ["--sweep", "--steps=1", "--momentum={{0,0.5}}", "--run_dir={}"],
        ["--steps=1", "--data_dir={}"],
        ["list", "--data_dir={}"],
        ["prepare", "mnist", "--from={}"],
        ["prepare", "digits", "--data_dir={}"],
        ["compare", "{}"],
        ["compare", "runs", "--to={}"],
        ["evaluate", "{}"],
        ["predict", "{}", "x.png"],
        ["export", "{}", "--to=a.safetensors"],
        ["plot", "{}"],
        ["--flagfile={}"],
        ["{}.flags"],
        ["{}.sweep"],
    ],
    ids=lambda args: " ".join(args)[:30],
)
def test_a_path_that_cannot_be_is_one_line(args, text, tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    path = text.format(folder=tmp_path)
    if "below" in text and ("--data_dir={}" in args or "--from={}" in args):
        return  # the rooms of data say what is not there
    assert main([arg.format(path) for arg in args]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert any(said.format(folder=tmp_path) in err for said in FOLDERS[text].split("|")), err
    flag = next((arg[: arg.index("=")] for arg in args if "={}" in arg), "")
    assert flag in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["...sweep", "..flags", ".flags", ".sweep", "...flags", ".my.flags", "a\nb.flags", "a\u2028b.sweep"]
)
@pytest.mark.parametrize("command", [[], ["plot", "--augmentations"]])
def test_a_name_that_leaves_runs_is_refused(name, command, tmp_path, capsys):
    (tmp_path / name).write_text("--steps=1\n--momentum={0,0.5}\n" if "sweep" in name else "--steps=1\n")
    assert main([*command, str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("command line: ")


def test_the_name_of_a_sweep_fits_a_file_system(tmp_path, capsys):
    path = tmp_path / ("x" * 249 + ".sweep")
    path.write_text("--steps=1\n--momentum={0,0.5}\n")
    assert main([str(path), "--learning_rate=0.2"]) == 2
    assert "the path is too long" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["a\nb", "a\u2028b", "a\rb", "a\x0bb", "a\x1cb", "a\x85b", "a\0", " a", "a ", "'a'", '"a', "a\udcff"]
)
@pytest.mark.parametrize("name", sorted(name for name, hint in TYPES.items() if hint is str and name != "model"))
def test_what_run_flags_could_not_say_is_no_value(text, name):
    with pytest.raises(UsageError, match="which no flag file can hold") as caught:
        dataclasses.replace(Experiment(steps=1), **{name: text}).validate()
    assert caught.value.flag == name


@given(st.text(max_size=20))
def test_a_valid_text_comes_back_from_run_flags(text):
    experiment = Experiment(steps=1, dataset="digits", freeze=text, lr_scale=text)
    try:
        experiment.validate()
    except UsageError:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.flags"
        path.write_bytes(("\n".join(flag_lines(experiment)) + "\n").encode())
        assert parse([str(path)]).experiment.science() == experiment.science()


def test_what_run_flags_says_is_the_experiment(tmp_path):
    experiment = Experiment(model="lenet5", steps=7, learning_rate=0.1 + 0.2, knobs={"norm": "batch"}, dropout_rate=0.1)
    (tmp_path / "run.flags").write_text("\n".join(flag_lines(experiment)) + "\n")
    read = parse([str(tmp_path / "run.flags")]).experiment
    assert read.science() == experiment.science()
    assert read.chosen() == experiment.chosen()


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/*.flags")), ids=lambda p: p.stem)
def test_every_committed_flag_file_is_valid_and_says_what_it_is(path):
    request = parse([str(path)])
    request.experiment.validate()
    assert path.read_text().startswith("# ")
    assert "model" in request.origins or path.stem in ("digits", "mnist", "cifar10", "vowels", "mnist_rows")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem.startswith("digits") else pytest.mark.slow)
        for path in sorted(ROOT.glob("experiments/*.flags"))
        if not parts(parse([str(path)]).experiment.dataset)[0] and path.stem != "finetune_digits"  # it wants weights
    ],
)
def test_every_committed_flag_file_can_be_looked_at_without_its_data(path, capsys):
    assert main([str(path), "--dry_run", "--devices=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] > 0


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["vowels_lstm", "vowels_gru", "atis_tagger", "shakespeare_lstm", "power_forecast_gru"])
def test_experiments_on_files_of_sequences_can_be_looked_at(name, capsys):
    data = f"--data_dir={os.environ['PERCEPT_TEST_DATA']}/sequences"
    assert main([f"{ROOT}/experiments/{name}.flags", data, "--dry_run", "--devices=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] > 0


def test_named_choices_are_the_registries():
    from typing import get_args

    from percept_jax.tasks.losses import OBJECTIVES

    for flag, registry in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("loss", OBJECTIVES)):
        assert get_args(TYPES[flag]) == tuple(registry)


def test_dry_run_tells_origins_layers_and_memory_and_writes_nothing(write, tmp_path, capsys):
    path = write(my="--model=lenet5\n--epochs=2\n--batch_size=32\n--norm=batch\n")
    assert main([path, f"--run_dir={tmp_path / 'run'}", "--dry_run", "--devices=1", "--seed=4", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    text = "\n".join(lines)
    assert found["steps"] == round(2 * 1077 / 32)
    assert found["parameters"] == 61_706 + 6 + 16  # a scale and a shift in place of each bias
    assert found["memory_bytes"] > 1797 * 32 * 32
    assert found["flags"]["norm"] == {"value": "batch", "origin": f"{path}:4"}
    assert found["flags"]["seed"] == {"value": 4, "origin": "command line"}
    for wanted in ("Conv_0", "BatchNorm_1", "float32[1,28,28,6]", "61,728", "flops"):
        assert wanted in text
    assert not (tmp_path / "run").exists()


def test_help_shows_every_flag_with_its_default_and_one_model_s_knobs(capsys):
    assert main(["--help", "--model=mlp"]) == 0
    text = capsys.readouterr().out
    for name in Experiment.__dataclass_fields__:
        assert name == "knobs" or f"--{name}=" in text
    assert "--hidden=128" in text
    assert "--pooling" not in text
    assert main(["--help"]) == 0
    assert "--pooling=max   max | average" in capsys.readouterr().out


def test_list_names_models_data_and_experiments(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["models"]["lenet5"] == ["activation", "negative_slope", "initializer", "pooling", "norm"]
    assert set(found["datasets"]) >= {"digits", "mnist", "cifar100", "xnor", "moons"}
    assert found["datasets"]["digits"]["splits"] == {"train": 1077, "validation": 360, "test": 360}
    assert any(path.endswith("digits_lenet.flags") for path in found["experiments"])


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/*.sweep")), ids=lambda p: p.stem)
def test_every_committed_sweep_is_valid_and_says_what_it_gave(path):
    request = parse([str(path)])
    assert len(request.arms) > 1
    for arm in request.arms:
        arm.experiment.validate()
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"./launch.sh experiments/{path.name}" in line for line in head)
    assert "±" in " ".join(head)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet_alexnet", "imagenet_resnet50"])
def test_a_recipe_for_imagenet_takes_a_step_on_other_images(name, tmp_path, capsys):
    from percept_jax.data.images import encode_png

    for i in range(12):
        folder = tmp_path / "images" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(i).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        (folder / f"{i}.png").write_bytes(encode_png(image))
    own = [f"--dataset=folder:{tmp_path / 'images'}", "--train_split=", "--validation_split=", "--test_split=", "--steps=1"]
    own += ["--batch_size=2", "--devices=1", f"--run_dir={tmp_path / 'run'}", f"--data_dir={tmp_path}", "--json"]
    assert main([f"{ROOT}/experiments/{name}.flags", *own]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 1


def test_a_knob_that_is_a_number_or_a_word_takes_both_and_nothing_else():
    for text, value in (("7", 7), ("never", "never")):
        experiment = parse(["--model=lstm", "--steps=1", f"--truncation={text}"]).experiment
        assert experiment.knobs == {"truncation": value}
        experiment.validate()
    with pytest.raises(UsageError, match="truncation: 'often' is not a whole number or never"):
        parse(["--model=lstm", "--steps=1", "--truncation=often"])
    with pytest.raises(UsageError, match=r"truncation: 0 is outside \[1, 1000000\]"):
        parse(["--model=lstm", "--steps=1", "--truncation=0"]).experiment.validate()


_VALUES = """1 0 -1 1e5 1_0 0x1 nan {1,2} {1..3} { } {log:1..2} {a|b} all mlp lenet5 ~x ' 9999999999999999999999999999 1,2 1,,2
true maybe = -- 'x' /dev/zero x.flags x.sweep {1..99999999} 1e-400 {0..1:3} {1..1:3} test/accuracy a={1,2} a,b {} {..} {:}
{log:} {1..2:3:4} {-1..1} [x] halton ofat cumulative \u0663 \u00e9"""
_LINES = ["[a]", "[b] # x", "[]", "[", "[a]b", " #x", "# y", "//z", "-", "--", "---x", "-1", "=", "", "--undefok=x", "--nofresh"]


def nonsense(random):
    """A line that looks like one of a flag file, of a sweep file or of a command line."""
    names = [*TYPES, *OPTIONS, "flagfile", "hidden", "pooling", "nofresh", "norandom_flip", "nojson", "seeds", "tune", "knobs"]
    kind = random.random()
    if kind < 0.75:
        odd = random.choice([*_VALUES.split(), "", "a b #", chr(0), chr(10), chr(0x2028), chr(0xDCFF)])
        return f"--{random.choice(names)}={odd}"
    if kind < 0.9:
        return random.choice([*_LINES, f"--{random.choice(names)}"])
    return "".join(
        chr(random.choice([random.randrange(32, 127), random.randrange(0x3000), 10, 35, 45, 61, 123])) for _ in range(9)
    )


@pytest.mark.parametrize("cases", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_nonsense_is_refused_in_one_line(cases, tmp_path, monkeypatch, capsys):
    """In files and on command lines: understood or refused, soon, with one line and without a traceback; nothing is run."""
    monkeypatch.setattr("percept_jax.cli.main.run", lambda request, began: {})
    monkeypatch.chdir(tmp_path)
    random = Random(cases)
    for _ in range(cases):
        lines, kind = (
            [nonsense(random) for _ in range(random.randrange(1, 6))],
            random.choice(["line", "braces", "flags", "sweep"]),
        )
        args = [*lines, *["--sweep"] * (kind == "braces")]
        if kind in ("flags", "sweep"):
            text = "\n".join(lines).encode(errors="surrogateescape")
            Path(f"x.{kind}").write_bytes(text if random.random() < 0.97 else random.randbytes(50))
            args = [f"x.{kind}", *[nonsense(random)] * (random.random() < 0.3)]
        begun = time.perf_counter()
        code = main(args)
        err = capsys.readouterr().err
        assert (code, len(err.splitlines())) in ((0, 0), (2, 1)), (args, lines, err)
        assert time.perf_counter() - begun < 2, (args, lines)
    assert {path.name for path in tmp_path.iterdir()} <= {"x.flags", "x.sweep"}
