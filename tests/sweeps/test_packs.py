"""Packs: what they leave, and that their trials are those of single runs."""

import collections
import json
import logging

import jax
import numpy as np
import pytest
from helpers.runs import assert_same_bits, last_arrays, logged
from helpers.sweeps import BASE, finished_at, read, read_plan, run, sweep, table, trials

from percept_jax.cli.main import main
from percept_jax.sweeps import workers
from percept_jax.sweeps.plan import PackPlan

EVERYTHING = ["--dropout_rate=0.2", "--weight_decay=1e-3", "--label_smoothing=0.1", "--ema_decay=0.9", "--schedule=cosine"]
LENET = ["--model=lenet5", "--norm=batch", "--image_size=16"]


def losses(path):
    return np.array([line["loss"] for line in logged(path)])


def test_a_sweep_leaves_a_complete_directory(write_sweep, tmp_path, capsys):
    path = write_sweep("--learning_rate={0.02,0.05}", "--seeds=2")
    folder = tmp_path / "sweep"
    run(path, folder, "--json")
    names = {"sweep.flags", "plan.json", "trials", "table.md", "table.tex", "table.csv"}
    assert names <= {p.name for p in folder.iterdir()}
    assert (folder / "sweep.flags").read_text() == path.read_text()
    assert not list(folder.glob("packs/*"))
    files = {"run.flags", "provenance.json", "metrics.jsonl", "checkpoints", "result.json"}
    for trial in trials(folder).values():
        assert files <= {p.name for p in trial.iterdir()}
        assert read(trial, "provenance.json")["identity"] == trial.name
        assert not list(trial.glob("*.png"))
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["arm"] for row in found["rows"]] == ["learning_rate=0.02", "learning_rate=0.05"]
    assert found["sweep_dir"] == str(folder)
    for row in found["rows"]:
        values = [read(trials(folder)[row["arm"], seed], "result.json")["test"]["accuracy"] for seed in (0, 1)]
        assert list(row["values"].values()) == values
        assert row["mean"] == pytest.approx(np.mean(values))


@pytest.mark.optimized
@pytest.mark.parametrize(
    "flags",
    [
        [*EVERYTHING, "--checkpoint_every=7"],
        pytest.param([*EVERYTHING, "--devices=2"], marks=pytest.mark.slow),
        pytest.param([*LENET, *EVERYTHING], marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_off_is_the_solo_run_bit_for_bit(write_sweep, tmp_path, flags):
    base = [flag for flag in BASE if "lenet5" not in " ".join(flags) or flag.partition("=")[0] not in ("--model", "--hidden")]
    folder = tmp_path / "sweep"
    run(write_sweep(*flags, "--learning_rate={0.02,0.05}", base=base), folder, "--pack=off")
    given = {flag.partition("=")[0]: flag for flag in [*base, *flags]}
    infra = [given[name] for name in ("--log_every", "--devices", "--checkpoint_every") if name in given]
    for trial in trials(folder).values():
        solo = tmp_path / f"solo-{trial.name}"
        assert main([str(trial / "run.flags"), f"--run_dir={solo}", *infra]) == 0
        assert_same_bits(trial, solo)
        assert read(trial, "provenance.json")["pack"] == 1
        assert read(trial, "provenance.json")["devices"] == read(solo, "provenance.json")["devices"]


MLP = [*BASE, "--steps=100", "--log_every=1"]
CONV = [*(flag for flag in MLP if not flag.startswith("--hidden")), *LENET, "--batch_size=16", "--learning_rate=0.02"]
SMOOTH = ["--activation=tanh", "--pooling=average"]
PACKS = {  # flags, steps to compare, tolerance, --pack, devices, width
    "mlp64": ([*MLP, *EVERYTHING, "--dtype=float64"], 100, 1e-12, 4, 1, 3),
    "mlp32": ([*MLP, *EVERYTHING], 100, 1e-4, 4, 1, 3),
    "mlp64on2": ([*MLP, *EVERYTHING, "--dtype=float64"], 100, 1e-12, 2, 2, 4),
    "mlp64on8": ([*MLP, *EVERYTHING, "--dtype=float64"], 100, 1e-12, 1, 8, 8),
    "lenet64": ([*CONV, *EVERYTHING, "--dtype=float64"], 100, 1e-12, 4, 1, 3),
    "lenet64on8": ([*CONV, *EVERYTHING, "--dtype=float64"], 100, 1e-12, 1, 8, 8),
    "lenet32": ([*CONV, *EVERYTHING, *SMOOTH], 100, 1e-4, 4, 1, 3),
    "relu32": ([*CONV, *EVERYTHING], 10, 1e-3, 4, 1, 3),
}


@pytest.mark.optimized
@pytest.mark.parametrize("case", [pytest.param(name, marks=pytest.mark.slow) for name in PACKS])
def test_a_wide_pack_is_its_trials_up_to_rounding(write_sweep, tmp_path, case):
    """Five trials: packs of one size, the last of which is filled up."""
    base, steps, tolerance, pack, devices, width = PACKS[case]
    path = write_sweep("--learning_rate={0.01,0.02,0.03,0.04,0.05}", f"--steps={steps}", base=base)
    run(path, tmp_path / "alone" / "sweep", "--pack=off")
    run(path, tmp_path / "together" / "sweep", f"--pack={pack}", f"--devices={devices}")
    for key, trial in trials(tmp_path / "together" / "sweep").items():
        alone = trials(tmp_path / "alone" / "sweep")[key]
        assert trial.name == alone.name
        assert len(losses(trial)) == len(losses(alone)) > steps
        np.testing.assert_allclose(losses(trial), losses(alone), rtol=tolerance, err_msg=key[0])
        provenance = read(trial, "provenance.json")
        assert (provenance["pack"], len(provenance["devices"])) == (width, devices)
        assert provenance["restarts"] == []


@pytest.mark.parametrize("pack", ["off", *(pytest.param(pack, marks=pytest.mark.slow) for pack in ("4", "auto"))])
def test_a_sweep_over_traced_numbers_compiles_one_step_and_one_evaluation(write_sweep, tmp_path, caplog, pack):
    arms = {"learning_rate": 0.02, "momentum": 0.5, "weight_decay": 0.01, "dropout_rate": 0.2, "label_smoothing": 0.1}
    path = write_sweep("--seeds=2", *(line for name, value in arms.items() for line in (f"[{name}]", f"--{name}={value}")))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run(path, tmp_path / "sweep", f"--pack={pack}")
    names = [r.getMessage().split()[1] for r in caplog.records if r.getMessage().startswith("Compiling")]
    if pack == "auto":  # else it has measured several widths, each of which is a program
        assert [len(p["milliseconds"]) for p in read_plan(tmp_path / "sweep")["programs"].values()] == [1]
    assert collections.Counter(names)["jit(train_step)"] == 1, names
    assert collections.Counter(names)["jit(eval_step)"] == 1, names
    assert len(finished_at(tmp_path / "sweep")) == 12


@pytest.mark.slow
def test_divergence_leaves_the_neighbor_its_bits(write_sweep, tmp_path):
    wild, calm = tmp_path / "wild" / "sweep", tmp_path / "calm" / "sweep"
    run(write_sweep("--learning_rate={0.05,1e30}"), wild, "--pack=2")
    run(write_sweep("--learning_rate={0.05,0.01}"), calm, "--pack=2")
    assert table(wild)["learning_rate=1e30"]["diverged"] == "1"
    assert "(1 diverged)" in (wild / "table.md").read_text()
    assert read(trials(wild)["learning_rate=1e30", 0], "result.json")["status"] == "diverged"
    assert_same_bits(trials(wild)["learning_rate=0.05", 0], trials(calm)["learning_rate=0.05", 0])


@pytest.mark.slow
def test_a_trial_that_stops_in_a_pack_is_the_solo_run(write_sweep, tmp_path):
    """Its neighbor goes on; a third, alike, only fills the pack up."""
    lines = ["--dtype=float64", "--steps=200", "--eval_every=5", "--stop_after=0.5", "--checkpoint_every=7"]
    folder = tmp_path / "sweep"
    run(write_sweep(*lines, "--learning_rate={0.3,0.01}"), folder, "--pack=2")
    steps = {}
    for (arm, _), trial in trials(folder).items():
        solo = tmp_path / f"solo-{trial.name}"
        assert main([str(trial / "run.flags"), f"--run_dir={solo}", "--devices=1", "--log_every=5", "--checkpoint_every=7"]) == 0
        one, other = read(trial, "result.json"), read(solo, "result.json")
        steps[arm] = one["steps"]
        assert {k: one[k] for k in ("status", "steps", "best_step")} == {k: other[k] for k in ("status", "steps", "best_step")}
        np.testing.assert_allclose(losses(trial), losses(solo), rtol=1e-12)
        a, b = last_arrays(trial), last_arrays(solo)
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-9, atol=1e-14, err_msg=name)
        assert sorted(p.name for p in (trial / "checkpoints").iterdir())[-1].endswith(f"{one['steps']:09d}.safetensors")
    assert steps["learning_rate=0.3"] < steps["learning_rate=0.01"]


def test_a_pack_leaves_nothing_behind(write_sweep, tmp_path, monkeypatch):
    """Killed behind its last result, or while it wrote a checkpoint."""
    path, folder = write_sweep("--seeds=4"), tmp_path / "sweep"

    def die(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(workers, "delete_pack", die)
        with pytest.raises(KeyboardInterrupt):
            sweep(path, folder, "--pack=2")
    assert len(finished_at(folder)) == 2
    assert list(folder.glob("packs/*/step_*"))
    second = PackPlan(**next(iter(read_plan(folder)["programs"].values()))["packs"][1])
    (folder / "packs" / second.name).mkdir()
    (folder / "packs" / second.name / ".step_000000010.safetensors.123.percept-part").write_text("half")
    run(path, folder, "--pack=2")
    assert len(finished_at(folder)) == 4
    assert not list(folder.glob("packs/*"))


@pytest.mark.slow
def test_recurrent_networks_are_stepped_alone_on_a_cpu(write_sweep, tmp_path, capsys):
    """XLA's CPU runtime never comes back from a scan over stacked products."""
    lines = ["--model=gru", "--hidden=8", "--learning_rate={0.01,0.05}"]
    base = [flag for flag in BASE if flag.partition("=")[0] not in ("--model", "--hidden")]
    path, folder = write_sweep(*lines, base=base), tmp_path / "sweep"
    assert sweep(path, folder, "--pack=2") == 2
    assert "--pack: gru trials must run one at a time on a CPU" in capsys.readouterr().err
    assert not folder.exists()
    run(path, folder, "--pack=auto")
    assert {read(trial, "provenance.json")["pack"] for trial in trials(folder).values()} == {1}
