"""The compare command over sweeps and runs."""

import shutil

from helpers.sweeps import last_json, refused, run, table, trials

from percept_jax.cli.main import main


def test_compare_reads_sweeps_and_runs(write_sweep, tmp_path, capsys):
    folder = tmp_path / "sweep"
    run(write_sweep("--learning_rate={0.02,0.05}", "--seeds=2"), folder)
    before = table(folder)
    capsys.readouterr()
    assert main(["compare", str(folder), "--json"]) == 0
    whole = last_json(capsys)
    assert [row["arm"] for row in whole["rows"]] == ["learning_rate=0.02", "learning_rate=0.05"]
    assert table(folder) == before

    other = ["--baseline=learning_rate=0.05", "--metric=validation/loss", f"--to={tmp_path / 'other'}", "--json"]
    assert main(["compare", str(folder), *other]) == 0
    found = last_json(capsys)
    assert (found["baseline"], found["metric"]) == ("learning_rate=0.05", "validation/loss")
    assert table(folder) == before
    assert (tmp_path / "other" / "table.csv").exists()

    runs = [str(path) for path in trials(folder).values()]
    assert main(["compare", *runs, f"--to={tmp_path / 'runs'}", "--json"]) == 0
    found = last_json(capsys)
    assert [row["mean"] for row in found["rows"]] == [row["mean"] for row in whole["rows"]]

    shutil.rmtree(trials(folder)["learning_rate=0.05", 1])
    (trials(folder)["learning_rate=0.02", 0] / "result.json").unlink()
    assert main(["compare", str(folder), "--json"]) == 0
    found = last_json(capsys)
    assert [(row["planned"], list(row["values"])) for row in found["rows"]] == [(2, ["1"]), (2, ["0"])]
    assert [row["paired"] for row in found["rows"]] == [1, 0]


def test_what_compare_refuses(write_sweep, tmp_path, capsys):
    folder = tmp_path / "sweep"
    run(write_sweep("--seeds=2"), folder)
    for args in ([str(tmp_path / "none")], [str(folder), "--metric=test/none"], [str(folder), "--baseline=none"], []):
        refused(capsys, tmp_path, ["compare", *args])
