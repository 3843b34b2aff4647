"""csv:FILE, points in the plane: lines x,y,class, of which each fifth is to test, and each fifth to validate."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from percept_jax.data.readers.base import ArraySource, ReaderConfig
from percept_jax.data.spec import DatasetSpec, Feature
from percept_jax.errors import DataError

SPLITS = {"test": [0], "train": [1, 2, 3], "validation": [4]}


class CsvPoints:
    """Reads a file of points. See `Reader`."""

    cache_name, records = "", "lines"

    def __init__(self, kind: str, path: Path, config: ReaderConfig, note: Callable[[str], None] | None = None):
        """Names the file."""
        self._path = path

    @functools.cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        rows = [line.split(",") for line in self._path.read_text().splitlines()]
        for number, row in enumerate(rows, 1):
            if len(row) != 3:
                raise DataError(f"{self._path}: line {number} is not x,y,class")
        classes = tuple(sorted({row[2] for row in rows}))
        points = np.array([row[:2] for row in rows], np.float32).reshape(-1, 1, 1, 2)
        return points, np.array([classes.index(row[2]) for row in rows], np.int32), classes

    def describe(self) -> DatasetSpec:
        """Returns what the file holds."""
        features = {"point": Feature((1, 1, 2), "float32"), "label": Feature((), "int32")}
        splits = {split: len(self.source(split)) for split in SPLITS}
        return DatasetSpec(features, self._columns[2], splits, input="point", kind="points")

    def source(self, split: str) -> ArraySource:
        """Returns the points of a split."""
        points, labels, _ = self._columns
        here = np.isin(np.arange(len(points)) % 5, SPLITS[split])
        return ArraySource({"point": points[here], "label": labels[here]})

    def files(self) -> dict[str, Path]:
        """Returns the file."""
        return {"": self._path}
