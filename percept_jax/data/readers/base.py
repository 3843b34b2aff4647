"""Reader: the interface that each data set format implements."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from percept_jax.data.spec import DatasetSpec
from percept_jax.knobs import knob


@dataclasses.dataclass(frozen=True)
class ReaderConfig:
    """How the files of a data set are read."""

    max_bad_records: int = knob(
        0,
        "static",
        "data",
        "skip up to this many images or records that cannot be read; unless 0, each start decodes all to find the bad ones",
        "[0, inf)",
    )
    sequence_length: int = knob(128, "static", "data", "text: characters in one example", "[2, 1000000]")
    ahead: int = knob(
        0, "static", "data", "series: each step's target is the value this many steps later; 0: off", "[0, 1000000]"
    )
    horizon: int = knob(
        0, "static", "data", "series: forecast the last this many steps from the earlier ones; 0: off", "[0, 1000000]"
    )
    mask_classes: str = knob(
        "",
        "static",
        "data",
        "masks: names of the values from 0 on, separated by commas, such as road,car; needed for a TFDS folder",
    )
    void: int = knob(255, "static", "data", "masks: the value of pixels that count for nothing", "[0, 65535]")
    fresh_cache: bool = knob(False, "infra", "run", "read the data's files again and ignore the cache in --data_dir")


class Source(Protocol):
    """The examples of one split, by index."""

    def __len__(self) -> int:
        """Returns the number of examples, including those that cannot be read."""
        ...

    def read(self, indices: Sequence[int]) -> Mapping[str, Any]:
        """Returns the features of some examples by name, each a sequence.

        Images are left encoded, as bytes. An exception in place of an image says why the example cannot be read. Raises DataError
        if the split as a whole cannot be read.
        """
        ...

    def where(self, index: int) -> str:
        """Returns the location of an example for a message: a path, or a record of a folder."""
        ...


class Reader(Protocol):
    """A data set in one format.

    Attributes:
        cache_name: the name of the cache of decoded images in the data directory; empty if nothing has to be decoded.
        records: the word for examples in messages: "images" or "records".
    """

    cache_name: str
    records: str

    def describe(self) -> DatasetSpec:
        """Returns the spec of the data set; it counts readable examples only. Raises UsageError and DataError."""
        ...

    def source(self, split: str) -> Source:
        """Returns the examples of a split. Raises DataError if the split cannot be read."""
        ...

    def files(self) -> Mapping[str, Path]:
        """Returns the files of the data set, by names that do not depend on its location."""
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
