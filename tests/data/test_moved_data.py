"""Data that have been moved: the content decides, not the path; and a finished run shows its result without them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from helpers import some

from percept_jax import load, train
from percept_jax.cli.main import main
from percept_jax.data.images import encode_png
from percept_jax.errors import Interrupted, UsageError


def folder_of(place):
    rng = np.random.default_rng(0)
    for label in range(2):
        for i in range(20):
            (place / f"class{label}").mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 90, (8, 8, 1)).astype(np.uint8)
            image[2 * label : 2 * label + 3] += 120
            (place / f"class{label}" / f"{i}.png").write_bytes(encode_png(image))
    return f"folder:{place}"


def npz_of(place):
    rng = np.random.default_rng(0)
    place.parent.mkdir(parents=True, exist_ok=True)
    labels = np.arange(40) % 2
    np.savez(place, x_train=rng.normal(size=(40, 4, 2)) + labels[:, None, None], y_train=labels)
    return f"npz:{place}"


@pytest.fixture(params=[folder_of, npz_of])
def own(request, small, tmp_path):
    """An experiment on data of one's own, the place where they are, and how that is named."""
    place = tmp_path / "old" / ("data.npz" if request.param is npz_of else "data #2")
    name = request.param(place)
    knobs = {} if request.param is npz_of else small.knobs
    model = "gru" if request.param is npz_of else "mlp"
    experiment = dataclasses.replace(small, dataset=name, model=model, knobs=knobs, steps=6, eval_every=2, batch_size=8)
    return dataclasses.replace(experiment, data_dir=str(tmp_path / "prepared")), place


@pytest.mark.parametrize("own", some([folder_of, npz_of], folder_of), indirect=True)
def test_a_run_goes_on_from_wherever_the_same_data_are(own, tmp_path):
    experiment, place = own
    kind = experiment.dataset.partition(":")[0]
    straight = train(dataclasses.replace(experiment, run_dir=str(tmp_path / "straight")))
    countdown = iter([None, None, None, 15])
    with pytest.raises(Interrupted):
        train(experiment, interrupted=lambda: next(countdown))
    moved = tmp_path / "new" / "place"
    moved.parent.mkdir()
    place.rename(moved)
    link = tmp_path / "link"
    link.symlink_to(moved)
    with pytest.raises(UsageError, match="--dataset"):
        train(experiment)
    run = train(dataclasses.replace(experiment, dataset=f"{kind}:{link}"))
    assert run.result["restarts"] == 1
    assert run.result["test"] == straight.result["test"]
    assert load(run.path).evaluate(str(tmp_path / "prepared"), f"{kind}:{moved}")["test"] == run.result["test"]
    assert main(["evaluate", str(straight.path), f"--dataset={kind}:{moved}"]) == 0
    assert train(dataclasses.replace(experiment, dataset=f"{kind}:{moved}")).result == run.result


def test_a_finished_run_shows_its_result_without_its_data(own, capsys):
    experiment, place = own
    run = train(experiment)
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    capsys.readouterr()
    assert train(experiment).result == run.result
    assert "was finished with them" in capsys.readouterr().out
    assert main([str(run.path / "run.flags"), f"--run_dir={run.path}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["test"] == run.result["test"]
    with pytest.raises(UsageError, match="--dataset"):
        train(dataclasses.replace(experiment, seed=1))


def test_other_data_are_another_run(own, capsys):
    experiment, place = own
    train(experiment)
    kind = experiment.dataset.partition(":")[0]
    if kind == "folder":
        shutil.copy(place / "class0" / "1.png", place / "class0" / "0.png")
    else:
        content = dict(np.load(place))
        content["x_train"][0, 0, 0] += 1
        np.savez(place, **content)
    with pytest.raises(UsageError, match=r"have changed since the run began\); choose another directory, or --fresh"):
        train(experiment)
