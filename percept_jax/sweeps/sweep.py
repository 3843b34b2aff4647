"""Sweep: a sweep whose trials have all been checked, and its plan."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from percept_jax import metrics
from percept_jax.errors import Busy, UsageError
from percept_jax.experiment import KNOBS, Experiment
from percept_jax.metrics import Metric
from percept_jax.paths import output_path
from percept_jax.records import SWEEP, PlannedArm
from percept_jax.sweeps import plan
from percept_jax.sweeps.plan import ArmPlan, Program, TrialPlan
from percept_jax.sweeps.request import SweepRequest
from percept_jax.sweeps.sweep_dir import SweepDir
from percept_jax.sweeps.workers import Options, is_worker
from percept_jax.tasks import task_of
from percept_jax.training import loop, parallel
from percept_jax.training.identity import flag_lines, identity
from percept_jax.training.preflight import Preflight, check, located
from percept_jax.training.program import program_key
from percept_jax.training.run_dir import ROOT, data_path, runs_folder
from percept_jax.validation import check_within, unknown


class Sweep:
    """A sweep whose trials have all been checked. The constructor raises UsageError if one cannot run, and writes nothing.

    Attributes:
        request: the command line's request.
        spec: the content of the sweep's file.
        options: how the sweep is run.
        dir: the folder of the sweep.
        arms: the arms.
        metrics: the metrics that all trials have.
        metric: the metric that arms are compared by, as split/name.
        measure: the same metric, with its direction and format.
        fresh: whether the next `write` deletes the trials that exist.
    """

    def __init__(self, request: SweepRequest):
        self.request, self.spec = request, request.spec
        first = request.arms[0].experiment
        with self._located(request.arms[0].origins):
            folder = output_path(first.run_dir, "run_dir") if first.run_dir else runs_folder(request.name, ROOT)
            self.dir = SweepDir(folder.resolve() if folder.is_symlink() else folder)
        # The process that starts the workers has already cleared the folder.
        self.fresh = first.fresh and not is_worker()
        with self._located(request.origins):
            self.options = read_options(request.options)
        self._written = False
        self._preflights: dict[str, Preflight] = {}
        with self._located(self.spec.origins):
            for seed in self.spec.seeds:
                check_within("seeds", seed, KNOBS["seed"].within)
        arms = [self._check_arm(arm) for arm in request.arms]
        self.arms = plan.distinct(arms) if self.spec.design == "ofat" else arms
        self._refuse_duplicates()
        self.metrics = self._common_metrics()
        self.metric = self._chosen_metric()
        self.measure = metrics.find(self.metric, self.metrics)
        self._refuse_strangers()

    def _check_arm(self, arm: ArmPlan) -> ArmPlan:
        with self._located(arm.origins):
            experiment = self._check(arm.experiment)
        with self._located({**arm.origins, **arm.tuned_at}):
            candidates = [self._check(candidate) for candidate in arm.candidates]
        return arm._replace(experiment=experiment, candidates=candidates)

    def _check(self, experiment: Experiment) -> Experiment:
        experiment.validate()
        experiment = dataclasses.replace(located(experiment, data_path(experiment.data_dir)), run_dir="", fresh=False)
        key = _preflight_key(experiment)
        if key not in self._preflights:
            self._preflights[key] = check(experiment)
            # A process that starts workers does not touch the devices, which are for the workers.
            if self.options.workers == 1 or is_worker():
                devices = loop.choose_devices(experiment, self._preflights[key].spec, split=self.options.pack == "off")
                if self.options.pack.isdecimal() and int(self.options.pack) > parallel.max_trials_per_device(experiment, devices):
                    raise UsageError(
                        f"{experiment.model} trials must run one at a time on a CPU, because XLA hangs if they are stacked",
                        "pack",
                    )
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
        """Returns the result of the checks of an experiment of this sweep."""
        return self._preflights[_preflight_key(experiment)]

    def steps(self, experiment: Experiment) -> int:
        """Returns the number of steps of an experiment of this sweep."""
        return experiment.total_steps(len(self.preflight(experiment).spec.roles["train"]))

    def _common_metrics(self) -> list[Metric]:
        first, *others = (task_of(known.spec, known.experiment.task).metrics for known in self._preflights.values())
        return [metric for metric in first if all(metric.name in {m.name for m in other} for other in others)]

    def _chosen_metric(self) -> str:
        names = [metric.name for metric in self.metrics]
        if not self.spec.metric:
            return f"test/{metrics.headline(self.metrics, names).name}"
        known = [f"{split}/{name}" for split in ("test", "validation") for name in names]
        if self.spec.metric not in known:
            raise UsageError(unknown(self.spec.metric, known), "metric", self.spec.origins["metric"])
        return self.spec.metric

    def _refuse_duplicates(self) -> None:
        names: dict[str, str] = {}
        for arm in self.arms:
            same = names.setdefault(repr(arm.experiment.science()), arm.name)
            if same != arm.name:
                message = f"arm {arm.name!r} duplicates arm {same!r}: no flag that affects the result differs"
                raise UsageError(message, where=arm.where)

    def _refuse_strangers(self) -> None:
        self.dir.refuse_strangers(self._file, self.fresh, self.arms[0].origins.get("run_dir", self.request.file))

    @property
    def _file(self) -> str:
        """The path of the sweep's file, relative to the repository if it is inside; or the description of a sweep without one."""
        if not Path(self.request.file).exists():
            return self.request.file
        path = Path(self.request.file).resolve()
        return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)

    def table_trials(self) -> dict[str, dict[int, TrialPlan | None]]:
        """Returns the trials of the table, by arm and seed; None if tuning has not chosen the settings yet."""
        chosen = [self.tuned(arm) for arm in self.arms]
        known = plan.trials([arm for arm in chosen if arm], self.spec.seeds, identity)
        return {arm.name: known.get(arm.name, dict.fromkeys(self.spec.seeds)) for arm in self.arms}

    def known_trials(self) -> list[TrialPlan]:
        """Returns the trials of the table whose settings are known."""
        return [trial for arm in self.table_trials().values() for trial in arm.values() if trial]

    def tuning_trials(self) -> list[TrialPlan]:
        """Returns the trials that tune the settings of the arms; an empty list without tuning."""
        return [trial for trials in self._tuning().values() for trial in trials]

    def _tuning(self) -> dict[str, list[TrialPlan]]:
        return plan.tuning(self.arms, self.spec.seeds, identity) if self.spec.candidates else {}

    def tuned(self, arm: ArmPlan) -> ArmPlan | None:
        """Returns an arm with the settings that its tuning chose; None if tuning has not finished or has failed."""
        if not arm.candidates:
            return arm
        candidates = self._candidates(arm)
        if not self._ended(candidates):
            return None
        results = [(trial, self.dir.result(trial.id)) for trial in candidates]
        best = plan.best(results, self.metric, self.measure.sign)
        return best and arm._replace(experiment=best.experiment, candidates=())

    def tuning_failed(self, arm: ArmPlan) -> bool:
        """Whether the tuning of an arm has ended without any trial that finished and did not diverge."""
        return bool(arm.candidates) and self._ended(self._candidates(arm)) and not self.tuned(arm)

    def _candidates(self, arm: ArmPlan) -> list[TrialPlan]:
        return plan.tuning([arm], self.spec.seeds, identity)[arm.name]

    def _ended(self, trials: Sequence[TrialPlan]) -> bool:
        failures = self.dir.failures()
        return all(trial.id in failures or self.dir.result(trial.id) for trial in trials)

    def programs(self, trials: Sequence[TrialPlan]) -> list[Program]:
        """Returns trials grouped by program."""
        return plan.programs(trials, self.steps)

    def write(self) -> None:
        """Writes plan.json, as far as it is known, and sweep.flags, and links to trials that other sweeps have finished.

        Raises Busy if a fresh start was requested and another process works on the sweep.
        """
        with self.dir.lock_plan() as lock:
            # Check again under the lock: another process may have taken the folder since the first check.
            self._refuse_strangers()
            old = self.dir.read_mark(self.fresh)
            clearing = old is not None and (self.fresh or old["clearing"])
            if clearing and self._written:
                raise Busy(f"{self.dir.folder}: another process has restarted this sweep with --fresh")
            if old and clearing:
                self.dir.clear(lock, old)
                old = None
            # A fresh start trains all trials itself, even if it is resumed later, so it takes none from other sweeps.
            share = old["share"] if old else not (self.fresh or clearing)
            self.fresh, self._written = False, True
            trials, tuning = self.table_trials(), self._tuning()
            record = {
                "format": SWEEP,
                "clearing": False,
                "name": self.request.name,
                "file": self._file,
                "metric": self.metric,
                "metrics": metrics.recorded(self.metrics),
                "baseline": self.spec.baseline if self.spec.baseline in trials else self.arms[0].name,
                "design": self.spec.design,
                "arms": [self._arm_record(arm, trials[arm.name]) for arm in self.arms],
                "tuning": {arm: [trial.id for trial in candidates] for arm, candidates in tuning.items()},
                "share": share,
                "programs": old["programs"] if old else {},
            }
            self.dir.write(lock, record, self.request.text)
            if share:
                self.dir.link_finished(lock, [trial.id for arm in trials.values() for trial in arm.values() if trial])
                self.dir.link_finished(lock, [trial.id for candidates in tuning.values() for trial in candidates])

    def _arm_record(self, arm: ArmPlan, trials: Mapping[int, TrialPlan | None]) -> PlannedArm:
        experiment = next((trial.experiment for trial in trials.values() if trial), arm.experiment)
        return {
            "name": arm.name,
            "flags": [line for line in flag_lines(experiment) if not line.startswith("--seed=")],
            "trials": {str(seed): trial and trial.id for seed, trial in trials.items()},
            "error": "every trial of its tuning failed or diverged" if self.tuning_failed(arm) else "",
        }

    def delete_packs(self) -> None:
        """Deletes the checkpoints of packs; in a finished sweep every trial has its own checkpoint."""
        with self.dir.lock_plan() as lock:
            if record := self.dir.read_mark():
                self.dir.delete_packs(lock, record)


def _preflight_key(experiment: Experiment) -> str:
    """Returns a key that experiments with the same `Preflight` share: that of their program, apart from the number of steps."""
    return program_key(experiment, 0)


def read_options(given: Mapping[str, Any]) -> Options:
    """Returns the values of --pack, --workers and --shard. Raises UsageError if they are invalid."""
    pack = given["pack"]
    if pack not in ("auto", "off") and not (re.fullmatch("[0-9]{1,4}", pack) and 1 <= int(pack) <= 1024):
        raise UsageError(f"{pack!r} is not auto, off or a number of trials up to 1024", "pack")
    if not 1 <= given["workers"] <= 256:
        raise UsageError(f"{given['workers']} is outside [1, 256]", "workers")
    shard, _, shards = given["shard"].partition("/")
    if given["shard"] and not (re.fullmatch("[0-9]{1,9}/[0-9]{1,9}", given["shard"]) and int(shard) < int(shards)):
        raise UsageError(f"{given['shard']!r} is not i/n, counted from 0: four shards are 0/4 to 3/4", "shard")
    if given["shard"] and given["workers"] > 1:
        raise UsageError("give --shard or --workers, not both", "shard")
    return Options(pack, given["workers"], *map(int, (shard, shards))) if shard else Options(pack, given["workers"])
