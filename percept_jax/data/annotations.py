"""Checks the boxes and masks of examples, and brings them into the form in which examples are stored."""

import io
from collections.abc import Sequence

import numpy as np

from percept_jax.data.images import opened
from percept_jax.data.spec import VOID, Size

# By this much a coordinate may lie outside of the image, and is clipped: annotations are rounded.
SLACK = 0.005


def stored_boxes(
    boxes: np.ndarray, classes: Sequence[int] | np.ndarray, names: Sequence[str], most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the boxes of one image and their classes as they are stored, padded to `most` boxes.

    Args:
        boxes: `[n, (ymin, xmin, ymax, xmax)]` in fractions of the image's sides.
        classes: `[n]`, whole numbers.
        names: the names of the classes.
        most: the number of boxes to pad to.

    Returns:
        Boxes `[most, 4]`, float32, 0 behind the last one; and classes `[most]`, int32, -1 behind the last one.

    Raises:
        ValueError: a box is empty, inverted or outside of the image, or its class is unknown.
    """
    boxes, classes = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(classes, np.int64).reshape(-1)
    if len(boxes) != len(classes) or len(boxes) > most:
        raise ValueError(f"{len(boxes)} boxes and {len(classes)} classes; there are at most {most}")
    for box, label in zip(boxes, classes, strict=True):
        ymin, xmin, ymax, xmax = box
        shown = f"the box {[round(float(number), 4) for number in box]}"
        if not np.isfinite(box).all() or box.min() < -SLACK or box.max() > 1 + SLACK:
            raise ValueError(f"{shown} (ymin, xmin, ymax, xmax) is outside of the image, which goes from 0 to 1")
        if np.float32(ymax) <= np.float32(ymin) or np.float32(xmax) <= np.float32(xmin):
            raise ValueError(f"{shown} (ymin, xmin, ymax, xmax) is empty or inverted")
        if not 0 <= label < len(names):
            raise ValueError(f"{shown} has class {label}, but there are {len(names)} classes")
    padding = most - len(boxes)
    stored = np.pad(np.clip(boxes, 0, 1).astype(np.float32), ((0, padding), (0, 0)))
    return stored, np.pad(classes.astype(np.int32), (0, padding), constant_values=-1)


def stored_mask(encoded: bytes, image: Size, size: Size, names: Sequence[str], void: int) -> np.ndarray:
    """Returns the mask of one image as it is stored: uint8 `[*size]`, the nearest pixel of the original, VOID where it is void.

    Args:
        encoded: a PNG with one channel, or with a palette, whose numbers are the classes.
        image: height and width of the decoded image.
        size: height and width to store.
        names: the names of the classes.
        void: the number of pixels that count for nothing.

    Raises:
        ValueError: the bytes are no such PNG, the mask has another size than the image, or a number is no class.
    """
    with opened(io.BytesIO(encoded)) as picture:
        picture.load()
        mask = np.asarray(picture)
    if mask.ndim != 2:
        raise ValueError("the mask has several channels; a mask has one, whose numbers are the classes")
    if mask.shape != image:
        raise ValueError(f"the mask has {mask.shape[0]}x{mask.shape[1]} pixels, its image {image[0]}x{image[1]}")
    values = mask.astype(np.int64)
    wrong = np.setdiff1d(values, [*range(len(names)), void])
    if len(wrong):
        raise ValueError(f"the mask has the value {wrong[0]}; there are {len(names)} classes, and void is {void}")
    rows, columns = ((np.arange(new) + 0.5) * old / new for old, new in zip(mask.shape, size, strict=True))
    nearest = values[rows.astype(int)[:, None], columns.astype(int)[None]]
    return np.where(nearest == void, VOID, nearest).astype(np.uint8)
