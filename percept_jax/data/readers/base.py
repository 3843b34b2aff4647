"""Reader: where the examples of a data set come from. One reader a format."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from percept_jax.data.spec import DatasetSpec
from percept_jax.knobs import knob


@dataclasses.dataclass(frozen=True)
class ReaderConfig:
    """How data are read."""

    max_bad_records: int = knob(
        0,
        "static",
        "data",
        "skip up to so many images or records that cannot be read; unless 0, all are decoded at every start to find them",
        "[0, inf)",
    )
    sequence_length: int = knob(128, "static", "data", "text: characters in one example", "[2, 1000000]")
    ahead: int = knob(0, "static", "data", "series: each step's target is the value so many steps later; 0: none", "[0, 1000000]")
    horizon: int = knob(
        0, "static", "data", "series: the last so many steps are forecast from those before; 0: none", "[0, 1000000]"
    )
    fresh_cache: bool = knob(False, "infra", "run", "read the data's files again, whatever the cache in --data_dir says")


class Source(Protocol):
    """The examples of one split, by number."""

    def __len__(self) -> int:
        """How many there are, those that cannot be read among them."""
        ...

    def read(self, indices: Sequence[int]) -> Mapping[str, Any]:
        """Returns the features of some examples, a sequence each.

        Images are left encoded, as bytes. An exception in place of an image says why the example cannot be read. Raises DataError
        where the split as a whole cannot be read.
        """
        ...

    def where(self, index: int) -> str:
        """Returns where an example is, for a message: a path, or a record of a folder."""
        ...


class Reader(Protocol):
    """A data set in one format.

    Attributes:
        cache_name: what the decoded images are kept under in the data directory; empty where nothing has to be decoded.
        records: what its messages call an example: "images" or "records".
    """

    cache_name: str
    records: str

    def describe(self) -> DatasetSpec:
        """Returns what is known of the data set, examples that can be read only. Raises UsageError and DataError."""
        ...

    def source(self, split: str) -> Source:
        """Returns the examples of a split. Raises DataError where it cannot be read."""
        ...

    def files(self) -> Mapping[str, Path]:
        """Returns what the examples are made from, by names that do not depend on where the data set is."""
        ...


class ArraySource:
    """A `Source` of arrays in memory."""

    def __init__(self, columns: Mapping[str, np.ndarray]):
        self._columns = columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def read(self, indices: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Returns the features of some examples."""
        return {name: column[np.asarray(indices)] for name, column in self._columns.items()}

    def where(self, index: int) -> str:
        """Returns the number of an example."""
        return f"example {index}"
