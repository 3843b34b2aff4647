"""Flags that do nothing, and lengths that may not be meant: said before training, never in silence."""

import dataclasses

import pytest

from percept_jax import train
from percept_jax.cli.main import main


@pytest.mark.parametrize(("changes", "said"), [
    ({"beta2": 0.9}, ["--beta2 has no effect with --optimizer=sgd"]),
    ({"epsilon": 0.1, "optimizer": "nesterov"}, ["--epsilon has no effect with --optimizer=nesterov"]),
    ({"beta2": 0.9, "epsilon": 0.1, "optimizer": "rmsprop"}, []),
    ({"decay_rate": 0.5}, ["--decay_rate has no effect with --schedule=constant"]),
    ({"decay_at": (0.1,), "schedule": "exponential"}, ["--decay_at has no effect with --schedule=exponential"]),
    ({"decay_rate": 0.5, "decay_at": (0.1,), "schedule": "step"}, []),
])  # fmt: skip
def test_a_flag_that_another_one_keeps_from_doing_anything_is_told_of(small, changes, said):
    assert dataclasses.replace(small, **changes).idle() == said


def test_what_may_not_be_meant_is_said_before_training(small, capsys):
    train(dataclasses.replace(small, steps=4, warmup_steps=9, eval_every=7, batch_size=1500, beta2=0.5))
    lines = capsys.readouterr().out.splitlines()[:4]
    assert [line.partition(" ")[0] for line in lines] == ["--beta2", "--batch_size=1500", "--warmup_steps=9", "--eval_every=7"]


def test_a_dry_run_says_it_too(tmp_path, capsys):
    base = ["--model=linear", "--devices=1", "--steps=20", "--decay_rate=0.5"]
    assert main([*base, "--dry_run"]) == 0
    assert "--decay_rate has no effect with --schedule=constant" in capsys.readouterr().out
    assert main([*base, "--sweep", "--schedule={constant,step}", "--dry_run", "--pack=off"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "has no effect" in line]
    assert said == ["  schedule=constant: --decay_rate has no effect with --schedule=constant"]


@pytest.mark.parametrize("flag", ["random_crop", "cutout"])
def test_more_than_the_image_has_is_refused(small, flag):
    from percept_jax.errors import UsageError

    with pytest.raises(UsageError, match=rf"--{flag}: 9 pixels are more than the 8 pixels a side of the image"):
        train(dataclasses.replace(small, **{flag: 9}))
