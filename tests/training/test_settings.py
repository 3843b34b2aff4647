"""What single settings change in a run."""

import contextlib
import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import some
from helpers.runs import assert_same_bits, last_arrays, logged, read_metrics, start, wait_for_step

from percept_jax import Experiment, load, train
from percept_jax.errors import StorageError
from percept_jax.experiment import KNOBS
from percept_jax.training import checkpoint
from percept_jax.training.identity import identity

CHANGES = {
    "train_split": "train[:500]", "validation_split": "validation[:100]", "test_split": "test[:50%]", "random_crop": 1,
    "random_flip": True, "rotation": 10, "scale": 0.1, "shear": 5, "brightness": 0.3, "contrast": 0.3, "saturation": 0.9,
    "pca_color": 0.5, "cutout": 2, "mixup": 1, "decay_rate": 0.5, "decay_at": (0.2,), "beta2": 0.9, "epsilon": 0.1,
    "clip_norm": 0.1, "ema_decay": 0.9, "stop_after": 0.3,
    "model": "linear", "dtype": "float64", "image_size": 10, "normalize": "unit", "batch_size": 16, "epochs": 1.0, "steps": 21,
    "loss": "quadratic", "optimizer": "nesterov", "schedule": "cosine", "learning_rate": 0.04, "warmup_steps": 5, "momentum": 0.8,
    "weight_decay": 0.01, "dropout_rate": 0.1, "label_smoothing": 0.1, "seed": 1, "eval_every": 5, "checkpoint_every": 3,
    "log_every": 2, "devices": 2, "stored_size": 12, "crop_area": 0.2, "freeze": "Dense_0", "lr_scale": "Dense_1=2",
}  # fmt: skip


PATIENT = {"steps": 200, "eval_every": 5, "learning_rate": 0.3, "stop_after": 0.5, "checkpoint_every": 7}


def test_stopping_after_epochs_without_improvement_keeps_the_best(small):
    patient = dataclasses.replace(small, **PATIENT)
    run = train(patient)
    validations = [line["step"] for line in read_metrics(run.path) if line["split"] == "validation"]
    waited = 0.5 * 1077 / 32
    assert run.result["steps"] == validations[-1] < 200
    assert validations[-1] - run.result["best_step"] >= waited > validations[-2] - run.result["best_step"]
    assert run.result["status"] == "done"
    assert run.evaluate()["test"] == run.result["test"]


@pytest.mark.slow
def test_a_killed_run_that_stops_early_keeps_its_bits(small, tmp_path):
    patient = dataclasses.replace(small, **PATIENT)
    run = train(patient)
    killed = start(dataclasses.replace(patient, run_dir=str(tmp_path / "killed")))
    wait_for_step(tmp_path / "killed", 10, killed)
    killed.kill()
    killed.communicate()
    train(dataclasses.replace(patient, run_dir=str(tmp_path / "killed"), log_every=5))
    assert_same_bits(run.path, tmp_path / "killed")


def test_the_average_of_the_weights_is_what_is_evaluated(small):
    """Its recurrence in NumPy over the weights of each step: weights of 0.8^k, normalized."""
    experiment = dataclasses.replace(small, steps=6, eval_every=1, checkpoint_every=1, ema_decay=0.8, dtype="float64")
    seen = {}

    def peek():
        for step in checkpoint.steps(Path(small.run_dir) / "checkpoints"):
            with contextlib.suppress(StorageError):
                seen[step] = checkpoint.files.read_arrays(checkpoint.path_of(Path(small.run_dir) / "checkpoints", step))[0]

    train(experiment, interrupted=peek)
    peek()
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]
    name = "Dense_0/kernel"
    for last in range(1, 7):
        shares = 0.8 ** np.arange(last)[::-1]
        mean = sum(s * seen[k]["state/params/" + name] for s, k in zip(shares / shares.sum(), range(1, last + 1), strict=True))
        np.testing.assert_allclose(seen[last]["state/average/params/" + name], mean, rtol=1e-6)
    best = load(small.run_dir)
    averaged = seen[best.best_step]["state/average/params/" + name]
    np.testing.assert_array_equal(best.variables["params"]["Dense_0"]["kernel"], averaged)


@pytest.mark.parametrize("batch_size", some([1, 32, "all"], "all"))
def test_the_three_regimes_of_gradient_descent(small, batch_size):
    rate = {1: 0.005, 32: 0.05, "all": 0.2}[batch_size]
    run = train(dataclasses.replace(small, batch_size=batch_size, steps=300, learning_rate=rate, eval_every=100, devices=1))
    examples = [line["examples"] for line in read_metrics(run.path) if line["split"] == "train"]
    assert set(examples) == {5 * {"all": 1077}.get(batch_size, batch_size)}
    assert run.result["test"]["accuracy"] > {1: 0.6, 32: 0.9, "all": 0.9}[batch_size]
    assert f"--batch_size={batch_size}" in (run.path / "run.flags").read_text()


@pytest.mark.parametrize("dtype", some(["bfloat16", "float64"], "bfloat16"))
def test_other_arithmetic_learns_too_and_starts_from_the_same_weights(small, dtype):
    other = train(dataclasses.replace(small, dtype=dtype, steps=200, dropout_rate=0.1))
    assert other.result["test"]["accuracy"] > 0.9
    arrays = last_arrays(other.path)
    wanted = {"bfloat16": "float32"}.get(dtype, dtype)
    assert all(a.dtype == wanted for name, a in arrays.items() if "params" in name)
    again = load(other.path)
    assert again.predict(np.zeros((1, 8, 8), np.uint8)).probabilities.sum() == pytest.approx(1, rel=1e-6)


def test_every_flag_is_among_the_changes_or_tested_elsewhere():
    elsewhere = {"dataset", "data_dir", "run_dir", "fresh"}  # a second data set: trained_on_arrays; places: everywhere here
    elsewhere |= {"extend"}  # in test_extension
    elsewhere |= {"max_bad_records", "fresh_cache"}  # in test_folders
    elsewhere |= {"task"}  # in test_extending
    elsewhere |= {"mask_classes", "void"}  # in test_boxes_and_masks
    elsewhere |= {"ahead", "horizon", "sequence_length", "init_from"}  # in test_sequences and test_fine_tuning
    assert set(CHANGES) | elsewhere == set(KNOBS)


WHERE = {  # some flags mean something beside others only
    "decay_rate": {"schedule": "exponential"}, "decay_at": {"schedule": "step"}, "beta2": {"optimizer": "adam"},
    "epsilon": {"optimizer": "rmsprop"}, "stop_after": {"eval_every": 1, "learning_rate": 1.0, "steps": 60},
    "epochs": {"steps": 0}, "model": {"knobs": {}}, "stored_size": {"image_size": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """The run without the change, by what else is set."""

    @functools.cache
    def run(where, color):
        base = Experiment(
            model="mlp", knobs={"hidden": (16,)}, steps=20, batch_size=32, learning_rate=0.05, eval_every=10, devices=1,
            log_every=5, run_dir=str(tmp_path_factory.mktemp("unchanged") / "run"),
        )  # fmt: skip
        return train(dataclasses.replace(base, **dict(where)), data=colorful() if color else None)

    return run


def colorful():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (200, 8, 8, 3)).astype(np.uint8), rng.integers(0, 3, 200)


# Those of one program share its compilation.
ONE_PROGRAM = [f for f in CHANGES if f not in WHERE and (f not in KNOBS or KNOBS[f].role != "static")]


@pytest.mark.parametrize("flag", some(CHANGES, *ONE_PROGRAM))
def test_every_flag_changes_something(small, unchanged, flag, monkeypatch):
    where, color = WHERE.get(flag, {}), flag in ("saturation", "pca_color")
    changed = dataclasses.replace(small, **where, **{flag: CHANGES[flag]})
    run = train(changed, data=colorful() if color else None)
    unchanged = unchanged(() if flag in ("epochs", "model") else tuple(where.items()), color)
    if flag == "checkpoint_every":
        assert checkpoint.steps(run.path / "checkpoints") != checkpoint.steps(unchanged.path / "checkpoints")
        return
    if flag == "devices":
        assert len(json.loads((run.path / "provenance.json").read_text())["devices"]) == 2
        assert identity(changed) == identity(unchanged.experiment)
        return
    if flag == "log_every":
        assert len(read_metrics(run.path)) > len(read_metrics(unchanged.path))
        return
    assert identity(run.experiment) != identity(unchanged.experiment)
    assert logged(run.path) != logged(unchanged.path)
