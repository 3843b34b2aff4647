"""Designs of a sweep, and tuning."""

import pytest
from helpers.sweeps import assert_same_trials, finished_at, read, read_plan, run, sweep, table

from percept_jax.sweeps.sweep import Sweep


def test_one_factor_at_a_time(write_sweep, tmp_path):
    folder = tmp_path / "sweep"
    run(write_sweep("--design=ofat", "--learning_rate={0.02,0.05}", "--momentum={0.5,0.8}"), folder)
    assert set(table(folder)) == {"baseline", "learning_rate=0.02", "momentum=0.5", "momentum=0.8"}
    assert len(finished_at(folder)) == 4
    assert "--momentum=0.9" in read_plan(folder)["arms"][1]["flags"]


def test_a_cumulative_design(write_sweep, tmp_path):
    folder = tmp_path / "sweep"
    run(write_sweep("--design=cumulative", "[wide]", "--hidden=24", "[decay]", "--weight_decay=0.01"), folder)
    assert list(table(folder)) == ["baseline", "wide", "+ decay"]
    assert {"--hidden=24", "--weight_decay=0.01"} <= set(read_plan(folder)["arms"][2]["flags"])
    assert len(finished_at(folder)) == 3


def test_a_halton_design(write_sweep, tmp_path):
    folder = tmp_path / "sweep"
    run(write_sweep("--design=halton", "--trials=4", "--learning_rate={log:1e-3..1}", "--momentum={0.1..0.9}"), folder)
    assert len(table(folder)) == len(finished_at(folder)) == 4
    rates = [
        float(f.partition("=")[2]) for a in read_plan(folder)["arms"] for f in a["flags"] if f.startswith("--learning_rate=")
    ]
    assert len(set(rates)) == 4
    assert all(1e-3 <= rate <= 1 for rate in rates)


TUNED = ["--tune=learning_rate={1e-4,0.05}", "--seeds=2", "[momentum]", "--momentum=0.5"]


def test_tuning_chooses_by_validation_on_a_seed_of_its_own(write_sweep, tmp_path, capsys):
    folder = tmp_path / "sweep"
    run(write_sweep(*TUNED), folder)
    found = read_plan(folder)
    assert set(found["tuning"]) == {"baseline", "momentum"}
    for arm in found["arms"]:
        tried = [folder / "trials" / i for i in found["tuning"][arm["name"]]]
        assert all("--seed=4294967295" in (path / "run.flags").read_text().splitlines() for path in tried)
        best = max(tried, key=lambda path: read(path, "result.json")["validation"]["accuracy"])
        rate = next(line for line in (best / "run.flags").read_text().splitlines() if line.startswith("--learning_rate="))
        assert rate == "--learning_rate=0.05"
        assert rate in arm["flags"]
        assert list(arm["trials"]) == ["0", "1"]
        for trial in arm["trials"].values():
            assert rate in (folder / "trials" / trial / "run.flags").read_text().splitlines()
    assert len(finished_at(folder)) == 8
    assert capsys.readouterr().out.count("tuned to --learning_rate=0.05") == 2


@pytest.mark.slow
def test_a_kill_between_the_stages_of_tuning_changes_nothing(write_sweep, tmp_path, monkeypatch):
    path = write_sweep(*TUNED)
    straight, killed = tmp_path / "straight" / "sweep", tmp_path / "killed" / "sweep"
    run(path, straight)
    written, real = [], Sweep.write

    def die(self):
        if written:
            raise KeyboardInterrupt
        real(self)
        written.append(self)

    with monkeypatch.context() as patched:
        patched.setattr(Sweep, "write", die)
        with pytest.raises(KeyboardInterrupt):
            sweep(path, killed)
    before = finished_at(killed)
    assert len(before) == 4
    assert all(trial is None for arm in read_plan(killed)["arms"] for trial in arm["trials"].values())
    run(path, killed)
    assert before.items() <= finished_at(killed).items()
    assert_same_trials(straight, killed)
