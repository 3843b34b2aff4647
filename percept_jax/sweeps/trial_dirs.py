"""The run directories of a sweep's trials: shared with other sweeps by links, deleted by --fresh. Their marks say whose."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from percept_jax import deletion, records
from percept_jax.errors import Busy, StorageError
from percept_jax.files import Lock, locked
from percept_jax.records import RUN, Plan, Provenance
from percept_jax.sweeps.plan import Cut, Planned
from percept_jax.sweeps.workers import delete_pack
from percept_jax.training.run_dir import delete_run


def share(lock: Lock, trials: Sequence[Planned]) -> None:
    """Links to the run directories of trials that have been finished elsewhere: by other sweeps here, or alone."""
    folder = lock.folder / "trials"
    folder.mkdir(exist_ok=True)
    found: dict[str, list[Path]] = {}
    for other in lock.folder.resolve().parent.iterdir():
        for path in (*_folders(other), *_folders(other / "trials")):
            found.setdefault(path.name, []).append(path)
    for trial in trials:
        path = folder / trial.id
        if _is_our_link(path) and not (path / "result.json").exists():
            # To what is not there any more.
            deletion.delete_link(lock, path)
        elsewhere = next((other for other in found.get(trial.id, ()) if _finished(other, trial.id)), None)
        if elsewhere and not os.path.lexists(path):
            path.symlink_to(os.path.relpath(elsewhere.resolve(), folder.resolve()))


@contextlib.contextmanager
def alone(lock: Lock) -> Iterator[None]:
    """Holds off every other process from a sweep. Raises Busy where one works on it, or on one of its trials."""
    busy = Busy(f"{lock.folder}: another process works on this sweep")
    with locked(lock.folder / ".locks" / "work") as work:
        if not work.held:
            raise busy
        for path in _runs(lock.folder):
            with locked(path / ".lock") as held:
                if not held.held:
                    raise busy
        yield


def clear(lock: Lock, plan: Plan) -> None:
    """Deletes the trials of a sweep, what is kept of its packs, and failures.json."""
    for path in deletion.listed(lock.folder / "trials"):
        if _is_our_link(path):
            deletion.delete_link(lock, path)
    for path in _runs(lock.folder):
        delete_run(path, path.name)
    delete_packs(lock, plan)
    deletion.delete_file(lock, lock.folder / "failures.json")


def delete_packs(lock: Lock, plan: Plan) -> None:
    """Deletes the checkpoints of the packs that a sweep has recorded, and what is empty then."""
    for program in plan.get("programs", {}).values():
        for pack in program["packs"]:
            delete_pack(lock, lock.folder / "packs" / Cut(pack["width"], pack["trials"]).name)
    deletion.delete_empty_folder(lock, lock.folder / "packs")


def _runs(folder: Path) -> list[Path]:
    """The directories under trials/ that are marked as those of the runs that their names say."""
    found = [path for path in deletion.listed(folder / "trials") if re.fullmatch("[0-9a-f]{12}", path.name)]
    return [path for path in found if not path.is_symlink() and _is_run(path)]


def _is_our_link(path: Path) -> bool:
    """Whether a trial is a link to a run directory of the same name elsewhere, as `Sweep._share` makes them."""
    return path.is_symlink() and Path(os.readlink(path)).name == path.name


def _is_run(path: Path) -> bool:
    """Whether a directory is marked as that of the run whose identity is its name."""
    try:
        mark = records.read_mark(path / "provenance.json", Provenance, RUN)
    except StorageError:
        return False
    return mark is not None and mark["identity"] == path.name


def _folders(folder: Path) -> list[Path]:
    """The run directories in a folder, by their names."""
    try:
        return [folder / name for name in os.listdir(folder) if re.fullmatch("[0-9a-f]{12}", name)]
    except OSError:
        return []


def _finished(path: Path, trial: str) -> bool:
    """Whether a directory holds the finished run of a trial; not where it is damaged."""
    try:
        return records.read_whole(path, trial)[1] is not None
    except StorageError:
        return False
