"""Workers without a server: processes that share a file system share a sweep's packs, each claimed by a lock on a file.

The kernel frees the lock of a process that has died, and another one goes on from what it left.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from percept_jax import deletion, records
from percept_jax.data.spec import Dataset
from percept_jax.errors import Busy, Interrupted, PerceptError, StorageError, first_line, is_of_the_disk
from percept_jax.experiment import Experiment
from percept_jax.files import Lock, locked
from percept_jax.records import SWEEP, Failure, Plan, PlannedPack, PlannedProgram, read_failures
from percept_jax.sweeps import widths
from percept_jax.sweeps.board import Board
from percept_jax.sweeps.plan import Cut, Program, cut
from percept_jax.training import checkpoint, loop, parallel, preflight
from percept_jax.training.parallel import Functions
from percept_jax.training.run_dir import RunDir
from percept_jax.training.trial import Trial

# Seconds between looks at what other workers do.
POLL = 0.5
_FAILURES = re.compile(r"failures\.json")
# In the environment of a process that `crew` has started: its number.
MARK = "PERCEPT_WORKER"


class Options(NamedTuple):
    """How a sweep is run.

    Attributes:
        pack: trials at a time: "auto", measured; "off", each as it would be alone; or a number.
        workers: processes that share it here.
        shard, shards: this process does every `shards`-th pack, from number `shard` on.
    """

    pack: str = "auto"
    workers: int = 1
    shard: int = 0
    shards: int = 1


def is_worker() -> bool:
    """Whether this process is one of a crew, which leaves the table to who started it."""
    return MARK in os.environ


def delete_pack(lock: Lock, folder: Path) -> None:
    """Deletes the checkpoints of a pack that is over, and the folder if nothing else is in it."""
    deletion.delete_temporaries(lock, folder, checkpoint.NAME)
    deletion.delete_matching(lock, folder, checkpoint.NAME)
    deletion.delete_empty_folder(lock, folder)


def _said(error: Exception) -> str:
    """An error in one line. Raises it again where it is no trial's fault: a signal came, or the disk is full."""
    if isinstance(error, Interrupted) or is_of_the_disk(error):
        raise error
    return first_line(error) if isinstance(error, PerceptError) else f"{type(error).__name__}: {first_line(error)}"


class Worker:
    """Does what is left of a sweep's trials, program by program, beside others that do the same."""

    def __init__(self, folder: Path, options: Options, board: Board, interrupted: Callable[[], int | None], fresh: bool = False):
        self.folder, self.options, self._board, self._interrupted, self._fresh = folder, options, board, interrupted, fresh
        self._began = time.time()
        # One at a time.
        self._data: Dataset | None = None
        # Programs that want it, and what it is.
        self._data_of: dict[str, str] = {}
        self._compiled: dict[tuple[str, int], Functions] = {}

    def work(self, programs: Sequence[Program]) -> None:
        """Returns when every trial of this worker's share is finished or has failed.

        A program whose first pack fails is left until the others are done. Raises PerceptError when the first pack of every
        program has failed, Interrupted when a signal came.
        """
        doubtful: set[str] = set()
        waiting = False
        while left := [p for p in programs if self._left(p)]:
            progress = False
            for program in left:
                if program.key not in doubtful or all(p.key in doubtful for p in left):
                    progress |= self._work_on(program, doubtful)
                if programs and all(p.key in doubtful for p in programs) and not self._any_finished(programs):
                    failures = self._failures().values()
                    said = next(failure["error"] for failure in failures if failure.get("time", 0) >= self._began)
                    raise PerceptError(f"the first trials of every program failed: {said}")
            self._look_out()
            if not progress:
                if not any(self._ours_left(program) for program in left):
                    # The rest is other shards'.
                    return
                if not waiting:
                    self._board.note("what is left is in the hands of other workers: waiting for them")
                waiting = True
                time.sleep(POLL)

    def _ours_left(self, program: Program) -> bool:
        """Whether some of a program's packs are this shard's and not settled, or it is not known yet which they are."""
        record = self._plan().get("programs", {}).get(program.key, {})
        packs = self._recorded(program, record)
        if set(self._left(program)) - {trial for pack in packs for trial in pack.trials}:
            return True
        return any(self._mine(program, number) and self._unsettled(pack.trials) for number, pack in enumerate(packs))

    def _recorded(self, program: Program, record: Mapping[str, Any]) -> list[Cut]:
        """A program's packs as they were cut before, as far as they hold nothing that is not wanted any more."""
        known = {trial.id for trial in program.trials}
        packs = [Cut(pack["width"], pack["trials"]) for pack in record.get("packs", [])]
        return [pack for pack in packs if record["asked"] == self.options.pack and known.issuperset(pack.trials)]

    def _look_out(self) -> None:
        self._board.refresh()
        if signal := self._interrupted():
            raise Interrupted(signal, fresh=self._fresh)

    def _work_on(self, program: Program, doubtful: set[str]) -> bool:
        """Does the packs of a program that nobody else does; whether there were any."""
        progress = False
        first = program.key not in doubtful
        try:
            packs = self._packs(program)
        except Exception as error:
            said = _said(error)
            self._board.note(f"failed: {said}")
            self._record_failures({trial: {"error": said, "time": time.time()} for trial in self._left(program)})
            doubtful.add(program.key)
            return False
        for number, pack in enumerate(packs):
            if not self._mine(program, number) or not self._unsettled(pack.trials):
                continue
            with locked(self.folder / ".locks" / pack.name, folder=self.folder / "packs" / pack.name) as lock:
                if not lock.held or not self._unsettled(pack.trials):
                    continue
                ended = self._run_twice(program, pack, lock)
            progress |= ended is not None
            if first and ended is False:
                doubtful.add(program.key)
                return progress
            first = False
        return progress

    def _mine(self, program: Program, number: int) -> bool:
        """Whether a pack belongs to this shard: where programs begin differs, so that small ones are dealt out evenly too."""
        return (int(program.key, 16) + number) % self.options.shards == self.options.shard

    def _run_twice(self, program: Program, pack: Cut, lock: Lock) -> bool | None:
        """Runs a pack; if it fails, its trials once more, each alone: one must not cost the others theirs.

        Whether any was finished; None where another process holds one of them, and nothing was done.
        """
        try:
            self._run(program, pack, lock)
            return True
        except Busy:
            return None
        except Exception as error:
            self._board.note(f"failed: {_said(error)}")
        failed = {}
        for trial in self._unsettled(pack.trials):
            try:
                self._run(program, Cut(1, [trial]), lock)
            except Exception as error:
                failed[trial] = {"error": _said(error), "time": time.time()}
                self._board.note(f"failed again: {trial}: {failed[trial]['error']}")
        self._record_failures(failed)
        return len(failed) < len(pack.trials)

    def _record_failures(self, failed: Mapping[str, Failure]) -> None:
        with locked(self.folder / ".locks" / "failures", wait=True, folder=self.folder) as lock:
            deletion.delete_temporaries(lock, self.folder, _FAILURES)
            records.write(self.folder / "failures.json", {**self._failures(), **failed})

    def _plan(self) -> Plan:
        plan = records.read_mark(self.folder / "plan.json", Plan, SWEEP)
        if plan is None:
            raise StorageError(f"{self.folder / 'plan.json'}: there is no such file any more")
        return plan

    def _run(self, program: Program, pack: Cut, lock: Lock) -> None:
        members = {trial.id: trial.experiment for trial in program.trials}
        began, trials = time.time(), []
        with contextlib.ExitStack() as held:
            for i in pack.trials:
                path, run_dir = self._path(i), None
                # As it may be where a process died between two results.
                if not (path / "result.json").exists():
                    run_dir = RunDir(path, members[i])
                    held.callback(run_dir.close)
                trials.append(Trial(members[i], run_dir))
            trials += [Trial(trials[-1].experiment, None)] * (pack.width - len(trials))
            dataset = self._dataset(program.key, trials[0].experiment)
            loop.train_pack(
                trials,
                dataset,
                self._board.reporter(len(pack.trials)),
                self._interrupted,
                began,
                functions=self._functions(program.key, trials[0].experiment, dataset, pack.width),
                held=lock if pack.width > 1 else None,
            )
        if lock.folder.name == pack.name:
            # Each trial has its own checkpoint now.
            delete_pack(lock, lock.folder)

    def _dataset(self, key: str, experiment: Experiment) -> Dataset:
        """The data set of the program `key`; that of the last call is kept."""
        if key not in self._data_of:
            checked = preflight.check(experiment)
            # The program before wanted another one.
            if checked.data_key not in self._data_of.values():
                self._data = None
                self._data = checked.load(self._board.note)
                self._data_of.clear()
            self._data_of[key] = checked.data_key
        assert self._data is not None
        return self._data

    def _functions(self, key: str, experiment: Experiment, dataset: Dataset, width: int) -> Functions:
        if (key, width) not in self._compiled:
            # Others are done, mostly.
            self._compiled = {at: f for at, f in self._compiled.items() if at[0] == key}
            devices = loop.choose_devices(experiment, dataset.spec, split=width == 1)
            # Recorded on a machine with other devices, perhaps.
            if width > 1:
                devices = devices[: max(n for n in range(1, len(devices) + 1) if width % n == 0)]
            shape = dataset.inputs.shape[1:]
            self._compiled[key, width] = parallel.functions(experiment, dataset.spec, shape, devices, width)
        return self._compiled[key, width]

    def _packs(self, program: Program) -> list[Cut]:
        """A program's packs, as they were recorded at the first start; none while another worker decides on them."""
        with locked(self.folder / ".locks" / program.key) as lock:
            if not lock.held:
                return []
            record = self._plan().get("programs", {}).get(program.key, {})
            packs = self._recorded(program, record)
            rest = [i for i in self._left(program) if not any(i in pack.trials for pack in packs)]
            if rest:
                width, measured, devices = self._width(program, record, len(rest))
                packs += cut(rest, width, devices)
                recorded: list[PlannedPack] = [{"width": pack.width, "trials": [*pack.trials]} for pack in packs]
                entry = PlannedProgram(
                    asked=self.options.pack, milliseconds=measured, width=width, devices=devices, packs=recorded
                )
                with locked(self.folder / ".locks" / "plan", wait=True):
                    plan = self._plan()
                    plan["programs"] = {**plan.get("programs", {}), program.key: entry}
                    records.write(self.folder / "plan.json", plan)
            return packs

    def _width(self, program: Program, record: Mapping[str, Any], trials: int) -> tuple[int, dict[str, float], int]:
        """Trials at a time, what was measured, and the devices that share them."""
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
            self._board.note(f"measuring how many of {trials} trials to step together")
            subject = widths.on_examples(experiment, dataset)
            choice = widths.choose(subject, devices, trials, max(self.options.workers, self.options.shards))
        self._compiled |= {(program.key, width): functions for width, functions in choice.compiled.items()}
        return choice.width, {str(width): ms for width, ms in choice.milliseconds.items()}, len(devices)

    def _path(self, trial: str) -> Path:
        """A trial's run directory."""
        return self.folder / "trials" / trial

    def _left(self, program: Program) -> list[str]:
        return self._unsettled([trial.id for trial in program.trials])

    def _any_finished(self, programs: Sequence[Program]) -> bool:
        return any((self._path(trial.id) / "result.json").exists() for program in programs for trial in program.trials)

    def _unsettled(self, ids: Sequence[str]) -> list[str]:
        """Those without a result, which have not failed since this worker began."""
        failed = {i for i, failure in self._failures().items() if failure.get("time", 0) >= self._began}
        return [i for i in ids if i not in failed and not (self._path(i) / "result.json").exists()]

    def _failures(self) -> dict[str, Failure]:
        return read_failures(self.folder)
