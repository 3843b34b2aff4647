"""Reads and writes TFRecord files without TensorFlow; the CRCs of each record are checked.

A record is `length (8 bytes) | masked CRC32C of them | data | masked CRC32C of it`, little-endian:
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import bisect
import functools
import itertools
import mmap
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import google_crc32c
import numpy as np

from percept_jax.errors import DataError
from percept_jax.files import in_place

HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
# A data set may have a thousand files, but most systems allow a process 1,024 open files.
OPEN_FILES = 256


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Writes a TFRecord file. Raises StorageError."""
    with in_place(path) as temporary, open(temporary, "r+b") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + FOOTER.pack(_masked_crc(length)) + record + FOOTER.pack(_masked_crc(record)))


class Records:
    """The records of several TFRecord files by index. Reading a damaged record raises DataError."""

    def __init__(self, paths: Sequence[Path]):
        """Finds the start of each record. Raises DataError if a file cannot be read or ends inside a record."""
        self.paths = [Path(path) for path in paths]
        self._open = functools.lru_cache(OPEN_FILES)(_open)
        self._begins = [_index(path, self._open(path)) for path in self.paths]
        self._ends = list(itertools.accumulate(map(len, self._begins)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> bytes:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        index %= len(self)
        shard = bisect.bisect_right(self._ends, index)
        number = index - (self._ends[shard] - len(self._begins[shard]))
        path, begin = self.paths[shard], int(self._begins[shard][number])
        content = self._open(path)
        (length,) = struct.unpack_from("<Q", content, begin)
        end = begin + HEADER.size + length
        record = content[begin + HEADER.size : end]
        if content[end : end + FOOTER.size] != FOOTER.pack(_masked_crc(record)):
            raise DataError(f"{path}: record {number} is damaged (its CRC32C differs)")
        return record


def _open(path: Path) -> mmap.mmap | bytes:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            # An empty file cannot be mapped.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _index(path: Path, content: mmap.mmap | bytes) -> np.ndarray:
    """Returns the offset of each record of a file, int64 `[records]`."""
    begins, at = [], 0
    while at < len(content):
        header = content[at : at + HEADER.size]
        if len(header) < HEADER.size:
            raise DataError(f"{path}: ends inside record {len(begins)}")
        length, crc = HEADER.unpack(header)
        # Files of any other format fail this check too.
        if crc != _masked_crc(header[:8]):
            raise DataError(f"{path}: record {len(begins)} is damaged (the CRC32C of its length differs)")
        begins.append(at)
        at += HEADER.size + length + FOOTER.size
    if at > len(content):
        raise DataError(f"{path}: ends inside record {len(begins) - 1}")
    return np.array(begins, np.int64)


def _masked_crc(data: bytes) -> int:
    """Returns a CRC32C, rotated and shifted as TFRecord does because plain CRCs of data that contain CRCs are unsafe."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
