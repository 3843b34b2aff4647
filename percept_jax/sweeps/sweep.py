"""A sweep that has been checked, and the folder that it is kept in."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from percept_jax import deletion, files, metrics, records
from percept_jax.errors import Busy, StorageError, UsageError
from percept_jax.experiment import KNOBS, Experiment
from percept_jax.files import locked
from percept_jax.metrics import Metric
from percept_jax.paths import output_path
from percept_jax.records import SWEEP, Failure, Plan, Result, read_failures
from percept_jax.sweeps import plan, trial_dirs
from percept_jax.sweeps.plan import Planned, Setup
from percept_jax.sweeps.request import SweepRequest
from percept_jax.sweeps.workers import Options, is_worker
from percept_jax.tasks import task_of
from percept_jax.training import loop, parallel
from percept_jax.training.identity import flag_lines, identity
from percept_jax.training.preflight import Preflight, check, located
from percept_jax.training.run_dir import ROOT, data_path, runs_folder
from percept_jax.validation import check_within, unknown

# Says whose the folder is.
MARK = "plan.json"
_FILES = ("sweep.flags", "failures.json", "table.md", "table.tex", "table.csv", "report.html")
_FOLDERS = ("trials", "packs", ".locks", ".workers")
# Under the lock "plan".
_WRITTEN = re.compile(r"plan\.json|sweep\.flags")


class Sweep:
    """A sweep whose every trial has been checked. Making one raises UsageError with the place of the fault, and writes nothing.

    Attributes:
        folder: where it is kept.
        setups: its arms.
        metric: what they are compared by, as split/number.
        measure: the metric of that name.
        metrics: what all trials are measured by.
    """

    def __init__(self, request: SweepRequest):
        self.request, self.spec = request, request.spec
        first = request.setups[0].experiment
        with self._located(request.setups[0].origins):
            self.folder = output_path(first.run_dir, "run_dir") if first.run_dir else runs_folder(request.name, ROOT)
            if self.folder.is_symlink():
                self.folder = self.folder.resolve()
        # Who started it has cleared the folder.
        self.fresh = first.fresh and not is_worker()
        with self._located(request.origins):
            self.options = options(request.options)
        self._begun = False
        self._preflights: dict[str, Preflight] = {}
        with self._located(self.spec.origins):
            for seed in self.spec.seeds:
                check_within("seeds", seed, KNOBS["seed"].within)
        setups = [self._check(setup) for setup in request.setups]
        self.setups = plan.distinct(setups) if self.spec.design == "ofat" else setups
        self._refuse_doubles()
        self.metrics = self._reported()
        self.metric = self._metric()
        self.measure = metrics.find(self.metric, self.metrics)
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
        if key not in self._preflights:
            self._preflights[key] = check(experiment)
            # Else the devices are theirs.
            if self.options.workers == 1 or is_worker():
                devices = loop.choose_devices(experiment, self._preflights[key].spec, split=self.options.pack == "off")
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

    def preflight(self, experiment: Experiment) -> Preflight:
        """What is known of an experiment of this sweep, whatever its numbers."""
        return self._preflights[plan.program_key(experiment, 0)]

    def steps(self, experiment: Experiment) -> int:
        """Of a trial."""
        return experiment.total_steps(len(self.preflight(experiment).spec.roles["train"]))

    def _reported(self) -> list[Metric]:
        first, *others = (task_of(known.spec).metrics for known in self._preflights.values())
        return [metric for metric in first if all(metric.name in {m.name for m in other} for other in others)]

    def _metric(self) -> str:
        names = [metric.name for metric in self.metrics]
        if not self.spec.metric:
            return f"test/{metrics.headline(self.metrics, names).name}"
        known = [f"{split}/{name}" for split in ("test", "validation") for name in names]
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
        """Raises UsageError where the folder holds something else than this sweep. Touches nothing."""
        folder, at = self.folder, self.setups[0].origins.get("run_dir", self.request.file)
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a directory", "run_dir", at)
        for name in (MARK, *_FILES, *_FOLDERS):
            place = folder / name
            if place.is_symlink() or (place.exists() and not (place.is_dir() if name in _FOLDERS else place.is_file())):
                kind = "folder" if name in _FOLDERS else "file"
                raise UsageError(f"{place} is a link or no {kind}; a sweep writes there, and never through a link", "run_dir", at)
        plan = self._mark()
        if plan is None and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UsageError(f"{folder} holds something that is not a sweep", "run_dir", at)
        if plan and not self.fresh and plan.get("file") != self._file:
            raise UsageError(f"{folder} holds the sweep of {plan.get('file')}; choose another, or --fresh", "run_dir", at)

    def _mark(self) -> Plan | None:
        """plan.json, None where there is none. Raises StorageError where it is damaged, or another program's."""
        try:
            return records.read_mark(self.folder / MARK, Plan, SWEEP)
        except StorageError as error:
            kept = "; nothing in the folder is deleted, choose another --run_dir" if self.fresh else ""
            raise StorageError(f"{error}{kept}") from error

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
        best = plan.best(results, self.metric, self.measure.sign)
        return best and setup._replace(experiment=best.experiment, candidates=())

    def _settled(self, trials: Sequence[Planned]) -> bool:
        failures = self.failures()
        return all(trial.id in failures or self.result(trial) for trial in trials)

    def lost(self, setup: Setup) -> bool:
        """Whether the tuning of an arm has come to its end without a trial that was finished well."""
        tried = plan.tuning([setup], self.spec.seeds, identity)[setup.name]
        return bool(setup.candidates) and self._settled(tried) and not self.tuned(setup)

    def result(self, trial: Planned) -> Result | None:
        """What a trial came to; None while it is not finished, or where that is damaged."""
        try:
            return records.read_result(self.folder / "trials" / trial.id)
        except StorageError:
            return None

    def damaged(self, trial: Planned) -> str:
        """What is wrong with the files of a trial; nothing where all is well."""
        try:
            records.read_whole(self.folder / "trials" / trial.id, trial.id)
        except StorageError as error:
            return str(error)
        return ""

    def failures(self) -> dict[str, Failure]:
        """By trial, what went wrong."""
        return read_failures(self.folder)

    def programs(self, trials: Sequence[Planned]) -> list[plan.Program]:
        """The programs of trials."""
        return plan.programs(trials, self.steps)

    def write(self) -> None:
        """Writes plan.json as far as it is known, and sweep.flags; takes over what other sweeps have finished."""
        with locked(self.folder / ".locks" / "plan", wait=True, folder=self.folder) as lock:
            # Once more, now that nobody else changes it.
            self._refuse_strangers()
            old = self._mark()
            clearing = old is not None and (self.fresh or old.get("clearing", False))
            if clearing and self._begun:
                raise Busy(f"{self.folder}: another process has started this sweep anew")
            if old is not None and clearing:
                with trial_dirs.alone(lock):
                    # What is cut short goes on at the next start.
                    records.write(self.folder / MARK, {**old, "clearing": True})
                    trial_dirs.clear(lock, old)
                old = None
            # From now on it goes on from what is there.
            share, self.fresh = not (self.fresh or clearing), False
            self._begun = True
            deletion.delete_temporaries(lock, self.folder, _WRITTEN)
            arms = self.arms()
            record = {
                "format": SWEEP,
                "clearing": False,
                "name": self.request.name,
                "file": self._file,
                "metric": self.metric,
                "metrics": metrics.recorded(self.metrics),
                "baseline": self.spec.baseline if self.spec.baseline in arms else self.setups[0].name,
                "design": self.spec.design,
                "arms": [self._arm(setup, arms[setup.name]) for setup in self.setups],
                "tuning": {arm: [trial.id for trial in trials] for arm, trials in self.tuning().items()},
                "share": old.get("share", share) if old else share,
                "programs": old.get("programs", {}) if old else {},
            }
            # First: it marks the folder as a sweep's.
            records.write(self.folder / MARK, record)
            files.write_bytes(self.folder / "sweep.flags", self.request.text.encode())
            if record["share"]:
                trial_dirs.share(lock, [t for trials in arms.values() for t in trials.values() if t])
                trial_dirs.share(lock, [t for trials in self.tuning().values() for t in trials])

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

    def forget_packs(self) -> None:
        """Deletes what was kept of packs on their way: every trial has its own checkpoint now."""
        with locked(self.folder / ".locks" / "plan", wait=True, folder=self.folder) as lock:
            if old := self._mark():
                trial_dirs.delete_packs(lock, old)


def options(given: Mapping[str, Any]) -> Options:
    """--pack, --workers and --shard as they are meant. Raises UsageError."""
    pack = given["pack"]
    if pack not in ("auto", "off") and not (re.fullmatch("[0-9]{1,4}", pack) and 1 <= int(pack) <= 1024):
        raise UsageError(f"{pack!r} is not auto, off or a number of trials up to 1024", "pack")
    if not 1 <= given["workers"] <= 256:
        raise UsageError(f"{given['workers']} is outside [1, 256]", "workers")
    shard, _, shards = given["shard"].partition("/")
    if given["shard"] and not (re.fullmatch("[0-9]{1,9}/[0-9]{1,9}", given["shard"]) and int(shard) < int(shards)):
        raise UsageError(f"{given['shard']!r} is not i/n, counted from 0: of four, 0/4 to 3/4", "shard")
    if given["shard"] and given["workers"] > 1:
        raise UsageError("give --shard or --workers, not both", "shard")
    return Options(pack, given["workers"], *map(int, (shard, shards))) if shard else Options(pack, given["workers"])
