"""The toy data sets: points in the plane."""

import dataclasses

import numpy as np
import pytest
from helpers import load, pairs

from percept_jax import Experiment, train
from percept_jax.cli.main import main
from percept_jax.data.readers.toy import TOYS

# Points


@pytest.mark.parametrize("name", TOYS)
def test_points_are_fixed_balanced_and_finite(name, data_dir):
    dataset = load(name, data_dir, 1)
    assert dataset.inputs.shape == (sum(dataset.spec.splits.values()), 1, 1, 2)
    assert dataset.inputs.dtype == np.float32
    assert np.isfinite(dataset.inputs).all()
    assert set(np.unique(dataset.examples["label"])) == {0, 1}
    for index in dataset.spec.roles.values():
        assert 0.4 < dataset.examples["label"][index].mean() < 0.6
    np.testing.assert_array_equal(load(name, data_dir, 1).inputs, dataset.inputs)


def test_xnor_is_its_truth_table(data_dir):
    dataset = load("xnor", data_dir, 1)
    for index in dataset.spec.roles.values():
        table = {tuple(point[0, 0]): label for point, label in pairs(dataset, index)}
        assert table == {(0, 0): 1, (0, 1): 0, (1, 0): 0, (1, 1): 1}


def test_a_perceptron_parts_the_blobs_without_a_mistake(small):
    run = train(dataclasses.replace(small, dataset="blobs", model="linear", knobs={}, loss="perceptron", batch_size=1, steps=400))
    assert run.result["test"]["accuracy"] == 1
    assert run.evaluate()["test"]["loss"] == 0


def xnor(tmp_path, model, seed, **knobs):
    experiment = Experiment(
        dataset="xnor", model=model, knobs=knobs, loss="binary_cross_entropy", batch_size="all", steps=1000, learning_rate=0.3,
        eval_every=1000, log_every=1000, seed=seed, devices=1, run_dir=str(tmp_path / f"{model}{seed}"),
    )  # fmt: skip
    return train(experiment).result["test"]["accuracy"]


@pytest.mark.slow
def test_xnor_is_learnt_by_two_hidden_units_and_by_no_linear_model(tmp_path, monkeypatch):
    learnt = [xnor(tmp_path, "mlp", seed, hidden=(2,), activation="maxout") for seed in range(10)]
    assert sum(accuracy == 1 for accuracy in learnt) >= 9
    assert max(xnor(tmp_path, "linear", seed) for seed in range(3)) <= 0.75  # of four, at most three lie right of a line


def test_what_needs_images_or_colors_is_refused_for_points_and_gray_images(tmp_path, capsys):
    for flags, message in (
        (["--dataset=xnor", "--model=linear", "--random_crop=2"], "--random_crop: xnor has points, not images"),
        (["--dataset=xnor", "--model=linear", "--mixup=1"], "--mixup: xnor has points, not images"),
        (["--dataset=xnor", "--model=lenet5"], "--model: lenet5 takes images, xnor has points; choose linear or mlp"),
        (["--dataset=xnor", "--model=linear", "--normalize=unit"], "--normalize: points do not have values from 0 to 255"),
        (["--model=linear", "--saturation=0.5"], "--saturation: digits has 1 channels, not red, green and blue"),
        (["--model=linear", "--pca_color=0.1"], "--pca_color: digits has 1 channels, not red, green and blue"),
    ):
        assert main([*flags, "--steps=1", "--devices=1", f"--run_dir={tmp_path / 'run'}"]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
