"""Which examples a split holds."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from percept_jax import train
from percept_jax.cli.main import main
from percept_jax.data.splits import choose
from percept_jax.errors import UsageError

BOUND = st.one_of(st.just(""), st.integers(-100, 100).map(lambda n: f"{n}%"), st.integers(-60, 60).map(str))


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 200), BOUND, BOUND)
def test_a_slice_has_the_examples_that_a_list_of_them_would_give(size, low, high):
    """Percentages are rounded to the nearest example, ties to even; what lies outside, or is empty, is an error."""
    if (not low and not high) or (low and high and ("%" in low) != ("%" in high)):  # TFDS takes one unit a slice
        return

    def bound(text, default):
        if not text:
            return default
        return round(float(text[:-1]) * size / 100) if text.endswith("%") else int(text)

    first, last = bound(low, 0), bound(high, size)
    wanted = np.arange(size)[first:last] + 7  # behind the test split
    spec = f"train[{low}:{high}]"
    if abs(first) > size or abs(last) > size or not len(wanted):
        with pytest.raises(UsageError, match="train_split"):
            choose({"test": 7, "train": size, "validation": 5}, train=spec)
    else:
        np.testing.assert_array_equal(choose({"test": 7, "train": size, "validation": 5}, train=spec)["train"], wanted)


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({"train": 100, "test": 20}, ((0, 90), (90, 100), (100, 120))),
        ({"test": 20, "train": 100}, ((20, 110), (110, 120), (0, 20))),
        ({"train": 100}, ((0, 60), (60, 80), (80, 100))),
        ({"train": 100, "validation": 10, "test": 20}, ((0, 100), (100, 110), (110, 130))),
        ({"train": 100, "val": 10}, ((0, 80), (100, 110), (80, 100))),
    ],
)
def test_what_is_not_given_is_held_out_of_train(own, wanted):
    for (role, index), (first, last) in zip(choose(own).items(), wanted, strict=True):
        np.testing.assert_array_equal(index, np.arange(first, last), err_msg=role)


def test_without_a_train_split_all_that_is_left_is_trained_on():
    index = choose({"train": 100, "test": 20}, validation="train[:5]+train[95%:]")
    np.testing.assert_array_equal(index["train"], np.arange(5, 95))
    with pytest.raises(UsageError, match="--train_split: validation and test leave no examples of train"):
        choose({"train": 100, "test": 20}, validation="train")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--train_split=trian"],
            "--train_split: there is no split 'trian'; there are train (1077), validation (360), test (360)",
        ),
        (["--test_split=train[:5000]"], "--test_split: 'train[:5000]': Requested slice [:5000] incompatible with 1077 examples"),
        (["--validation_split=test"], "--test_split: test shares 360 examples with --validation_split=test"),
        (["--train_split=train", "--test_split=train[:9]"], "--test_split: train[:9] shares 9 examples with --train_split=train"),
        (["--train_split=train[9:9]"], "--train_split: train[9:9] has no examples"),
        (["--train_split=train+train[:9]"], "--train_split: train+train[:9] contains the same examples twice"),
    ],
)
def test_a_wrong_split_is_one_line(flags, message, tmp_path, capsys):
    assert main(["--steps=1", "--model=linear", "--devices=1", f"--run_dir={tmp_path / 'run'}", *flags]) == 2
    assert capsys.readouterr().err.removeprefix("command line: ").startswith(message)
    assert not (tmp_path / "run").exists()


def test_a_run_sees_the_examples_of_its_splits_and_no_others(small, digits):
    """The training images are moved; what is trained, validated and tested must not notice the rest."""
    experiment = dataclasses.replace(
        small, train_split="train[:50%]+validation[300:]", validation_split="validation[:100]", test_split="test[-40:]"
    )
    run = train(experiment)
    assert run.result["test"]["examples"] == 40
    assert run.result["validation"]["examples"] == 100
    predicted = run.predict(digits.inputs[digits.spec.roles["test"][-40:]]).labels
    assert (predicted == digits.examples["label"][digits.spec.roles["test"][-40:]]).mean() == run.result["test"]["accuracy"]
    assert json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])["epoch"] == pytest.approx(5 * 32 / (538 + 60))
