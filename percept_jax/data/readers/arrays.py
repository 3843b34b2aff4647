"""Images and labels that a program hands over, as a data set."""

import functools
import math
from pathlib import Path

import numpy as np

from percept_jax.data.readers.base import ArraySource
from percept_jax.data.spec import DatasetSpec, image_spec
from percept_jax.errors import UsageError, first_line

# Of all examples for the test split, and as many for validation.
HOLD_OUT = 0.2


class Arrays:
    """Takes images and labels of a program, split 60 / 20 / 20 %, stratified, always the same way. See `Reader`."""

    cache_name, records = "", "images"

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        """Takes uint8 images `[examples, height, width(, channels)]` and labels `[examples]`, 0 to classes - 1.

        Raises UsageError where they are something else.
        """
        self._images, self._labels = _checked(images, labels)

    @functools.cached_property
    def _index(self) -> dict[str, np.ndarray]:
        return _split(self._labels)

    def describe(self) -> DatasetSpec:
        """Returns what the arrays are as a data set. Raises UsageError where they are too few to be split in three."""
        labels, split = self._labels, self._index
        classes = tuple(str(label) for label in range(int(labels.max(initial=0)) + 1))
        if len(missing := np.setdiff1d(np.arange(len(classes)), labels[split["train"]])):
            raise UsageError(f"labels go up to {len(classes) - 1}, but none is {missing[0]}; labels are 0 to classes - 1")
        return image_spec(self._images.shape[1:], classes, {name: len(index) for name, index in split.items()})

    def source(self, split: str) -> ArraySource:
        """Returns the images and labels of a split."""
        index = self._index[split]
        return ArraySource({"image": self._images[index], "label": self._labels[index].astype(np.int32)})

    def files(self) -> dict[str, Path]:
        """Returns nothing: arrays are in no files."""
        return {}


def _checked(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images `[examples, height, width, channels]` and labels. Raises UsageError where they are something else."""
    try:
        images, labels = np.asarray(images), np.asarray(labels)
    except (ValueError, OverflowError) as error:
        # Such as of rows of several lengths.
        raise UsageError(f"images and labels are no arrays: {first_line(error)}") from error
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or 0 in images.shape[1:]:
        hint = "" if images.dtype == np.uint8 else "; their values are to be 0 to 255"
        wanted = f"uint8 [examples, height, width(, channels)]{hint}"
        raise UsageError(f"images are {images.dtype} {list(images.shape)}, not {wanted}")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        wanted = f"one whole number >= 0 for each of {len(images)} images"
        raise UsageError(f"labels are {labels.dtype} {list(labels.shape)}, not {wanted}")
    if labels.max(initial=0) >= max(1, len(labels)):
        raise UsageError(f"label {labels.max()} among {len(labels)} images; labels are 0 to classes - 1")
    return images if images.ndim == 4 else images[..., None], labels


def _split(labels: np.ndarray) -> dict[str, np.ndarray]:
    try:
        return stratified_split(labels)
    except ValueError as error:
        raise UsageError(f"{len(labels)} examples cannot be split 60 / 20 / 20 % with every class in each part") from error


def stratified_split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of a fixed train / validation / test split, 60 / 20 / 20 %, each class in the same shares everywhere.

    Raises ValueError where a class is too small to be in all three.
    """
    from sklearn.model_selection import train_test_split

    held = math.ceil(HOLD_OUT * len(labels))
    rest, test = train_test_split(np.arange(len(labels)), test_size=held, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=held, stratify=labels[rest], random_state=0)
    return {name: np.asarray(part) for name, part in (("train", train), ("validation", validation), ("test", test))}
