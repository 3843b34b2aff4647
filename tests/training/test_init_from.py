"""Weights in and out, and training that starts from them."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from percept_jax import Experiment, load, train
from percept_jax.cli.main import main
from percept_jax.errors import UsageError
from percept_jax.training import checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A trained LeNet-like network on the digits: batch norm, so that there are running statistics."""
    path = tmp_path_factory.mktemp("source") / "run"
    return train(Experiment(**BASE, run_dir=str(path)))


BASE = {
    "model": "cnn", "image_size": 8, "steps": 20, "batch_size": 32, "learning_rate": 0.05, "eval_every": 20, "devices": 1,
    "knobs": {"features": (4,), "hidden": 16},
}  # fmt: skip


def other(tmp_path, **changes):
    return Experiment(**{**BASE, "seed": 1, "run_dir": str(tmp_path / "fine"), **changes})


def leaves(path, step=None):
    """Parameters and statistics of a run's last state."""
    checkpoints = Path(path) / "checkpoints"
    arrays, _ = checkpoint.read(checkpoints, checkpoint.steps(checkpoints)[-1])
    return {
        name.removeprefix("state/"): a for name, a in arrays.items() if name.startswith(("state/params", "state/batch_stats"))
    }


@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_another_or_of_its_exported_file(source, tmp_path, capsys):
    to = tmp_path / "weights.safetensors"
    assert main(["export", str(source.path), f"--to={to}"]) == 0
    assert f"weights of step {source.best_step}" in capsys.readouterr().out
    frozen = {"learning_rate": 1e-30, "init_from": str(source.path)}
    same = train(other(tmp_path, **frozen))
    assert same.result["test"]["accuracy"] == pytest.approx(source.result["test"]["accuracy"], abs=0.1)  # statistics moved on
    for name, array in leaves(same.path).items():
        if name.startswith("params"):
            np.testing.assert_array_equal(array, source.variables["params"][name.split("/")[1]][name.split("/")[2]], name)
    runs = [
        train(other(tmp_path, run_dir=str(tmp_path / k), init_from=k2)) for k, k2 in (("a", str(source.path)), ("b", str(to)))
    ]
    for name, array in leaves(runs[0].path).items():
        np.testing.assert_array_equal(array, leaves(runs[1].path)[name])
    assert runs[0].experiment.init_from.startswith(f"{source.path}#")


@pytest.mark.slow
def test_what_is_frozen_stays_bit_for_bit(source, tmp_path):
    run = train(other(tmp_path, init_from=str(source.path), freeze="Conv_*,Dense_0", weight_decay=0.1, optimizer="adamw"))
    before, after = {**source.variables}, leaves(run.path)
    for name, array in after.items():
        collection, layer, leaf = name.split("/")
        same = np.array_equal(array, before[collection][layer][leaf])
        assert same == layer.startswith(("Conv", "Dense_0")), name


@pytest.mark.slow
def test_a_learning_rate_is_scaled_by_layer(tmp_path):
    net = {"model": "mlp", "knobs": {"hidden": (8,)}, "steps": 1, "eval_every": 1, "momentum": 0.0}
    runs = [
        train(other(tmp_path, **net, run_dir=str(tmp_path / str(i)), lr_scale=scale))
        for i, scale in enumerate(("", "Dense_1=10,Dense_0=0", "*=0,Dense_1=1"))
    ]
    plain, scaled, one = (leaves(run.path) for run in runs)
    np.testing.assert_array_equal(one["params/Dense_1/kernel"], plain["params/Dense_1/kernel"])
    np.testing.assert_array_equal(one["params/Dense_0/kernel"], scaled["params/Dense_0/kernel"])
    assert (plain["params/Dense_0/kernel"] != scaled["params/Dense_0/kernel"]).any()
    moved, far = plain["params/Dense_1/bias"], scaled["params/Dense_1/bias"]  # from 0
    np.testing.assert_allclose(far, 10 * moved, rtol=1e-5)


@pytest.mark.slow
def test_a_new_head_where_the_classes_differ(source, tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    images = np.repeat((labels * 100).astype(np.uint8), 64).reshape(200, 8, 8)
    run = train(other(tmp_path, init_from=str(source.path), freeze="Conv_*,BatchNorm_*,Dense_0"), data=(images, labels))
    assert "new: params/Dense_1/bias, params/Dense_1/kernel" in capsys.readouterr().out
    after = leaves(run.path)
    np.testing.assert_array_equal(after["params/Conv_0/kernel"], source.variables["params"]["Conv_0"]["kernel"])
    assert after["params/Dense_1/kernel"].shape == (16, 3)


def test_weights_that_do_not_fit_are_named_leaf_by_leaf_and_nothing_is_written(source, tmp_path):
    for changes, said in (
        ({"knobs": {"features": (5,), "hidden": 16}}, r"init_from: .*shape: .*Conv_0/bias is \[4\], not \[5\]"),
        ({"knobs": {"features": (4,), "hidden": 16, "norm": "none"}}, "unexpected: .*params/BatchNorm_0"),
        ({"knobs": {"features": (4, 8), "hidden": 16}}, "missing: .*Conv_1"),
        ({"freeze": "nothing*"}, "freeze: 'nothing\\*' matches no parameter; there are"),
        ({"freeze": "*"}, "freeze: no parameter is left to train"),
        ({"lr_scale": "Dense_1"}, "lr_scale: 'Dense_1' is not of the form"),
        ({"init_from": str(tmp_path / "gone")}, "init_from: .*no such file"),
        ({"init_from": str(tmp_path)}, "init_from: .*not a run directory"),
    ):
        with pytest.raises(UsageError, match=said):
            train(other(tmp_path, **{"init_from": str(source.path), **changes}))
    assert not (tmp_path / "fine").exists()


@pytest.mark.slow
def test_a_run_goes_on_without_the_weights_that_it_started_from_and_refuses_others(source, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(source.path, mine)
    whole = train(other(tmp_path, init_from=str(mine), run_dir=str(tmp_path / "whole")))
    experiment = other(tmp_path, init_from=str(mine), checkpoint_every=5)
    first = train(experiment)
    for name in ("result.json", "checkpoints/step_000000020.safetensors"):
        (first.path / name).unlink()
    named = dataclasses.replace(first.experiment, checkpoint_every=5, devices=1)
    shutil.rmtree(mine)
    again = train(named)
    assert again.result["test"] == whole.result["test"]
    assert json.loads((again.path / "result.json").read_text())["restarts"] == 1
    shutil.copytree(train(other(tmp_path, run_dir=str(tmp_path / "else"))).path, mine)
    with pytest.raises(UsageError, match="holds other weights than expected"):
        train(dataclasses.replace(named, run_dir=str(tmp_path / "new")))


def test_an_export_is_asked_for_with_a_file(source, tmp_path, capsys):
    assert main(["export", str(source.path), f"--to={tmp_path / 'weights.pt'}"]) == 2
    assert "--to: give a file: --to=FILE.safetensors" in capsys.readouterr().err
    assert main(["export", str(tmp_path), f"--to={tmp_path / 'w.safetensors'}"]) == 2
    assert load(source.path).best_step == 20


@pytest.mark.slow
def test_running_statistics_are_frozen_with_their_layer(source, tmp_path):
    after = leaves(train(other(tmp_path, init_from=str(source.path), freeze="BatchNorm_0", steps=5)).path)
    np.testing.assert_array_equal(after["batch_stats/BatchNorm_0/mean"], source.variables["batch_stats"]["BatchNorm_0"]["mean"])
    assert (after["params/Conv_0/kernel"] != source.variables["params"]["Conv_0"]["kernel"]).any()
