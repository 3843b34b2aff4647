"""Flag files, sweep files and command lines that nobody meant: one line each, and nothing is written."""

import os
import random
import sys
import time

import pytest
from helpers import ROOT

from percept_jax.cli.commands import OPTIONS
from percept_jax.cli.main import main
from percept_jax.cli.request import parse
from percept_jax.errors import UsageError
from percept_jax.experiment import KNOBS
from percept_jax.sweeps.request import SweepRequest

FILES = sorted([*ROOT.glob("experiments/*.flags"), *ROOT.glob("experiments/*.sweep")])
NAMES = [
    *KNOBS,
    *OPTIONS,
    "flagfile",
    "hidden",
    "norm",
    "features",
    "seeds",
    "tune",
    "zip",
    "design",
    "trials",
    "nonsense",
    "no",
    "",
]
PARTS = [
    "0",
    "1",
    "-1",
    "1_0",
    "٣",
    "0x1F",
    "1e5",
    "1e400",
    "nan",
    "inf",
    "-inf",
    "9223372036854775808",
    "1" * 400,
    "0.1",
    " 0.1",
    "true",
    "false",
    "mlp",
    "lenet5",
    "digits",
    "folder:/nowhere",
    "npz:/dev/zero",
    "~nobody/x",
    "/proc/self/mem",
    "/dev/zero",
    "..",
    ".",
    "/",
    "a\0b",
    "a\nb",
    "\u2028",
    "\ud800",
    "\udcff",
    "é" * 300,
    "'x'",
    '"',
    "# x",
    "x # y",
    "x // y",
    "{1,2}",
    "{1..3}",
    "{1..1000000000}",
    "{log:1e-3..1}",
    "{log:1..-1:3}",
    "{0..1:99999999}",
    "{a,{b,{c,{d",
    "}{",
    "{}",
    "{,}",
    "{1|2,3}",
    "{" * 300,
    "[x]",
    "[",
    "]",
    "[[x]]",
    "all",
    "1,2,3",
    "1,,2",
    ",",
    "adam",
    "cosine",
    "--steps=3",
    "=",
    "",
    "\t",
    "%s",
    "$HOME",
    "`id`",
    "*",
    "x" * 5000,
]
LINES = [
    "--{n}={v}",
    "--{n} {v}",
    "-{n}={v}",
    "{n}={v}",
    "--no{n}",
    "--no{n}={v}",
    "--{n}",
    " --{n}={v}",
    "# {v}",
    "// {v}",
    "[{v}]",
    "--{n}={{{v},{w}}}",
    "--tune={n}={{{v},{w}}}",
    "--zip={n},{v}",
    "--{n}={v} # {w}",
    "{v}",
    "\ufeff--{n}={v}",
]


def line(draw):
    pattern = draw.choice(LINES)
    return pattern.format(n=draw.choice(NAMES), v=draw.choice(PARTS), w=draw.choice(PARTS))


def mutated(draw, text):
    """A shipped file, with some of its lines or characters changed."""
    lines = text.splitlines()
    for _ in range(draw.choice([0, 1, 1, 2])):
        at = draw.randrange(len(lines)) if lines else 0
        kind = draw.randrange(6)
        if kind == 0:
            lines.insert(at, line(draw))
        elif kind == 1 and lines:
            lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)] + draw.choice(PARTS)
        elif kind == 2 and lines:
            del lines[at]
        elif kind == 3 and lines:
            lines.insert(at, lines[draw.randrange(len(lines))])
        elif kind == 4 and lines:
            name, _, _ = lines[at].partition("=")
            lines[at] = f"{name}={draw.choice(PARTS)}"
        elif lines:
            characters = list(lines[at])
            draw.shuffle(characters)
            lines[at] = "".join(characters)
    return "\n".join(lines)


def case(draw, folder):
    """Arguments of a command, and the files that they name."""
    words = [line(draw) for _ in range(draw.randint(0, 4))]
    kind = draw.randrange(3)
    if kind:
        suffix = draw.choice([".flags", ".sweep"])
        base = draw.choice([f for f in FILES if f.suffix == suffix]).read_text()
        base = base.replace("--flagfile=", f"--flagfile={ROOT}/experiments/")
        text = mutated(draw, base) if kind == 1 else "\n".join(line(draw) for _ in range(draw.randint(0, 8)))
        file = folder / f"{draw.choice(['my', 'x y', '..', 'é'])}{suffix}"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        words = [str(file), *words[: draw.choice([0, 0, 1, 2])]]
    if draw.random() < 0.1:
        words.insert(0, draw.choice(["evaluate", "predict", "list", "plot", "export", "compare", "prepare", "nonsense", ""]))
    return words


def run(cases, seed, folder):
    draw, kinds = random.Random(seed), {"understood": 0, "refused": 0}
    watched = []

    def watch(event, arguments):
        if (
            event == "open"
            and active[0]
            and isinstance(arguments[2], int)
            and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            watched.append(arguments[0])

    active = [False]
    sys.addaudithook(watch)
    for number in range(cases):
        words = case(draw, folder)
        began, active[0] = time.monotonic(), True
        try:
            request = parse(words)
            for experiment in (
                [arm.experiment for arm in request.arms] if isinstance(request, SweepRequest) else [request.experiment]
            ):
                experiment.validate()
            kinds["understood"] += 1
        except UsageError:
            kinds["refused"] += 1
        finally:
            active[0] = False
        assert time.monotonic() - began < 5, (number, words)
    assert not watched
    return kinds


def test_odd_files_and_command_lines_are_understood_or_refused(tmp_path):
    kinds = run(400, 1, tmp_path)
    assert min(kinds.values()) > 20, kinds


@pytest.mark.slow
def test_ten_thousand_odd_files_and_command_lines(tmp_path):
    kinds = run(10_000, 2, tmp_path)
    assert min(kinds.values()) > 500, kinds


def test_what_main_says_is_one_line_and_nothing_is_written(tmp_path, capsys, monkeypatch):
    """Whole commands, of those that are refused before any data are read."""
    monkeypatch.chdir(tmp_path)
    draw, folder = random.Random(3), tmp_path / "files"
    folder.mkdir()
    before = None
    for _ in range(150):
        words = case(draw, folder)
        try:
            parse(words)
            continue
        except UsageError:
            pass
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main(words) == 2, words
        err = capsys.readouterr().err
        assert err.count("\n") == 1, (words, err)
        assert len(err.splitlines()) == 1, (words, err)
        assert sorted(tmp_path.rglob("*")) == before
    assert before
