"""Atomic writes (to a temporary file that is flushed to disk, then renamed), checked reads, and locks on folders.

This is the only module that writes files; `percept_jax.deletion` is the only one that deletes them.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax.errors import StorageError, first_line

# The name of a temporary file that will be renamed: ".result.json.4711.percept-part".
TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.percept-part")

_LOG = b"# a log of percept_jax\n"
# The format of `write_arrays`.
_ARRAYS = "percept_jax arrays 2"


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically. Raises StorageError if the system reports an error."""
    with in_place(path) as temporary, open(temporary, "r+b") as file:
        file.write(content)


def json_bytes(value: Any) -> bytes:
    """Returns the content of a JSON file. Raises ValueError for a number that JSON cannot represent."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically. Raises ValueError for a number that JSON cannot represent."""
    write_bytes(path, json_bytes(value))


def read_bytes(path: Path) -> bytes:
    """Returns the content of a regular file. Raises StorageError if it does not exist or is something else, such as a pipe."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StorageError(f"{path}: not a file")
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse_json(content: bytes, path: Path) -> Any:
    """Returns the value of JSON text from the file `path`. Raises StorageError for invalid JSON, NaN and infinities."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not valid JSON")

    try:
        return json.loads(content.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path}: damaged: {error or type(error).__name__}") from error


def read_json(path: Path) -> Any:
    """Returns the value in a JSON file. Raises StorageError if it is damaged."""
    return parse_json(read_bytes(path), path)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file of JSON objects, without an incomplete last line; an empty list if there is no file.

    Raises StorageError, naming the line, if another line is damaged.
    """
    if not path.exists():
        return []
    *complete, last = read_bytes(path).split(b"\n")
    lines = []
    for number, line in enumerate([*complete, last], 1):
        try:
            value = parse_json(line, path)
            if not isinstance(value, dict):
                raise StorageError(f"{path}: damaged: not an object")
        except StorageError as error:
            if number > len(complete):
                break
            raise StorageError(f"{path}:{number}: damaged: not a JSON object") from error
        lines.append(value)
    return lines


@contextlib.contextmanager
def in_place(path: Path) -> Iterator[Path]:
    """Yields an empty temporary file beside `path`, and renames it to `path` when the block ends without an error.

    Raises StorageError if the system reports an error, or if `path` is a folder or a link.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.percept-part")
    made = False
    try:
        if path.is_symlink():
            raise StorageError(f"{path}: a symbolic link, which is not replaced")
        path.parent.mkdir(parents=True, exist_ok=True)
        # A killed process with the same process id may have left this file.
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        made = True
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    finally:
        if made:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def open_to_append(path: Path) -> Any:
    """Opens a line-buffered text file to append to. Never follows a link. Raises StorageError."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a", buffering=1)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def open_log(path: Path) -> Any:
    """Opens a log file for the output of another process; a previous log is emptied.

    Raises StorageError if the file is not such a log, has a second hard link, or is a symbolic link.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        status = os.fstat(file)
        is_log = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and os.pread(file, len(_LOG), 0) in (_LOG, b"")
        if not is_log:
            os.close(file)
            raise StorageError(f"{path}: not emptied, because it is not a log of percept_jax")
        os.ftruncate(file, 0)
        os.write(file, _LOG)
        return os.fdopen(file, "w")
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


class Lock:
    """A lock on a folder: a kernel lock on a file, which is released when the process dies.

    Attributes:
        folder: the folder that is locked.
        held: whether this process holds the lock.
    """

    def __init__(self, path: Path, folder: Path, wait: bool = False, shared: bool = False):
        """Tries to lock the file `path`, which is created if needed, is never emptied, and is never reached through a link.

        With `wait` it blocks until the lock is held. Several processes can hold a `shared` lock at the same time. Raises
        StorageError if the file cannot be opened.
        """
        self.folder, self.held = folder, False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(path, flags, 0o666)
        except OSError as error:
            is_link = error.errno == errno.ELOOP
            problem = "a symbolic link, which a lock never follows" if is_link else error.strerror or str(error)
            raise StorageError(f"{path}: {problem}") from error
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise StorageError(f"{path}: not a file")
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(self._file, kind | (0 if wait else fcntl.LOCK_NB))
            self.held = True
        except BlockingIOError:
            self.release()
        except OSError as error:
            self.release()
            raise StorageError(f"{path}: {error.strerror or error}") from error
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Releases the lock."""
        self.held = False
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@contextlib.contextmanager
def locked(path: Path, wait: bool = False, folder: Path | None = None, shared: bool = False) -> Iterator[Lock]:
    """Yields a `Lock` on `folder` (default: the folder of `path`) until the block ends; check `held` unless `wait` is set."""
    lock = Lock(path, folder or path.parent, wait, shared)
    try:
        yield lock
    finally:
        lock.release()


def digest(*parts: bytes | memoryview) -> str:
    """Returns 32 hexadecimal digits: the BLAKE2b digest of the concatenated byte strings."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], meta: Any) -> None:
    """Writes a safetensors file of named arrays with `meta` (any JSON value) in its header, all covered by one checksum."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(a).reshape(np.shape(a)) for name, a in arrays.items()}
    text = json.dumps(meta, allow_nan=False)
    write_bytes(path, save(arrays, {"format": _ARRAYS, "meta": text, "checksum": _checksum(arrays, text)}))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Returns the arrays and `meta` of a file from `write_arrays`. Raises StorageError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StorageError(f"{path}: not a file")
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != _ARRAYS:
                raise StorageError(f"{path}: not in the format that this version writes")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if header.get("checksum") != _checksum(arrays, header.get("meta", "")):
            raise StorageError(f"{path}: damaged: its checksum differs")
        return arrays, json.loads(header["meta"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise StorageError(f"{path}: cannot be read: {reason}") from error


def _checksum(arrays: Mapping[str, np.ndarray], meta: str) -> str:
    """Returns the checksum over the header's text, and every array's name, dtype, shape and bytes."""
    parts: list[bytes | memoryview] = [json.dumps([_ARRAYS, meta]).encode()]
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        parts.append(json.dumps([name, array.dtype.name, list(arrays[name].shape)]).encode())
        parts.append(array.reshape(-1).view(np.uint8).data)
    return digest(*parts)
