"""Paths that come from outside: from the command line, from a flag file, or from a program that calls the package.

Every one of them goes through `user_path`, so that `~` means the same everywhere, and a path that cannot exist is refused in one
line that names the flag. `input_file` and `output_path` add what a file to read and a place to write must be.
"""

import errno
import os
import stat
from pathlib import Path

from percept_jax.errors import UsageError

# Bytes in one name, and in a whole path, on the file systems that Linux and macOS use.
LONGEST_NAME, LONGEST_PATH = 255, 4095
# Beside it is written, under a longer name, what takes its place.
LONGEST_OUTPUT = 220

_SPECIAL = ("/proc", "/sys", "/dev")


def cache_folder() -> Path:
    """Returns where what can be computed again is kept for the next process: $XDG_CACHE_HOME/percept_jax, else under ~/.cache.

    Raises RuntimeError where there is no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "percept_jax"


def user_path(text: str | os.PathLike, flag: str | None = None, where: str | None = None) -> Path:
    """Returns the path that `text` names, with `~` and `~user` expanded. It need not exist.

    Args:
        text: as it was given.
        flag, where: the flag and the place that gave it, for the message.

    Raises:
        UsageError: the text is empty, has a NUL, a line break or bytes that are no UTF-8, is too long for a file system, names
            a user that does not exist, or leads through a loop of symbolic links.
    """
    text = os.fspath(text)
    if not text:
        raise UsageError("needs a path", flag, where)
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="replace").decode()
        raise UsageError(f"{shown!r}: the path is not UTF-8, so it cannot be written down; rename it", flag, where) from None
    if "\0" in text or len(text.splitlines()) > 1 or text != text.rstrip("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"):
        raise UsageError(f"{text!r}: a path has no line break and no NUL", flag, where)
    if len(encoded) > LONGEST_PATH or max(len(part) for part in encoded.split(b"/")) > LONGEST_NAME:
        raise UsageError(f"{text[:40]}...: the path is too long, a name has at most {LONGEST_NAME} bytes", flag, where)
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{text}: there is no user {text.partition('/')[0]}", flag, where) from None
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(f"{text}: a loop of symbolic links", flag, where) from None
    return path


def input_file(text: str | os.PathLike, flag: str | None = None, where: str | None = None) -> Path:
    """Returns the path of a file to read. Raises UsageError where `user_path` does, and unless it is a regular file.

    A pipe or a device is refused: reading one may never end.
    """
    path = user_path(text, flag, where)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        said = "no such file" if error.errno == errno.ENOENT else error.strerror
        raise UsageError(f"{path}: {said}", flag, where) from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise UsageError(f"{path} is {kind}, not a file", flag, where)
    return path


def output_path(text: str | os.PathLike, flag: str | None = None, where: str | None = None) -> Path:
    """Returns the path of a file or a folder to make. Raises UsageError where `user_path` does, and where nothing can be made.

    That is below something that is no folder, in a folder that may not be written to, or among the kernel's own files.
    """
    path = user_path(text, flag, where)
    if len(path.name.encode()) > LONGEST_OUTPUT:
        raise UsageError(
            f"{path.name[:40]}...: the name is too long, that of a file to write has at most {LONGEST_OUTPUT} bytes", flag, where
        )
    resolved = Path(os.path.realpath(path))
    if any(resolved.is_relative_to(place) for place in _SPECIAL) and not resolved.is_relative_to("/dev/shm"):
        raise UsageError(f"{path}: the system's own files are there, and nothing can be kept", flag, where)
    there = next(place for place in resolved.parents if place.exists())
    if not there.is_dir():
        raise UsageError(f"{path}: {there} is not a folder", flag, where)
    if not resolved.exists() and not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: {there} may not be written to", flag, where)
    return path
