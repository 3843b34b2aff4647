"""The only module that deletes. It deletes what a caller names exactly, in a folder that the caller holds the lock of.

Nothing is ever deleted through a symbolic link, and no folder that has something in it: what we did not write stays where it is.
Callers read the folder's mark first (`percept_jax.records`), which says that the folder is one of ours.
"""

import os
import re
import stat
from pathlib import Path

from percept_jax.errors import StorageError
from percept_jax.files import TEMPORARY, Lock


def delete_file(lock: Lock, path: Path) -> None:
    """Deletes a regular file below the folder that `lock` holds; a file that is not there is fine.

    Raises StorageError where it is something else than a file, where a link leads to it, or where the disk refuses.
    """
    _check(lock, path)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise StorageError(f"{path}: not a file that was written here; it is not deleted")
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def delete_matching(lock: Lock, folder: Path, name: re.Pattern[str]) -> None:
    """Deletes the regular files right in `folder` whose whole name matches. Errors are those of `delete_file`."""
    for path in listed(folder):
        if name.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
            delete_file(lock, path)


def delete_temporaries(lock: Lock, folder: Path, name: re.Pattern[str]) -> None:
    """Deletes what killed processes have left half written in `folder` of files whose whole name matches."""
    for path in listed(folder):
        match = TEMPORARY.fullmatch(path.name)
        if match and name.fullmatch(match["name"]) and stat.S_ISREG(path.lstat().st_mode):
            delete_file(lock, path)


def delete_empty_folder(lock: Lock, folder: Path) -> bool:
    """Deletes a folder if nothing is in it; whether it is gone. Raises StorageError where a link leads to it."""
    _check(lock, folder)
    if folder.is_symlink() or not folder.is_dir():
        return not os.path.lexists(folder)
    try:
        folder.rmdir()
    # Something of somebody else is in it.
    except OSError:
        return False
    return True


def delete_link(lock: Lock, path: Path) -> None:
    """Deletes a symbolic link, and nothing of what it points to. Raises StorageError where it is no link."""
    _check(lock, path)
    if not path.is_symlink():
        raise StorageError(f"{path}: not a link that was made here; it is not deleted")
    try:
        path.unlink()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing where there is none, or where it is a symbolic link."""
    try:
        return [] if folder.is_symlink() else sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from error


def _check(lock: Lock, path: Path) -> None:
    """Raises StorageError unless the lock is held, on a folder that `path` is in without a link between them."""
    if not lock.held:
        raise StorageError(f"{path}: nothing is deleted without the lock on {lock.folder}")
    inside = Path(os.path.abspath(path)).relative_to(os.path.abspath(lock.folder))
    # The folder itself, which the caller has named.
    if inside == Path():
        return
    if os.path.realpath(path.parent) != str(Path(os.path.realpath(lock.folder)) / inside.parent):
        raise StorageError(f"{path}: a symbolic link leads there; nothing is deleted through one")
