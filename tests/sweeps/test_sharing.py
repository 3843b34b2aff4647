"""What a sweep takes over from other sweeps and runs, and what it computes again."""

import json
import shutil
import string
from pathlib import Path

import pytest
from helpers.sweeps import BASE, failing, finished_at, last_json, run, table, trials

from percept_jax.cli.main import main


def test_braces_of_the_shell_are_ours(write_sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("percept_jax.sweeps.sweep.ROOT", tmp_path)
    (tmp_path / "digits_mlp.flags").write_text("\n".join(BASE) + "\n")
    common = [str(tmp_path / "digits_mlp.flags"), "--sweep", "--seeds=2", "--json"]
    found = []
    for rates in (["--learning_rate=0.03", "--learning_rate=0.1"], ["--learning_rate={0.03,0.1}"]):
        assert main([*common, *rates]) == 0
        found.append(Path(json.loads(capsys.readouterr().out.splitlines()[-1])["sweep_dir"]))
    assert len(trials(found[0])) == 4
    assert trials(found[0]).keys() == trials(found[1]).keys()
    assert [p.name for p in trials(found[0]).values()] == [p.name for p in trials(found[1]).values()]
    assert found[0] == found[1]
    assert found[0].parent == tmp_path / "runs"
    assert main([common[0], "--sweep", "--learning_rate=0.03", "--json"]) == 0  # another sweep
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["sweep_dir"] != str(found[0])


@pytest.mark.slow
def test_what_another_sweep_has_finished_is_linked(write_sweep, tmp_path, monkeypatch):
    one, other = tmp_path / "runs" / "one", tmp_path / "runs" / "other"
    run(write_sweep("[momentum]", "--momentum=0.5", name="one"), one)
    path = write_sweep("[decay]", "--weight_decay=0.01", name="other")
    tried = failing(monkeypatch, lambda e: False)
    run(path, other)
    link = trials(other)["baseline", 0]
    assert link.is_symlink()
    assert link.resolve() == trials(one)["baseline", 0].resolve()
    assert tried == [(trials(other)["decay", 0].name,)]
    assert table(other)["baseline"]["mean"] == table(one)["baseline"]["mean"]

    shutil.rmtree(one)  # the link dangles
    run(path, other)
    assert not link.is_symlink()
    assert tried[1:] == [(link.name,)]
    assert (link / "result.json").exists()


@pytest.mark.slow
def test_fresh_runs_all_again_and_leaves_alone_what_was_linked(write_sweep, tmp_path, monkeypatch):
    one, other = tmp_path / "runs" / "one", tmp_path / "runs" / "other"
    run(write_sweep("[momentum]", "--momentum=0.5", name="one"), one)
    path = write_sweep("[decay]", "--weight_decay=0.01", name="other")
    run(path, other)
    before, earlier = finished_at(one), finished_at(other)
    run(path, other, "--fresh")
    assert finished_at(one) == before
    assert not any(p.is_symlink() for p in trials(other).values())
    assert finished_at(other).keys() == earlier.keys()
    assert not finished_at(other).items() & earlier.items()
    after = finished_at(other)
    run(path, other)
    assert finished_at(other) == after


def test_a_finished_trial_counts_though_another_sweep_has_only_begun_it(write_sweep, tmp_path, monkeypatch):
    """Whichever of them is looked at first."""
    runs = tmp_path / "runs"
    run(write_sweep("--seeds=1", name="sweep"), runs / "sweep")
    done = trials(runs / "sweep")["baseline", 0]
    for name in string.ascii_lowercase:
        begun = runs / name / "trials" / done.name
        begun.mkdir(parents=True)
        shutil.copy(done / "provenance.json", begun)
    tried = failing(monkeypatch, lambda e: False)
    run(write_sweep("--seeds=1", name="later"), runs / "later")
    assert tried == []
    assert trials(runs / "later")["baseline", 0].resolve() == done.resolve()


def test_a_solo_run_beside_it_is_taken(write_sweep, tmp_path, monkeypatch):
    run(write_sweep("--learning_rate={0.02,0.05}", name="one"), tmp_path / "elsewhere" / "one")
    trial = trials(tmp_path / "elsewhere" / "one")["learning_rate=0.02", 0]
    solo = tmp_path / "runs" / "digits_mlp" / trial.name
    assert main([str(trial / "run.flags"), f"--run_dir={solo}", "--devices=1", "--log_every=5"]) == 0
    tried = failing(monkeypatch, lambda e: False)
    folder = tmp_path / "runs" / "one"
    run(tmp_path / "one.sweep", folder)
    assert trials(folder)["learning_rate=0.02", 0].resolve() == solo
    assert tried == [(trials(folder)["learning_rate=0.05", 0].name,)]


@pytest.mark.slow
def test_a_value_more_runs_only_what_is_new_and_dry_run_counts_it(write_sweep, tmp_path, monkeypatch, capsys):
    path, folder = write_sweep("--learning_rate={0.02,0.05}", "--seeds=2"), tmp_path / "runs" / "sweep"
    run(path, folder, "--dry_run", "--json")
    assert sorted(tmp_path.iterdir()) == [path]
    found = last_json(capsys)
    assert (found["arms"], found["trials"], found["done"]) == (2, 4, 0)
    assert [(p["trials"], p["left"]) for p in found["programs"]] == [(4, 4)]
    run(path, folder)
    before = finished_at(folder)

    path = write_sweep("--learning_rate={0.02,0.03,0.05}", "--seeds=2", "--hidden={16,24}")
    everything = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    run(path, folder, "--dry_run", "--json")
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == everything
    found = last_json(capsys)
    assert (found["arms"], found["trials"], found["done"]) == (6, 12, 4)
    assert sorted((p["trials"], p["left"]) for p in found["programs"]) == [(6, 2), (6, 6)]
    tried = failing(monkeypatch, lambda e: False)
    run(path, folder)
    assert before.items() <= finished_at(folder).items()
    assert len(finished_at(folder)) == 12
    assert sum(map(len, tried)) == 8
    run(path, folder, "--dry_run", "--json")
    found = last_json(capsys)
    assert (found["trials"], found["done"], found["seconds"]) == (12, 12, 0)


def test_a_dry_run_prepares_no_data(write_sweep, tmp_path):
    path = write_sweep("--learning_rate={0.02,0.05}")
    run(path, tmp_path / "sweep", "--dry_run", f"--data_dir={tmp_path / 'data'}")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_finished_sweep_shows_its_table_again_with_another_metric(write_sweep, tmp_path, monkeypatch, capsys):
    path, folder = write_sweep("--learning_rate={0.02,0.05}"), tmp_path / "sweep"
    run(path, folder)
    tried = failing(monkeypatch, lambda e: False)
    run(path, folder, "--metric=validation/loss", "--baseline=learning_rate=0.05", "--json")
    found = last_json(capsys)
    assert (found["metric"], found["baseline"]) == ("validation/loss", "learning_rate=0.05")
    assert tried == []
