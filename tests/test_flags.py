"""The command line and flag files: what is understood, and what is refused in one line with nothing written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from percept_jax.__main__ import main, parse
from percept_jax.data.sequences import is_sequences
from percept_jax.errors import UsageError
from percept_jax.experiment import Experiment
from percept_jax.training.optim import OPTIMIZERS, SCHEDULES
from percept_jax.training.run_dir import flag_lines

ROOT = Path(__file__).parent.parent


@pytest.fixture
def write(tmp_path):
    """Writes flag files: name=text ... -> the path of the last."""

    def files(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name}.flags"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(path)

    return files


def test_values_come_from_nested_files_and_the_last_word_wins(tmp_path, write, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.flags").write_text("# a base\n\n--model=mlp\n--learning_rate=0.5\n--hidden=8,4\n--momentum=0.5\n")
    (tmp_path / "sub" / "my.flags").write_text("// of mine\n--flagfile=../base.flags\n--momentum=0.25\n")
    monkeypatch.chdir(tmp_path)
    request = parse(["sub/my.flags", "--seed=3", "--epochs", "2", "--nofresh"])
    experiment = request.experiment
    assert (experiment.model, experiment.learning_rate, experiment.momentum, experiment.seed) == ("mlp", 0.5, 0.25, 3)
    assert experiment.knobs == {"hidden": (8, 4)}
    assert experiment.epochs == 2
    assert request.name == "my"
    assert request.origins["learning_rate"] == "sub/../base.flags:4"
    assert request.origins["momentum"] == "sub/my.flags:3"
    assert request.origins["seed"] == "command line"


def test_of_steps_and_epochs_the_last_one_counts(write):
    path = write(my="--epochs=3\n")
    assert (parse([path, "--steps=20"]).experiment.steps, parse([path, "--steps=20"]).experiment.epochs) == (20, 0)
    assert (parse(["--steps=20", path]).experiment.steps, parse(["--steps=20", path]).experiment.epochs) == (0, 3)


def test_a_flag_file_of_one_model_serves_another(write):
    """--model on the command line changes which knobs there are; those of the file that it has not are an error."""
    path = write(my="--model=mlp\n--hidden=5\n--epochs=1\n")
    with pytest.raises(UsageError, match=r"my\.flags:2: --hidden: a knob of mlp, cnn, rnn and 5 more, not of lenet5"):
        parse([path, "--model=lenet5"])


FAULTS = {
    "--epochs=1\n--learning_rat=0.1": "my.flags:2: unknown name '--learning_rat'; did you mean '--learning_rate'?",
    "--model=linear\n--epochs=1\n--hidden=3": "my.flags:3: --hidden: a knob of mlp, cnn, rnn and 5 more, not of linear (its own: "
    "initializer)",
    "--epochs=1\nlearning_rate=0.1": "my.flags:2: 'learning_rate=0.1' is not a setting; write --learning_rate=0.1",
    "--epochs=1\n--learning_rate 0.1": "my.flags:2: '--learning_rate 0.1' is not a setting; write --learning_rate=0.1",
    "--epochs=1\n  # slower": "my.flags:2: a comment starts in the first column",
    "--epochs=1\n--model='mlp'": "my.flags:2: --model: quotes would be part of the value; write --model=mlp",
    '--epochs=1\n--data_dir="/x"': "my.flags:2: --data_dir: quotes would be part of the value; write --data_dir=/x",
    "--epochs=1  # short": "my.flags:1: --epochs: a comment would be part of the value; give it a line of its own",
    "--epochs= 1": "my.flags:1: --epochs: no space after the sign; write --epochs=1",
    "--epochs=1\n--model=5": "my.flags:2: --model: unknown name '5'; see --help",
    "--epochs=1\n--model": "my.flags:2: --model: needs a value: --model=VALUE",
    "--epochs=1\n--dataset=digitz": "my.flags:2: --dataset: unknown name 'digitz'; did you mean 'digits'?",
    "--epochs=1\n--optimizer=0.1": "my.flags:2: --optimizer: unknown name '0.1'; choose from sgd, nesterov, adam",
    "--epochs=1\n--pooling=avg": "my.flags:2: --pooling: unknown name 'avg'; ",
    "--epochs=1\n--learning_rate=fast": "my.flags:2: --learning_rate: 'fast' is not a number",
    "--epochs=1\n--learning_rate=nan": "my.flags:2: --learning_rate: nan is not a finite number",
    "--epochs=1\n--learning_rate=inf": "my.flags:2: --learning_rate: inf is not a finite number",
    "--epochs=1\n--learning_rate=0": "my.flags:2: --learning_rate: 0.0 is outside (0, inf)",
    "--epochs=1\n--momentum=1": "my.flags:2: --momentum: 1.0 is outside [0, 1)",
    "--epochs=1\n--dropout_rate=1": "my.flags:2: --dropout_rate: 1.0 is outside [0, 1)",
    "--epochs=1e300": "my.flags:1: --epochs: 1e+300 is too large for float32",
    "--epochs=1e12": "my.flags:1: --epochs: 1000000000000.0 are 16828125000000 steps; at most 2147483647 are possible",
    "--epochs=1\n--learning_rate=1e300": "my.flags:2: --learning_rate: 1e+300 is too large for float32",
    "# only a comment": "my.flags: --epochs: give either --epochs or --steps",
    "--epochs=1\n--seed=-1": "my.flags:2: --seed: -1 is outside [0, 4294967295]",
    "--epochs=1\n--batch_size=6.5": "my.flags:2: --batch_size: '6.5' is not a whole number or all",
    "--epochs=1\n--batch_size=0": "my.flags:2: --batch_size: 0 is outside [1, 1000000]",
    "--epochs=1\n--fresh=maybe": "my.flags:2: --fresh: 'maybe' is not true or false",
    "--epochs=1\n--model=mlp\n--hidden=3,x": "my.flags:3: --hidden: '3,x' is not whole numbers",
    "--epochs=1\n--model=mlp\n--hidden=3,0": "my.flags:3: --hidden: 0 is outside [1, inf)",
    "--epochs=1\n--model=linear\n--dropout_rate=0.5": "my.flags:3: --dropout_rate: linear has no dropout",
    "--model=mlp": "my.flags: --epochs: give either --epochs or --steps",
    "--epochs=1\n--batch_size=30\n--devices=4": "my.flags:2: --batch_size: 30 examples cannot be split evenly over 4 devices",
    "--epochs=1\n--devices=9": "my.flags:2: --devices: 9 asked for, 8 here (cpu)",
    "--epochs=1\n--image_size=8": "my.flags:2: --image_size: lenet5 cannot take images of 8 pixels a side; it wants 32",
    "--epochs=1\n--flagfile=none.flags": "my.flags:2: {folder}/none.flags: No such file or directory",
    "--epochs=1\n--flagfile=my.flags": "my.flags:2: {folder}/my.flags includes itself",
    "--epochs=1\n--flagfile": "my.flags:2: --flagfile: needs a path: --flagfile=PATH",
    "--epochs=1\n--flagfile=.": "my.flags:2: {folder}: Is a directory",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_in_a_flag_file_is_one_line_exit_2_and_nothing_written(text, write, tmp_path, capsys):
    path = write(my=text + "\n")
    run_dir = tmp_path / "run"
    assert main([path, f"--run_dir={run_dir}"]) == 2
    out, err = capsys.readouterr()
    wanted = FAULTS[text].format(folder=tmp_path)
    assert err.count("\n") == 1
    assert err.strip().removeprefix(f"{tmp_path}/").startswith(wanted), err
    assert not out
    assert not run_dir.exists()


def test_a_typo_in_a_nested_file_is_told_with_that_file_s_line(write, tmp_path, capsys):
    path = write(inner="--epochs=1\n\n--momentun=0.5\n", outer="--flagfile=inner.flags\n")
    assert main([path]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path}/inner.flags:3: unknown name '--momentun'")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--epohs=1"], "command line: unknown name '--epohs'; did you mean '--epochs'?"),
        (["trian"], "command line: unknown name 'trian'"),
        (["digits_lenet.flags"], "command line: digits_lenet.flags: No such file or directory"),
        (["list", "--learning_rate=1"], "command line: --learning_rate: does not apply to list"),
        (["evaluate", "x", "--seed=1"], "command line: --seed: does not apply to evaluate"),
        (["--epochs=1", "--top_k=2"], "command line: --top_k: does not apply to training"),
        (["list", "more"], "usage: list"),
        ([], "command line: nothing to run"),
        (["evaluate"], "usage: evaluate RUN_DIR"),
        (["predict", "runs"], "usage: predict RUN_DIR IMAGE..."),
        (["prepare"], "usage: prepare NAME"),
        (["--random_flip", "false"], "command line: write --random_flip=false"),
        (["plot"], "usage: plot RUN_DIR"),
        (["plot", "x", "--seed=1"], "command line: --seed: does not apply to plot"),
        (["--epochs=1", "--from=x"], "command line: --from: does not apply to training"),
        (["evaluate", "/no/such/run"], "/no/such/run: not a run directory"),
    ],
)
def test_a_fault_on_the_command_line(args, message, capsys):
    assert main(args) == 2
    assert capsys.readouterr().err.startswith(message)


def test_a_fault_is_told_to_programs_too(capsys):
    assert main(["--momentum=2", "--epochs=1", "--json"]) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"error": "command line: --momentum: 2.0 is outside [0, 1)"}


def test_what_run_flags_says_is_the_experiment(tmp_path):
    experiment = Experiment(model="lenet5", steps=7, learning_rate=0.1 + 0.2, knobs={"norm": "batch"}, dropout_rate=0.1)
    (tmp_path / "run.flags").write_text("\n".join(flag_lines(experiment)) + "\n")
    read = parse([str(tmp_path / "run.flags")]).experiment
    assert read.science() == experiment.science()
    assert read.chosen() == experiment.chosen()


@pytest.mark.parametrize("path", sorted(ROOT.glob("experiments/*.flags")), ids=lambda p: p.stem)
def test_every_committed_flag_file_is_valid_and_says_what_it_is(path):
    request = parse([str(path)])
    request.experiment.validate()
    assert path.read_text().startswith("# ")
    assert "model" in request.origins or path.stem in ("digits", "mnist", "cifar10", "vowels", "mnist_rows")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem.startswith("digits") else pytest.mark.slow)
        for path in sorted(ROOT.glob("experiments/*.flags"))
        if not is_sequences(parse([str(path)]).experiment.dataset) and path.stem != "finetune_digits"  # it wants weights
    ],
)
def test_every_committed_flag_file_can_be_looked_at_without_its_data(path, capsys):
    assert main([str(path), "--dry_run", "--devices=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] > 0


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["vowels_lstm", "vowels_gru", "atis_tagger", "shakespeare_lstm", "power_forecast_gru"])
def test_experiments_on_files_of_sequences_can_be_looked_at(name, capsys):
    data = f"--data_dir={os.environ['PERCEPT_TEST_DATA']}/sequences"
    assert main([f"{ROOT}/experiments/{name}.flags", data, "--dry_run", "--devices=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] > 0


def test_named_choices_are_the_registries():
    from typing import get_args

    from percept_jax.experiment import TYPES
    from percept_jax.training.objectives import OBJECTIVES

    for flag, registry in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("loss", OBJECTIVES)):
        assert get_args(TYPES[flag]) == tuple(registry)


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
    assert len(request.setups) > 1
    for setup in request.setups:
        setup.experiment.validate()
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


def test_a_knob_that_is_a_number_or_a_word_takes_both_and_nothing_else():
    for text, value in (("7", 7), ("never", "never")):
        experiment = parse(["--model=lstm", "--steps=1", f"--truncation={text}"]).experiment
        assert experiment.knobs == {"truncation": value}
        experiment.validate()
    with pytest.raises(UsageError, match="truncation: 'often' is not a whole number or never"):
        parse(["--model=lstm", "--steps=1", "--truncation=often"])
    with pytest.raises(UsageError, match=r"truncation: 0 is outside \[1, inf\)"):
        parse(["--model=lstm", "--steps=1", "--truncation=0"]).experiment.validate()
