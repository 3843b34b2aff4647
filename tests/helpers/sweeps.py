"""Starts sweeps, and reads what they left."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from helpers.runs import assert_same_bits, read_metrics
from percept_jax.cli.main import main
from percept_jax.training import loop

BASE = ["--model=mlp", "--hidden=16", "--steps=20", "--batch_size=32", "--learning_rate=0.05", "--eval_every=10"]
BASE += ["--log_every=5", "--devices=1", "--pack=off"]  # one program for most of what follows


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


def refused(capsys, tmp_path, args):
    """The one line of a command that is refused, which has written nothing."""
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert main(args) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert sorted(tmp_path.rglob("*")) == before
    return err.replace(f"{tmp_path}/", "", 1) if err.startswith(str(tmp_path)) else err


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


def last_json(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


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
