"""A sweep that has been checked, and the folder that it is kept in."""

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from percept_jax import files
from percept_jax.checks import check_within, unknown
from percept_jax.errors import StorageError, UsageError
from percept_jax.experiment import KNOBS, Experiment
from percept_jax.files import locked, read_json
from percept_jax.metrics import headline
from percept_jax.ready import Ready, check, located
from percept_jax.request import SweepRequest
from percept_jax.sweeps import plan, statistics
from percept_jax.sweeps.plan import Planned, Setup
from percept_jax.sweeps.workers import Options, is_worker
from percept_jax.training import evaluation, loop, parallel
from percept_jax.training.run_dir import ROOT, data_path, flag_lines, identity


class Sweep:
    """A sweep whose every trial has been checked. Making one raises UsageError with the place of the fault, and writes nothing.

    Attributes:
        folder: where it is kept.
        setups: its arms.
        metric: what they are compared by.
    """

    def __init__(self, request: SweepRequest):
        self.request, self.spec = request, request.spec
        first = request.setups[0].experiment
        self.folder = Path(first.run_dir).expanduser() if first.run_dir else ROOT / "runs" / request.name
        self.fresh = first.fresh and not is_worker()  # who started it has cleared the folder
        with self._located(request.origins):
            self.options = options(request.options)
        self._ready: dict[str, Ready] = {}
        with self._located(self.spec.origins):
            for seed in self.spec.seeds:
                check_within("seeds", seed, KNOBS["seed"].within)
        setups = [self._check(setup) for setup in request.setups]
        self.setups = plan.distinct(setups) if self.spec.design == "ofat" else setups
        self._refuse_doubles()
        self.metric = self._metric()
        self._refuse_strangers()

    def _check(self, setup: Setup) -> Setup:
        with self._located(setup.origins):
            experiment = self._checked(setup.experiment)
        with self._located({**setup.origins, **setup.tuned_at}):
            candidates = [self._checked(candidate) for candidate in setup.candidates]
        return setup._replace(experiment=experiment, candidates=candidates)

    def _checked(self, experiment: Experiment) -> Experiment:
        experiment.validate()
        experiment = dataclasses.replace(located(experiment, data_path(experiment.data_dir)), run_dir="", fresh=False)
        key = plan.program_key(experiment, 0)
        if key not in self._ready:
            self._ready[key] = check(experiment)
            if self.options.workers == 1 or is_worker():  # else the devices are theirs
                devices = loop.choose_devices(experiment, self._ready[key].info, split=self.options.pack == "off")
                if self.options.pack.isdecimal() and int(self.options.pack) > parallel.most_together(experiment, devices):
                    raise UsageError(f"{experiment.model} is stepped alone on a CPU, where XLA hangs on a stack of it", "pack")
        self.steps(experiment)
        return experiment

    @contextlib.contextmanager
    def _located(self, origins: Mapping[str, str]) -> Iterator[None]:
        try:
            yield
        except UsageError as error:
            error.where = error.where or origins.get(error.flag or "", self.request.file)
            raise

    def ready(self, experiment: Experiment) -> Ready:
        """What is known of an experiment of this sweep, whatever its numbers."""
        return self._ready[plan.program_key(experiment, 0)]

    def steps(self, experiment: Experiment) -> int:
        """Of a trial."""
        return experiment.total_steps(len(self.ready(experiment).info.index["train"]))

    def _metric(self) -> str:
        reported = [evaluation.metric_names(known.info.task) for known in self._ready.values()]
        common = [name for name in reported[0] if all(name in names for names in reported)]
        if not self.spec.metric:
            return f"test/{headline(common)}"
        known = [f"{split}/{name}" for split in ("test", "validation") for name in common]
        if self.spec.metric not in known:
            raise UsageError(unknown(self.spec.metric, known), "metric", self.spec.origins["metric"])
        return self.spec.metric

    def _refuse_doubles(self) -> None:
        names: dict[str, str] = {}
        for setup in self.setups:
            same = names.setdefault(repr(setup.experiment.science()), setup.name)
            if same != setup.name:
                raise UsageError(f"arm {setup.name!r} is {same!r} once more: nothing of science differs", where=setup.where)

    @property
    def _file(self) -> str:
        """The sweep's file, the same wherever the repository goes; or what stands in its place."""
        if not Path(self.request.file).exists():
            return self.request.file
        path = Path(self.request.file).resolve()
        return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)

    def _refuse_strangers(self) -> None:
        folder, at = self.folder, self.setups[0].origins.get("run_dir", self.request.file)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is not a directory", "run_dir", at)
        if (folder / "plan.json").exists() and not self.fresh:
            other = read_json(folder / "plan.json")["file"]
            if other != self._file:
                raise UsageError(f"{folder} holds the sweep of {other}; choose another, or --fresh", "run_dir", at)
        elif folder.exists() and not (folder / "plan.json").exists():
            known = {"trials", "sweep.flags"}  # a start that was cut short
            own = [p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in known]
            if any(len(p.name) != 12 or not p.is_dir() for p in own):
                raise UsageError(f"{folder} holds something that is not a sweep", "run_dir", at)

    def arms(self) -> dict[str, dict[int, Planned | None]]:
        """The trials of the table, by arm and seed; None where tuning has not yet found the setting."""
        chosen = [self.tuned(setup) for setup in self.setups]
        known = plan.trials([setup for setup in chosen if setup], self.spec.seeds, identity)
        return {setup.name: known.get(setup.name, dict.fromkeys(self.spec.seeds)) for setup in self.setups}

    def tuning(self) -> dict[str, list[Planned]]:
        """The trials that choose the settings, by arm."""
        return plan.tuning(self.setups, self.spec.seeds, identity) if self.spec.candidates else {}

    def tuned(self, setup: Setup) -> Setup | None:
        """An arm with the setting that its tuning has chosen; None where it has not, or could not."""
        if not setup.candidates:
            return setup
        tried = plan.tuning([setup], self.spec.seeds, identity)[setup.name]
        results = [(trial, self.result(trial)) for trial in tried]
        if not self._settled(tried):
            return None
        best = plan.best(results, self.metric, statistics.better(self.metric))
        return best and setup._replace(experiment=best.experiment, candidates=())

    def _settled(self, trials: Sequence[Planned]) -> bool:
        failures = self.failures()
        return all(trial.id in failures or self.result(trial) for trial in trials)

    def lost(self, setup: Setup) -> bool:
        """Whether the tuning of an arm has come to its end without a trial that was finished well."""
        tried = plan.tuning([setup], self.spec.seeds, identity)[setup.name]
        return bool(setup.candidates) and self._settled(tried) and not self.tuned(setup)

    def result(self, trial: Planned) -> dict[str, Any] | None:
        """What a trial came to; None while it is not finished."""
        path = self.folder / "trials" / trial.id / "result.json"
        return read_json(path) if path.exists() else None

    def failures(self) -> dict[str, Any]:
        """By trial, what went wrong."""
        return read_json(self.folder / "failures.json") if (self.folder / "failures.json").exists() else {}

    def programs(self, trials: Sequence[Planned]) -> list[plan.Program]:
        """The programs of trials."""
        return plan.programs(trials, self.steps)

    def write(self) -> None:
        """Writes sweep.flags, and plan.json as far as it is known; takes over what other sweeps have finished."""
        with locked(self.folder / ".locks" / "plan", wait=True):
            path = self.folder / "plan.json"
            share = not self.fresh
            if self.fresh:
                self._clear()
                self.fresh = False  # from now on it goes on from what is there
            old = read_json(path) if path.exists() else {"programs": {}, "share": share}
            arms = self.arms()
            record = {
                "name": self.request.name,
                "file": self._file,
                "metric": self.metric,
                "baseline": self.spec.baseline if self.spec.baseline in arms else self.setups[0].name,
                "design": self.spec.design,
                "arms": [self._arm(setup, arms[setup.name]) for setup in self.setups],
                "tuning": {arm: [trial.id for trial in trials] for arm, trials in self.tuning().items()},
                "share": old["share"],
                "programs": old["programs"],
            }
            files.write_bytes(self.folder / "sweep.flags", self.request.text.encode())
            files.write_json(path, record)
            if old["share"]:
                self._share([t for trials in arms.values() for t in trials.values() if t])
                self._share([t for trials in self.tuning().values() for t in trials])

    def _arm(self, setup: Setup, trials: Mapping[int, Planned | None]) -> dict[str, Any]:
        experiment = next((t.experiment for t in trials.values() if t), setup.experiment)
        flags = [line for line in flag_lines(experiment) if not line.startswith("--seed=")]
        error = "its tuning finished no trial well" if self.lost(setup) else ""
        return {
            "name": setup.name,
            "flags": flags,
            "trials": {str(seed): t and t.id for seed, t in trials.items()},
            "error": error,
        }

    def _share(self, trials: Sequence[Planned]) -> None:
        """Links to the run directories of trials that have been finished elsewhere: by other sweeps here, or alone."""
        folder = self.folder / "trials"
        folder.mkdir(exist_ok=True)
        found: dict[str, list[Path]] = {}
        for other in self.folder.resolve().parent.iterdir():
            for path in (*_folders(other), *_folders(other / "trials")):
                found.setdefault(path.name, []).append(path)
        for trial in trials:
            path = folder / trial.id
            if path.is_symlink() and not (path / "result.json").exists():
                path.unlink()  # to what is not there any more
            elsewhere = next((other for other in found.get(trial.id, ()) if _finished(other, trial.id)), None)
            if elsewhere and not path.exists():
                path.symlink_to(os.path.relpath(elsewhere.resolve(), folder.resolve()))

    def forget_packs(self) -> None:
        """Deletes what was kept of packs on their way: every trial has its own checkpoint now."""
        with locked(self.folder / ".locks" / "plan", wait=True):
            shutil.rmtree(self.folder / "packs", ignore_errors=True)

    def _clear(self) -> None:
        for lock in (self.folder / ".locks").glob("*"):
            with contextlib.ExitStack() as held:
                if lock.name != "plan" and not held.enter_context(locked(lock)).held:
                    raise StorageError(f"{self.folder}: another process works on this sweep")
        for path in (self.folder / "trials").glob("[0-9a-f]" * 12):
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
        shutil.rmtree(self.folder / "packs", ignore_errors=True)
        for name in ("failures.json", "plan.json"):
            (self.folder / name).unlink(missing_ok=True)


def _folders(folder: Path) -> list[Path]:
    """The run directories in a folder, by their names."""
    try:
        return [folder / name for name in os.listdir(folder) if re.fullmatch("[0-9a-f]{12}", name)]
    except OSError:
        return []


def _finished(path: Path, trial: str) -> bool:
    done = (path / "result.json").exists() and (path / "provenance.json").exists()
    return done and read_json(path / "provenance.json")["identity"] == trial


def options(given: Mapping[str, Any]) -> Options:
    """--pack, --workers and --shard as they are meant. Raises UsageError."""
    pack = given["pack"]
    if pack not in ("auto", "off") and not (pack.isdecimal() and 1 <= int(pack) <= 1024):
        raise UsageError(f"{pack!r} is not auto, off or a number of trials up to 1024", "pack")
    if not 1 <= given["workers"] <= 256:
        raise UsageError(f"{given['workers']} is outside [1, 256]", "workers")
    shard, _, shards = given["shard"].partition("/")
    if given["shard"] and not (shard.isdecimal() and shards.isdecimal() and int(shard) < int(shards)):
        raise UsageError(f"{given['shard']!r} is not i/n, counted from 0: of four, 0/4 to 3/4", "shard")
    if given["shard"] and given["workers"] > 1:
        raise UsageError("give --shard or --workers, not both", "shard")
    return Options(pack, given["workers"], *map(int, (shard, shards))) if shard else Options(pack, given["workers"])
