"""CIFAR's binary archives: https://www.cs.toronto.edu/~kriz/cifar.html."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from percept_jax.data.formats.archives import Example, check_labels, lines, read_members
from percept_jax.errors import DataError

SHAPE = (32, 32, 3)


class Archive(NamedTuple):
    """The layout of one of CIFAR's archives.

    Attributes:
        file: the name of the archive.
        splits: split -> the members that hold its records, in order.
        names: label -> the member that names its classes, in the order of the records' bytes.
    """

    file: str
    splits: dict[str, tuple[str, ...]]
    names: dict[str, str]


ARCHIVES = {
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


def read_cifar(
    path: Path, archive: Archive, classes: Mapping[str, int]
) -> tuple[dict[str, Iterator[Example]], dict[str, list[str]]]:
    """Returns the examples of each split and the names of each label's classes; the archive is not unpacked on disk.

    `classes` is the number of classes of each label, in the order of the records' bytes.
    Raises DataError for an invalid file, naming it, its member and the record.
    """
    records = [member for members in archive.splits.values() for member in members]
    content = read_members(path, {*records, *archive.names.values()}, len(classes) + int(np.prod(SHAPE)))
    names = {label: lines(content[member]) for label, member in archive.names.items()}
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
    """Returns the images uint8 `[records, 32, 32, 3]` and labels uint8 `[records, labels]` of CIFAR records.

    A record is a byte for each label, then the red, green and blue planes: https://www.cs.toronto.edu/~kriz/cifar.html.
    Raises DataError, which begins with `where` and names the record.
    """
    height, width, channels = SHAPE
    size = len(classes) + height * width * channels
    if not content or len(content) % size:
        raise DataError(f"{where}: ends inside record {len(content) // size}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels, planes = rows[:, : len(classes)], rows[:, len(classes) :]
    for column, count in zip(labels.T, classes.values(), strict=True):
        check_labels(column, count, where)
    return planes.reshape(-1, channels, height, width).transpose(0, 2, 3, 1), labels
