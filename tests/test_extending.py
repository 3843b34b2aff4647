"""What an addition costs: a file and a line, and nothing in the package knows of it."""

import json

import numpy as np
import pytest
from extensions.counting import COUNTING

from percept_jax import load
from percept_jax.cli.main import main
from percept_jax.data.images import encode_png
from percept_jax.tasks import TASKS

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
    monkeypatch.setitem(TASKS, "counting", COUNTING)

    def run(*args, code=0):
        assert main([*map(str, args), "--json"]) == code
        out = capsys.readouterr().out
        return json.loads(out.splitlines()[-1]), out

    flags = tmp_path / "counting.flags"
    flags.write_text(
        f"--dataset=folder:{ones}\n--model=mlp\n--hidden=16\n--optimizer=adam\n--learning_rate=0.02\n--epochs=40\n--devices=1\n"
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
    assert load(tmp_path / "run").task is COUNTING

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
    error = Metric("error_rate", False, "z.4f", lambda sums: 1 - sums["correct"] / sums["positions"])
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
