"""README and docs: links that lead somewhere, commands that are understood, a README that stays one page."""

import os
import re
import shlex
from pathlib import Path

import pytest
from helpers import blocks

from percept_jax.cli.commands import COMMANDS
from percept_jax.cli.main import main
from percept_jax.cli.request import parse

ROOT = Path(__file__).parent.parent
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}
# Commands of launch.sh itself.
OWN = {"test", "bench", "setup"}


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text()), target


def test_the_readme_is_one_page_and_leads_to_each_other():
    assert PAGES["README.md"].count("\n") <= 150
    for page in PAGES:
        if page.startswith("docs/"):
            assert f"]({page})" in PAGES["README.md"], page


def commands():
    """Each command of a fenced block, with its page."""
    for page, text in PAGES.items():
        for block in blocks(text, "(?:sh|bash)"):
            for line in block.replace("\\\n", " ").splitlines():
                line = re.sub(r"\s+#.*$", "", line).strip()
                if line and not line.startswith("#"):
                    yield pytest.param(line, id=f"{page}: {line}")


@pytest.mark.parametrize("line", [*commands()])
def test_a_command_is_understood(line, tmp_path, capsys, monkeypatch):
    """Run, where it costs nothing; trained and swept with --dry_run, where the data are at hand; else parsed, flag by flag."""
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    assert words.pop(0) == "./launch.sh", line
    if words[0] in OWN:
        for name in words[1:] if words[0] == "bench" else []:
            assert (ROOT / "benchmarks" / f"{name}.py").exists()
        return
    assert words[0] in COMMANDS or words[0].endswith((".flags", ".sweep")) or words[0] == "--help", line
    # Braces are the shell's: it gives a flag once for each value.
    words = [word for text in words for word in spread(text)]
    for word in words:
        if word.endswith((".flags", ".sweep")) and word != "FILE.flags":
            assert (ROOT / word).is_file(), word
    if words[0] in ("list", "--help"):
        assert main([*words, f"--data_dir={tmp_path}"] if words[0] == "list" else words) == 0
    elif words[0].startswith("experiments/digits_mlp") and "--sweep" not in words:
        assert main([*words, "--dry_run", f"--run_dir={tmp_path / 'run'}"]) == 0
    elif "FILE.flags" not in words:
        request = parse(words)
        if words[0] in COMMANDS:
            # What is not for this command is refused.
            flags = [flag for flag in request.origins if not COMMANDS[words[0]].listens(flag, request.options, {})]
            assert not flags or words[0] == "plot"


def spread(text):
    """What a shell makes of braces."""
    match = re.fullmatch(r"(--\w+=)\{([^{}]*,[^{}]*)\}", text)
    return [match[1] + value for value in match[2].split(",")] if match else [text]


def test_each_command_and_page_of_results_is_told_of():
    used = {word for text in PAGES.values() for word in re.findall(r"\./launch\.sh ([a-z]+)", text)}
    assert {name for name, command in COMMANDS.items() if command.named} <= used
    benchmarks = {path.stem for path in ROOT.glob("benchmarks/[!_]*.py")}
    told = set(re.findall(r"`?bench ([a-z0-9_]+)", " ".join(PAGES.values())))
    assert told <= benchmarks, told - benchmarks
    assert os.access(ROOT / "launch.sh", os.X_OK)
