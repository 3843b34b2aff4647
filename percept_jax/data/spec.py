"""DatasetSpec: what is known of a data set before an example is read. Dataset: its examples in memory."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from percept_jax.data.splits import choose
from percept_jax.errors import UsageError
from percept_jax.knobs import knob

Kind = Literal["images", "points", "values", "tokens", "words", "text"]


class Feature(NamedTuple):
    """What one example has under a name.

    Attributes:
        shape: of the array; 0 stands for a side that differs from example to example.
        dtype: of the array, once the examples are in memory.
    """

    shape: tuple[int, ...]
    dtype: str


class DatasetSpec(NamedTuple):
    """What is known of a data set before an example is read.

    Attributes:
        features: what an example has, by name: "image" `[height, width, channels]`, "point" `[1, 1, features]`, "series"
            `[time, features]` or "tokens" `[time]`; and what is to be predicted: "label", one an example, or one a time step with
            -1 where there is none; or "target", values of the same kinds, not a number where there is none. Sequences have a
            "length".
        classes: a name for each label; none where there are no labels.
        splits: examples of each of its own splits, in the order in which they are held.
        version: of the TFDS folder; empty where there is none.
        input: the name of the feature that a model sees.
        kind: what that is: an image of bytes, a point, or a sequence: of values, of tokens that are numbers, of words, or of
            the characters of a text, each to be predicted from those before it.
        words: what each token stands for.
        roles: where the examples to train, validate and test on are, once that is chosen.
    """

    features: Mapping[str, Feature]
    classes: tuple[str, ...]
    splits: dict[str, int]
    version: str = ""
    input: str = "image"
    kind: Kind = "images"
    words: tuple[str, ...] = ()
    roles: Mapping[str, np.ndarray] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what a model sees, as it is stored."""
        return tuple(self.features[self.input].shape)

    def select(self, train: str = "", validation: str = "", test: str = "") -> "DatasetSpec":
        """Returns this data set with its roles, and only the splits that are used. Raises UsageError, see `splits.choose`."""
        index = choose(self.splits, train, validation, test)
        used, kept, seen, start = np.concatenate(list(index.values())), {}, [], 0
        for name, size in self.splits.items():
            seen.append(np.any((used >= start) & (used < start + size)))
            kept |= {name: size} if seen[-1] else {}
            start += size
        moved = np.cumsum(np.repeat(seen, list(self.splits.values()))) - 1
        return self._replace(splits=kept, roles={role: moved[at].astype(np.int32) for role, at in index.items()})


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which data set, which examples of it, and in which form a model sees them."""

    dataset: str = knob(
        "digits",
        "static",
        "data",
        "data set (see `list`), or folder:PATH, a sub-folder of images a class; npz:, tagged: or text:FILE, sequences",
    )
    train_split: str = knob(
        "",
        "static",
        "data",
        "examples to train on, as a TFDS slice: train[:90%], train+extra; empty: train less what is held out",
    )
    validation_split: str = knob(
        "", "static", "data", "examples to choose the best step on; empty: validation, else held out of train"
    )
    test_split: str = knob("", "static", "data", "examples to report on; empty: test, else held out of train")
    image_size: int = knob(0, "static", "data", "pixels a side that images are resized to; 0: as the model wants", "[0, 4096]")
    stored_size: int = knob(
        0, "static", "data", "pixels a side before images are cropped, in the middle unless in training; 0: no crop", "[0, 4096]"
    )
    normalize: Literal["standard", "unit", "none", "imagenet"] = knob(
        "standard",
        "static",
        "data",
        "inputs: zero mean and unit variance per channel over the training split; pixels from 0 to 1; as they are; "
        "or by ImageNet's means and deviations, as torchvision's weights want it (but GoogLeNet's)",
    )


def image_spec(shape: tuple[int, int, int], classes: tuple[str, ...], splits: dict[str, int], version: str = "") -> DatasetSpec:
    """Returns the spec of images with one label each."""
    return DatasetSpec({"image": Feature(shape, "uint8"), "label": Feature((), "int32")}, classes, splits, version)


class Dataset(NamedTuple):
    """A data set in memory.

    Attributes:
        spec: with its roles.
        examples: the features of all examples, split by split, each an array `[examples, ...]`. Images are resized to
            `[examples, size, size, channels]`, sequences padded with 0 to the longest one.
    """

    spec: DatasetSpec
    examples: Mapping[str, np.ndarray]

    @property
    def inputs(self) -> np.ndarray:
        """What a model sees of all examples, before it is normalized."""
        return self.examples[self.spec.input]

    @property
    def crc(self) -> int:
        """A checksum of all that is in it."""
        crc = 0
        for name, array in self.examples.items():
            crc = zlib.crc32(np.ascontiguousarray(array).data.cast("B"), zlib.crc32(name.encode(), crc))
        return crc

    def check(self, crc: int, name: str, run_dir: object) -> None:
        """Raises UsageError unless this is the data set that the run in `run_dir` was begun with."""
        if self.crc != crc:
            raise UsageError(f"{name} is not what it was when {run_dir} was begun; --fresh starts anew", "dataset")
