"""What a data set is to the rest of the house: a description, and then arrays."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from percept_jax.data.splits import choose
from percept_jax.errors import UsageError

Kind = Literal["images", "points", "values", "tokens", "words", "text"]


class Info(NamedTuple):
    """What is known of a data set before an example is read.

    Attributes:
        shape: of an input: (height, width, channels) of images as stored, height and width 0 where they differ from image to
            image; (1, 1, features) of points; (time, features) of sequences of values, (time,) of tokens.
        classes: a name for each label; none where the targets are values.
        splits: examples of each of its own splits, in the order in which they are held.
        version: of the TFDS folder; empty where there is none.
        kind: what an input is: an image of bytes, a point, or a sequence: of values, of tokens that are numbers, of words, or of
            the characters of a text, each to be told from those before it.
        target_shape: of a target: () for a label, (time,) for a label a step, (features,) for values, (time, features) for
            values a step.
        words: what each token stands for.
        index: where the examples to train, validate and test on are, once that is chosen.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    splits: dict[str, int]
    version: str = ""
    kind: Kind = "images"
    target_shape: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
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
        inputs: uint8 images `[examples, size, size, channels]`, float32 points `[examples, 1, 1, features]` or values
            `[examples, time, features]`, int32 tokens `[examples, time]`.
        targets: int32 labels `[examples]` or `[examples, time]`, float32 values `[examples, features]` or
            `[examples, time, features]`; -1 or not a number where there is none.
        lengths: int32 `[examples]`, the real steps of each sequence; None for images and points.
    """

    info: Info
    inputs: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray | None = None

    @property
    def crc(self) -> int:
        """A checksum of all that is in it."""
        crc = zlib.crc32(np.ascontiguousarray(self.targets), zlib.crc32(np.ascontiguousarray(self.inputs)))
        return crc if self.lengths is None else zlib.crc32(self.lengths, crc)

    def check(self, crc: int, name: str, run_dir: Path) -> None:
        """Raises UsageError unless this is the data set that a run was begun with."""
        if self.crc != crc:
            raise UsageError(f"{name} is not what it was when {run_dir} was begun; --fresh starts anew", "dataset")


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[channels]` and covariance `[channels, channels]` over all but the last axis, float64, over blocks of examples."""
    channels, count = images.shape[-1], images[..., 0].size
    origin = images.reshape(-1, channels)[0].astype(np.float64)  # so that channels that never change have a variance of 0
    total, products = np.zeros(channels), np.zeros((channels, channels))
    for first in range(0, len(images), 1024):
        pixels = images[first : first + 1024].reshape(-1, channels) - origin
        total += pixels.sum(0)
        products += pixels.T @ pixels
    mean = total / count
    return origin + mean, products / count - np.outer(mean, mean)
