"""TOYS: tiny data sets of points in the plane for teaching; a model's decision boundary can be drawn."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from percept_jax.data.readers.base import ArraySource
from percept_jax.data.spec import DatasetSpec, Feature

# Images of the digits, uint8 `[examples, 8, 8, 1]`, and their labels.
Digits = Callable[[], tuple[np.ndarray, np.ndarray]]

_SIZES = {"train": 200, "validation": 100, "test": 100}


class Points(NamedTuple):
    """A named set of points.

    Attributes:
        features: the names of the two coordinates.
        classes: a name for each label.
        splits: the number of points of each split.
        make: a function of the digits that returns points `[points, 2]` and labels `[points]` of all splits.
    """

    features: tuple[str, str]
    classes: tuple[str, ...]
    splits: dict[str, int]
    make: Callable[[Digits], tuple[np.ndarray, np.ndarray]]


def xnor(digits: Digits) -> tuple[np.ndarray, np.ndarray]:
    """The four cases of XNOR, the same in every split; no line separates the classes (Minsky and Papert 1969)."""
    cases = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    return np.tile(cases, (3, 1)), np.tile([1, 0, 0, 1], 3)


def blobs(digits: Digits) -> tuple[np.ndarray, np.ndarray]:
    """Two round clouds that the line x + y = 0 separates: a perceptron converges without a mistake."""
    noise, labels = _noise_and_labels(2, _SIZES)
    # A cloud's center is at a distance of 2.8 from the line, and the corners of the cloud are within 2.3 of the center.
    away = np.clip(noise, -1.6, 1.6)
    return away + np.where(labels, 2, -2)[:, None], labels


def moons(digits: Digits) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved half circles with noise of 0.15, which scikit-learn calls moons."""
    noise, labels = _noise_and_labels(3, _SIZES)
    angle = np.pi * (np.arange(len(labels)) % 97) / 96
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.where(labels[:, None], [1, 0.5] - upper, upper) + 0.15 * noise[:, :2], labels


def digits_0_7(digits: Digits) -> tuple[np.ndarray, np.ndarray]:
    """The digits 0 and 7 reduced to symmetry and intensity (Abu-Mostafa, Magdon-Ismail and Lin 2012, section 3.1).

    Symmetry is minus the mean difference between an image and its two mirror images, intensity the mean ink; ink is 0 to 1.
    """
    images, labels = digits()
    ink = images[..., 0].astype(np.float64) / 255
    symmetry = -(np.abs(ink - ink[:, :, ::-1]) + np.abs(ink - ink[:, ::-1])).mean((1, 2)) / 2
    chosen = np.isin(labels, (0, 7))
    return np.stack([symmetry, ink.mean((1, 2))], 1)[chosen], labels[chosen] == 7


def _noise_and_labels(seed: int, splits: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    count = sum(splits.values())
    # NumPy guarantees that the random stream of RandomState never changes, unlike those of its newer generators.
    draws = np.random.RandomState(seed)
    return draws.randn(count, 2), np.arange(count) % 2


TOYS: dict[str, Points] = {
    "xnor": Points(("a", "b"), ("0", "1"), {"train": 4, "validation": 4, "test": 4}, xnor),
    "blobs": Points(("x", "y"), ("below", "above"), _SIZES, blobs),
    "moons": Points(("x", "y"), ("upper", "lower"), _SIZES, moons),
    "digits_0_7": Points(("symmetry", "intensity"), ("0", "7"), {"train": 214, "validation": 71, "test": 72}, digits_0_7),
}


def describe(name: str) -> DatasetSpec:
    """Returns the spec of the points called `name`."""
    points = TOYS[name]
    features = {"point": Feature((1, 1, 2), "float32"), "label": Feature((), "int32")}
    return DatasetSpec(features, points.classes, points.splits, input="point", kind="points")


class Toy:
    """Makes a named set of points. See `Reader`."""

    cache_name, records = "", "records"

    def __init__(self, name: str, digits: Digits):
        """Takes the name of the points, and a function that loads the digits, which some points are made from."""
        self._name, self._digits = name, digits

    @functools.cached_property
    def _examples(self) -> tuple[np.ndarray, np.ndarray]:
        points, labels = TOYS[self._name].make(self._digits)
        return points.reshape(-1, 1, 1, 2).astype(np.float32), labels.astype(np.int32)

    def describe(self) -> DatasetSpec:
        """Returns the spec of the points without making them."""
        return describe(self._name)

    def source(self, split: str) -> ArraySource:
        """Returns the points `[1, 1, 2]` and the labels of a split."""
        sizes = TOYS[self._name].splits
        in_split = np.repeat(list(sizes), list(sizes.values())) == split
        points, labels = self._examples
        return ArraySource({"point": points[in_split], "label": labels[in_split]})

    def files(self) -> dict[str, Path]:
        """Returns an empty dictionary, since points have no files of their own."""
        return {}
