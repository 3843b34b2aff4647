"""Data sets' files as their authors distribute them: IDX (MNIST and its kin) and CIFAR's binary archives.

Each split's examples come in the authors' order, under the keys that TFDS's stock builders give them.
"""

import functools
import gzip
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from percept_jax.errors import DataError

IDX_PARTS = {"train": "train", "test": "t10k"}  # split -> how its two files' names begin
CIFAR_SHAPE = (32, 32, 3)
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


class Archive(NamedTuple):
    """What is where in one of CIFAR's archives.

    Attributes:
        file: its name.
        splits: split -> the members that hold its records, in order.
        names: label -> the member that names its classes, in the order of the records' bytes.
    """

    file: str
    splits: dict[str, tuple[str, ...]]
    names: dict[str, str]


CIFAR = {
    "cifar10": Archive(
        "cifar-10-binary.tar.gz",
        {
            "train": tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
            "test": ("cifar-10-batches-bin/test_batch.bin",),
        },
        {"label": "cifar-10-batches-bin/batches.meta.txt"},
    ),
    "cifar100": Archive(
        "cifar-100-binary.tar.gz",
        {"train": ("cifar-100-binary/train.bin",), "test": ("cifar-100-binary/test.bin",)},
        {"coarse_label": "cifar-100-binary/coarse_label_names.txt", "label": "cifar-100-binary/fine_label_names.txt"},
    ),
}


def read_mnist(files: Mapping[str, Path], image_shape: tuple[int, int, int], classes: int) -> dict[str, Iterator[Example]]:
    """The examples of each split, out of the four IDX files by name; a split is read when its first example is asked for.

    Raises DataError, then, for a file that is not what it should be, naming it and the record.
    """
    return {
        split: _idx_examples(files[f"{part}-images-idx3-ubyte.gz"], files[f"{part}-labels-idx1-ubyte.gz"], image_shape, classes)
        for split, part in IDX_PARTS.items()
    }


def _idx_examples(images_at: Path, labels_at: Path, image_shape: tuple[int, int, int], classes: int) -> Iterator[Example]:
    images, labels = read_idx(images_at, 3)[..., None], read_idx(labels_at, 1)
    if images.shape[1:] != image_shape:
        raise DataError(f"{images_at}: images are {list(images.shape[1:])}, not {list(image_shape)}")
    if len(labels) != len(images):
        raise DataError(f"{labels_at}: {len(labels)} labels for {len(images)} images")
    _check_labels(labels, classes, labels_at)
    for key, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield Example(key, image, {"label": int(label)})


def read_idx(path: Path, rank: int) -> np.ndarray:
    """A gzipped IDX file of bytes as a uint8 array of `rank` axes, records first. Raises DataError, naming file and record."""
    content, whole = _gunzip(path)
    array = parse_idx(content, path, rank)
    if not whole:
        raise DataError(f"{path}: ends after record {len(array) - 1}, before its gzip checksum")
    return array


def parse_idx(content: bytes, where: Path | str, rank: int) -> np.ndarray:
    """The bytes of an IDX file as a uint8 array of `rank` axes. Raises DataError, which begins with `where`.

    The format is at the end of http://yann.lecun.com/exdb/mnist: 0, 0, type, rank, an int32 for each axis, and the values.
    """
    wanted = bytes((0, 0, 8, rank))  # 8: unsigned bytes
    if content[:4] != wanted:
        raise DataError(
            f"{where}: begins with {content[:4].hex() or 'nothing'}, not {wanted.hex()}: not an IDX file of rank {rank}"
        )
    begin = 4 + 4 * rank
    if len(content) < begin:
        raise DataError(f"{where}: ends inside its header")
    shape = struct.unpack(f">{rank}I", content[4:begin])
    record = int(np.prod(shape[1:], dtype=np.int64))
    missing = shape[0] * record - (len(content) - begin)
    if missing > 0:
        raise DataError(f"{where}: ends inside record {(len(content) - begin) // record} of {shape[0]}")
    if missing < 0:
        raise DataError(f"{where}: {-missing} bytes follow its {shape[0]} records")
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)


def read_cifar(
    path: Path, archive: Archive, classes: Mapping[str, int]
) -> tuple[dict[str, Iterator[Example]], dict[str, list[str]]]:
    """The examples of each split, and the names of each label's classes, out of an archive that is never unpacked on disk.

    `classes` says how many classes each label has, in the order of the records' bytes.
    Raises DataError for a file that is not what it should be, naming it, its member and the record.
    """
    records = [member for members in archive.splits.values() for member in members]
    content = _read_members(path, {*records, *archive.names.values()}, len(classes) + int(np.prod(CIFAR_SHAPE)))
    names = {label: _lines(content[member]) for label, member in archive.names.items()}
    for label, member in archive.names.items():
        if len(names[label]) != classes[label]:
            raise DataError(f"{path}: {member} names {len(names[label])} classes, not {classes[label]}")
    splits = {
        split: _cifar_examples(split, {f"{path}: {member}": content[member] for member in members}, classes)
        for split, members in archive.splits.items()
    }
    return splits, names


def _cifar_examples(split: str, members: Mapping[str, bytes], classes: Mapping[str, int]) -> Iterator[Example]:
    key = 0
    for where, content in members.items():
        images, labels = parse_cifar(content, where, classes)
        for image, row in zip(images, labels.tolist(), strict=True):
            yield Example(key, image, {"id": f"{split}_{key:05d}", **dict(zip(classes, row, strict=True))})
            key += 1


def parse_cifar(content: bytes, where: str, classes: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR records as images uint8 `[records, 32, 32, 3]` and labels uint8 `[records, labels]`.

    A record is a byte for each label, then the red, green and blue planes: https://www.cs.toronto.edu/~kriz/cifar.html.
    Raises DataError, which begins with `where` and names the record.
    """
    height, width, channels = CIFAR_SHAPE
    size = len(classes) + height * width * channels
    if not content or len(content) % size:
        raise DataError(f"{where}: ends inside record {len(content) // size}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels, planes = rows[:, : len(classes)], rows[:, len(classes) :]
    for column, count in zip(labels.T, classes.values(), strict=True):
        _check_labels(column, count, where)
    return planes.reshape(-1, channels, height, width).transpose(0, 2, 3, 1), labels


def _check_labels(labels: np.ndarray, classes: int, where: Path | str) -> None:
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise DataError(f"{where}: record {wrong[0]}: label {labels[wrong[0]]} of {classes} classes")


def _gunzip(path: Path) -> tuple[bytes, bool]:
    """What a gzip file holds as far as it goes, and whether it is whole: who knows the format says at which record it is cut."""
    with open(path, "rb") as raw, gzip.open(raw) as file:
        try:
            return _read_to_the_end(functools.partial(file.read1, CHUNK))  # read1: gives what there is before it fails
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path}: not a gzip file, or a damaged one ({error})") from error


def _read_members(path: Path, wanted: set[str], record: int) -> dict[str, bytes]:
    """Members of a gzipped tar file, read as one stream. `record` is the length of their records: it says where one is cut."""
    found = {}
    try:
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:
                if member.isfile() and member.name in wanted:
                    raw = tar.extractfile(member).raw  # unbuffered: a buffer is lost as a whole where the file is cut
                    content, _ = _read_to_the_end(functools.partial(raw.read, record))
                    if len(content) < member.size:
                        raise DataError(f"{path}: {member.name}: ends inside record {len(content) // record}")
                    found[member.name] = content
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a gzipped tar file, or a damaged one ({error})") from error
    if absent := sorted(wanted - found.keys()):
        raise DataError(f"{path}: has no {absent[0]}")
    return found


def _lines(content: bytes) -> list[str]:
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
