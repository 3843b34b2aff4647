"""DatasetSpec describes a data set before an example is read. Dataset holds its examples in memory."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from percept_jax.data.splits import choose
from percept_jax.errors import UsageError
from percept_jax.knobs import knob

# The value of a mask's pixels that count for nothing.
VOID = 255
# The height and width of images, in pixels.
Size = tuple[int, int]
Kind = Literal["images", "points", "values", "tokens", "words", "text"]


class Feature(NamedTuple):
    """The array that an example has under one name.

    Attributes:
        shape: of the array; 0 stands for a side that differs from example to example.
        dtype: of the array once the examples are in memory.
    """

    shape: tuple[int, ...]
    dtype: str


class DatasetSpec(NamedTuple):
    """Describes a data set before an example is read.

    Attributes:
        features: the features of an example, by name. The input is "image" `[height, width, channels]`, "point"
            `[1, 1, features]`, "series" `[time, features]` or "tokens" `[time]`. The target is "label", one for each example or
            each time step, -1 if there is none; or "target", values for each example or each time step, NaN if there is none.
            Sequences have a "length". An image may have "boxes" `[boxes, (ymin, xmin, ymax, xmax)]` in fractions of its sides,
            with "classes" `[boxes]`, -1 behind the last one; and a "mask" `[height, width]`, the class of each pixel or VOID.
        classes: a name for each label of an example or of its boxes; empty if there are no labels.
        splits: the number of examples of each of its own splits, in the order in which they are stored.
        version: of the TFDS folder; empty if there is none.
        input: the name of the feature that a model takes as input.
        kind: the kind of that feature: an image of bytes, a point, or a sequence of values, of tokens that are numbers, of words,
            or of the characters of a text, where each is to be predicted from those before it.
        words: the word that each token stands for.
        mask_classes: a name for each value of a mask.
        unread: names of features that are left out, since a setting that they need is not given.
        roles: the indices of the train, validation and test examples, once they are chosen.
    """

    features: Mapping[str, Feature]
    classes: tuple[str, ...]
    splits: dict[str, int]
    version: str = ""
    input: str = "image"
    kind: Kind = "images"
    words: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    roles: Mapping[str, np.ndarray] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an input as it is stored."""
        return tuple(self.features[self.input].shape)

    def select(self, train: str = "", validation: str = "", test: str = "") -> "DatasetSpec":
        """Returns the spec with its roles and only the splits that they use. Raises UsageError, see `splits.choose`."""
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
    """The data set, the examples of each role, and the form in which a model sees them."""

    dataset: str = knob(
        "digits",
        "static",
        "data",
        "data set (see `list`); or folder:PATH with a sub-folder of images a class; or npz:, tagged: or text:FILE, sequences",
    )
    train_split: str = knob(
        "",
        "static",
        "data",
        "examples to train on, as a TFDS slice: train[:90%], train+extra; empty: train without the held-out examples",
    )
    validation_split: str = knob(
        "", "static", "data", "examples that select the best step; empty: validation, else held out of train"
    )
    test_split: str = knob("", "static", "data", "examples to report on; empty: test, else held out of train")
    image_size: int | tuple[int, ...] = knob(
        0,
        "static",
        "data",
        "pixels a side of the model's input, or its height and width, such as 180,240; 0: the model's usual size",
        "[0, 4096]",
    )
    stored_size: int | tuple[int, ...] = knob(
        0,
        "static",
        "data",
        "pixels a side, or height and width, before images are cropped: at random in training, else the center; 0: no crop",
        "[0, 4096]",
    )
    normalize: Literal["standard", "unit", "none", "imagenet"] = knob(
        "standard",
        "static",
        "data",
        "inputs: zero mean and unit variance per channel over the training split; pixels from 0 to 1; unchanged; "
        "or ImageNet's means and deviations, as torchvision's weights need it (except GoogLeNet's)",
    )


def size_of(value: int | tuple[int, ...], flag: str) -> Size | None:
    """Returns the height and width that the value of a flag means; None for 0. Raises UsageError if they are not two."""
    if isinstance(value, int):
        return (value, value) if value else None
    if len(value) != 2 or 0 in value:
        raise UsageError(f"{','.join(map(str, value))} is not a number of pixels a side, nor a height and a width", flag)
    return value[0], value[1]


def pixels(size: Size) -> str:
    """Returns a size for messages: "32 pixels a side", or "180x240 pixels" with the height first."""
    return f"{size[0]} pixels a side" if size[0] == size[1] else f"{size[0]}x{size[1]} pixels"


def image_spec(shape: tuple[int, int, int], classes: tuple[str, ...], splits: dict[str, int], version: str = "") -> DatasetSpec:
    """Returns the spec of images with one label each."""
    return DatasetSpec({"image": Feature(shape, "uint8"), "label": Feature((), "int32")}, classes, splits, version)


class Dataset(NamedTuple):
    """A data set in memory.

    Attributes:
        spec: the data set's spec, with its roles.
        examples: the features of all examples, split by split, each an array `[examples, ...]`. Images are resized to
            `[examples, height, width, channels]`, sequences padded with 0 to the longest one.
    """

    spec: DatasetSpec
    examples: Mapping[str, np.ndarray]

    @property
    def inputs(self) -> np.ndarray:
        """The inputs of all examples, before normalization."""
        return self.examples[self.spec.input]

    @property
    def crc(self) -> int:
        """A checksum of all examples."""
        crc = 0
        for name, array in self.examples.items():
            crc = zlib.crc32(np.ascontiguousarray(array).data.cast("B"), zlib.crc32(name.encode(), crc))
        return crc

    def check(self, crc: int, name: str, run_dir: object) -> None:
        """Raises UsageError unless this is the data set that the run in `run_dir` was started with."""
        if self.crc != crc:
            raise UsageError(f"{name} has changed since {run_dir} was started; --fresh starts anew", "dataset")
