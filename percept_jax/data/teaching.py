"""Tiny data sets of points in the plane, to teach with: a decision boundary can be drawn of what learns them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from percept_jax.data.dataset import Info

_SIZES = {"train": 200, "validation": 100, "test": 100}


class Points(NamedTuple):
    """A named set of points.

    Attributes:
        features: what the two numbers are called.
        classes: a name for each label.
        splits: points of each split.
        make: to points `[points, 2]` and labels `[points]`, all splits, from the data directory.
    """

    features: tuple[str, str]
    classes: tuple[str, ...]
    splits: dict[str, int]
    make: Callable[[Path], tuple[np.ndarray, np.ndarray]]


def xnor(data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """The four cases of "both or neither", the same in every split: no line parts them (Minsky and Papert 1969)."""
    cases = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    return np.tile(cases, (3, 1)), np.tile([1, 0, 0, 1], 3)


def blobs(data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Two round clouds that a line parts, one on each side of x + y = 0: a perceptron ends there without a mistake."""
    noise, labels = _noise_and_labels(2, _SIZES)
    away = np.clip(noise, -1.6, 1.6)  # a cloud's centre is 2.8 from the line, its far corner 2.3
    return away + np.where(labels, 2, -2)[:, None], labels


def moons(data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles that reach into each other, with noise of 0.15: what scikit-learn calls moons."""
    noise, labels = _noise_and_labels(3, _SIZES)
    angle = np.pi * (np.arange(len(labels)) % 97) / 96
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.where(labels[:, None], [1, 0.5] - upper, upper) + 0.15 * noise[:, :2], labels


def digits_0_7(data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """The digits 0 and 7 reduced to symmetry and intensity (Abu-Mostafa, Magdon-Ismail and Lin 2012, section 3.1).

    Symmetry is minus the mean difference between an image and its two mirror images, intensity the mean ink; ink is 0 to 1.
    """
    from percept_jax.data.sources import describe, load

    images, labels = load("digits", data_dir, describe("digits", data_dir).select(), 8)[1:3]
    ink = images[..., 0].astype(np.float64) / 255
    symmetry = -(np.abs(ink - ink[:, :, ::-1]) + np.abs(ink - ink[:, ::-1])).mean((1, 2)) / 2
    chosen = np.isin(labels, (0, 7))
    return np.stack([symmetry, ink.mean((1, 2))], 1)[chosen], labels[chosen] == 7


def _noise_and_labels(seed: int, splits: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    count = sum(splits.values())
    draws = np.random.RandomState(seed)  # its stream is frozen, unlike that of NumPy's newer generators
    return draws.randn(count, 2), np.arange(count) % 2


TEACHING: dict[str, Points] = {
    "xnor": Points(("a", "b"), ("0", "1"), {"train": 4, "validation": 4, "test": 4}, xnor),
    "blobs": Points(("x", "y"), ("below", "above"), _SIZES, blobs),
    "moons": Points(("x", "y"), ("upper", "lower"), _SIZES, moons),
    "digits_0_7": Points(("symmetry", "intensity"), ("0", "7"), {"train": 214, "validation": 71, "test": 72}, digits_0_7),
}


def describe(name: str) -> Info:
    """What is known of the points called `name`."""
    points = TEACHING[name]
    return Info((1, 1, 2), points.classes, points.splits, kind="points")


def read(name: str, info: Info, data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points `[points, 1, 1, 2]`, float32, and labels of the splits in `info`, as in `Dataset`."""
    sizes = TEACHING[name].splits
    split = np.repeat(list(sizes), list(sizes.values()))
    points, labels = TEACHING[name].make(data_dir)
    wanted = np.isin(split, list(info.splits))
    return points[wanted].reshape(-1, 1, 1, 2).astype(np.float32), labels[wanted].astype(np.int32)
