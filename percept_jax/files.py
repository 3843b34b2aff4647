"""Files that are whole or absent: written under another name, flushed to the disk, then renamed. And locks on folders.

The only module that writes files, beside `percept_jax.deletion`, the only one that deletes them.
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

# What is written before it takes its place: ".result.json.4711.percept-part".
TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.percept-part")

_LOG = b"# a log of percept_jax\n"
# The format of `write_arrays`.
_ARRAYS = "percept_jax arrays 2"


def write_bytes(path: Path, content: bytes) -> None:
    """Puts a file in place in one piece. Raises StorageError where the disk refuses."""
    with in_place(path) as temporary, open(temporary, "r+b") as file:
        file.write(content)


def json_bytes(value: Any) -> bytes:
    """A JSON file's content. Raises ValueError for a number that JSON does not have."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Puts a JSON file in place in one piece. Raises ValueError for a number that JSON does not have."""
    write_bytes(path, json_bytes(value))


def read_bytes(path: Path) -> bytes:
    """The content of a regular file. Raises StorageError where there is none, or it is something else, such as a pipe."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StorageError(f"{path}: not a file")
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse_json(content: bytes, path: Path) -> Any:
    """What JSON text from the file `path` holds. Raises StorageError where it is no JSON, or has NaN or an infinity in it."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(content.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path}: damaged: {error or type(error).__name__}") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises StorageError where it is damaged."""
    return parse_json(read_bytes(path), path)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON objects, without a last one that was cut off while it was written; none without a file.

    Raises StorageError, naming the line, where another one is damaged.
    """
    if not path.exists():
        return []
    *whole, last = read_bytes(path).split(b"\n")
    lines = []
    for number, line in enumerate([*whole, last], 1):
        try:
            value = parse_json(line, path)
            if not isinstance(value, dict):
                raise StorageError(f"{path}: damaged: not an object")
        except StorageError as error:
            if number > len(whole):
                break
            raise StorageError(f"{path}:{number}: damaged: not a line that was written") from error
        lines.append(value)
    return lines


@contextlib.contextmanager
def in_place(path: Path) -> Iterator[Path]:
    """An empty temporary file beside `path`; what was written into it takes the place of `path` at the end.

    Raises StorageError where the disk refuses, or where `path` is a folder.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.percept-part")
    made = False
    try:
        if path.is_symlink():
            raise StorageError(f"{path}: a symbolic link, which is not replaced")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of a process that had the same number, and was killed.
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
    """A text file whose lines are added to it at once. Never follows a link. Raises StorageError."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a", buffering=1)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def open_log(path: Path) -> Any:
    """A file that another process may print to, emptied first if it is such a log already.

    Raises StorageError where it is another file, one that has a second name, or a link.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        status = os.fstat(file)
        ours = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and os.pread(file, len(_LOG), 0) in (_LOG, b"")
        if not ours:
            os.close(file)
            raise StorageError(f"{path}: not a log that was written here; it is not emptied")
        os.ftruncate(file, 0)
        os.write(file, _LOG)
        return os.fdopen(file, "w")
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


class Lock:
    """An exclusive hold on a folder, by way of a file for which the kernel keeps it; a process that dies lets go.

    Attributes:
        folder: what is held.
        held: whether this process holds it.
    """

    def __init__(self, path: Path, folder: Path, wait: bool = False, shared: bool = False):
        """Takes the lock on the file `path`, which is made if need be, never emptied, and never reached through a link.

        With `wait` this returns only when the lock is held; a `shared` one others may hold too, if theirs is shared. Raises
        StorageError where there can be no such file.
        """
        self.folder, self.held = folder, False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(path, flags, 0o666)
        except OSError as error:
            said = "a symbolic link, which a lock never follows" if error.errno == errno.ELOOP else error.strerror or str(error)
            raise StorageError(f"{path}: {said}") from error
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
        """Lets go."""
        self.held = False
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@contextlib.contextmanager
def locked(path: Path, wait: bool = False, folder: Path | None = None, shared: bool = False) -> Iterator[Lock]:
    """A lock, see `Lock`, until the block ends; its `held` says whether this process has it. `folder` is what it stands for."""
    lock = Lock(path, folder or path.parent, wait, shared)
    try:
        yield lock
    finally:
        lock.release()


def digest(*parts: bytes | memoryview) -> str:
    """32 hexadecimal digits of BLAKE2b over byte strings, one after the other."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], meta: Any) -> None:
    """A safetensors file of named arrays with `meta` (anything JSON) in its header, all under one checksum."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(a).reshape(np.shape(a)) for name, a in arrays.items()}
    text = json.dumps(meta, allow_nan=False)
    write_bytes(path, save(arrays, {"format": _ARRAYS, "meta": text, "checksum": _checksum(arrays, text)}))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """What `write_arrays` wrote. Raises StorageError where it is not exactly what was written."""
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
        said = getattr(error, "strerror", None) or first_line(error)
        raise StorageError(f"{path}: cannot be read: {said}") from error


def _checksum(arrays: Mapping[str, np.ndarray], meta: str) -> str:
    """Over the header's text, and every array's name, dtype, shape and bytes."""
    parts: list[bytes | memoryview] = [json.dumps([_ARRAYS, meta]).encode()]
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        parts.append(json.dumps([name, array.dtype.name, list(arrays[name].shape)]).encode())
        parts.append(array.reshape(-1).view(np.uint8).data)
    return digest(*parts)
