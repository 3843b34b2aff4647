"""Images and labels that a program hands over, as a data set."""

import math

import numpy as np

from percept_jax.data.dataset import Dataset, Info
from percept_jax.data.images import resize
from percept_jax.errors import UsageError, first_line

HOLD_OUT = 0.2  # of all examples for the test split, and as many for validation


def describe(images: np.ndarray, labels: np.ndarray) -> Info:
    """What uint8 images `[examples, height, width(, channels)]` and labels `[examples]`, 0 to classes - 1, are as a data set.

    Raises UsageError where they are something else, or are too few to be split in three.
    """
    try:
        images, labels = np.asarray(images), np.asarray(labels)
    except (ValueError, OverflowError) as error:  # such as of rows of several lengths
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
    classes = tuple(str(label) for label in range(int(labels.max(initial=0)) + 1))
    split = _split(labels)
    if len(missing := np.setdiff1d(np.arange(len(classes)), labels[split["train"]])):
        raise UsageError(f"labels go up to {len(classes) - 1}, but none is {missing[0]}; labels are 0 to classes - 1")
    splits = {name: len(index) for name, index in split.items()}
    return Info((*images.shape[1:3], 1 if images.ndim == 3 else images.shape[3]), classes, splits)


def load(info: Info, images: np.ndarray, labels: np.ndarray, image_size: int) -> Dataset:
    """The data set of `describe`, resized, split 60 / 20 / 20 %, stratified, always the same way."""
    parts = _split(np.asarray(labels))
    order = np.concatenate([parts[name] for name in info.splits])
    images = np.asarray(images).reshape(-1, *info.shape)
    resized = np.stack([resize(images[i], image_size, image_size) for i in order])
    return Dataset(info, resized, np.asarray(labels)[order].astype(np.int32))


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
    return {"train": train, "validation": validation, "test": test}
