"""Runs in processes of their own, which end early and are finished by the same command."""

import dataclasses
import gzip
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import assert_same_bits, start, wait_for_step

from percept_jax import Experiment, load, train
from percept_jax.training import checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_one_hundred_steps_are_fifty_and_fifty_more_in_a_new_process(small, tmp_path, model):
    """Stopped by SIGTERM in the middle of a window of metrics, resumed by the same command: the same bits."""
    base = dataclasses.replace(
        small, model=model, steps=100, eval_every=20, log_every=7, dropout_rate=0.2, image_size=16 if model == "lenet5" else 0,
        knobs={"norm": "batch"} if model == "lenet5" else {"hidden": (256, 256)},
    )  # fmt: skip
    straight, stopped = (dataclasses.replace(base, run_dir=str(tmp_path / name)) for name in ("straight", "stopped"))
    process = start(straight)
    process.communicate(timeout=120)
    assert process.returncode == 0

    process = start(stopped)
    wait_for_step(stopped.run_dir, 40, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, (out, err)
    assert "the same command resumes" in err
    at = checkpoint.steps(Path(stopped.run_dir) / "checkpoints")[-1]
    assert 40 <= at < 100
    process = start(stopped)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"resuming at step {at}" in out
    assert_same_bits(straight.run_dir, stopped.run_dir)
    result = load(stopped.run_dir).result
    assert (result["restarts"], result["redone_steps"]) == (1, 0)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(small, tmp_path):
    """SIGKILL: nothing is saved on the way out. Twenty of them in a row are in test_kill."""
    base = dataclasses.replace(small, steps=400, eval_every=50, checkpoint_every=30, log_every=7, knobs={"hidden": (512, 512)})
    straight, killed = (dataclasses.replace(base, run_dir=str(tmp_path / name)) for name in ("straight", "killed"))
    start(straight).communicate(timeout=120)
    process = start(killed)
    wait_for_step(killed.run_dir, 110, process)
    process.kill()
    process.communicate()
    out, err = start(killed).communicate(timeout=120)
    assert "test accuracy" in out, err
    assert_same_bits(straight.run_dir, killed.run_dir)
    result = load(killed.run_dir).result
    assert result["restarts"] == 1
    assert result["redone_steps"] > 0


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_stop_training(small):
    with start(dataclasses.replace(small, steps=400, eval_every=10)) as process:
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=120)
    assert json.loads(Path(small.run_dir, "result.json").read_text())["status"] == "done"


@pytest.mark.slow
@pytest.mark.data
def test_mnist_as_arrays(tmp_path):
    """Real images of another size than the model's, through the Python interface."""
    folder = Path(os.environ["PERCEPT_TEST_DATA"]) / "mnist"
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 5000 * 784), np.uint8, offset=16).reshape(5000, 28, 28)
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + 5000), np.uint8, offset=8)
    experiment = Experiment(epochs=4, batch_size=32, learning_rate=0.02, devices=1, run_dir=str(tmp_path / "run"))
    run = train(experiment, data=(images, labels))
    assert run.result["parameters"] == 61_706
    assert run.result["test"]["accuracy"] > 0.93
    assert (run.predict(images[:1000]).labels == labels[:1000]).mean() > 0.95
