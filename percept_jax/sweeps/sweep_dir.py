"""SweepDir: the folder of a sweep, with its files, its locks and the run directories of its trials."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from percept_jax import deletion, files, records
from percept_jax.analysis import output
from percept_jax.errors import Busy, StorageError, UsageError
from percept_jax.files import Lock, locked
from percept_jax.records import (
    FAILURES_FILE,
    PLAN_FILE,
    RUN,
    SWEEP,
    TRIALS_FOLDER,
    Failure,
    Plan,
    PlannedProgram,
    Provenance,
    Result,
)
from percept_jax.sweeps.plan import PackPlan
from percept_jax.training import checkpoint
from percept_jax.training.run_dir import delete_run

_FLAGS_FILE, _PACKS_FOLDER, _LOCKS_FOLDER, _LOGS_FOLDER = "sweep.flags", "packs", ".locks", ".workers"
_FILES = (PLAN_FILE, _FLAGS_FILE, FAILURES_FILE, *output.FILES)
_FOLDERS = (TRIALS_FOLDER, _PACKS_FOLDER, _LOCKS_FOLDER, _LOGS_FOLDER)

# The files that are written under the lock on the plan, and under that on the failures.
_PLAN_FILES, _FAILURE_FILES = re.compile(r"plan\.json|sweep\.flags"), re.compile(r"failures\.json")

# The identity of a run, after which its directory is named.
_RUN_NAME = re.compile("[0-9a-f]{12}")


class SweepDir:
    """The folder of a sweep.

    Many processes may share it: each holds a lock while it writes or deletes files. This class knows the name of every file,
    folder and lock in the folder (and `records` the names that are read without a sweep). Other files are never touched.

    Attributes:
        folder: the path of the folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def trial(self, trial: str) -> Path:
        """Returns the run directory of a trial."""
        return records.trial_dir(self.folder, trial)

    def log(self, worker: int) -> Path:
        """Returns the path of the log of a worker."""
        return self.folder / _LOGS_FOLDER / f"{worker}.log"

    def lock_plan(self) -> AbstractContextManager[Lock]:
        """Waits for the lock on plan.json, on the links to trials, and on the packs."""
        return self._lock("plan", wait=True)

    def lock_failures(self) -> AbstractContextManager[Lock]:
        """Waits for the lock on failures.json."""
        return self._lock("failures", wait=True)

    def lock_tables(self) -> AbstractContextManager[Lock]:
        """Waits for the lock on the tables, the pictures and the report."""
        return self._lock("tables", wait=True)

    def lock_work(self) -> AbstractContextManager[Lock]:
        """Waits for the lock that all processes that work on the sweep share, and that --fresh takes exclusively."""
        return self._lock("work", wait=True, shared=True)

    def lock_program(self, key: str) -> AbstractContextManager[Lock]:
        """Tries to take the lock on the division of a program into packs."""
        return self._lock(key)

    def lock_pack(self, pack: PackPlan) -> AbstractContextManager[Lock]:
        """Tries to take the lock on a pack, whose folder holds its checkpoints."""
        return locked(self.folder / _LOCKS_FOLDER / pack.name, folder=self.folder / _PACKS_FOLDER / pack.name)

    def _lock(self, name: str, wait: bool = False, shared: bool = False) -> AbstractContextManager[Lock]:
        return locked(self.folder / _LOCKS_FOLDER / name, wait=wait, folder=self.folder, shared=shared)

    def read_mark(self, fresh: bool = False) -> Any:
        """Returns plan.json (a `Plan` with all its keys), which marks the folder as a sweep's; None if there is none.

        Raises StorageError if it is damaged or another program's; with `fresh` the message says that nothing is deleted.
        """
        try:
            return records.read_mark(self.folder / PLAN_FILE, Plan, SWEEP)
        except StorageError as error:
            advice = "; --fresh deletes nothing in the folder: choose another --run_dir" if fresh else ""
            raise StorageError(f"{error}{advice}") from error

    def read_plan(self) -> Any:
        """Returns plan.json, as `read_mark` does. Raises StorageError if it is damaged or missing."""
        plan = self.read_mark()
        if plan is None:
            raise StorageError(f"{self.folder / PLAN_FILE}: the file has been deleted")
        return plan

    def failures(self) -> dict[str, Failure]:
        """Returns the recorded failures, by trial."""
        return records.read_failures(self.folder)

    def is_finished(self, trial: str) -> bool:
        """Whether a trial has a result, which may be damaged."""
        return (self.trial(trial) / "result.json").exists()

    def is_started(self, trial: str) -> bool:
        """Whether a trial has a run directory."""
        return (self.trial(trial) / "provenance.json").exists()

    def result(self, trial: str) -> Result | None:
        """Returns the result of a trial; None if it is not finished or its result is damaged."""
        try:
            return records.read_result(self.trial(trial))
        except StorageError:
            return None

    def fault(self, trial: str) -> str:
        """Returns what is wrong with the files of a trial; "" if they are undamaged."""
        try:
            records.read_whole(self.trial(trial), trial)
        except StorageError as error:
            return str(error)
        return ""

    def refuse_strangers(self, file: str, fresh: bool, where: str) -> None:
        """Raises UsageError if the folder holds anything but the sweep of `file`. Changes nothing.

        Args:
            file: the sweep's file, as plan.json names it.
            fresh: whether another sweep's trials may be replaced.
            where: where the folder was given, for the message.
        """
        folder = self.folder
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a directory", "run_dir", where)
        for name in (*_FILES, *_FOLDERS):
            path = folder / name
            if path.is_symlink() or (path.exists() and not (path.is_dir() if name in _FOLDERS else path.is_file())):
                kind = "folder" if name in _FOLDERS else "file"
                raise UsageError(f"{path} is not a {kind}; a sweep writes there, and never through a link", "run_dir", where)
        plan = self.read_mark(fresh)
        if plan is None and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UsageError(f"{folder} holds something that is not a sweep", "run_dir", where)
        if plan and not fresh and plan["file"] != file:
            raise UsageError(
                f"{folder} holds the sweep of {plan['file']}; choose another --run_dir, or --fresh", "run_dir", where
            )

    def write(self, lock: Lock, plan: Mapping[str, Any], flags: str) -> None:
        """Writes plan.json and sweep.flags; `lock` is the lock on the plan."""
        deletion.delete_temporaries(lock, self.folder, _PLAN_FILES)
        # The plan comes first, because it marks the folder as a sweep's.
        records.write(self.folder / PLAN_FILE, plan)
        files.write_bytes(self.folder / _FLAGS_FILE, flags.encode())

    def record_program(self, key: str, program: PlannedProgram) -> None:
        """Records in plan.json how a program is divided into packs."""
        with self.lock_plan():
            plan = self.read_plan()
            plan["programs"][key] = program
            records.write(self.folder / PLAN_FILE, plan)

    def record_failures(self, failures: Mapping[str, Failure]) -> None:
        """Adds failures to failures.json, by trial."""
        with self.lock_failures() as lock:
            deletion.delete_temporaries(lock, self.folder, _FAILURE_FILES)
            records.write(self.folder / FAILURES_FILE, {**self.failures(), **failures})

    def link_finished(self, lock: Lock, trials: Sequence[str]) -> None:
        """Links to trials that are already finished in the sweeps and runs beside this folder.

        `lock` is the lock on the plan.
        """
        folder = self.folder / TRIALS_FOLDER
        folder.mkdir(exist_ok=True)
        found: dict[str, list[Path]] = {}
        for other in self.folder.resolve().parent.iterdir():
            for path in (*_run_folders(other), *_run_folders(other / TRIALS_FOLDER)):
                found.setdefault(path.name, []).append(path)
        for trial in trials:
            path = self.trial(trial)
            # The link is useless if its target no longer has a result.
            if _is_our_link(path) and not self.is_finished(trial):
                deletion.delete_link(lock, path)
            elsewhere = next((other for other in found.get(trial, ()) if _is_finished_run(other, trial)), None)
            if elsewhere and not os.path.lexists(path):
                path.symlink_to(os.path.relpath(elsewhere.resolve(), folder.resolve()))

    def clear(self, lock: Lock, plan: Mapping[str, Any]) -> None:
        """Deletes the trials, the checkpoints of packs and failures.json; `lock` is the lock on the plan.

        If it is interrupted, the next start continues it. Raises Busy if another process works on the sweep.
        """
        with self._alone():
            records.write(self.folder / PLAN_FILE, {**plan, "clearing": True})
            for path in deletion.listed(self.folder / TRIALS_FOLDER):
                if _is_our_link(path):
                    deletion.delete_link(lock, path)
            for path in self._own_runs():
                delete_run(path, path.name)
            self.delete_packs(lock, plan)
            deletion.delete_file(lock, self.folder / FAILURES_FILE)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Excludes all other processes from the sweep. Raises Busy if one works on it or on one of its trials."""
        busy = Busy(f"{self.folder}: another process works on this sweep")
        with self._lock("work") as work:
            if not work.held:
                raise busy
            for path in self._own_runs():
                with locked(path / ".lock") as run:
                    if not run.held:
                        raise busy
            yield

    def _own_runs(self) -> list[Path]:
        """Returns the directories under trials/ that are run directories of the runs in their names."""
        found = [path for path in deletion.listed(self.folder / TRIALS_FOLDER) if _RUN_NAME.fullmatch(path.name)]
        return [path for path in found if not path.is_symlink() and _is_run(path)]

    def delete_packs(self, lock: Lock, plan: Mapping[str, Any]) -> None:
        """Deletes the checkpoints of all packs of a plan, and their folders if nothing else is in them; see `delete_pack`."""
        for program in plan["programs"].values():
            for pack in program["packs"]:
                delete_pack(lock, self.folder / _PACKS_FOLDER / PackPlan(pack["width"], pack["trials"]).name)
        deletion.delete_empty_folder(lock, self.folder / _PACKS_FOLDER)


def delete_pack(lock: Lock, folder: Path) -> None:
    """Deletes the checkpoints of a finished pack, and its folder if nothing else is in it."""
    deletion.delete_temporaries(lock, folder, checkpoint.NAME)
    deletion.delete_matching(lock, folder, checkpoint.NAME)
    deletion.delete_empty_folder(lock, folder)


def _run_folders(folder: Path) -> list[Path]:
    """Returns the entries of a folder whose names are identities of runs, sorted."""
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if _RUN_NAME.fullmatch(name)]
    except OSError:
        return []


def _is_our_link(path: Path) -> bool:
    """Whether a path is a link as `link_finished` makes it: to a run directory of the same name elsewhere."""
    return path.is_symlink() and Path(os.readlink(path)).name == path.name


def _is_run(path: Path) -> bool:
    """Whether a directory is the run directory of the run whose identity is its name."""
    try:
        mark = records.read_mark(path / "provenance.json", Provenance, RUN)
    except StorageError:
        return False
    return mark is not None and mark["identity"] == path.name


def _is_finished_run(path: Path, trial: str) -> bool:
    """Whether a directory holds the finished run of a trial, with all files undamaged."""
    try:
        return records.read_whole(path, trial)[1] is not None
    except StorageError:
        return False
