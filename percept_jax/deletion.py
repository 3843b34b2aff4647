"""The only module that deletes files. The caller gives exact names, and holds the lock on the folder.

Nothing is deleted through a symbolic link, and only empty folders are deleted, so files that this package did not write are kept.
Before a caller deletes anything, it checks that the folder has this package's mark (`percept_jax.records`).
"""

import os
import re
import stat
from pathlib import Path

from percept_jax.errors import StorageError
from percept_jax.files import TEMPORARY, Lock


def delete_file(lock: Lock, path: Path) -> None:
    """Deletes a regular file below the locked folder, if it exists.

    Raises StorageError if it is not a regular file, if its path leads through a link, or if the system reports an error.
    """
    _check(lock, path)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise StorageError(f"{path}: not deleted, because it is not a regular file")
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def delete_matching(lock: Lock, folder: Path, name: re.Pattern[str]) -> None:
    """Deletes the regular files directly in `folder` whose full names match. Raises as `delete_file` does."""
    for path in listed(folder):
        if name.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
            delete_file(lock, path)


def delete_temporaries(lock: Lock, folder: Path, name: re.Pattern[str]) -> None:
    """Deletes the temporary files in `folder` that killed processes have left, if the full name of their target matches."""
    for path in listed(folder):
        match = TEMPORARY.fullmatch(path.name)
        if match and name.fullmatch(match["name"]) and stat.S_ISREG(path.lstat().st_mode):
            delete_file(lock, path)


def delete_empty_folder(lock: Lock, folder: Path) -> bool:
    """Deletes a folder if it is empty. Returns whether it is gone. Raises StorageError if its path leads through a link."""
    _check(lock, folder)
    if folder.is_symlink() or not folder.is_dir():
        return not os.path.lexists(folder)
    try:
        folder.rmdir()
    # The folder is not empty.
    except OSError:
        return False
    return True


def delete_link(lock: Lock, path: Path) -> None:
    """Deletes a symbolic link but not its target. Raises StorageError if it is not a link."""
    _check(lock, path)
    if not path.is_symlink():
        raise StorageError(f"{path}: not deleted, because it is not a link")
    try:
        path.unlink()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def listed(folder: Path) -> list[Path]:
    """Returns the entries of a folder, sorted; an empty list if there is no folder or it is a symbolic link."""
    try:
        return [] if folder.is_symlink() else sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from error


def _check(lock: Lock, path: Path) -> None:
    """Raises StorageError unless the lock is held and `path` is in the locked folder, with no link on the way."""
    if not lock.held:
        raise StorageError(f"{path}: not deleted without the lock on {lock.folder}")
    inside = Path(os.path.abspath(path)).relative_to(os.path.abspath(lock.folder))
    # `path` is the locked folder itself.
    if inside == Path():
        return
    if os.path.realpath(path.parent) != str(Path(os.path.realpath(lock.folder)) / inside.parent):
        raise StorageError(f"{path}: not deleted, because the path leads through a symbolic link")
