"""Worker: trains packs of a sweep in parallel with other workers, without a server.

Workers are processes that share a file system. A worker claims a pack by locking a file. When a process dies, the kernel releases
its lock, and another worker resumes the pack from its checkpoint.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from percept_jax.data.spec import Dataset
from percept_jax.errors import Busy, Interrupted, PerceptError, first_line, is_of_the_disk
from percept_jax.experiment import Experiment
from percept_jax.files import Lock
from percept_jax.records import Failure
from percept_jax.sweeps import pack_width, plan
from percept_jax.sweeps.plan import PackPlan, Program
from percept_jax.sweeps.progress import SweepProgress
from percept_jax.sweeps.sweep_dir import SweepDir, delete_pack
from percept_jax.training import loop, parallel, preflight
from percept_jax.training.parallel import CompiledProgram
from percept_jax.training.run_dir import RunDir
from percept_jax.training.trial import Trial

# The seconds between two checks of what other workers have finished.
POLL = 0.5

# The environment variable that holds the number of a worker that `processes` has started.
WORKER_VARIABLE = "PERCEPT_WORKER"


class Options(NamedTuple):
    """How a sweep is run.

    Attributes:
        pack: the width of packs: "auto" is measured, "off" steps each trial alone, or a number for each device.
        workers: the number of worker processes on this machine.
        shard, shards: this process trains every `shards`-th pack, from number `shard` on.
    """

    pack: str = "auto"
    workers: int = 1
    shard: int = 0
    shards: int = 1


def is_worker() -> bool:
    """Whether this process is one of several workers that another process has started, which writes the table."""
    return WORKER_VARIABLE in os.environ


class Worker:
    """Trains the remaining trials of a sweep, program by program, in parallel with other workers."""

    def __init__(
        self, dir: SweepDir, options: Options, progress: SweepProgress, interrupted: Callable[[], int | None], fresh: bool = False
    ):
        self.dir, self.options, self._progress, self._interrupted, self._fresh = dir, options, progress, interrupted, fresh
        self._began = time.time()
        # One data set is kept at a time, with the keys of the programs that use it and the key of its preparation.
        self._data: Dataset | None = None
        self._data_of: dict[str, str] = {}
        # The compiled programs, by key and width.
        self._compiled: dict[tuple[str, int], CompiledProgram] = {}

    def work(self, programs: Sequence[Program]) -> None:
        """Trains until every trial of this worker's shard is finished or has failed.

        A program whose first pack fails is postponed until the others are done.

        Raises:
            PerceptError: the first pack of every program has failed.
            Interrupted: a signal arrived.
        """
        doubtful: set[str] = set()
        waiting = False
        while left := [program for program in programs if self._unfinished(program)]:
            advanced = False
            for program in left:
                if program.key not in doubtful or all(p.key in doubtful for p in left):
                    advanced |= self._work_on(program, doubtful)
                if programs and all(p.key in doubtful for p in programs) and not self._any_finished(programs):
                    failures = self.dir.failures().values()
                    error = next(failure["error"] for failure in failures if failure.get("time", 0) >= self._began)
                    raise PerceptError(f"the first trials of every program failed: {error}")
            self._progress.refresh()
            if signal := self._interrupted():
                raise Interrupted(signal, fresh=self._fresh)
            if not advanced:
                # The remaining trials may all belong to other shards.
                if not any(self._has_work(program) for program in left):
                    return
                if not waiting:
                    self._progress.note("other workers are training the remaining trials: waiting for them")
                waiting = True
                time.sleep(POLL)

    def _has_work(self, program: Program) -> bool:
        """Whether this shard has unfinished packs of a program, or may get some."""
        packs = self._recorded_packs(program, self.dir.read_plan()["programs"].get(program.key, {}))
        if set(self._unfinished(program)) - {trial for pack in packs for trial in pack.trials}:
            return True
        return any(self._is_mine(program, i) and self._without_result(pack.trials) for i, pack in enumerate(packs))

    def _recorded_packs(self, program: Program, record: Mapping[str, Any]) -> list[PackPlan]:
        """Returns the program's packs in plan.json that were made for the same --pack and contain only its trials."""
        known = {trial.id for trial in program.trials}
        packs = [PackPlan(pack["width"], pack["trials"]) for pack in record.get("packs", [])]
        return [pack for pack in packs if record["asked"] == self.options.pack and known.issuperset(pack.trials)]

    def _work_on(self, program: Program, doubtful: set[str]) -> bool:
        """Trains the packs of a program that no other worker holds. Returns whether there were any."""
        advanced = False
        first = program.key not in doubtful
        try:
            packs = self._packs(program)
        except Exception as error:
            message = _message(error)
            self._progress.note(f"failed: {message}")
            self.dir.record_failures({trial: _failure(message) for trial in self._unfinished(program)})
            doubtful.add(program.key)
            return False
        for i, pack in enumerate(packs):
            if not self._is_mine(program, i) or not self._without_result(pack.trials):
                continue
            with self.dir.lock_pack(pack) as lock:
                if not lock.held or not self._without_result(pack.trials):
                    continue
                finished = self._run_twice(program, pack, lock)
            advanced |= finished is not None
            if first and finished is False:
                doubtful.add(program.key)
                return advanced
            first = False
        return advanced

    def _is_mine(self, program: Program, number: int) -> bool:
        """Whether a pack belongs to this shard.

        Each program starts at a different shard, so that programs with few packs are spread evenly as well.
        """
        return (int(program.key, 16) + number) % self.options.shards == self.options.shard

    def _run_twice(self, program: Program, pack: PackPlan, lock: Lock) -> bool | None:
        """Trains a pack. If it fails, trains each of its trials again alone, because one trial may have made all of them fail.

        Returns whether any trial was finished, or None if another process holds a trial, so that nothing was done.
        """
        try:
            self._run(program, pack, lock)
            return True
        except Busy:
            return None
        except Exception as error:
            self._progress.note(f"failed: {_message(error)}")
        failed = {}
        for trial in self._without_result(pack.trials):
            try:
                self._run(program, PackPlan(1, [trial]), lock)
            except Exception as error:
                failed[trial] = _failure(_message(error))
                self._progress.note(f"failed again: {trial}: {failed[trial]['error']}")
        self.dir.record_failures(failed)
        return len(failed) < len(pack.trials)

    def _run(self, program: Program, pack: PackPlan, lock: Lock) -> None:
        members = {trial.id: trial.experiment for trial in program.trials}
        began, trials = time.time(), []
        with contextlib.ExitStack() as stack:
            for trial in pack.trials:
                run_dir = None
                # A process may have died after it wrote the results of only some trials.
                if not self.dir.is_finished(trial):
                    run_dir = RunDir(self.dir.trial(trial), members[trial])
                    stack.callback(run_dir.close)
                trials.append(Trial(members[trial], run_dir))
            trials += [Trial(trials[-1].experiment, None)] * (pack.width - len(trials))
            dataset = self._dataset(program.key, trials[0].experiment)
            loop.train_pack(
                trials,
                dataset,
                self._progress.reporter(len(pack.trials)),
                self._interrupted,
                began,
                compiled=self._compiled_program(program.key, trials[0].experiment, dataset, pack.width),
                pack_lock=lock if pack.width > 1 else None,
            )
        # Each trial has its own checkpoint now. A trial that was repeated alone does not delete the checkpoints of its pack.
        if lock.folder.name == pack.name:
            delete_pack(lock, lock.folder)

    def _dataset(self, key: str, experiment: Experiment) -> Dataset:
        """Returns the data set of the program `key`. Only the data set of the last call is kept in memory."""
        if key not in self._data_of:
            checked = preflight.check(experiment)
            if checked.data_key not in self._data_of.values():
                # The data set of the previous program is released before this one is loaded.
                self._data = None
                self._data = checked.load(self._progress.note)
                self._data_of.clear()
            self._data_of[key] = checked.data_key
        assert self._data is not None
        return self._data

    def _compiled_program(self, key: str, experiment: Experiment, dataset: Dataset, width: int) -> CompiledProgram:
        """Returns the jitted functions of the program `key` for packs of the given width."""
        if (key, width) not in self._compiled:
            # Other programs are usually finished, so their compiled code is dropped.
            self._compiled = {at: compiled for at, compiled in self._compiled.items() if at[0] == key}
            devices = loop.choose_devices(experiment, dataset.spec, split=width == 1)
            if width > 1:
                # The width may have been recorded on a machine with another number of devices.
                devices = devices[: max(n for n in range(1, len(devices) + 1) if width % n == 0)]
            shape = dataset.inputs.shape[1:]
            self._compiled[key, width] = parallel.compile_program(experiment, dataset.spec, shape, devices, width)
        return self._compiled[key, width]

    def _packs(self, program: Program) -> list[PackPlan]:
        """Returns a program's packs from plan.json, after adding new ones; an empty list while another worker adds them."""
        with self.dir.lock_program(program.key) as lock:
            if not lock.held:
                return []
            record = self.dir.read_plan()["programs"].get(program.key, {})
            packs = self._recorded_packs(program, record)
            rest = [trial for trial in self._unfinished(program) if not any(trial in pack.trials for pack in packs)]
            if rest:
                width, measured, devices = self._width(program, record, len(rest))
                packs += plan.packs(rest, width, devices)
                self.dir.record_program(
                    program.key,
                    {
                        "asked": self.options.pack,
                        "milliseconds": measured,
                        "width": width,
                        "devices": devices,
                        "packs": [{"width": pack.width, "trials": list(pack.trials)} for pack in packs],
                    },
                )
            return packs

    def _width(self, program: Program, record: Mapping[str, Any], trials: int) -> tuple[int, dict[str, float], int]:
        """Returns the width of new packs, the measured milliseconds by width, and the number of devices that share a pack."""
        experiment, asked = program.trials[0].experiment, self.options.pack
        if asked == "off":
            return 1, {}, 1
        if record.get("asked") == asked:
            return record["width"], record["milliseconds"], record["devices"]
        with jax.enable_x64(experiment.dtype == "float64"):
            dataset = self._dataset(program.key, experiment)
            devices = loop.choose_devices(experiment, dataset.spec, split=False)
            if asked != "auto":
                return int(asked) * len(devices), {}, len(devices)
            self._progress.note(f"measuring how many of the {trials} trials to step together")
            subject = pack_width.subject_of(experiment, dataset)
            choice = pack_width.choose(subject, devices, trials, max(self.options.workers, self.options.shards))
        self._compiled |= {(program.key, width): compiled for width, compiled in choice.compiled.items()}
        return choice.width, {str(width): ms for width, ms in choice.milliseconds.items()}, len(devices)

    def _unfinished(self, program: Program) -> list[str]:
        return self._without_result([trial.id for trial in program.trials])

    def _any_finished(self, programs: Sequence[Program]) -> bool:
        return any(self.dir.is_finished(trial.id) for program in programs for trial in program.trials)

    def _without_result(self, trials: Sequence[str]) -> list[str]:
        """Returns the trials that have no result and have not failed since this worker started."""
        failed = {trial for trial, failure in self.dir.failures().items() if failure.get("time", 0) >= self._began}
        return [trial for trial in trials if trial not in failed and not self.dir.is_finished(trial)]


def _message(error: Exception) -> str:
    """Returns an error as one line. Raises it again if no trial is at fault: after a signal, or if the disk fails."""
    if isinstance(error, Interrupted) or is_of_the_disk(error):
        raise error
    return first_line(error) if isinstance(error, PerceptError) else f"{type(error).__name__}: {first_line(error)}"


def _failure(message: str) -> Failure:
    return {"error": message, "time": time.time()}
