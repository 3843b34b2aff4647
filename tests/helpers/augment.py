"""What the tests of augmentation share."""

import contextlib
import math

import jax
import numpy as np
import pytest

TOLERANCE = {"float64": 1e-12, "float32": 5e-6}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)
LUMA = np.array([0.2989, 0.587, 0.114])


@contextlib.contextmanager
def arithmetic(dtype):
    """What the step runs under: x64 or not; and no promotion may go unseen."""
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("strict"):
        yield


def some_image(shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def translated(image, rows, columns):
    out = np.zeros_like(image)
    for i, j in np.ndindex(image.shape[:2]):
        if 0 <= i - rows < image.shape[0] and 0 <= j - columns < image.shape[1]:
            out[i, j] = image[i - rows, j - columns]
    return out


def luma(image):
    return image if image.shape[-1] == 1 else (image @ LUMA)[..., None]


def warped(image, degrees, zoom, shear):
    """Forward maps of points, x to the right and y upwards, as matrices; inverted; the four neighbors one by one."""
    height, width = image.shape[:2]
    a, s = np.radians([degrees, shear])
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    back = np.linalg.inv(turn @ (zoom * np.eye(2)) @ np.array([[1, np.tan(s)], [0, 1]]))
    out = np.zeros_like(image)
    for i, j in np.ndindex(height, width):
        x, y = back @ [j - (width - 1) / 2, (height - 1) / 2 - i]
        row, column = (height - 1) / 2 - y, x + (width - 1) / 2
        for r in (math.floor(row), math.floor(row) + 1):
            for c in (math.floor(column), math.floor(column) + 1):
                if 0 <= r < height and 0 <= c < width:
                    out[i, j] += (1 - abs(row - r)) * (1 - abs(column - c)) * image[r, c]
    return out


def cut(image, row, column, size, fill):
    out = image.copy()
    for i in range(row - size // 2, row - size // 2 + size):
        for j in range(column - size // 2, column - size // 2 + size):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                out[i, j] = fill
    return out
