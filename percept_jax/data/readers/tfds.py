"""Finds, describes and reads TFDS folders without TensorFlow, whichever tool prepared them."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from percept_jax.data.images import decode
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.data.spec import DatasetSpec, image_spec
from percept_jax.errors import DataError, UsageError, first_line

# Records that are read at a time.
BLOCK = 1000
_NAME = re.compile(r"(\w[\w-]*(?:/[A-Za-z_][\w.-]*)?)(?::(\d+\.\d+\.\d+))?")


def find(name: str, data_dir: Path) -> Path | None:
    """Returns the folder of the data set NAME or NAME/CONFIG, with :VERSION or else the newest; None if there is none.

    A folder is always complete: TFDS renames it into place when it is finished. Raises UsageError if only other versions or
    configurations exist.
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


class TfdsFolder:
    """Reads a TFDS folder whose examples have one image and one label. See `Reader`."""

    records = "records"

    def __init__(self, folder: Path, data_dir: Path, config: ReaderConfig):
        """Opens a folder below the data directory."""
        self.folder, self._max_bad = folder, config.max_bad_records
        self.cache_name = "-".join(folder.relative_to(data_dir).parts)

    @functools.cached_property
    def _builder(self) -> Any:
        import tensorflow_datasets as tfds

        try:
            return tfds.builder_from_directory(self.folder)
        except Exception as error:
            raise DataError(f"{self.folder}: cannot be read: {first_line(error)}") from error

    def describe(self) -> DatasetSpec:
        """Returns the spec of the folder. Raises UsageError unless an example has one image and one label.

        If bad records may be skipped, every record is decoded to count the good ones.
        """
        image, label = (self._builder.info.features[key] for key in _keys(self._builder, self.folder))
        height, width, channels = (size or 0 for size in image.shape)
        splits = {name: split.num_examples for name, split in self._builder.info.splits.items()}
        spec = image_spec((height, width, 1 if channels == 1 else 3), tuple(label.names), splits, self.folder.name)
        return spec._replace(splits={name: self._good(spec, name) for name in splits}) if self._max_bad else spec

    def source(self, split: str) -> "_Records":
        """Returns the records of a split. Raises DataError if their number differs from that in the folder's metadata."""
        examples = self._builder.info.splits[split].num_examples
        image, label = _keys(self._builder, self.folder)
        try:
            source = _source(self._builder, split, image)
            found = len(source)
        except Exception as error:
            # array_record and TFDS raise many kinds of errors for a damaged folder.
            raise DataError(f"{self.folder}: split {split} cannot be read: {first_line(error)}") from error
        if found != examples:
            raise DataError(f"{self.folder}: split {split} has {found} examples, not {examples}")
        return _Records(source, f"{self.folder}: {split}", image, label)

    def files(self) -> dict[str, Path]:
        """Returns the files of the folder."""
        return {path.name: path for path in sorted(self.folder.iterdir())}

    def _good(self, spec: DatasetSpec, split: str) -> int:
        """Returns the number of good records of a split. If there are none it returns all, and reading the split then fails."""
        good = 0
        try:
            source = self.source(split)
            for first in range(0, len(source), BLOCK):
                block = source.read(range(first, min(first + BLOCK, len(source))))
                for image, label in zip(block["image"], block["label"], strict=True):
                    good += self._is_good(image, label, spec)
        except DataError:
            pass
        return good or spec.splits[split]

    def _is_good(self, image: bytes | Exception, label: int, spec: DatasetSpec) -> bool:
        try:
            return (
                0 <= label < len(spec.classes) and not isinstance(image, Exception) and bool(len(decode(image, spec.shape[-1])))
            )
        except ValueError:
            return False


class _Records:
    """The records of one split."""

    def __init__(self, source: Any, name: str, image: str, label: str):
        self._source, self._name, self._image, self._label = source, name, image, label

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        records = _block(self._source, indices)
        bad = [isinstance(record, Exception) for record in records]
        images = [record if is_bad else record[self._image] for record, is_bad in zip(records, bad, strict=True)]
        labels = [-1 if is_bad else int(record[self._label]) for record, is_bad in zip(records, bad, strict=True)]
        return {"image": images, "label": labels}

    def where(self, index: int) -> str:
        return f"{self._name} record {index}"


def _block(source: Any, numbers: Sequence[int]) -> list[Any]:
    """Returns records by their numbers, with a ValueError in place of each one that cannot be read."""
    try:
        return list(source.__getitems__(numbers))
    except Exception:
        # array_record and TFDS raise many kinds of errors for a damaged record. To find it, records are read one at a time.
        return [_record(source, number) for number in numbers]


def _record(source: Any, number: int) -> Any:
    try:
        return source.__getitems__([number])[0]
    except Exception as error:
        return ValueError(first_line(error))


def _source(builder: Any, split: str, image: str) -> Any:
    import tensorflow_datasets as tfds

    decoders = {image: tfds.decode.SkipDecoding()}
    if builder.info.file_format.value == "tfrecord":
        return _TFRecordSource([Path(path) for path in builder.info.splits[split].filepaths], builder.info.features, decoders)
    return builder.as_data_source(split, decoders=decoders)


class _TFRecordSource:
    """The counterpart of TFDS's `as_data_source` for TFRecord, which TFDS reads with TensorFlow only."""

    def __init__(self, paths: list[Path], features: Any, decoders: Any):
        from percept_jax.data.formats.tfrecord import Records

        self._records, self._features, self._decoders = Records(paths), features, decoders

    def __len__(self) -> int:
        return len(self._records)

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        return [self._features.deserialize_example_np(self._records[i], decoders=self._decoders) for i in numbers]


def _keys(builder: Any, folder: Path) -> tuple[str, str]:
    """Returns the names of the image and the label feature: the builder's supervised keys, or the only ones of their type."""
    import tensorflow_datasets as tfds

    supervised, found = builder.info.supervised_keys or (), []
    for kind in (tfds.features.Image, tfds.features.ClassLabel):
        keys = [key for key, feature in builder.info.features.items() if type(feature) is kind]
        keys = [key for key in keys if key in supervised] or keys
        if len(keys) != 1:
            raise UsageError(f"{folder}: an example has {len(keys)} features of type {kind.__name__}, not one", "dataset")
        found += keys
    return tuple(found)
