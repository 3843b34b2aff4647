"""Sweeps from their file to their table: packs, workers, kills, faults, sharing, designs and tuning."""

import collections
import csv
import json
import logging
import os
import random
import shutil
import signal
import string
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from test_run import assert_same_bits, last_arrays, logged, read_metrics

from percept_jax import records
from percept_jax.analysis import report
from percept_jax.cli.main import main
from percept_jax.sweeps import workers
from percept_jax.sweeps.plan import PackPlan
from percept_jax.sweeps.sweep import Sweep
from percept_jax.training import loop

BASE = ["--model=mlp", "--hidden=16", "--steps=20", "--batch_size=32", "--learning_rate=0.05", "--eval_every=10"]
BASE += ["--log_every=5", "--devices=1", "--pack=off"]  # one program for most of what follows
FIRST = len(BASE) + 1  # number of the line below
EVERYTHING = ["--dropout_rate=0.2", "--weight_decay=1e-3", "--label_smoothing=0.1", "--ema_decay=0.9", "--schedule=cosine"]
LENET = ["--model=lenet5", "--norm=batch", "--image_size=16"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than the training."""
    monkeypatch.setattr(report, "write", lambda *args: [])


@pytest.fixture
def write(tmp_path):
    """Writes a sweep file, what every sweep here has and the lines given: its path."""

    def write(*lines, name="my", base=BASE):
        path = tmp_path / f"{name}.sweep"
        path.write_text("\n".join([*base, *lines]) + "\n")
        return path

    return write


def sweep(path, folder, *args):
    """The exit code of a sweep in this process."""
    return main([str(path), f"--run_dir={folder}", *args])


def run(path, folder, *args):
    """A sweep that ends well."""
    assert sweep(path, folder, *args) == 0


def read_plan(folder):
    return json.loads((folder / "plan.json").read_text())


def trials(folder):
    """The run directories of the table's trials by arm and seed."""
    return {(a["name"], int(seed)): folder / "trials" / i for a in read_plan(folder)["arms"] for seed, i in a["trials"].items()}


def table(folder):
    """The rows of table.csv by arm, without the seconds."""
    with open(folder / "table.csv", newline="") as file:
        return {row["arm"]: {k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)}


def read(path, name):
    return json.loads((path / name).read_text())


def losses(path):
    return np.array([line["loss"] for line in logged(path)])


def finished_at(folder):
    """When the trials that are finished were, by their ids."""
    return {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("trials/*/result.json")}


def assert_same_trials(one, other):
    """The same bits in each trial, and the same table."""
    assert trials(one).keys() == trials(other).keys()
    for key, path in trials(one).items():
        assert path.name == trials(other)[key].name
        assert_same_bits(path, trials(other)[key])
    assert table(one) == table(other)


# ------------------------------------------------------------------------------------------------------- packs


def test_a_sweep_leaves_a_complete_directory(write, tmp_path, capsys):
    path = write("--learning_rate={0.02,0.05}", "--seeds=2")
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


@pytest.mark.slow
def test_a_sweep_as_a_person_starts_it(write, tmp_path, launch):
    folder = tmp_path / "sweep"
    found = launch(write("--learning_rate={0.02,0.05}"), f"--run_dir={folder}", "--pack=auto")
    assert found.returncode == 0, found.stderr
    assert "2 of 2 trials done" in found.stdout
    assert f"{folder}/report.html" in found.stdout.splitlines()
    assert (folder / "report.html").exists()


@pytest.mark.optimized
@pytest.mark.parametrize(
    "flags",
    [
        [*EVERYTHING, "--checkpoint_every=7"],
        pytest.param([*EVERYTHING, "--devices=2"], marks=pytest.mark.slow),
        pytest.param([*LENET, *EVERYTHING], marks=pytest.mark.slow),
    ],
)
def test_off_is_the_solo_run_bit_for_bit(write, tmp_path, flags):
    base = [flag for flag in BASE if "lenet5" not in " ".join(flags) or flag.partition("=")[0] not in ("--model", "--hidden")]
    folder = tmp_path / "sweep"
    run(write(*flags, "--learning_rate={0.02,0.05}", base=base), folder, "--pack=off")
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
def test_a_wide_pack_is_its_trials_up_to_rounding(write, tmp_path, case):
    """Five trials: packs of one size, the last of which is filled up."""
    base, steps, tolerance, pack, devices, width = PACKS[case]
    path = write("--learning_rate={0.01,0.02,0.03,0.04,0.05}", f"--steps={steps}", base=base)
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
def test_a_sweep_over_traced_numbers_compiles_one_step_and_one_evaluation(write, tmp_path, caplog, pack):
    arms = {"learning_rate": 0.02, "momentum": 0.5, "weight_decay": 0.01, "dropout_rate": 0.2, "label_smoothing": 0.1}
    path = write("--seeds=2", *(line for name, value in arms.items() for line in (f"[{name}]", f"--{name}={value}")))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run(path, tmp_path / "sweep", f"--pack={pack}")
    names = [r.getMessage().split()[1] for r in caplog.records if r.getMessage().startswith("Compiling")]
    if pack == "auto":  # else it has measured several widths, each of which is a program
        assert [len(p["milliseconds"]) for p in read_plan(tmp_path / "sweep")["programs"].values()] == [1]
    assert collections.Counter(names)["jit(train_step)"] == 1, names
    assert collections.Counter(names)["jit(eval_step)"] == 1, names
    assert len(finished_at(tmp_path / "sweep")) == 12


@pytest.mark.slow
def test_divergence_leaves_the_neighbor_its_bits(write, tmp_path):
    wild, calm = tmp_path / "wild" / "sweep", tmp_path / "calm" / "sweep"
    run(write("--learning_rate={0.05,1e30}"), wild, "--pack=2")
    run(write("--learning_rate={0.05,0.01}"), calm, "--pack=2")
    assert table(wild)["learning_rate=1e30"]["diverged"] == "1"
    assert "(1 diverged)" in (wild / "table.md").read_text()
    assert read(trials(wild)["learning_rate=1e30", 0], "result.json")["status"] == "diverged"
    assert_same_bits(trials(wild)["learning_rate=0.05", 0], trials(calm)["learning_rate=0.05", 0])


@pytest.mark.slow
def test_a_trial_that_stops_in_a_pack_is_the_solo_run(write, tmp_path):
    """Its neighbor goes on; a third, alike, only fills the pack up."""
    lines = ["--dtype=float64", "--steps=200", "--eval_every=5", "--stop_after=0.5", "--checkpoint_every=7"]
    folder = tmp_path / "sweep"
    run(write(*lines, "--learning_rate={0.3,0.01}"), folder, "--pack=2")
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


def test_a_pack_leaves_nothing_behind(write, tmp_path, monkeypatch):
    """Killed behind its last result, or while it wrote a checkpoint."""
    path, folder = write("--seeds=4"), tmp_path / "sweep"

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


# -------------------------------------------------------------------------------------------------------- faults


FAULTS = {  # lines of the file, arguments, what is said: of the first line below the base, N lines on, or of the command line
    "unknown flag": ("[a]|--momentum=0.5|[b]|--momentum=0.6|[c]|--learning_rat=0.1", "", 5, "unknown name '--learning_rat'"),
    "empty brace": ("--momentum={}", "", 0, "--momentum: no value between the braces"),
    "open brace": ("--momentum={0.5", "", 0, "--momentum: '{0.5' has unbalanced braces"),
    "duplicate arm": ("[a]|--momentum=0.5|[a]|--momentum=0.6", "", 2, "a second arm 'a'"),
    "unequal zip": ("--momentum={0.5,0.6}|--beta2={0.1,0.2,0.3}|--zip=momentum,beta2", "", 2, "--zip: unequal lengths"),
    "metric": ("--metric=test/rmse", "", 0, "--metric: unknown name 'test/rmse'"),
    "metric on the command line": ("", "--metric=test/rmse", None, "--metric: unknown name 'test/rmse'"),
    "too many": ("--seeds=1000000", "", 0, "--seeds: 1000000 trials; at most 10000"),
    "value": ("--momentum={0.1,0.5,1.5,0.9}", "", 0, "--momentum: 1.5 is outside [0, 1)"),
    "value of an arm": ("[a]|--momentum=0.5|[b]|--momentum={0.6,1}", "", 3, "--momentum: 1.0 is outside [0, 1)"),
    "tuned value": ("--momentum=0.9|--tune=momentum={0.5,2}", "", 1, "--momentum: 2.0 is outside [0, 1)"),
    "batch of an arm": ("--devices=4|--pack=off|[a]|--batch_size=30", "", 3, "--batch_size: 30 examples cannot be split"),
    "devices": ("[a]|--devices=9", "", 1, "--devices: 9 asked for, 8 here"),
    "model of an arm": ("[a]|--model=linear", "", None, "--hidden: a knob of mlp"),
    "image size": ("--model=cnn|[a]|--model=lenet5|--image_size=8", "", None, "--hidden"),
    "pack": ("", "--pack=0", None, "--pack: '0' is not auto, off or a number"),
    "pack in the file": ("--pack=0", "", 0, "--pack: '0' is not auto, off or a number"),
    "shard": ("", "--shard=2/2", None, "--shard: '2/2' is not i/n"),
    "workers": ("", "--workers=0", None, "--workers: 0 is outside [1, 256]"),
    "workers and shard": ("", "--workers=2 --shard=0/2", None, "--shard: give --shard or --workers, not both"),
    "seed of an arm": ("[a]|--seed=3", "", 1, "--seed: a sweep has --seeds"),
    "seed": ("", "--seed=3", None, "--seed: a sweep has --seeds"),
    "seeds": ("--seeds={4294967295,4294967296}", "", 0, "--seeds: 4294967296 is outside [0, 4294967295]"),
    "flag file": ("--flagfile=none.flags", "", 0, "--flagfile: FOLDER/none.flags: no such file"),
    "baseline": ("--baseline=b|[a]|--momentum=0.5", "", 0, "--baseline: unknown name 'b'"),
    "run_dir of an arm": ("[a]|--run_dir=x", "", 1, "--run_dir: is of the whole sweep"),
    "to": ("", "--to=x", None, "--to: does not apply to a sweep"),
}
WHERE = {"model of an arm": 1, "image size": 0}  # at the base's --hidden


def refused(capsys, tmp_path, args):
    """The one line of a command that is refused, which has written nothing."""
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(args) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert sorted(tmp_path.rglob("*")) == before
    return err.replace(f"{tmp_path}/", "", 1) if err.startswith(str(tmp_path)) else err


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(write, tmp_path, capsys, fault):
    lines, args, line, said = FAULTS[fault]
    path = write(*lines.split("|"))
    where = "command line" if line is None else f"my.sweep:{FIRST + line}"
    if fault in WHERE:
        where = f"my.sweep:{1 + BASE.index('--hidden=16')}"
    found = refused(capsys, tmp_path, [str(path), f"--run_dir={tmp_path / 'sweep'}", *args.split()])
    assert found.startswith(f"{where}: {said.replace('FOLDER', str(tmp_path))}")


def test_a_file_that_is_not_there_and_a_folder_that_is_another_s(write, tmp_path, capsys):
    assert refused(capsys, tmp_path, ["none.sweep"]) == "command line: none.sweep: no such file\n"
    path = write("--seeds=2")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    for fresh in ([], ["--fresh"]):
        for folder in (tmp_path / "home", tmp_path / "home" / "thesis.tex"):
            found = refused(capsys, tmp_path, [str(path), f"--run_dir={folder}", *fresh])
            assert found.startswith("command line: --run_dir: ")


def failing(monkeypatch, fails):
    """Makes training fail where `fails` says so of a trial's experiment; the packs that were tried, as tuples of ids."""
    tried, real = [], loop.train_pack

    def train_pack(trials, *args, **kwargs):
        tried.append(tuple(trial.run_dir.identity for trial in trials if trial.run_dir))
        if any(fails(trial.experiment) for trial in trials):
            raise RuntimeError("a fault\nof several lines")
        return real(trials, *args, **kwargs)

    monkeypatch.setattr(loop, "train_pack", train_pack)
    return tried


@pytest.mark.parametrize("order", ["{24,16}", pytest.param("{16,24}", marks=pytest.mark.slow)])
def test_a_crash_is_tried_twice_then_reported_and_the_rest_is_done(write, tmp_path, monkeypatch, capsys, order):
    path, folder = write(f"--hidden={order}", "--seeds=2"), tmp_path / "sweep"
    with monkeypatch.context() as patched:
        tried = failing(patched, lambda e: e.knobs["hidden"] == (24,))
        assert sweep(path, folder, "--pack=2") == 1
    bad, good = ([trials(folder)[f"hidden={n}", seed] for seed in (0, 1)] for n in (24, 16))
    counts = collections.Counter(tried)
    together = [tuple(p.name for p in pack) for pack in (bad, good)]
    assert counts == dict.fromkeys([*together, *((p.name,) for p in bad)], 1)  # the second time each alone
    assert finished_at(folder).keys() == {p.name for p in good}
    out, err = capsys.readouterr()
    assert err == "2 of 4 trials failed (RuntimeError: a fault); the same command tries them again\n"
    assert "(2 failed)" in out
    assert table(folder)["hidden=24"]["failed"] == "2"
    before = finished_at(folder)
    run(path, folder, "--pack=2")
    assert before.items() <= finished_at(folder).items()
    assert table(folder)["hidden=24"]["failed"] == "0"
    assert len(finished_at(folder)) == 4


def test_one_crash_among_many_packs_leaves_the_others_alone(write, tmp_path, monkeypatch):
    path, folder = write("--seeds=3"), tmp_path / "sweep"
    tried = failing(monkeypatch, lambda e: e.seed == 1)
    assert sweep(path, folder, "--pack=off") == 1
    assert [tried.count((trials(folder)["baseline", seed].name,)) for seed in (0, 1, 2)] == [1, 2, 1]
    assert sweep(path, folder, "--pack=off") == 1  # tried twice again
    assert [tried.count((trials(folder)["baseline", seed].name,)) for seed in (0, 1, 2)] == [1, 4, 1]


def test_the_sweep_stops_early_where_every_program_fails_at_first(write, tmp_path, monkeypatch, capsys):
    path, folder = write("--hidden={16,24}", "--seeds=3"), tmp_path / "sweep"
    tried = failing(monkeypatch, lambda e: True)
    assert sweep(path, folder, "--pack=off") == 1
    assert sorted(collections.Counter(tried).values()) == [2, 2]
    assert len(list((folder / "trials").iterdir())) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_tuning_that_fails_is_a_failed_sweep(write, tmp_path, monkeypatch):
    path, folder = write("--tune=learning_rate={0.01,0.05}", "[wide]", "--hidden=24"), tmp_path / "sweep"
    failing(monkeypatch, lambda e: e.knobs["hidden"] == (24,))
    assert sweep(path, folder) == 1
    assert len(finished_at(folder)) == 3
    assert table(folder)["baseline"]["mean"]


# ------------------------------------------------------------------------------------------------------- sharing


def test_braces_of_the_shell_are_ours(write, tmp_path, monkeypatch, capsys):
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


def test_what_another_sweep_has_finished_is_linked(write, tmp_path, monkeypatch):
    one, other = tmp_path / "runs" / "one", tmp_path / "runs" / "other"
    run(write("[momentum]", "--momentum=0.5", name="one"), one)
    path = write("[decay]", "--weight_decay=0.01", name="other")
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


def test_fresh_runs_all_again_and_leaves_alone_what_was_linked(write, tmp_path, monkeypatch):
    one, other = tmp_path / "runs" / "one", tmp_path / "runs" / "other"
    run(write("[momentum]", "--momentum=0.5", name="one"), one)
    path = write("[decay]", "--weight_decay=0.01", name="other")
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


def test_a_finished_trial_counts_though_another_sweep_has_only_begun_it(write, tmp_path, monkeypatch):
    """Whichever of them is looked at first."""
    runs = tmp_path / "runs"
    run(write("--seeds=1", name="sweep"), runs / "sweep")
    done = trials(runs / "sweep")["baseline", 0]
    for name in string.ascii_lowercase:
        begun = runs / name / "trials" / done.name
        begun.mkdir(parents=True)
        shutil.copy(done / "provenance.json", begun)
    tried = failing(monkeypatch, lambda e: False)
    run(write("--seeds=1", name="later"), runs / "later")
    assert tried == []
    assert trials(runs / "later")["baseline", 0].resolve() == done.resolve()


def test_a_solo_run_beside_it_is_taken(write, tmp_path, monkeypatch):
    run(write("--learning_rate={0.02,0.05}", name="one"), tmp_path / "elsewhere" / "one")
    trial = trials(tmp_path / "elsewhere" / "one")["learning_rate=0.02", 0]
    solo = tmp_path / "runs" / "digits_mlp" / trial.name
    assert main([str(trial / "run.flags"), f"--run_dir={solo}", "--devices=1", "--log_every=5"]) == 0
    tried = failing(monkeypatch, lambda e: False)
    folder = tmp_path / "runs" / "one"
    run(tmp_path / "one.sweep", folder)
    assert trials(folder)["learning_rate=0.02", 0].resolve() == solo
    assert tried == [(trials(folder)["learning_rate=0.05", 0].name,)]


def last_json(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_a_value_more_runs_only_what_is_new_and_dry_run_counts_it(write, tmp_path, monkeypatch, capsys):
    path, folder = write("--learning_rate={0.02,0.05}", "--seeds=2"), tmp_path / "runs" / "sweep"
    run(path, folder, "--dry_run", "--json")
    assert sorted(tmp_path.iterdir()) == [path]
    found = last_json(capsys)
    assert (found["arms"], found["trials"], found["done"]) == (2, 4, 0)
    assert [(p["trials"], p["left"]) for p in found["programs"]] == [(4, 4)]
    run(path, folder)
    before = finished_at(folder)

    path = write("--learning_rate={0.02,0.03,0.05}", "--seeds=2", "--hidden={16,24}")
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


def test_a_dry_run_prepares_no_data(write, tmp_path):
    path = write("--learning_rate={0.02,0.05}")
    run(path, tmp_path / "sweep", "--dry_run", f"--data_dir={tmp_path / 'data'}")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_finished_sweep_shows_its_table_again_with_another_metric(write, tmp_path, monkeypatch, capsys):
    path, folder = write("--learning_rate={0.02,0.05}"), tmp_path / "sweep"
    run(path, folder)
    tried = failing(monkeypatch, lambda e: False)
    run(path, folder, "--metric=validation/loss", "--baseline=learning_rate=0.05", "--json")
    found = last_json(capsys)
    assert (found["metric"], found["baseline"]) == ("validation/loss", "learning_rate=0.05")
    assert tried == []


# ---------------------------------------------------------------------------------------------- designs and tuning


def test_one_factor_at_a_time(write, tmp_path):
    folder = tmp_path / "sweep"
    run(write("--design=ofat", "--learning_rate={0.02,0.05}", "--momentum={0.5,0.8}"), folder)
    assert set(table(folder)) == {"baseline", "learning_rate=0.02", "momentum=0.5", "momentum=0.8"}
    assert len(finished_at(folder)) == 4
    assert "--momentum=0.9" in read_plan(folder)["arms"][1]["flags"]


def test_a_cumulative_design(write, tmp_path):
    folder = tmp_path / "sweep"
    run(write("--design=cumulative", "[wide]", "--hidden=24", "[decay]", "--weight_decay=0.01"), folder)
    assert list(table(folder)) == ["baseline", "wide", "+ decay"]
    assert {"--hidden=24", "--weight_decay=0.01"} <= set(read_plan(folder)["arms"][2]["flags"])
    assert len(finished_at(folder)) == 3


def test_a_halton_design(write, tmp_path):
    folder = tmp_path / "sweep"
    run(write("--design=halton", "--trials=4", "--learning_rate={log:1e-3..1}", "--momentum={0.1..0.9}"), folder)
    assert len(table(folder)) == len(finished_at(folder)) == 4
    rates = [
        float(f.partition("=")[2]) for a in read_plan(folder)["arms"] for f in a["flags"] if f.startswith("--learning_rate=")
    ]
    assert len(set(rates)) == 4
    assert all(1e-3 <= rate <= 1 for rate in rates)


TUNED = ["--tune=learning_rate={1e-4,0.05}", "--seeds=2", "[momentum]", "--momentum=0.5"]


def test_tuning_chooses_by_validation_on_a_seed_of_its_own(write, tmp_path, capsys):
    folder = tmp_path / "sweep"
    run(write(*TUNED), folder)
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
def test_a_kill_between_the_stages_of_tuning_changes_nothing(write, tmp_path, monkeypatch):
    path = write(*TUNED)
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


# ------------------------------------------------------------------------------------------------------- compare


def test_compare_reads_sweeps_and_runs(write, tmp_path, capsys):
    folder = tmp_path / "sweep"
    run(write("--learning_rate={0.02,0.05}", "--seeds=2"), folder)
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


def test_what_compare_refuses(write, tmp_path, capsys):
    folder = tmp_path / "sweep"
    run(write("--seeds=2"), folder)
    for args in ([str(tmp_path / "none")], [str(folder), "--metric=test/none"], [str(folder), "--baseline=none"], []):
        refused(capsys, tmp_path, ["compare", *args])


# ----------------------------------------------------------------------------------------------------- processes


class Command:
    """A sweep in a process of its own, its words in a file."""

    def __init__(self, path, folder, *args, **env):
        self.began = time.time_ns()
        self.log = folder.parent / f"log-{self.began}"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "percept_jax", str(path), f"--run_dir={folder}", *args]
        env = {**os.environ, "JAX_PLATFORMS": "cpu", **env}
        with open(self.log, "w") as file:
            self.process = subprocess.Popen(command, env=env, stdout=file, stderr=file)

    @property
    def said(self):
        return self.log.read_text()

    def until(self, happened):
        """Returns once `happened()`, and what it says."""
        for _ in range(12000):
            if found := happened():
                return found
            assert self.process.poll() is None, self.said
            time.sleep(0.005)
        raise AssertionError(f"a minute without it: {self.said}")

    def workers(self):
        """The processes that this one has started."""
        pid = self.process.pid
        return [int(i) for i in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ends(self, code=0):
        assert self.process.wait(timeout=240) == code, self.said
        return self.said


def step(folder, since=0):
    """The furthest step of a trial that is not finished and has moved since then; 0 without one."""
    found = 0
    for path in folder.glob("trials/*/metrics.jsonl"):
        if not (path.parent / "result.json").exists() and path.stat().st_mtime_ns > since:
            found = max([found, *(line["step"] for line in read_metrics(path.parent))])
    return found


EIGHT = [*BASE, "--steps=600", "--eval_every=50", "--checkpoint_every=40", "--log_every=7", "--dropout_rate=0.1"]
EIGHT += ["--hidden={128,200}", "--learning_rate={0.02,0.05}", "--seeds=2"]  # two programs of four trials


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(write, tmp_path):
    """Also while widths are measured; packs of a given width are killed in test_sweep_faults."""
    path = write(base=EIGHT)
    straight, killed = tmp_path / "straight" / "sweep", tmp_path / "killed" / "sweep"
    draw = random.Random(0)
    moments = [  # while it measures or compiles; in the first pack; between its results; in what comes next; in the last pack
        lambda: "measuring" in command.said or list(killed.glob("trials/*")),
        lambda: step(killed, command.began) > draw.randrange(50, 500),
        lambda: len(finished_at(killed)) > len(seen),
        lambda: "measuring" in command.said or step(killed, command.began) > draw.randrange(50, 500),
        lambda: len(finished_at(killed)) >= 4 and step(killed, command.began) > draw.randrange(50, 500),
    ]
    seen, landed = {}, set()
    for happened in moments:
        command = Command(path, killed, "--pack=auto")
        command.until(happened)
        time.sleep(draw.random() * 0.05)
        command.kill()
        assert seen.items() <= finished_at(killed).items()
        seen = finished_at(killed)
        landed.add((len(seen), step(killed)))
    assert len(landed) >= 3, landed
    assert len(seen) < 8
    Command(path, killed, "--pack=auto").ends()
    assert seen.items() <= finished_at(killed).items()
    assert len(finished_at(killed)) == 8

    straight.mkdir(parents=True)  # the widths that were measured: another time they may be others
    programs = {key: {**p, "packs": []} for key, p in read_plan(killed)["programs"].items()}
    records.write(straight / "plan.json", read_plan(killed) | {"programs": programs})
    Command(path, straight, "--pack=auto").ends()
    assert_same_trials(straight, killed)


def assert_each_once(folder, count):
    """Every trial is finished, and none was begun twice."""
    assert len(finished_at(folder)) == count
    for path in trials(folder).values():
        assert read(path, "provenance.json")["restarts"] == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The sweep of eight, and the folder of it done by one process in packs of two."""
    folder = tmp_path_factory.mktemp("shared")
    path = folder / "my.sweep"
    path.write_text("\n".join(EIGHT) + "\n")
    Command(path, folder / "alone" / "sweep", "--pack=2").ends()
    return path, folder / "alone" / "sweep"


@pytest.mark.slow
def test_two_workers_share_a_sweep(shared, tmp_path):
    path, alone = shared
    folder = tmp_path / "workers" / "sweep"
    command = Command(path, folder, "--pack=2", "--workers=2")
    command.until(lambda: len(command.workers()) == 2)
    command.ends()
    assert_each_once(folder, 8)
    assert len({read(path, "provenance.json")["command"] for path in trials(folder).values()}) == 1
    assert_same_trials(alone, folder)


@pytest.mark.slow
def test_a_worker_that_dies_is_made_up_for(shared, tmp_path):
    path, alone = shared
    folder = tmp_path / "workers" / "sweep"
    command = Command(path, folder, "--pack=2", "--workers=2")
    command.until(lambda: step(folder) > 100)
    os.kill(command.workers()[0], signal.SIGKILL)
    assert "the others went on" in command.ends()
    assert len(finished_at(folder)) == 8
    assert_same_trials(alone, folder)


@pytest.mark.slow
def test_a_command_that_is_ended_ends_its_workers(shared, tmp_path):
    path, alone = shared
    folder = tmp_path / "workers" / "sweep"
    command = Command(path, folder, "--pack=2", "--workers=2")
    command.until(lambda: step(folder) > 100)
    workers = command.workers()
    assert len(workers) == 2
    command.process.send_signal(signal.SIGTERM)
    assert "the same command goes on" in command.ends(143).splitlines()[-1]
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert len(finished_at(folder)) < 8
    seen = finished_at(folder)
    Command(path, folder, "--pack=2", "--workers", "2").ends()  # written as two words
    assert seen.items() <= finished_at(folder).items()
    assert_same_trials(alone, folder)


@pytest.mark.slow
def test_fresh_in_the_file_is_not_for_each_worker(write, tmp_path):
    path, folder = write("--fresh", base=[*EIGHT, "--steps=100"]), tmp_path / "sweep"
    Command(path, folder, "--pack=2", "--workers=2").ends()
    assert_each_once(folder, 8)


@pytest.mark.slow
def test_two_processes_of_one_command_share_a_sweep(shared, tmp_path):
    path, alone = shared
    folder = tmp_path / "both" / "sweep"
    both = [Command(path, folder, "--pack=2") for _ in range(2)]
    for command in both:
        command.ends()
    assert_each_once(folder, 8)
    assert_same_trials(alone, folder)


@pytest.mark.slow
def test_shards_one_after_the_other_and_at_once(shared, tmp_path):
    path, alone = shared
    folder = tmp_path / "after" / "sweep"
    assert "left to other shards" in Command(path, folder, "--pack=2", "--shard=0/2").ends()
    half = finished_at(folder)
    assert 0 < len(half) < 8
    Command(path, folder, "--pack=2", "--shard=1/2").ends()
    assert half.items() <= finished_at(folder).items()
    assert_each_once(folder, 8)
    assert_same_trials(alone, folder)

    folder = tmp_path / "at_once" / "sweep"
    both = [Command(path, folder, "--pack=2", f"--shard={i}/2") for i in range(2)]
    for command in both:
        command.ends()
    assert_each_once(folder, 8)
    assert main(["compare", str(folder)]) == 0  # of the two the one that ended first has seen half of it
    assert_same_trials(alone, folder)


@pytest.mark.slow
def test_a_sweep_over_devices_goes_on_after_a_kill(write, tmp_path):
    path = write(base=[*EIGHT, "--devices=8"])
    straight, killed = tmp_path / "straight" / "sweep", tmp_path / "killed" / "sweep"
    env = {"JAX_NUM_CPU_DEVICES": "8"}
    Command(path, straight, "--pack=1", **env).ends()
    command = Command(path, killed, "--pack=1", **env)
    command.until(lambda: step(killed) > 300)
    command.kill()
    Command(path, killed, "--pack=1", **env).ends()
    assert_same_trials(straight, killed)
    assert {read(p, "provenance.json")["pack"] for p in trials(killed).values()} == {8}


def test_recurrent_networks_are_stepped_alone_on_a_cpu(write, tmp_path, capsys):
    """XLA's CPU runtime never comes back from a scan over stacked products."""
    lines = ["--model=gru", "--hidden=8", "--learning_rate={0.01,0.05}"]
    base = [flag for flag in BASE if flag.partition("=")[0] not in ("--model", "--hidden")]
    path, folder = write(*lines, base=base), tmp_path / "sweep"
    assert sweep(path, folder, "--pack=2") == 2
    assert "--pack: gru is stepped alone on a CPU" in capsys.readouterr().err
    assert not folder.exists()
    run(path, folder, "--pack=auto")
    assert {read(trial, "provenance.json")["pack"] for trial in trials(folder).values()} == {1}
