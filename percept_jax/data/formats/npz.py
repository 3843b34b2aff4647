"""Arrays out of .npz files, looked at before they are read: what they say they hold may be more than a machine has.

And numbers of any kind narrowed to what a model takes, each checked before it is cast.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from percept_jax.errors import DataError, first_line

# Bytes of all arrays together: 64 GiB.
LARGEST = 1 << 36


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Raises DataError, naming the array, where the file is something else, is damaged, has Python's objects in it, or says that it
    holds more than it does or than LARGEST.
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
    # zipfile, zlib and NumPy raise many kinds for a damaged file.
    except Exception as error:
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from error


def _members(path: Path, file: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    seen = set()
    for member in file.infolist():
        name = member.filename.removesuffix(".npy")
        if member.flag_bits & 1:
            raise DataError(f"{path}: {name} is encrypted")
        if name in seen or name == member.filename:
            raise DataError(f"{path}: {member.filename} is {'there twice' if name in seen else 'no array'}")
        seen.add(name)
        yield member, name


def _size(path: Path, file: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> int:
    """Bytes of an array, as its header says. Raises DataError unless the file holds just as many."""
    with file.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read_header is None:
            raise DataError(f"{path}: {name} is in a format that NumPy does not have ({version})")
        shape, _, dtype = read_header(stream)
        if dtype.hasobject:
            raise DataError(f"{path}: {name} holds Python's objects, which are not read; save it as numbers")
        size, there = dtype.itemsize, member.file_size - stream.tell()
        for side in shape:
            size *= side
        if size != there:
            raise DataError(f"{path}: {name} says that it is {dtype} {list(shape)}, {size} bytes, but there are {there}")
        return size


def to_int32(array: np.ndarray, what: str, least: int, most: int) -> np.ndarray:
    """Whole numbers as int32. Raises ValueError, naming the first that is not from `least` to `most`, and its place."""
    bad = (array < least) | (array > most)
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        raise ValueError(f"{what}{place} is {array[tuple(place)]}, not from {least} to {most}")
    return array.astype(np.int32)


def to_float32(array: np.ndarray, what: str, real: np.ndarray | None = None) -> np.ndarray:
    """Numbers as float32. Raises ValueError, naming the first that is not finite in it, and its place.

    Args:
        array: of any kind of numbers.
        what: it is called.
        real: which of them count, of a shape that `array` can be compared with; None: all.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        narrowed = array.astype(np.float32)
    bad = ~np.isfinite(narrowed)
    if real is not None:
        bad &= real
    if bad.any():
        place = np.argwhere(bad)[0].tolist()
        raise ValueError(f"{what}{place} is {array[tuple(place)]}, not a finite number that float32 can hold")
    return narrowed
