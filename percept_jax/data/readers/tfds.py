"""Finds, describes and reads TFDS folders without TensorFlow, whichever tool prepared them."""

import contextlib
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from percept_jax import files
from percept_jax.data import cache
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.data.spec import VOID, DatasetSpec, Feature
from percept_jax.errors import DataError, StorageError, UsageError, first_line

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


class Layout(NamedTuple):
    """The names of the features of a TFDS folder that are read; empty for those that it does not have.

    Attributes:
        image: an image.
        label: its class.
        objects: a sequence of boxes, each with a class: the names of the sequence, of its box and of its class.
        bbox: a single box.
        mask: an image whose pixels are classes.
    """

    image: str
    label: str = ""
    objects: tuple[str, str, str] | None = None
    bbox: str = ""
    mask: str = ""


class TfdsFolder:
    """Reads a TFDS folder whose examples have an image, and a label, boxes or a mask. See `Reader`."""

    records = "records"

    def __init__(self, folder: Path, data_dir: Path, config: ReaderConfig):
        """Opens a folder below the data directory."""
        self.folder, self._config = folder, config
        self.cache_name = "-".join(folder.relative_to(data_dir).parts)
        self._counted = data_dir / "cache" / f"{self.cache_name}-boxes.json"

    @functools.cached_property
    def _builder(self) -> Any:
        import tensorflow_datasets as tfds

        try:
            return tfds.builder_from_directory(self.folder)
        except Exception as error:
            raise DataError(f"{self.folder}: cannot be read: {first_line(error)}") from error

    @functools.cached_property
    def _layout(self) -> Layout:
        return _layout(self._builder, self.folder)

    def describe(self) -> DatasetSpec:
        """Returns the spec of the folder. Raises UsageError unless an example has an image and a label, boxes or a mask.

        If bad records may be skipped, every record is decoded to count the good ones.
        """
        layout, info, names = self._layout, self._builder.info, ()
        height, width, channels = (size or 0 for size in info.features[layout.image].shape)
        features = {"image": Feature((height, width, 1 if channels == 1 else 3), "uint8")}
        if layout.label:
            features["label"], names = Feature((), "int32"), tuple(info.features[layout.label].names)
        if layout.bbox:
            features["boxes"] = Feature((1, 4), "float32")
        elif layout.objects:
            most, sequence = self._most_boxes(), info.features[layout.objects[0]].feature
            features |= {"boxes": Feature((most, 4), "float32"), "classes": Feature((most,), "int32")}
            names = tuple(sequence[layout.objects[2]].names)
        # A data set with labels can be classified without names for the values of its masks.
        masked = layout.mask and (self._config.mask_classes or not layout.label)
        values = self._mask_classes() if masked else ()
        features |= {"mask": Feature((height, width), "uint8")} if masked else {}
        splits = {name: split.num_examples for name, split in info.splits.items()}
        spec = DatasetSpec(features, names, splits, self.folder.name, mask_classes=values)
        spec = spec._replace(unread=(layout.mask,) if layout.mask and not masked else ())
        return spec._replace(splits={name: self._good(spec, name) for name in splits}) if self._config.max_bad_records else spec

    def _mask_classes(self) -> tuple[str, ...]:
        names = tuple(name.strip() for name in self._config.mask_classes.split(","))
        if not all(names) or len(set(names)) < len(names) or len(names) >= VOID:
            problem = f"{self.folder} does not name the classes of its masks; give their names, such as road,car"
            raise UsageError(problem if not self._config.mask_classes else "a name is empty or given twice", "mask_classes")
        return names

    def _most_boxes(self) -> int:
        """Returns the largest number of boxes in an image, at least 1; it is remembered beside the caches of images."""
        key = repr([(path.name, *path.stat()[6:9:2]) for path in self.files().values()])
        with contextlib.suppress(StorageError):
            known = files.read_json(self._counted)
            if isinstance(known, dict) and known.get("key") == key and type(known.get("most")) is int:
                return known["most"]
        most = 1
        for split in self._builder.info.splits:
            source = self.source(split)
            for first in range(0, len(source), BLOCK):
                most = max(most, *map(len, source.read(range(first, min(first + BLOCK, len(source))))["boxes"]))
        # If the folder is not writable, the boxes are counted again next time.
        with contextlib.suppress(StorageError):
            files.write_json(self._counted, {"key": key, "most": most})
        return most

    def source(self, split: str) -> "_Records":
        """Returns the records of a split. Raises DataError if their number differs from that in the folder's metadata."""
        examples = self._builder.info.splits[split].num_examples
        try:
            source = _source(self._builder, split, self._layout)
            found = len(source)
        except Exception as error:
            # array_record and TFDS raise many kinds of errors for a damaged folder.
            raise DataError(f"{self.folder}: split {split} cannot be read: {first_line(error)}") from error
        if found != examples:
            raise DataError(f"{self.folder}: split {split} has {found} examples, not {examples}")
        return _Records(source, f"{self.folder}: {split}", self._layout)

    def files(self) -> dict[str, Path]:
        """Returns the files of the folder."""
        return {path.name: path for path in sorted(self.folder.iterdir())}

    def _good(self, spec: DatasetSpec, split: str) -> int:
        """Returns the number of good records of a split. If there are none it returns all, and reading the split then fails."""
        good = 0
        with contextlib.suppress(DataError):
            source = self.source(split)
            for first in range(0, len(source), BLOCK):
                block = source.read(range(first, min(first + BLOCK, len(source))))
                good += sum(cache.is_good(block, i, spec, self._config) for i in range(len(block["image"])))
        return good or spec.splits[split]


class _Records:
    """The records of one split."""

    def __init__(self, source: Any, name: str, layout: Layout):
        self._source, self._name, self._layout = source, name, layout

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        records, layout = _block(self._source, indices), self._layout
        bad = [isinstance(record, Exception) for record in records]

        def column(value: Callable[[Any], Any], absent: Any) -> list[Any]:
            return [absent if is_bad else value(record) for record, is_bad in zip(records, bad, strict=True)]

        images = column(lambda record: record[layout.image], None)
        found = {"image": [record if is_bad else image for record, image, is_bad in zip(records, images, bad, strict=True)]}
        if layout.label:
            found["label"] = column(lambda record: int(record[layout.label]), -1)
        if layout.bbox:
            found["boxes"] = column(lambda record: record[layout.bbox], np.zeros(4))
        elif layout.objects:
            sequence, box, label = layout.objects
            found["boxes"] = column(lambda record: np.reshape(record[sequence][box], (-1, 4)), np.zeros((0, 4)))
            found["classes"] = column(lambda record: np.reshape(record[sequence][label], -1), np.zeros(0))
        if layout.mask:
            found["mask"] = column(lambda record: record[layout.mask], b"")
        return found

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


def _source(builder: Any, split: str, layout: Layout) -> Any:
    import tensorflow_datasets as tfds

    decoders = {name: tfds.decode.SkipDecoding() for name in (layout.image, layout.mask) if name}
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


def _layout(builder: Any, folder: Path) -> Layout:
    """Returns the layout of a folder by the types of its features; of several, the builder's supervised keys decide.

    Raises UsageError unless there is one image, and a label, boxes or a mask.
    """
    import tensorflow_datasets as tfds

    of, supervised = tfds.features, builder.info.supervised_keys or ()

    def keys(kind: type, features: Any = builder.info.features) -> list[str]:
        found = [key for key, feature in features.items() if type(feature) is kind]
        return [key for key in found if key in supervised] or found

    masks = [key for key in keys(of.Image) if "mask" in key]
    images, labels, boxes = [key for key in keys(of.Image) if key not in masks], keys(of.ClassLabel), keys(of.BBoxFeature)
    objects = []
    for key in keys(of.Sequence):
        inner = getattr(builder.info.features[key], "feature", None)
        if isinstance(inner, of.FeaturesDict) and (box := keys(of.BBoxFeature, inner)):
            classes = keys(of.ClassLabel, inner)
            objects.append((key, box[0], "label" if "label" in classes else classes[0] if classes else ""))
    if len(images) != 1:
        raise UsageError(f"{folder}: an example has {len(images)} features of type Image, not one", "dataset")
    if len(labels) > 1 or (not labels and not objects and not masks):
        raise UsageError(f"{folder}: an example has {len(labels)} features of type ClassLabel, not one", "dataset")
    if len(objects) > 1 or len(boxes) > 1 or len(masks) > 1 or (objects and not objects[0][2]):
        raise UsageError(f"{folder}: an example has boxes without classes, or several kinds of boxes or masks", "dataset")
    one = [*objects, None][0]
    return Layout(images[0], [*labels, ""][0], one, [*boxes, ""][0], [*masks, ""][0])
