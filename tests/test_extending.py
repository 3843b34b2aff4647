"""What an addition costs: a file and a line, and the package stays as it is. The examples are those of docs/extending.md."""

import json
import re
import shutil

import numpy as np
import pytest
from helpers import EXTENDING, ROOT, blocks, documented

from percept_jax import load
from percept_jax.cli.commands import COMMANDS, OPTIONS
from percept_jax.cli.main import main
from percept_jax.data.images import encode_png
from percept_jax.data.registry import READERS, Kind, describe
from percept_jax.tasks import TASKS, task_of

MOST = 5


@pytest.fixture
def ones(tmp_path):
    """A folder of 6x6 images with 0 to 5 white pixels, each in the sub-folder that is called like their number."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "ones"
    for i in range(240):
        image = np.zeros(36, np.uint8)
        image[rng.choice(36, i % (MOST + 1), replace=False)] = 255
        place = folder / str(i % (MOST + 1))
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(encode_png(image.reshape(6, 6, 1)))
    return folder


def test_a_task_is_added_with_one_file_and_one_line(ones, tmp_path, monkeypatch, capsys):
    """It is trained, evaluated, swept over, compared and predicted with; its metrics are no one else's."""
    counting = documented("tasks/counting.py").COUNTING
    monkeypatch.setitem(TASKS, "counting", counting)

    def run(*args, code=0):
        assert main([*map(str, args), "--json"]) == code
        out = capsys.readouterr().out
        return json.loads(out.splitlines()[-1]), out

    flags = tmp_path / "counting.flags"
    flags.write_text(
        f"--dataset=folder:{ones}\n--task=counting\n--model=mlp\n--hidden=16\n--optimizer=adam\n--learning_rate=0.02\n--epochs=40\n--devices=1\n"
    )
    result, out = run(flags, f"--run_dir={tmp_path / 'run'}")
    assert set(result["test"]) == {"loss", "right", "median_error", "examples"}
    # A guess of the middle for every image is off by 1.5.
    assert result["test"]["median_error"] < 0.4
    assert f"test median error {result['test']['median_error']:.4f}, loss" in out
    mark = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert (mark["task"], [metric["name"] for metric in mark["metrics"]]) == ("counting", ["loss", "right", "median_error"])
    assert (tmp_path / "run" / "training.png").exists()
    assert not (tmp_path / "run" / "confusion.png").exists()

    found, _ = run("evaluate", tmp_path / "run")
    assert found["test"] == result["test"]
    images = [ones / "0" / "0.png", ones / "5" / "5.png"]
    found, out = run("predict", tmp_path / "run", *images)
    none, five = (row["count"] for row in found["predictions"])
    assert none < 1 < 4 < five
    assert f"{images[1]}  {five:.2f}" in out
    assert load(tmp_path / "run").task is counting
    # Who does not ask for it has what there was before.
    assert task_of(describe(f"folder:{ones}", tmp_path)).name == "classification"

    sweep = [flags, "--sweep", "--hidden={1,16}", "--seeds=2", "--epochs=20", f"--run_dir={tmp_path / 'sweep'}"]
    table, _ = run(*sweep)
    assert table["metric"] == "test/median_error"
    # Fewer is better: one unit is worse than sixteen.
    assert table["rows"][1]["mean"] < table["rows"][0]["mean"]

    # What reads files needs the task no more.
    monkeypatch.delitem(TASKS, "counting")
    shown, _ = run("compare", tmp_path / "sweep")
    assert shown["rows"] == table["rows"]
    shown, _ = run("compare", tmp_path / "sweep", "--metric=test/right", f"--to={tmp_path / 'table'}")
    assert shown["rows"][1]["mean"] > shown["rows"][0]["mean"]
    assert "**" in (tmp_path / "table" / "table.md").read_text()
    shown, _ = run("compare", tmp_path / "run", f"--to={tmp_path / 'alone'}")
    assert shown["metric"] == "test/median_error"


def test_a_metric_is_added_with_one_record(small, monkeypatch, tmp_path, capsys):
    from percept_jax.metrics import Metric

    task = TASKS["classification"]
    (text,) = [block for block in blocks(EXTENDING, "python") if block.startswith("Metric(")]
    error = eval(text, {"Metric": Metric})
    monkeypatch.setitem(TASKS, "classification", task._replace(metrics=(*task.metrics, error)))
    args = ["--sweep", "--model=mlp", "--hidden=16", "--steps=20", "--devices=1", "--learning_rate={0.001,0.1}", "--seeds=2"]
    assert main([*args, f"--run_dir={tmp_path / 'sweep'}", "--json"]) == 0
    table = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert table["metric"] == "test/error_rate"
    low, high = (row["mean"] for row in table["rows"])
    assert high < low
    assert main(["compare", str(tmp_path / "sweep"), "--metric=test/accuracy", "--json", f"--to={tmp_path / 'table'}"]) == 0
    table = json.loads(capsys.readouterr().out.splitlines()[-1])
    np.testing.assert_allclose([1 - row["mean"] for row in table["rows"]], [low, high])


def test_a_reader_is_added_with_one_file_and_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(READERS, "csv", Kind(documented("data/readers/csv_points.py").CsvPoints))
    rng = np.random.default_rng(0)
    rows = [f"{x:.4f},{y:.4f},{'above' if x + y > 0 else 'below'}" for x, y in rng.normal(size=(300, 2))]
    (tmp_path / "points.csv").write_text("\n".join(rows) + "\n")
    flags = [f"--dataset=csv:{tmp_path / 'points.csv'}", "--model=linear", "--epochs=40", "--devices=1"]
    assert main([*flags, f"--run_dir={tmp_path / 'run'}", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["test"]["accuracy"] > 0.9
    assert re.search(r"--dataset=csv:.*points\.csv#[0-9a-f]{16}", (tmp_path / "run" / "run.flags").read_text())
    assert main(["predict", str(tmp_path / "run"), "1,1", "-1,-1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["predictions"]
    assert [p["class"] for p in found] == ["above", "below"]
    assert main(["plot", str(tmp_path / "run"), "--boundary"]) == 0
    capsys.readouterr()
    # The content is the data set, wherever the file is; other content is another run.
    shutil.move(tmp_path / "points.csv", tmp_path / "moved.csv")
    moved = [f"--dataset=csv:{tmp_path / 'moved.csv'}", *flags[1:], f"--run_dir={tmp_path / 'run'}", "--json"]
    assert main(moved) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result
    (tmp_path / "moved.csv").write_text("\n".join(rows[::-1]) + "\n")
    assert main(moved) == 2
    assert "holds another run" in capsys.readouterr().err
    for wrong in ("1,2", "1,x,above", "1,nan,above"):
        (tmp_path / "moved.csv").write_text(f"{wrong}\n")
        assert main([*moved[:-2], f"--run_dir={tmp_path / 'other'}", "--json"]) == 4
        assert "moved.csv: line 1 is not x,y,class" in capsys.readouterr().err


def test_a_command_is_added_with_one_file_and_one_line(small, monkeypatch, capsys):
    from percept_jax import train

    size = documented("cli/commands/size.py").SIZE
    monkeypatch.setitem(COMMANDS, "size", size)
    for option in size.options:
        monkeypatch.setitem(OPTIONS, option.name, option)
    run = train(small)
    capsys.readouterr()
    assert main(["size", str(run.path), "--unit=KiB", "--json"]) == 0
    out = capsys.readouterr().out.splitlines()
    found = json.loads(out[-1])
    assert found["bytes"] > 1024
    assert out[0] == f"{found['bytes'] / 1024:.1f} KiB"
    assert main(["size", "--help"]) == 0
    assert "size RUN_DIR [--unit=B|KiB]" in capsys.readouterr().out
    assert main(["size"]) == 2
    assert capsys.readouterr().err == "usage: size RUN_DIR [--unit=B|KiB]\n"
    assert main(["size", str(run.path), "--to=x"]) == 2
    assert "--to: does not apply to size" in capsys.readouterr().err


@pytest.mark.slow
def test_an_augmentation_is_one_function_and_one_field(tmp_path, launch):
    """In a copy of the package, where nothing but augment.py is touched."""
    root = ROOT
    shutil.copytree(root / "percept_jax", tmp_path / "percept_jax", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "launch.sh", tmp_path)
    (tmp_path / "experiments").mkdir()
    path = tmp_path / "percept_jax" / "data" / "augment.py"
    field, call, function = (
        next(block for block in blocks(EXTENDING, "python") if block.startswith(start))
        for start in ("    posterize: int", "    if on.posterize", "def posterize")
    )
    text = path.read_text()
    places = {"    mixup: float = knob(": field, "    if on.brightness:\n": call, "def translate(": function + "\n\n"}
    for where, new in places.items():
        assert text.count(where) == 1
        text = text.replace(where, new + where)
    text = text.replace('"crop_area": 10,', '"crop_area": 10, "posterize": 11,')
    path.write_text(text)
    flags = ["--model=mlp", "--steps=20", "--devices=1"]
    losses = {}
    for levels in (0, 2):
        run = tmp_path / f"run{levels}"
        done = launch(*flags, f"--posterize={levels}", f"--run_dir={run}", script=tmp_path / "launch.sh")
        assert done.returncode == 0, done.stderr
        assert f"--posterize={levels}" in (run / "run.flags").read_text()
        losses[levels] = json.loads((run / "result.json").read_text())["test"]["loss"]
    assert losses[0] != losses[2]
    shown = launch("--help", script=tmp_path / "launch.sh").stdout
    assert "--posterize=0" in shown
    wrong = launch(*flags, "--posterize=300", script=tmp_path / "launch.sh")
    assert (wrong.returncode, "outside [0, 255]" in wrong.stderr) == (2, True)


def test_an_optimizer_is_one_function_and_one_line(monkeypatch):
    from percept_jax.experiment import Experiment, stack_hparams
    from percept_jax.training import optim

    (code,) = [block for block in blocks(EXTENDING, "python") if block.startswith("def lion(")]
    names = dict(vars(optim))
    exec(code, names)
    monkeypatch.setitem(optim.OPTIMIZERS, "lion", names["lion"])
    hparams = stack_hparams([Experiment(steps=1, momentum=0.9, beta2=0.99)], 1)
    hparams = type(hparams)(*(column[0] for column in hparams))
    params = {"kernel": np.ones(3, np.float32)}
    optimizer = optim.make_optimizer("lion", np.float32(0.1), hparams)
    updates, _ = optimizer.update({"kernel": np.array([3.0, -0.1, 0.0], np.float32)}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [-0.1, 0.1, 0.0], rtol=1e-6)


def test_a_loss_is_one_function_and_one_line():
    from percept_jax.tasks import losses

    code, line = (
        next(block for block in blocks(EXTENDING, "python") if block.startswith(start))
        for start in ("def focal(", '    "focal":')
    )
    names = dict(vars(losses))
    exec(code, names)
    added = eval("{" + line + "}", names)
    logits, targets = np.array([[0.0, 0.0], [np.log(9), 0.0]], np.float32), np.array([[1, 0], [1, 0]], np.float32)
    # (1 - p)^2 (-log p) for p = 1/2 and p = 9/10.
    np.testing.assert_allclose(added["focal"].loss(logits, targets), [0.25 * np.log(2), -0.01 * np.log(0.9)], rtol=1e-5)
    np.testing.assert_allclose(added["focal"].probabilities(logits), [[0.5, 0.5], [0.9, 0.1]], rtol=1e-6)


def test_the_model_of_the_docs_is_that_of_the_readme(monkeypatch):
    from percept_jax import models

    readme = (ROOT / "README.md").read_text()
    (code,) = [block for block in blocks(readme, "python") if block.startswith("# percept_jax/models/bilinear.py")]
    assert code in blocks(EXTENDING, "python")
    monkeypatch.setitem(models.MODELS, "bilinear", documented("models/bilinear.py").Bilinear)
    assert main(["--model=bilinear", "--rank=6", "--steps=1", "--dry_run"]) == 0
