"""Files that are whole or absent: written under another name, flushed to the disk, then renamed."""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax.errors import StorageError


def write_bytes(path: Path, content: bytes) -> None:
    """Puts a file in place in one piece. Raises StorageError where the disk refuses."""
    with in_place(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Puts a JSON file in place in one piece. Raises ValueError for a number that JSON does not have."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises StorageError where it is damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error


def read_json_lines(path: Path) -> list[Any]:
    """The lines of a file of JSON objects, without a last one that was cut off while it was written; none without a file."""
    lines = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
    return lines


@contextlib.contextmanager
def in_place(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there takes its place at the end. Raises StorageError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], meta: Any) -> None:
    """A safetensors file of named arrays, with a CRC32 of each and `meta` (anything JSON) in its header."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(a).reshape(np.shape(a)) for name, a in arrays.items()}
    header = {"meta": json.dumps(meta), "crc32": json.dumps({name: zlib.crc32(a) for name, a in arrays.items()})}
    write_bytes(path, save(arrays, header))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """What `write_arrays` wrote. Raises StorageError, naming the array, where it is not what was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            header = file.metadata() or {}
        meta, sums = json.loads(header["meta"]), json.loads(header["crc32"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read: {error}") from error
    if sums.keys() != arrays.keys():
        raise StorageError(f"{path}: arrays are missing")
    for name, array in arrays.items():
        if zlib.crc32(np.ascontiguousarray(array)) != sums[name]:
            raise StorageError(f"{path}: {name} is damaged (its CRC32 differs)")
    return arrays, meta
