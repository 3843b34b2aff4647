"""Checks paths that users give: on the command line, in a flag file, or from a program that calls the package.

All of them go through `user_path`, so that `~` is expanded everywhere, and an impossible path is refused with a message that
names the flag. `input_file` and `output_path` also check that a file can be read and that a path can be written.
"""

import errno
import os
import stat
from pathlib import Path

from percept_jax.errors import UsageError

# Bytes in one name, and in a whole path, on the file systems that Linux and macOS use.
LONGEST_NAME, LONGEST_PATH = 255, 4095
# Output names are shorter, because an atomic write uses a temporary file with a longer name.
LONGEST_OUTPUT = 220

_SPECIAL = ("/proc", "/sys", "/dev")


def cache_folder() -> Path:
    """Returns the folder of caches: $XDG_CACHE_HOME/percept_jax, else ~/.cache/percept_jax.

    Raises RuntimeError if there is no home directory.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "percept_jax"


def user_path(text: str | os.PathLike, flag: str | None = None, where: str | None = None) -> Path:
    """Returns the path that `text` names, with `~` and `~user` expanded. It need not exist.

    Args:
        text: the path as the user gave it.
        flag, where: the flag and the place that it was given at, for the message.

    Raises:
        UsageError: the text is empty, has a NUL, a line break or bytes that are not UTF-8, is too long for a file system, names
            a user that does not exist, or leads through a loop of symbolic links.
    """
    text = os.fspath(text)
    if not text:
        raise UsageError("needs a path", flag, where)
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="replace").decode()
        raise UsageError(f"{shown!r}: the path is not UTF-8, so files cannot record it; rename it", flag, where) from None
    if "\0" in text or len(text.splitlines()) > 1 or text != text.rstrip("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"):
        raise UsageError(f"{text!r}: a path must not contain a line break or a NUL", flag, where)
    if len(encoded) > LONGEST_PATH or max(len(part) for part in encoded.split(b"/")) > LONGEST_NAME:
        raise UsageError(f"{text[:40]}...: the path is too long; a name may have at most {LONGEST_NAME} bytes", flag, where)
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
    """Returns the path of a file to read. Raises UsageError as `user_path` does, and if it is not a regular file.

    Pipes and devices are refused, because reading one may never end.
    """
    path = user_path(text, flag, where)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        reason = "no such file" if error.errno == errno.ENOENT else error.strerror
        raise UsageError(f"{path}: {reason}", flag, where) from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise UsageError(f"{path} is {kind}, not a file", flag, where)
    return path


def output_path(text: str | os.PathLike, flag: str | None = None, where: str | None = None) -> Path:
    """Returns the path of a file or folder to create. Raises UsageError as `user_path` does, and if it cannot be created.

    It cannot be created below a file, in a folder that is not writable, or among the kernel's own files.
    """
    path = user_path(text, flag, where)
    if len(path.name.encode()) > LONGEST_OUTPUT:
        problem = f"the name is too long; the name of an output may have at most {LONGEST_OUTPUT} bytes"
        raise UsageError(f"{path.name[:40]}...: {problem}", flag, where)
    resolved = Path(os.path.realpath(path))
    if any(resolved.is_relative_to(folder) for folder in _SPECIAL) and not resolved.is_relative_to("/dev/shm"):
        raise UsageError(f"{path}: results cannot be stored among the files of the operating system", flag, where)
    parent = next(folder for folder in resolved.parents if folder.exists())
    if not parent.is_dir():
        raise UsageError(f"{path}: {parent} is not a folder", flag, where)
    if not resolved.exists() and not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: {parent} is not writable", flag, where)
    return path
