"""The run directories of a sweep's trials: shared with other sweeps by links, deleted by --fresh. Their marks say whose."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from percept_jax import deletion, records
from percept_jax.errors import Busy, StorageError
from percept_jax.files import Lock, locked
from percept_jax.records import RUN, Provenance
from percept_jax.sweeps.plan import Planned
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
            deletion.delete_link(lock, path)  # to what is not there any more
        elsewhere = next((other for other in found.get(trial.id, ()) if _finished(other, trial.id)), None)
        if elsewhere and not os.path.lexists(path):
            path.symlink_to(os.path.relpath(elsewhere.resolve(), folder.resolve()))


def clear(lock: Lock) -> None:
    """Deletes the trials of a sweep, and what is kept of its packs. Raises Busy where a process works on one of them."""
    runs = [p for p in deletion.listed(lock.folder / "trials") if re.fullmatch("[0-9a-f]{12}", p.name)]
    links = [path for path in runs if _is_our_link(path)]
    runs = [path for path in runs if not path.is_symlink() and _is_run(path)]
    locks = [path for path in deletion.listed(lock.folder / ".locks") if path.name != "plan"]
    for path in [*locks, *(path / ".lock" for path in runs)]:
        with locked(path) as held:
            if not held.held:
                raise Busy(f"{path.parent}: another process works on this sweep")
    for path in links:
        deletion.delete_link(lock, path)
    for path in runs:
        delete_run(path, path.name)
    for folder in deletion.listed(lock.folder / "packs"):
        delete_pack(lock, folder)
    deletion.delete_empty_folder(lock, lock.folder / "packs")
    deletion.delete_file(lock, lock.folder / "failures.json")


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
        done = (path / "provenance.json").exists() and records.read_result(path) is not None
        return done and records.read(path / "provenance.json", Provenance).get("identity") == trial
    except StorageError:
        return False
