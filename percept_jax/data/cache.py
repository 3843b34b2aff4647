"""Reads the examples of a data set into memory. Images are decoded and resized once, into a checksummed cache."""

import contextlib
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL

from percept_jax import deletion, files
from percept_jax.data import annotations, images
from percept_jax.data.bad_records import check, reason, summary
from percept_jax.data.images import decode, resize
from percept_jax.data.readers.base import Reader, ReaderConfig
from percept_jax.data.spec import Dataset, DatasetSpec, Size
from percept_jax.errors import DataError, StorageError

# Examples that are read at a time.
BLOCK = 1000
# From this many bytes of data on, the checksum is stored.
LARGE = 1 << 26


class _MadeFrom(NamedTuple):
    """Identifies the data that a cache was made from.

    Attributes:
        stamp: a digest of the files' names, sizes and modification times, see `_stamp`.
        checksum: of the files' content; empty if it is not known.
    """

    stamp: str
    checksum: str


class _Examples(NamedTuple):
    """Examples that were read.

    Attributes:
        columns: features by name, each an array `[examples, ...]`.
        bad: one line for each example that cannot be read.
    """

    columns: dict[str, np.ndarray]
    bad: list[str]


def load(
    reader: Reader,
    spec: DatasetSpec,
    image_size: Size,
    config: ReaderConfig,
    folder: Path,
    checksum: str = "",
    note: Callable[[str], None] | None = None,
) -> Dataset:
    """Returns the splits that `spec` names, with images resized to `image_size`, from the cache if possible.

    Args:
        reader: the reader of the data set.
        spec: the data set's spec, with its roles.
        image_size: height and width; ignored for sequences and points.
        config: how many bad examples may be skipped, and whether the cache is rebuilt.
        folder: the folder of the caches.
        checksum: of the data set's content; empty if it is not known.
        note: called with a message about skipped examples.

    Raises:
        DataError: more examples cannot be read than may be skipped, or a split cannot be read at all.
    """
    if not reader.cache_name:
        found = _read(reader, spec, image_size, config)
    else:
        # The stored values of a mask depend on its classes and on what is void.
        classes = repr((spec.mask_classes, config.void)) if "mask" in spec.features else ""
        made_from = _MadeFrom(_stamp(reader, classes), checksum)
        path = folder / f"{reader.cache_name}-{'-'.join(spec.splits)}-{_suffix(image_size)}.safetensors"
        kept = None if config.fresh_cache else _kept(path, made_from, spec)
        found = kept or _read(reader, spec, image_size, config)
        total = len(next(iter(found.columns.values()))) + len(found.bad)
        check(found.bad, total, config.max_bad_records, reader.records)
        if found.bad and note:
            note(f"skipped, as --max_bad_records allows: {summary(found.bad, total, reader.records)}")
        if not kept:
            _keep(path, found, made_from)
    return Dataset(spec, found.columns)


def _suffix(size: Size) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def _read(reader: Reader, spec: DatasetSpec, image_size: Size, config: ReaderConfig) -> _Examples:
    """Reads the splits of `spec`, one after the other; images are decoded and resized, and bad ones are left out."""
    sources = {split: reader.source(split) for split in spec.splits}
    if spec.kind != "images":
        blocks = [source.read(range(len(source))) for source in sources.values()]
        columns = {name: np.concatenate([block[name] for block in blocks]) for name in spec.features}
        _check_columns(columns, spec)
        return _Examples(columns, [])
    count, bad = sum(map(len, sources.values())), []
    pixels = np.empty((count, *image_size, spec.shape[-1]), np.uint8)
    others: dict[str, list[Any]] = {name: [] for name in spec.features if name != "image"}
    done = 0
    for source in sources.values():
        for first in range(0, len(source), BLOCK):
            block = source.read(range(first, min(first + BLOCK, len(source))))
            for i in range(len(block["image"])):
                try:
                    example = _example(block, i, spec, image_size, config)
                except (OSError, ValueError, MemoryError) as error:
                    bad.append(f"{source.where(first + i)}: {reason(error)}")
                    continue
                pixels[done] = example["image"]
                done += 1
                for name, column in others.items():
                    column.append(example[name])
    columns = {name: np.array(column, spec.features[name].dtype) for name, column in others.items()}
    return _Examples({"image": pixels[:done], **columns}, bad)


def _example(block: Mapping[str, Any], i: int, spec: DatasetSpec, size: Size, config: ReaderConfig) -> dict[str, Any]:
    """Returns an example of a block as it is stored, with its image resized. Raises ValueError and OSError if it is bad."""
    # Boxes and masks refer to the pixels as they are stored, as in TFDS.
    image = _decoded(block["image"][i], spec.shape[-1], upright=not {"boxes", "mask"} & spec.features.keys())
    example: dict[str, Any] = {name: block[name][i] for name in spec.features} | {"image": resize(image, *size)}
    if "label" in example:
        _check_label(example["label"], spec.classes)
    if "boxes" in example:
        classes = example["classes"] if "classes" in example else [example["label"]]
        boxes, classes = annotations.stored_boxes(example["boxes"], classes, spec.classes, spec.features["boxes"].shape[0])
        example |= {"boxes": boxes, "classes": classes}
    if "mask" in example:
        sides = image.shape[0], image.shape[1]
        example["mask"] = annotations.stored_mask(example["mask"], sides, size, spec.mask_classes, config.void)
    return example


def is_good(block: Mapping[str, Any], i: int, spec: DatasetSpec, config: ReaderConfig) -> bool:
    """Returns whether an example of a block can be read."""
    try:
        return bool(_example(block, i, spec, (1, 1), config))
    except (OSError, ValueError, MemoryError):
        return False


def _decoded(image: bytes | np.ndarray | Exception, channels: int, upright: bool) -> np.ndarray:
    if isinstance(image, Exception):
        raise image
    return image if isinstance(image, np.ndarray) else decode(image, channels, upright)


def _check_label(label: int, classes: Sequence[str]) -> None:
    if not 0 <= label < len(classes):
        raise ValueError(f"label {label}, but there are {len(classes)} classes")


def _check_columns(columns: Mapping[str, np.ndarray], spec: DatasetSpec) -> None:
    """Raises DataError unless arrays have the shapes of their features, and labels are classes; -1 stands for no label."""
    for name, column in columns.items():
        if column.shape[1:] != tuple(spec.features[name].shape):
            raise DataError(f"{name} is {list(column.shape[1:])} for each example, not {list(spec.features[name].shape)}")
    labels = columns.get("label", np.zeros(1, int))
    least = -1 if labels.ndim > 1 else 0
    if spec.classes and (labels.dtype.kind not in "iu" or not least <= labels.min() <= labels.max() < len(spec.classes)):
        raise DataError(f"labels are {labels.dtype} from {labels.min()} to {labels.max()}; there are {len(spec.classes)} classes")


def _keep(path: Path, found: _Examples, made_from: _MadeFrom) -> None:
    """Writes the cache. If the folder is not writable there is none, and examples are decoded again next time."""
    with contextlib.suppress(StorageError), files.locked(path.parent / ".lock", wait=True) as lock:
        deletion.delete_temporaries(lock, path.parent, re.compile(re.escape(path.name)))
        files.write_arrays(path, found.columns, {**made_from._asdict(), "bad": found.bad})


def _kept(path: Path, made_from: _MadeFrom, spec: DatasetSpec) -> _Examples | None:
    """Returns the content of the cache; None if it is absent, damaged, or was made from other files."""
    try:
        arrays, meta = files.read_arrays(path)
        if meta["stamp"] == made_from.stamp and made_from.checksum in ("", meta["checksum"]):
            return _Examples({name: arrays[name] for name in spec.features}, list(meta["bad"]))
    except (StorageError, KeyError, TypeError):
        pass
    return None


def _stamp(reader: Reader, more: str = "") -> str:
    """Returns a checksum of the names, sizes and modification times of a reader's files, the code that reads them, and `more`."""
    rows = [(str(path), *status(path)) for path in reader.files().values()]
    code = [Path(file).read_bytes() for file in (images.__file__, annotations.__file__, __file__, inspect.getfile(type(reader)))]
    return hashlib.sha256(repr((rows, PIL.__version__, code, more)).encode()).hexdigest()


def status(path: Path) -> tuple[int, int]:
    """Returns size in bytes and modification time in nanoseconds; zeros for a path that is unreachable, as a broken link."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def fingerprint(reader: Reader, kind: str, folder: Path, fresh: bool) -> str:
    """Returns a checksum, 16 hexadecimal digits, of the content of a reader's files; it does not depend on their location.

    Large data are read once: the checksum is stored in `folder` and used as long as the files keep their paths, sizes and
    modification times, unless `fresh`. Raises UsageError if the data are absent, DataError if they cannot be read.
    """
    parts = reader.files()
    rows = [(name.encode(errors="surrogateescape").hex(), str(path), *status(path)) for name, path in sorted(parts.items())]
    key = hashlib.sha256(repr(rows).encode()).hexdigest()
    path = folder / f"{kind}-{key[:32]}.json"
    if not fresh:
        # A stored checksum that is absent or damaged is computed again.
        with contextlib.suppress(StorageError):
            found = files.read_json(path)
            if isinstance(found, dict) and found.get("key") == key and re.fullmatch("[0-9a-f]{16}", str(found.get("content"))):
                return found["content"]
    content = _content(parts)
    if sum(row[2] for row in rows) >= LARGE:
        # If the folder is not writable, the data are read again next time.
        with contextlib.suppress(StorageError):
            files.write_json(path, {"key": key, "content": content})
    return content


def _content(parts: Mapping[str, Path]) -> str:
    """Returns a digest of files and their names. An unreadable file enters as such; it is reported when it is decoded."""
    state = hashlib.sha256()
    for name, path in sorted(parts.items()):
        encoded = name.encode(errors="surrogateescape")
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except OSError:
            digest = b"unreadable"
        state.update(b"%d:%b%d:%b" % (len(encoded), encoded, len(digest), digest))
    return state.hexdigest()[:16]
