"""A sweep from its file to its table: every trial is checked, what is not finished is run, all of it is compared."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from percept_jax import files, ready
from percept_jax.checks import unknown
from percept_jax.errors import PerceptError, StorageError, UsageError
from percept_jax.experiment import Experiment
from percept_jax.request import SweepRequest
from percept_jax.sweeps import compare, crew, plan, statistics, tables
from percept_jax.sweeps.board import Board
from percept_jax.sweeps.comparison import Comparison
from percept_jax.sweeps.plan import Planned, Setup
from percept_jax.sweeps.workers import Options, Worker, locked
from percept_jax.training import evaluation, loop
from percept_jax.training.run_dir import ROOT, data_path, flag_lines, flag_text, identity, read_json


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
        self.fresh = first.fresh and not crew.is_worker()  # who started it has cleared the folder
        self.options = options(request.options)
        self._ready: dict[str, ready.Ready] = {}
        setups = [self._check(setup) for setup in request.setups]
        self.setups = plan.distinct(setups) if self.spec.design == "ofat" else setups
        self.metric = self._metric()
        self._refuse_strangers()

    def _check(self, setup: Setup) -> Setup:
        with self._located(setup.origins):
            folder = data_path(setup.experiment.data_dir)
            checked = []
            for experiment in (setup.experiment, *setup.candidates):
                experiment.validate()
                experiment = dataclasses.replace(ready.located(experiment, folder), run_dir="", fresh=False)
                key = plan.program_key(experiment, 0)
                if key not in self._ready:
                    self._ready[key] = ready.check(experiment)
                    if self.options.workers == 1 or crew.is_worker():  # else the devices are theirs
                        loop.choose_devices(experiment, self._ready[key].info, split=self.options.pack == "off")
                self.steps(experiment)
                checked.append(experiment)
        return setup._replace(experiment=checked[0], candidates=checked[1:])

    @contextlib.contextmanager
    def _located(self, origins: Mapping[str, str]) -> Iterator[None]:
        try:
            yield
        except UsageError as error:
            error.where = error.where or origins.get(error.flag or "", self.request.file)
            raise

    def steps(self, experiment: Experiment) -> int:
        """Of a trial."""
        return experiment.total_steps(len(self._ready[plan.program_key(experiment, 0)].info.index["train"]))

    def _metric(self) -> str:
        reported = [evaluation.metric_names(known.info.task) for known in self._ready.values()]
        common = [name for name in reported[0] if all(name in names for names in reported)]
        if not self.spec.metric:
            return f"test/{evaluation.headline(dict.fromkeys(common))}"
        if self.spec.metric.partition("/")[2] not in common:
            known = [f"{split}/{name}" for split in ("test", "validation") for name in common]
            raise UsageError(unknown(self.spec.metric, known), "metric", self.spec.origins["metric"])
        return self.spec.metric

    def _refuse_strangers(self) -> None:
        folder = self.folder
        if folder.exists() and not (folder / "plan.json").exists():
            known = {"trials", "sweep.flags"}  # a start that was cut short
            own = [p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in known]
            if not folder.is_dir() or any(len(p.name) != 12 or not p.is_dir() for p in own):
                raise UsageError(f"{folder} holds something that is not a sweep", "run_dir", self.request.file)

    def arms(self) -> dict[str, dict[int, Planned | None]]:
        """The trials of the table, by arm and seed; None where tuning has not yet found the setting."""
        chosen = [self._tuned(setup) for setup in self.setups]
        known = plan.trials([setup for setup in chosen if setup], self.spec.seeds, identity)
        return {setup.name: known.get(setup.name, dict.fromkeys(self.spec.seeds)) for setup in self.setups}

    def tuning(self) -> dict[str, list[Planned]]:
        """The trials that choose the settings, by arm."""
        return plan.tuning(self.setups, self.spec.seeds, identity) if self.spec.candidates else {}

    def _tuned(self, setup: Setup) -> Setup | None:
        if not setup.candidates:
            return setup
        tried = plan.tuning([setup], self.spec.seeds, identity)[setup.name]
        results = [(trial, self.result(trial)) for trial in tried]
        if not all(result or trial.id in self.failures() for trial, result in results):
            return None
        best = plan.best(results, self.metric, statistics.better(self.metric))
        return best and setup._replace(experiment=best.experiment, candidates=())

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
            if self.fresh:
                self._clear()
            path = self.folder / "plan.json"
            old = read_json(path) if path.exists() else {"programs": {}, "share": not self.fresh}
            arms = self.arms()
            record = {
                "name": self.request.name,
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
        return {"name": setup.name, "flags": flags, "trials": {str(seed): t and t.id for seed, t in trials.items()}}

    def _share(self, trials: Sequence[Planned]) -> None:
        """Links to the run directories of trials that have been finished elsewhere: by other sweeps here, or alone."""
        folder = self.folder / "trials"
        folder.mkdir(exist_ok=True)
        found: dict[str, Path] = {}
        for other in self.folder.resolve().parent.iterdir():
            for path in (*_folders(other), *_folders(other / "trials")):
                found.setdefault(path.name, path)
        for trial in trials:
            path = folder / trial.id
            if path.is_symlink() and not (path / "result.json").exists():
                path.unlink()  # to what is not there any more
            if trial.id in found and not path.exists() and _finished(found[trial.id], trial.id):
                path.symlink_to(os.path.relpath(found[trial.id].resolve(), folder.resolve()))

    def _clear(self) -> None:
        for lock in (self.folder / ".locks").glob("*"):
            with contextlib.ExitStack() as held:
                if lock.name != "plan" and not held.enter_context(locked(lock)):
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


def run(request: SweepRequest, interrupted: Callable[[], int | None]) -> dict[str, Any]:
    """Runs a sweep, or what is left of it; prints and writes its table."""
    sweep = Sweep(request)
    if request.options["dry_run"]:
        from percept_jax.sweeps import describe

        return describe.dry_run(sweep)
    sweep.write()
    worker = crew.is_worker()
    if sweep.options.workers > 1 and not worker:
        crew.run(sweep, interrupted)
    else:
        for trials in _stages(sweep):
            board = Board(sweep.folder, {t.id: t for t in trials}, sweep.metric, quiet=worker)
            board.start()
            try:
                Worker(sweep.folder, sweep.options, board, interrupted).work(sweep.programs(trials))
                board.refresh(now=True)
            finally:
                board.close()
    if worker:
        return {}
    return _finish(sweep)


def _stages(sweep: Sweep) -> Iterator[list[Planned]]:
    """The trials that tune, where there are some; then, with what they chose, those of the table."""
    if tuning := sweep.tuning():
        yield [trial for trials in tuning.values() for trial in trials]
        sweep.write()  # now it knows the settings
    yield [t for trials in sweep.arms().values() for t in trials.values() if t]


def _finish(sweep: Sweep) -> dict[str, Any]:
    sweep.write()
    for setup in sweep.setups if sweep.spec.candidates else ():
        tuned = sweep._tuned(setup)
        print(f"{setup.name}: " + (_chosen(setup, tuned) if tuned else "no trial of the tuning was finished well"))
    found = show(compare.load([sweep.folder]), sweep.folder)
    trials = {t.id: t for trials in sweep.arms().values() for t in trials.values() if t}
    failed = [error["error"] for trial, error in sweep.failures().items() if trial in trials and not sweep.result(trials[trial])]
    left = [t for arm in sweep.arms().values() for t in arm.values() if not t or not sweep.result(t)]
    if failed:
        raise PerceptError(f"{len(failed)} of {len(trials)} trials failed ({failed[0]}); the same command tries them again")
    if left:
        print(f"{len(left)} trials are left to other shards, or wait for what they tune")
    return found


def _chosen(setup: Setup, tuned: Setup) -> str:
    before, after = setup.experiment.science(), tuned.experiment.science()
    tried = [candidate.science() for candidate in setup.candidates]
    varied = [name for name in after if len({repr(values[name]) for values in tried}) > 1]
    told = []
    for name in varied:
        values = sorted(values[name] for values in tried)
        edge = ", at the edge of what was tried" if after[name] in (values[0], values[-1]) and len(values) > 2 else ""
        told.append(f"--{name}={flag_text(after[name])} (not {flag_text(before[name])}{edge})")
    return "tuned to " + ", ".join(told)


def show(loaded: compare.Sweep, folder: Path) -> dict[str, Any]:
    """Prints a comparison, and writes its tables, its pictures and report.html into a folder."""
    found = statistics.compare(*loaded)
    print(tables.plain(found, shutil.get_terminal_size((130, 40)).columns if sys.stdout.isatty() else 130))
    written = tables.write(found, folder)
    from percept_jax.sweeps import report  # imports for a second

    written += report.write(found, loaded.arms, folder)
    print("\n".join(str(path) for path in written if path.suffix != ".png"))
    return {"sweep_dir": str(folder), **as_json(found)}


def as_json(found: Comparison) -> dict[str, Any]:
    """A comparison for programs."""
    return json.loads(json.dumps(found._asdict() | {"rows": [row._asdict() for row in found.rows]}))
