"""What the authors' formats share: an example, and files that are compressed and may be cut short.

Each split's examples come in the authors' order, under the keys that TFDS's stock builders give them.
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
        features: "label", and what else the stock builder's examples have.
    """

    key: int
    image: np.ndarray
    features: dict[str, int | str]


def check_labels(labels: np.ndarray, classes: int, where: Path | str) -> None:
    """Raises DataError, which names the record, for a label that is that of no class."""
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise DataError(f"{where}: record {wrong[0]}: label {labels[wrong[0]]} of {classes} classes")


def gunzip(path: Path) -> tuple[bytes, bool]:
    """What a gzip file holds as far as it goes, and whether it is whole: who knows the format says at which record it is cut."""
    with open(path, "rb") as raw, gzip.open(raw) as file:
        try:
            # read1: gives what there is before it fails.
            return _read_to_the_end(functools.partial(file.read1, CHUNK))
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path}: not a gzip file, or a damaged one ({error})") from error


def read_members(path: Path, wanted: set[str], record: int) -> dict[str, bytes]:
    """Members of a gzipped tar file, read as one stream. `record` is the length of their records: it says where one is cut."""
    found = {}
    try:
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:
                if member.isfile() and member.name in wanted:
                    # Unbuffered: a buffer is lost as a whole where the file is cut.
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
    """All that `read` gives, and whether it came to the end rather than to a cut."""
    parts = []
    try:
        while part := read():
            parts.append(part)
    except (EOFError, tarfile.ReadError):
        return b"".join(parts), False
    return b"".join(parts), True
