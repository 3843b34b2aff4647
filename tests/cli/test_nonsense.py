"""Nonsense is refused in one line."""

import time
from pathlib import Path
from random import Random

import pytest

from percept_jax.cli.commands import OPTIONS
from percept_jax.cli.main import main
from percept_jax.experiment import TYPES

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
