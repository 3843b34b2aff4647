"""Data sets in TFDS folders, however they were prepared: found, described and read without TensorFlow."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from percept_jax.data.dataset import Info
from percept_jax.data.images import decode, resize
from percept_jax.errors import DataError, UsageError, first_line

_NAME = re.compile(r"(\w[\w-]*(?:/[A-Za-z_][\w.-]*)?)(?::(\d+\.\d+\.\d+))?")


def find(name: str, data_dir: Path) -> Path | None:
    """The folder of a data set called NAME, NAME/CONFIG or either with :VERSION (else the newest); None where there is none.

    A folder is whole: TFDS renames it into place when it is done. Raises UsageError where there are only others of that name.
    """
    match = _NAME.fullmatch(name)
    if not match:
        return None
    folder = data_dir / match[1]
    whole = [path.parent for path in folder.glob("*/dataset_info.json") if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)]
    found = [path for path in whole if match[2] in (None, path.name)]
    if not found:
        base = data_dir / match[1].partition("/")[0]
        others = [path.parent.relative_to(data_dir) for path in sorted(base.glob("**/dataset_info.json"))]
        if names := [f"{path.parent}:{path.name}" for path in others if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]:
            raise UsageError(f"there is no {name} in {data_dir}, but {', '.join(names)}", "dataset")
    return max(found, key=lambda path: tuple(map(int, path.name.split("."))), default=None)


def describe(folder: Path, max_bad: int = 0) -> Info:
    """What is known of a folder. Raises UsageError unless an example has one image and one label, DataError if it is damaged.

    Where bad records may be skipped, every record is decoded, to know how many are good; see `read`.
    """
    builder = _builder(folder)
    image, label = (builder.info.features[key] for key in _keys(builder, folder))
    height, width, channels = (size or 0 for size in image.shape)
    splits = {name: split.num_examples for name, split in builder.info.splits.items()}
    info = Info((height, width, 1 if channels == 1 else 3), tuple(label.names), splits, folder.name)
    return info._replace(splits={name: _good(folder, info, name) for name in splits}) if max_bad else info


def read(folder: Path, info: Info, image_size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images and labels of the splits in `info`, as in `Dataset`, and what is wrong with the records that cannot be read."""
    sizes = _builder(folder).info.splits
    count = sum(sizes[split].num_examples for split in info.splits)
    images, labels, bad = np.empty((count, image_size, image_size, info.shape[-1]), np.uint8), [], []
    for where, image, label in _records(folder, info):
        try:
            images[len(labels)] = resize(_decoded(image, label, info), image_size, image_size)
            labels.append(label)
        except ValueError as error:
            bad.append(f"{where}: {error}")
    return images[: len(labels)], np.array(labels, np.int32), bad


def _good(folder: Path, info: Info, split: str) -> int:
    """How many records of a split can be read; all, where none can, as where there are no labels: `read` tells, if it is used."""
    good = 0
    try:
        for _, image, label in _records(folder, info._replace(splits={split: 0})):
            with contextlib.suppress(ValueError):
                good += len(_decoded(image, label, info)) > 0
    except DataError:
        pass
    return good or info.splits[split]


def _decoded(image: bytes | Exception, label: int, info: Info) -> np.ndarray:
    """The image of a record. Raises ValueError where it cannot be read, or where the label is that of no class."""
    if isinstance(image, Exception):
        raise ValueError(first_line(image)) from image
    pixels = decode(image, info.shape[-1])
    if not 0 <= label < len(info.classes):
        raise ValueError(f"label {label}, but there are {len(info.classes)} classes")
    return pixels


def _records(folder: Path, info: Info) -> Iterator[tuple[str, bytes | Exception, int]]:
    """Where it is, the encoded image and the label of each example of the splits in `info`; an error and -1 for a bad one.

    Raises DataError where a split as a whole cannot be read.
    """
    builder = _builder(folder)
    keys = _keys(builder, folder)
    for split in info.splits:
        examples = builder.info.splits[split].num_examples
        try:
            source = _source(builder, split, keys[0])
            found = len(source)
        except Exception as error:  # array_record and TFDS raise many kinds for a damaged folder
            raise DataError(f"{folder}: split {split} cannot be read: {first_line(error)}") from error
        if found != examples:
            raise DataError(f"{folder}: split {split} has {found} examples, not {examples}")
        for first in range(0, examples, 1000):
            for number, record in _block(source, range(first, min(first + 1000, examples))):
                bad = isinstance(record, Exception)
                yield f"{folder}: {split} record {number}", *((record, -1) if bad else (record[key] for key in keys))


def _block(source: Any, numbers: range) -> list[tuple[int, Any]]:
    """Records by their numbers; an error in place of one that cannot be read."""
    try:
        return [*zip(numbers, source.__getitems__(numbers), strict=True)]
    except Exception:  # array_record and TFDS raise many kinds for a damaged one; read one at a time, to know which it is
        return [(number, _one(source, number)) for number in numbers]


def _one(source: Any, number: int) -> Any:
    try:
        return source.__getitems__([number])[0]
    except Exception as error:
        return error


def _source(builder: Any, split: str, image: str) -> Any:
    import tensorflow_datasets as tfds

    decoders = {image: tfds.decode.SkipDecoding()}
    if builder.info.file_format.value == "tfrecord":
        return _TFRecordSource([Path(path) for path in builder.info.splits[split].filepaths], builder.info.features, decoders)
    return builder.as_data_source(split, decoders=decoders)


class _TFRecordSource:
    """What `as_data_source` is for ArrayRecord; TFDS reads TFRecord with TensorFlow only."""

    def __init__(self, paths: list[Path], features: Any, decoders: Any):
        from percept_jax.data.tfrecord import Records

        self._records, self._features, self._decoders = Records(paths), features, decoders

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, numbers: range) -> list[Any]:
        return [self._features.deserialize_example_np(self._records[i], decoders=self._decoders) for i in numbers]


def _builder(folder: Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:
        raise DataError(f"{folder}: cannot be read: {first_line(error)}") from error


def _keys(builder: Any, folder: Path) -> tuple[str, str]:
    """The names of the image and the label feature: those that TFDS would give for supervised learning, or the only ones."""
    import tensorflow_datasets as tfds

    supervised, found = builder.info.supervised_keys or (), []
    for kind in (tfds.features.Image, tfds.features.ClassLabel):
        keys = [key for key, feature in builder.info.features.items() if type(feature) is kind]
        keys = [key for key in keys if key in supervised] or keys
        if len(keys) != 1:
            raise UsageError(f"{folder}: an example has {len(keys)} features of type {kind.__name__}, not one", "dataset")
        found += keys
    return tuple(found)
