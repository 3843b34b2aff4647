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

# What is written while the lock on the plan, or on the failures, is held.
_PLAN_FILES, _FAILURE_FILES = re.compile(r"plan\.json|sweep\.flags"), re.compile(r"failures\.json")

# The identity of a run, after which its directory is named.
_RUN_NAME = re.compile("[0-9a-f]{12}")


class SweepDir:
    """The folder of a sweep.

    It may be shared by many processes: whoever writes or deletes a file holds a lock. The name of every file, folder and lock in
    it is known to this class, and to `records` where it is read without a sweep. Other files in it are never touched.

    Attributes:
        folder: the path of the folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def trial(self, trial: str) -> Path:
        """Returns the run directory of a trial."""
        return records.trial_dir(self.folder, trial)

    def log(self, worker: int) -> Path:
        """Returns the file that a worker prints to."""
        return self.folder / _LOGS_FOLDER / f"{worker}.log"

    def lock_plan(self) -> AbstractContextManager[Lock]:
        """Waits for the lock on plan.json and on what the plan decides: which trials and packs there are."""
        return self._lock("plan", wait=True)

    def lock_failures(self) -> AbstractContextManager[Lock]:
        """Waits for the lock on failures.json."""
        return self._lock("failures", wait=True)

    def lock_tables(self) -> AbstractContextManager[Lock]:
        """Waits for the lock on the tables, the pictures and the report."""
        return self._lock("tables", wait=True)

    def lock_work(self) -> AbstractContextManager[Lock]:
        """Waits for the lock that all processes share that work on the sweep, and that --fresh must have for itself."""
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
        """Returns plan.json (a `Plan` with all its keys), which marks the folder as a sweep's; None where there is none.

        Raises StorageError where it is damaged, or another program's. With `fresh` the error says that nothing is deleted.
        """
        try:
            return records.read_mark(self.folder / PLAN_FILE, Plan, SWEEP)
        except StorageError as error:
            advice = "; nothing in the folder is deleted, choose another --run_dir" if fresh else ""
            raise StorageError(f"{error}{advice}") from error

    def read_plan(self) -> Any:
        """Returns plan.json, as `read_mark` does. Raises StorageError where it is damaged, or gone."""
        plan = self.read_mark()
        if plan is None:
            raise StorageError(f"{self.folder / PLAN_FILE}: there is no such file any more")
        return plan

    def failures(self) -> dict[str, Failure]:
        """Returns the failures that are recorded, by trial."""
        return records.read_failures(self.folder)

    def is_finished(self, trial: str) -> bool:
        """Returns whether a trial has a result, which may be damaged."""
        return (self.trial(trial) / "result.json").exists()

    def is_started(self, trial: str) -> bool:
        """Returns whether a trial has a run directory."""
        return (self.trial(trial) / "provenance.json").exists()

    def result(self, trial: str) -> Result | None:
        """Returns the result of a trial; None while it is not finished, or where its result is damaged."""
        try:
            return records.read_result(self.trial(trial))
        except StorageError:
            return None

    def fault(self, trial: str) -> str:
        """Returns what is wrong with the files of a trial; "" where they are whole."""
        try:
            records.read_whole(self.trial(trial), trial)
        except StorageError as error:
            return str(error)
        return ""

    def refuse_strangers(self, file: str, fresh: bool, where: str) -> None:
        """Raises UsageError where the folder holds something else than the sweep of `file`. Touches nothing.

        Args:
            file: the sweep's file, as plan.json names it.
            fresh: whether another sweep's trials may be replaced.
            where: the place that gave the folder, for the message.
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
                raise UsageError(
                    f"{path} is a link or no {kind}; a sweep writes there, and never through a link", "run_dir", where
                )
        plan = self.read_mark(fresh)
        if plan is None and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UsageError(f"{folder} holds something that is not a sweep", "run_dir", where)
        if plan and not fresh and plan["file"] != file:
            raise UsageError(f"{folder} holds the sweep of {plan['file']}; choose another, or --fresh", "run_dir", where)

    def write(self, lock: Lock, plan: Mapping[str, Any], flags: str) -> None:
        """Writes plan.json and sweep.flags; `lock` is that on the plan."""
        deletion.delete_temporaries(lock, self.folder, _PLAN_FILES)
        # The plan comes first, because it marks the folder as a sweep's.
        records.write(self.folder / PLAN_FILE, plan)
        files.write_bytes(self.folder / _FLAGS_FILE, flags.encode())

    def record_program(self, key: str, program: PlannedProgram) -> None:
        """Writes how a program is divided into packs into plan.json."""
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
        """Links to the run directories of trials that are finished elsewhere: in the sweeps and runs beside this folder.

        `lock` is that on the plan.
        """
        folder = self.folder / TRIALS_FOLDER
        folder.mkdir(exist_ok=True)
        found: dict[str, list[Path]] = {}
        for other in self.folder.resolve().parent.iterdir():
            for path in (*_run_folders(other), *_run_folders(other / TRIALS_FOLDER)):
                found.setdefault(path.name, []).append(path)
        for trial in trials:
            path = self.trial(trial)
            # A link whose target has no result any more is of no use.
            if _is_our_link(path) and not self.is_finished(trial):
                deletion.delete_link(lock, path)
            elsewhere = next((other for other in found.get(trial, ()) if _is_finished_run(other, trial)), None)
            if elsewhere and not os.path.lexists(path):
                path.symlink_to(os.path.relpath(elsewhere.resolve(), folder.resolve()))

    def clear(self, lock: Lock, plan: Mapping[str, Any]) -> None:
        """Deletes the trials of a sweep, what is kept of its packs, and failures.json; `lock` is that on the plan.

        If it is cut short, the next start goes on with it. Raises Busy where another process works on the sweep.
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
        """Keeps every other process from starting to work on the sweep. Raises Busy where one works on it, or on a trial."""
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
        """Returns the directories under trials/ that are marked as the runs that their names say."""
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
    """Returns what is in a folder under the name of a run, sorted."""
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if _RUN_NAME.fullmatch(name)]
    except OSError:
        return []


def _is_our_link(path: Path) -> bool:
    """Returns whether a trial is a link to a run directory of the same name elsewhere, as `link_finished` makes them."""
    return path.is_symlink() and Path(os.readlink(path)).name == path.name


def _is_run(path: Path) -> bool:
    """Returns whether a directory is marked as that of the run whose identity is its name."""
    try:
        mark = records.read_mark(path / "provenance.json", Provenance, RUN)
    except StorageError:
        return False
    return mark is not None and mark["identity"] == path.name


def _is_finished_run(path: Path, trial: str) -> bool:
    """Returns whether a directory holds the finished run of a trial, with no file damaged."""
    try:
        return records.read_whole(path, trial)[1] is not None
    except StorageError:
        return False
