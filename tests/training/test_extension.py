"""--extend: a longer run out of a shorter one, with the bits that it has anyway."""

import dataclasses
import json
from pathlib import Path

import pytest
from helpers import some
from helpers.runs import assert_same_bits

from percept_jax import train
from percept_jax.errors import UsageError


@pytest.mark.parametrize("steps", some([20, 25], 25))  # its last step is one of the longer run's validations, or is not
def test_an_extended_run_has_the_bits_of_a_long_one(small, tmp_path, steps, capsys):
    base = dataclasses.replace(small, dropout_rate=0.2, model="mlp")
    straight = train(dataclasses.replace(base, steps=60, run_dir=str(tmp_path / "straight")))
    short = train(dataclasses.replace(base, steps=steps, run_dir=str(tmp_path / "short")))
    before = {path: path.read_bytes() for path in sorted(short.path.rglob("*")) if path.is_file()}
    capsys.readouterr()
    longer = train(dataclasses.replace(base, steps=60, run_dir=str(tmp_path / "longer"), extend=str(short.path)))
    assert "from its step 20" in capsys.readouterr().out
    assert_same_bits(straight.path, longer.path)
    assert {path: path.read_bytes() for path in sorted(short.path.rglob("*")) if path.is_file()} == before
    assert json.loads((longer.path / "provenance.json").read_text())["extends"]["step"] == 20


def test_what_cannot_be_extended_is_refused_before_anything_is_written(small, tmp_path):
    short = train(small)
    wanted = dataclasses.replace(small, run_dir=str(tmp_path / "longer"), extend=str(short.path), steps=60)
    for change, match in (
        ({"steps": 20}, "already has 20 steps; ask for more"),
        ({"schedule": "cosine"}, "depends on the length"),
        ({"learning_rate": 0.1}, "of another experiment, with --learning_rate=0.05"),
        ({"log_every": 7}, "would have logged at other steps"),
        ({"extend": str(tmp_path)}, "not a run directory"),
    ):
        with pytest.raises(UsageError, match=match):
            train(dataclasses.replace(wanted, **change))
    assert not Path(wanted.run_dir).exists()
    with pytest.raises(UsageError, match=rf"its --steps=20, yours --steps=60.; to train it for longer: --extend={short.path}"):
        train(dataclasses.replace(small, steps=60))
