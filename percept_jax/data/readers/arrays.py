"""Reads images and labels that are passed as arrays from Python."""

import functools
import math
from pathlib import Path

import numpy as np

from percept_jax.data.readers.base import ArraySource
from percept_jax.data.spec import DatasetSpec, image_spec
from percept_jax.errors import UsageError, first_line

# The fraction of the examples in the test split, and in the validation split.
HOLD_OUT = 0.2


class Arrays:
    """Reads arrays of images and labels, split 60 / 20 / 20 %, stratified, always in the same way. See `Reader`."""

    cache_name, records = "", "images"

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        """Takes uint8 images `[examples, height, width(, channels)]` and labels `[examples]`, 0 to classes - 1.

        Raises UsageError for any other arrays.
        """
        self._images, self._labels = _checked(images, labels)

    @functools.cached_property
    def _index(self) -> dict[str, np.ndarray]:
        return _split(self._labels)

    def describe(self) -> DatasetSpec:
        """Returns the spec of the arrays. Raises UsageError if there are too few examples for three splits."""
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
        """Returns an empty dictionary, since arrays have no files."""
        return {}


def _checked(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns images `[examples, height, width, channels]` and labels. Raises UsageError for any other arrays."""
    try:
        images, labels = np.asarray(images), np.asarray(labels)
    except (ValueError, OverflowError) as error:
        # NumPy raises these for rows of different lengths, for example.
        raise UsageError(f"images and labels are not arrays: {first_line(error)}") from error
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or 0 in images.shape[1:]:
        hint = "" if images.dtype == np.uint8 else "; scale their values to 0 to 255"
        expected = f"uint8 [examples, height, width(, channels)]{hint}"
        raise UsageError(f"images are {images.dtype} {list(images.shape)}, not {expected}")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        expected = f"one integer >= 0 for each of {len(images)} images"
        raise UsageError(f"labels are {labels.dtype} {list(labels.shape)}, not {expected}")
    if labels.max(initial=0) >= max(1, len(labels)):
        raise UsageError(f"label {labels.max()} among {len(labels)} images; labels are 0 to classes - 1")
    return images if images.ndim == 4 else images[..., None], labels


def _split(labels: np.ndarray) -> dict[str, np.ndarray]:
    try:
        return stratified_split(labels)
    except ValueError as error:
        raise UsageError(f"{len(labels)} examples cannot be split 60 / 20 / 20 % with every class in each part") from error


def stratified_split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the indices of a fixed train / validation / test split: 60 / 20 / 20 %, with equal proportions of the classes.

    Raises ValueError if a class is too small for all three splits.
    """
    from sklearn.model_selection import train_test_split

    size = math.ceil(HOLD_OUT * len(labels))
    rest, test = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=size, stratify=labels[rest], random_state=0)
    return {name: np.asarray(part) for name, part in (("train", train), ("validation", validation), ("test", test))}
