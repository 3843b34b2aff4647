"""IDX, the format of MNIST and its successors: http://yann.lecun.com/exdb/mnist."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from percept_jax.data.formats.archives import Example, check_labels, gunzip
from percept_jax.errors import DataError

# Split -> the prefix of its two files' names.
PARTS = {"train": "train", "test": "t10k"}


def read_mnist(files: Mapping[str, Path], image_shape: tuple[int, int, int], classes: int) -> dict[str, Iterator[Example]]:
    """Returns the examples of each split from the four IDX files, given by name.

    A split is read when its first example is requested; an invalid file then raises DataError, naming it and the record.
    """
    return {
        split: _idx_examples(files[f"{part}-images-idx3-ubyte.gz"], files[f"{part}-labels-idx1-ubyte.gz"], image_shape, classes)
        for split, part in PARTS.items()
    }


def _idx_examples(images_at: Path, labels_at: Path, image_shape: tuple[int, int, int], classes: int) -> Iterator[Example]:
    images, labels = read_idx(images_at, 3)[..., None], read_idx(labels_at, 1)
    if images.shape[1:] != image_shape:
        raise DataError(f"{images_at}: images are {list(images.shape[1:])}, not {list(image_shape)}")
    if len(labels) != len(images):
        raise DataError(f"{labels_at}: {len(labels)} labels for {len(images)} images")
    check_labels(labels, classes, labels_at)
    for key, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield Example(key, image, {"label": int(label)})


def read_idx(path: Path, rank: int) -> np.ndarray:
    """Returns a gzipped IDX file as a uint8 array of `rank` axes, records first. Raises DataError, naming file and record."""
    content, whole = gunzip(path)
    array = parse_idx(content, path, rank)
    if not whole:
        raise DataError(f"{path}: ends after record {len(array) - 1}, before its gzip checksum")
    return array


def parse_idx(content: bytes, where: Path | str, rank: int) -> np.ndarray:
    """Returns the bytes of an IDX file as a uint8 array of `rank` axes. Raises DataError, which begins with `where`.

    The format is at the end of http://yann.lecun.com/exdb/mnist: 0, 0, type, rank, an int32 for each axis, and the values.
    """
    # The type 8 is that of unsigned bytes.
    magic = bytes((0, 0, 8, rank))
    if content[:4] != magic:
        raise DataError(
            f"{where}: begins with {content[:4].hex() or 'nothing'}, not {magic.hex()}: not an IDX file of rank {rank}"
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
