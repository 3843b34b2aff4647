"""What a data set is to the rest of the house: a description, and then arrays."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from percept_jax.data.splits import choose
from percept_jax.errors import UsageError


class Info(NamedTuple):
    """What is known of a data set before an example is read.

    Attributes:
        image_shape: (height, width, channels) as stored; height and width are 0 where they differ from image to image.
        classes: a name for each label.
        splits: examples of each of its own splits, in the order in which they are held.
        version: of the TFDS folder; empty where there is none.
        points: its examples are points, float32 features in the channels of 1x1 images, not images of bytes.
        index: where the examples to train, validate and test on are, once that is chosen.
    """

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    splits: dict[str, int]
    version: str = ""
    points: bool = False
    index: Mapping[str, np.ndarray] = {}

    def select(self, train: str = "", validation: str = "", test: str = "") -> "Info":
        """This data set with its index, and only the splits that are in use. Raises UsageError, see `splits.choose`."""
        index = choose(self.splits, train, validation, test)
        used, kept, seen, start = np.concatenate(list(index.values())), {}, [], 0
        for name, size in self.splits.items():
            seen.append(np.any((used >= start) & (used < start + size)))
            kept |= {name: size} if seen[-1] else {}
            start += size
        moved = np.cumsum(np.repeat(seen, list(self.splits.values()))) - 1
        return self._replace(splits=kept, index={role: moved[at].astype(np.int32) for role, at in index.items()})


class Dataset(NamedTuple):
    """A data set in memory, split by split.

    Attributes:
        info: with its index.
        images: uint8 `[examples, size, size, channels]`, or float32 `[examples, 1, 1, features]` for points.
        labels: int32 `[examples]`.
    """

    info: Info
    images: np.ndarray
    labels: np.ndarray

    @property
    def crc(self) -> int:
        """A checksum of all that is in it."""
        return zlib.crc32(self.labels, zlib.crc32(np.ascontiguousarray(self.images)))

    def check(self, crc: int, name: str, run_dir: Path) -> None:
        """Raises UsageError unless this is the data set that a run was begun with."""
        if self.crc != crc:
            raise UsageError(f"{name} is not what it was when {run_dir} was begun; --fresh starts anew", "dataset")


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[channels]` and covariance `[channels, channels]` of the pixels of all images, float64, over blocks of images."""
    channels, count = images.shape[-1], images[..., 0].size
    origin = images[0, 0, 0].astype(np.float64)  # about some pixel, so that channels that never change have a variance of 0
    total, products = np.zeros(channels), np.zeros((channels, channels))
    for first in range(0, len(images), 1024):
        pixels = images[first : first + 1024].reshape(-1, channels) - origin
        total += pixels.sum(0)
        products += pixels.T @ pixels
    mean = total / count
    return origin + mean, products / count - np.outer(mean, mean)
