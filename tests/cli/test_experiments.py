"""The committed experiments and sweeps, dry runs, help and lists."""

import json
import os

import numpy as np
import pytest
from helpers import ROOT

from percept_jax.cli.main import main
from percept_jax.cli.request import parse
from percept_jax.data.registry import parts
from percept_jax.experiment import TYPES, Experiment
from percept_jax.training.optim import OPTIMIZERS, SCHEDULES


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/*.flags")), ids=lambda p: p.stem)
def test_every_committed_flag_file_is_valid_and_says_what_it_is(path):
    request = parse([str(path)])
    request.experiment.validate()
    assert path.read_text().startswith("# ")
    assert "model" in request.origins or path.stem in ("digits", "mnist", "cifar10", "vowels", "mnist_rows")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in ("digits_mlp", "digits_lenet") else pytest.mark.slow)
        for path in sorted(ROOT.glob("experiments/*.flags"))
        # The first wants weights, the other has its own test below.
        if not parts(parse([str(path)]).experiment.dataset)[0] and path.stem not in ("finetune_digits", "bccd_wbc_localizer")
    ],
)
def test_every_committed_flag_file_can_be_looked_at_without_its_data(path, capsys):
    assert main([str(path), "--dry_run", "--devices=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] > 0


@pytest.mark.data
def test_the_localizer_can_be_looked_at(tmp_path, capsys):
    (tmp_path / "bccd_wbc").symlink_to(f"{os.environ['PERCEPT_TEST_DATA']}/tfds/bccd_wbc")
    flags = [f"{ROOT}/experiments/bccd_wbc_localizer.flags", f"--data_dir={tmp_path}", "--dry_run", "--devices=1", "--json"]
    assert main(flags) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["parameters"] == 491_909


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["vowels_lstm", "vowels_gru", "atis_tagger", "shakespeare_lstm", "power_forecast_gru"])
def test_experiments_on_files_of_sequences_can_be_looked_at(name, capsys):
    data = f"--data_dir={os.environ['PERCEPT_TEST_DATA']}/sequences"
    assert main([f"{ROOT}/experiments/{name}.flags", data, "--dry_run", "--devices=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] > 0


def test_named_choices_are_the_registries():
    from typing import get_args

    from percept_jax.tasks.losses import OBJECTIVES

    for flag, registry in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("loss", OBJECTIVES)):
        assert [name for name in get_args(TYPES[flag]) if name != "auto"] == list(registry)


def test_dry_run_tells_origins_layers_and_memory_and_writes_nothing(write, tmp_path, capsys):
    path = write(my="--model=lenet5\n--epochs=2\n--batch_size=32\n--norm=batch\n")
    assert main([path, f"--run_dir={tmp_path / 'run'}", "--dry_run", "--devices=1", "--seed=4", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    text = "\n".join(lines)
    assert found["steps"] == round(2 * 1077 / 32)
    assert found["parameters"] == 61_706 + 6 + 16  # a scale and a shift in place of each bias
    assert found["memory_bytes"] > 1797 * 32 * 32
    assert found["flags"]["norm"] == {"value": "batch", "origin": f"{path}:4"}
    assert found["flags"]["seed"] == {"value": 4, "origin": "command line"}
    for wanted in ("Conv_0", "BatchNorm_1", "float32[1,28,28,6]", "61,728", "flops"):
        assert wanted in text
    assert not (tmp_path / "run").exists()


def test_help_shows_every_flag_with_its_default_and_one_model_s_knobs(capsys):
    assert main(["--help", "--model=mlp"]) == 0
    text = capsys.readouterr().out
    for name in Experiment.__dataclass_fields__:
        assert name == "knobs" or f"--{name}=" in text
    assert "--hidden=128" in text
    assert "--pooling" not in text
    assert main(["--help"]) == 0
    assert "--pooling=max   max | average" in capsys.readouterr().out


def test_list_names_models_data_and_experiments(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["models"]["lenet5"] == ["activation", "negative_slope", "initializer", "pooling", "norm"]
    assert set(found["datasets"]) >= {"digits", "mnist", "cifar100", "xnor", "moons"}
    assert found["datasets"]["digits"]["splits"] == {"train": 1077, "validation": 360, "test": 360}
    assert any(path.endswith("digits_lenet.flags") for path in found["experiments"])


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/*.sweep")), ids=lambda p: p.stem)
def test_every_committed_sweep_is_valid_and_says_what_it_gave(path):
    request = parse([str(path)])
    assert len(request.arms) > 1
    for arm in request.arms:
        arm.experiment.validate()
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"./launch.sh experiments/{path.name}" in line for line in head)
    assert "±" in " ".join(head)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet_alexnet", "imagenet_resnet50"])
def test_a_recipe_for_imagenet_takes_a_step_on_other_images(name, tmp_path, capsys):
    from percept_jax.data.images import encode_png

    for i in range(12):
        folder = tmp_path / "images" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(i).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        (folder / f"{i}.png").write_bytes(encode_png(image))
    own = [f"--dataset=folder:{tmp_path / 'images'}", "--train_split=", "--validation_split=", "--test_split=", "--steps=1"]
    own += ["--batch_size=2", "--devices=1", f"--run_dir={tmp_path / 'run'}", f"--data_dir={tmp_path}", "--json"]
    assert main([f"{ROOT}/experiments/{name}.flags", *own]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 1
