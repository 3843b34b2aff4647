"""Helpers for the authors' formats: an example, and compressed files that may be truncated.

Each split's examples keep the authors' order and get the keys of TFDS's stock builders.
"""

import functools
import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from percept_jax.errors import DataError

CHUNK = 1 << 20


class Example(NamedTuple):
    """One example of a split.

    Attributes:
        key: its number in the split, from 0.
        image: uint8 `[height, width, channels]`.
        features: "label", and the other features of the stock builder's examples.
    """

    key: int
    image: np.ndarray
    features: dict[str, int | str]


def check_labels(labels: np.ndarray, classes: int, where: Path | str) -> None:
    """Raises DataError, which names the record, for a label that is `classes` or more."""
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise DataError(f"{where}: record {wrong[0]}: label {labels[wrong[0]]} of {classes} classes")


def gunzip(path: Path) -> tuple[bytes, bool]:
    """Returns the content of a gzip file, and whether it is complete.

    A truncated file is not an error here: the caller, who knows the format, reports the record at which it ends.
    """
    with open(path, "rb") as raw, gzip.open(raw) as file:
        try:
            # Unlike read, read1 returns the available content before it fails.
            return _read_to_the_end(functools.partial(file.read1, CHUNK))
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path}: not a gzip file, or a damaged one ({error})") from error


def read_members(path: Path, wanted: set[str], record: int) -> dict[str, bytes]:
    """Returns the content of the members `wanted` of a gzipped tar file, read as one stream.

    `record` is the length of the members' records, for the message about a truncated one. Raises DataError.
    """
    found = {}
    try:
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:
                if member.isfile() and member.name in wanted:
                    # The raw file is read, because a truncated file would lose a whole buffer.
                    raw = getattr(tar.extractfile(member), "raw")  # noqa: B009
                    content, _ = _read_to_the_end(functools.partial(raw.read, record))
                    if len(content) < member.size:
                        raise DataError(f"{path}: {member.name}: ends inside record {len(content) // record}")
                    found[member.name] = content
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a gzipped tar file, or a damaged one ({error})") from error
    if absent := sorted(wanted - found.keys()):
        raise DataError(f"{path}: has no {absent[0]}")
    return found


def lines(content: bytes) -> list[str]:
    """Returns the lines of a text that are not empty."""
    return [line for line in content.decode(errors="replace").split("\n") if line]


def _read_to_the_end(read: Callable[[], bytes]) -> tuple[bytes, bool]:
    """Returns all content that `read` returns, and whether the file was complete."""
    parts = []
    try:
        while part := read():
            parts.append(part)
    except (EOFError, tarfile.ReadError):
        return b"".join(parts), False
    return b"".join(parts), True
