"""Dataset name -> the uint8 images and labels of all its splits.

A data set lives in a TFDS folder under the data directory. It is decoded and resized once, into a checksummed cache beside it.
"""

import contextlib
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from percept_jax import files
from percept_jax.checks import unknown
from percept_jax.data import images as images_module
from percept_jax.data.images import decode, resize
from percept_jax.errors import DataError, StorageError, UsageError, first_line

HOLD_OUT = 0.2  # of all examples for the test split, and as many for validation


class Info(NamedTuple):
    """What is known of a data set before an example is read.

    Attributes:
        image_shape: (height, width, channels) as stored.
        classes: a name for each label.
        splits: examples of "train", "validation" and "test", in the order in which they are held.
        version: of the TFDS folder; empty for arrays.
    """

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    splits: dict[str, int]
    version: str = ""


class Dataset(NamedTuple):
    """A data set in memory: `images` uint8 `[examples, size, size, channels]`, `labels` int32 `[examples]`, split by split."""

    info: Info
    images: np.ndarray
    labels: np.ndarray

    def indices(self, split: str) -> np.ndarray:
        """Where the examples of a split are in `images` and `labels`."""
        names = list(self.info.splits)
        first = sum(self.info.splits[name] for name in names[: names.index(split)])
        return np.arange(first, first + self.info.splits[split], dtype=np.int32)


SOURCES: dict[str, Info] = {
    "digits": Info((8, 8, 1), tuple("0123456789"), {"train": 1077, "validation": 360, "test": 360}, "1.0.0"),
}


def describe(name: str) -> Info:
    """What is known of a data set by name. Raises UsageError for one that we do not have."""
    if name not in SOURCES:
        raise UsageError(unknown(name, SOURCES), "dataset")
    return SOURCES[name]


def is_prepared(name: str, data_dir: Path) -> bool:
    """Whether the data set is in `data_dir`, whole: TFDS renames a folder into place when it is done."""
    return (_folder(name, data_dir) / "dataset_info.json").exists()


def _folder(name: str, data_dir: Path) -> Path:
    return data_dir / name / describe(name).version


def load(name: str, data_dir: Path, image_size: int) -> Dataset:
    """The data set, resized to `image_size` pixels a side, out of the cache or else the TFDS folder, prepared on first use.

    Raises DataError for a bad record, StorageError where a folder cannot be written.
    """
    info, folder = describe(name), _folder(name, data_dir)
    if not is_prepared(name, data_dir):
        from percept_jax.data.prepare import prepare

        prepare(name, data_dir)
    cache = data_dir / "cache" / f"{name}-{info.version}-{image_size}.safetensors"
    made_from = _fingerprint(folder)
    try:
        arrays, meta = files.read_arrays(cache)
        if meta == made_from:
            return Dataset(info, arrays["images"], arrays["labels"])
    except StorageError:
        pass  # absent or damaged: it can be made again
    images, labels = _read_folder(folder, info, image_size)
    with contextlib.suppress(StorageError):  # a folder that is only read: decoded again next time
        files.write_arrays(cache, {"images": images, "labels": labels}, made_from)
    return Dataset(info, images, labels)


def describe_arrays(images: np.ndarray, labels: np.ndarray) -> Info:
    """What uint8 images `[examples, height, width(, channels)]` and labels `[examples]`, 0 to classes - 1, are as a data set.

    Raises UsageError where they are something else, or are too few to be split in three.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or 0 in images.shape[1:]:
        hint = "" if images.dtype == np.uint8 else "; their values are to be 0 to 255"
        wanted = f"uint8 [examples, height, width(, channels)]{hint}"
        raise UsageError(f"images are {images.dtype} {list(images.shape)}, not {wanted}")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        wanted = f"one whole number >= 0 for each of {len(images)} images"
        raise UsageError(f"labels are {labels.dtype} {list(labels.shape)}, not {wanted}")
    if labels.max(initial=0) >= max(1, len(labels)):
        raise UsageError(f"label {labels.max()} among {len(labels)} images; labels are 0 to classes - 1")
    classes = tuple(str(label) for label in range(labels.max(initial=0) + 1))
    splits = {name: len(index) for name, index in _split(labels).items()}
    return Info((*images.shape[1:3], 1 if images.ndim == 3 else images.shape[3]), classes, splits)


def from_arrays(info: Info, images: np.ndarray, labels: np.ndarray, image_size: int) -> Dataset:
    """The data set of `describe_arrays`, resized, split 60 / 20 / 20 %, stratified, always the same way."""
    order = np.concatenate(list(_split(np.asarray(labels)).values()))
    images = np.asarray(images).reshape(-1, *info.image_shape)
    resized = np.stack([resize(images[i], image_size, image_size) for i in order])
    return Dataset(info, resized, np.asarray(labels)[order].astype(np.int32))


def _split(labels: np.ndarray) -> dict[str, np.ndarray]:
    try:
        return stratified_split(labels)
    except ValueError as error:
        raise UsageError(f"{len(labels)} examples cannot be split 60 / 20 / 20 % with every class in each part") from error


def stratified_split(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of a fixed train / validation / test split, 60 / 20 / 20 %, each class in the same shares everywhere.

    Raises ValueError where a class is too small to be in all three.
    """
    from sklearn.model_selection import train_test_split

    held = math.ceil(HOLD_OUT * len(labels))
    rest, test = train_test_split(np.arange(len(labels)), test_size=held, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=held, stratify=labels[rest], random_state=0)
    return {"train": train, "validation": validation, "test": test}


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of uint8 images, float64 `[channels]`, exactly: from counts of values."""
    values = np.arange(256.0)
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for first in range(0, len(images), 1024):  # bincount wants int64 copies
        channels = np.moveaxis(images[first : first + 1024], -1, 0)
        counts += [np.bincount(channel.ravel(), minlength=256) for channel in channels]
    mean = counts @ values / counts.sum(1)
    variance = np.sum(counts * (values - mean[:, None]) ** 2, axis=1) / counts.sum(1)
    return mean, np.sqrt(variance)


def _read_folder(folder: Path, info: Info, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        return _decode_folder(folder, info, image_size)
    except DataError:
        raise
    except Exception as error:  # array_record and TFDS raise many kinds for a damaged folder
        raise DataError(f"{folder}: cannot be read: {first_line(error)}") from error


def _decode_folder(folder: Path, info: Info, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    images, labels = [], []
    for split, examples in info.splits.items():
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        if len(source) != examples:
            raise DataError(f"{folder}: split {split} has {len(source)} examples, not {examples}")
        for number, record in enumerate(source.__getitems__(range(examples))):
            try:
                images.append(resize(decode(record["image"], info.image_shape[-1]), image_size, image_size))
            except ValueError as error:
                raise DataError(f"{folder}: {split} record {number}: {error}") from error
            if not 0 <= record["label"] < len(info.classes):
                raise DataError(f"{folder}: {split} record {number}: label {record['label']} of {len(info.classes)} classes")
            labels.append(record["label"])
    return np.stack(images), np.array(labels, np.int32)


def _fingerprint(folder: Path) -> str:
    """A folder's files by name, size and time of change, and what decodes them: does a cache hold what would be decoded now?"""
    decoder = PIL.__version__, Path(images_module.__file__).read_bytes()
    rows: Sequence[tuple] = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir())
    return hashlib.sha256(repr((rows, decoder)).encode()).hexdigest()
