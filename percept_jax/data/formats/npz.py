"""Reads arrays from .npz files. Headers are checked first, since an array may claim to be larger than the memory.

Also narrows numbers of any type to int32 or float32, after checking each value.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from percept_jax.errors import DataError, first_line

# Bytes of all arrays together: 64 GiB.
LARGEST = 1 << 36


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file by name.

    Raises DataError, naming the array, if the file is not an .npz file, is damaged, contains Python objects, or claims to hold
    more bytes than it does or than LARGEST.
    """
    try:
        with zipfile.ZipFile(path) as file:
            total = 0
            for member, name in _members(path, file):
                total += _size(path, file, member, name)
                if total > LARGEST:
                    raise DataError(f"{path}: its arrays are more than {LARGEST >> 30} GiB")
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded}
    except DataError:
        raise
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: not an .npz file of named arrays, or a damaged one: {error}") from error
    # zipfile, zlib and NumPy raise many kinds of errors for a damaged file.
    except Exception as error:
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from error


def _members(path: Path, file: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    seen = set()
    for member in file.infolist():
        name = member.filename.removesuffix(".npy")
        if member.flag_bits & 1:
            raise DataError(f"{path}: {name} is encrypted")
        if name in seen or name == member.filename:
            raise DataError(f"{path}: {member.filename} {'occurs twice' if name in seen else 'is not an array'}")
        seen.add(name)
        yield member, name


def _size(path: Path, file: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> int:
    """Returns the size of an array in bytes, from its header. Raises DataError unless the file holds as many."""
    with file.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read_header is None:
            raise DataError(f"{path}: {name} has an unknown version of NumPy's format ({version})")
        shape, _, dtype = read_header(stream)
        if dtype.hasobject:
            raise DataError(f"{path}: {name} holds Python objects, which are not read; save it as numbers")
        size, available = dtype.itemsize, member.file_size - stream.tell()
        for side in shape:
            size *= side
        if size != available:
            raise DataError(f"{path}: the header of {name} says {dtype} {list(shape)}, {size} bytes, but it has {available}")
        return size


def to_int32(array: np.ndarray, what: str, least: int, most: int) -> np.ndarray:
    """Returns integers as int32. Raises ValueError, naming the first that is not from `least` to `most`, and its index."""
    bad = (array < least) | (array > most)
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        raise ValueError(f"{what}{place} is {array[tuple(place)]}, not from {least} to {most}")
    return array.astype(np.int32)


def to_float32(array: np.ndarray, what: str, counted: np.ndarray | None = None) -> np.ndarray:
    """Returns numbers as float32. Raises ValueError, naming the first that is not finite in float32, and its index.

    Args:
        array: numbers of any type.
        what: the name of the array in messages.
        counted: a mask of the numbers that count, of a shape that broadcasts to `array`'s; None: all.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        narrowed = array.astype(np.float32)
    bad = ~np.isfinite(narrowed)
    if counted is not None:
        bad &= counted
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        raise ValueError(f"{what}{place} is {array[tuple(place)]}, not a finite number that float32 can hold")
    return narrowed
