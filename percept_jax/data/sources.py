"""Data set name -> what is known of it, and the images and labels of its splits.

A name stands for a TFDS folder in the data directory, for a folder of image files, for a file of sequences, or for points to
teach with. Images are decoded and resized once, into a checksummed cache in the data directory.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from percept_jax import deletion, files
from percept_jax.checks import unknown
from percept_jax.data import folders, images, names, sequences, teaching, tfds_folders
from percept_jax.data.bad import check, told
from percept_jax.data.dataset import Dataset, Info
from percept_jax.data.names import plain as plain
from percept_jax.data.sequences import Reading
from percept_jax.errors import DataError, StorageError, UsageError
from percept_jax.paths import user_path

READING = Reading()
FOLDER, ARRAYS = "folder:", "arrays-"
_LARGE = 1 << 26  # bytes of data whose checksum is worth keeping

# What `prepare` can put into a TFDS folder, as far as one must know it before it is there.
PREPARABLE: dict[str, Info] = {
    name: Info(shape, tuple(map(str, range(classes))), {"train": train, "test": 10_000})
    for name, shape, classes, train in (
        ("mnist", (28, 28, 1), 10, 60_000),
        ("fashion_mnist", (28, 28, 1), 10, 60_000),
        ("kmnist", (28, 28, 1), 10, 60_000),
        ("cifar10", (32, 32, 3), 10, 50_000),
        ("cifar100", (32, 32, 3), 100, 50_000),
    )
}
IMAGENET = Info((0, 0, 3), tuple(map(str, range(1000))), {"train": 1_281_167, "validation": 50_000})
DIGITS = Info((8, 8, 1), tuple("0123456789"), {"train": 1077, "validation": 360, "test": 360}, "1.0.0")


class _MadeFrom(NamedTuple):
    """What a cache is made from: files by name, size and time of change, and their checksum, where it is known."""

    stamp: str
    checksum: str = ""


def describe(name: str, data_dir: Path, absent_too: bool = False, reading: Reading = READING) -> Info:
    """What is known of a data set; `reading` says how it is read.

    Raises UsageError where it is not there, with the command that prepares it; unless `absent_too`, and it is known well enough.
    """
    if name in teaching.TEACHING:
        return teaching.describe(name)
    if name == "digits":
        return DIGITS  # without a look at its folder, which is prepared on first use
    if name.startswith(FOLDER):
        return folders.describe(_path(name), reading.max_bad_records)
    if sequences.is_sequences(name):
        return sequences.load(name, data_dir, reading).info
    known = PREPARABLE | {"imagenet2012": IMAGENET}
    if absent_too and name in known and not is_prepared(name, data_dir):
        return known[name]
    return tfds_folders.describe(_tfds_folder(name, data_dir), reading.max_bad_records)


def load(
    name: str,
    data_dir: Path,
    info: Info,
    image_size: int,
    reading: Reading = READING,
    note: Callable[[str], None] | None = None,
) -> Dataset:
    """The splits of a data set that `info` names, resized to `image_size` pixels a side: out of the cache, if they are there.

    `note` is told what was passed over.

    Raises UsageError as `describe`, DataError for a bad image or record, StorageError where a folder cannot be written.
    """
    if sequences.is_sequences(name):
        return sequences.restrict(sequences.load(name, data_dir, reading), info)
    if info.kind == "points":
        found = teaching.read(name, info, data_dir)
    elif name.startswith(FOLDER):
        path = _path(name)
        title = f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        parts = [file for files in folders.examples(path, note)[0].values() for file in files]
        made_from = _MadeFrom(_stamp(parts, folders.__file__), names.parts(name)[2])
        found = _cached(folders.read, path, made_from, data_dir / "cache" / title, info, image_size, reading, note)
    else:
        if name == "digits" and not is_prepared(name, data_dir):
            from percept_jax.data.prepare import prepare

            prepare(name, data_dir)
        path = _tfds_folder(name, data_dir)
        title = "-".join(path.relative_to(data_dir).parts)
        made_from = _MadeFrom(_stamp(sorted(path.iterdir()), tfds_folders.__file__))
        found = _cached(tfds_folders.read, path, made_from, data_dir / "cache" / title, info, image_size, reading, note)
    if len(found[0]) != sum(info.splits.values()):
        raise DataError(f"{name}: {len(found[0])} examples, not {sum(info.splits.values())}")
    return Dataset(info, *found)


def is_prepared(name: str, data_dir: Path) -> bool:
    """Whether a data set needs no preparation, or has been prepared in `data_dir`."""
    own = name.startswith(FOLDER) or sequences.is_sequences(name)
    return name in teaching.TEACHING or own or tfds_folders.find(name, data_dir) is not None


def located(name: str, data_dir: Path) -> str:
    """The name with its path made absolute, links and a checksum kept as they are: the same data wherever one is.

    The data need not be there. Raises UsageError for a path that cannot be.
    """
    kind, path, checksum = names.parts(name)
    if not kind:
        return name
    if not path:
        raise UsageError(f"needs a path: {kind}:PATH", "dataset")
    place = user_path(path, "dataset")
    if kind != "folder":
        with contextlib.suppress(UsageError):
            place = sequences.path_of(name, data_dir)
    return f"{kind}:{names.absolute(place)}" + (checksum and f"#{checksum}")


def fingerprint(name: str, data_dir: Path, fresh: bool = False) -> str:
    """16 hexadecimal digits of the content of a folder of images or a file of sequences, wherever it is; "" for other names.

    Large data are read once: the digits are kept in the data directory, while the files have the same paths, sizes and times of
    change, unless `fresh`. Raises UsageError where the data are not there, DataError where they cannot be read.
    """
    kind = names.parts(name)[0]
    if not kind:
        return ""
    if kind == "folder":
        files_of = folders.examples(_path(name))[0]
        parts = {f"{split}/{path.parent.name}/{path.name}": path for split, paths in files_of.items() for path in paths}
    else:
        parts = {"": sequences.path_of(name, data_dir)}
    rows = [(os.fsencode(part).hex(), str(path), *_status(path)) for part, path in sorted(parts.items())]
    key = hashlib.sha256(repr(rows).encode()).hexdigest()
    cache = data_dir / "cache" / f"{kind}-{key[:32]}.json"
    if not fresh:
        with contextlib.suppress(StorageError):  # absent or damaged: it can be made again
            found = files.read_json(cache)
            if isinstance(found, dict) and found.get("key") == key and re.fullmatch("[0-9a-f]{16}", str(found.get("content"))):
                return found["content"]
    content = _content(parts)
    if sum(row[2] for row in rows) >= _LARGE:
        with contextlib.suppress(StorageError):  # a folder that is only read: read again next time
            files.write_json(cache, {"key": key, "content": content})
    return content


def identified(name: str, data_dir: Path, fresh: bool = False) -> str:
    """The name with the checksum of the data behind it, where it is that of a folder of images or a file of sequences.

    Where it has one, and the data are not there, it stays as it is. Raises UsageError where they are not there and it has none,
    or where the data have another one.
    """
    kind, path, checksum = names.parts(name)
    if not kind:
        return name
    try:
        found = fingerprint(name, data_dir, fresh)
    except UsageError:
        if checksum and not is_there(name, data_dir):
            return name
        raise
    if checksum and found != checksum:
        raise UsageError(f"{path} has other data than those that were meant (their checksum is not {checksum})", "dataset")
    return f"{kind}:{path}#{found}"


def is_there(name: str, data_dir: Path) -> bool:
    """Whether there is a folder or a file where a name's path leads. Raises UsageError for a path that cannot be."""
    if names.parts(name)[0] == "folder":
        return os.path.isdir(_path(name))
    try:
        return bool(sequences.path_of(name, data_dir))
    except UsageError:
        return False


def _status(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; of what cannot be reached, such as behind a broken link, none."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _content(parts: Mapping[str, Path]) -> str:
    """A digest of files by their names; one that cannot be read counts as such, and is named when it is decoded."""
    state = hashlib.sha256()
    for name, path in sorted(parts.items()):
        encoded = os.fsencode(name)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except OSError:
            digest = b"unreadable"
        state.update(b"%d:%b%d:%b" % (len(encoded), encoded, len(digest), digest))
    return state.hexdigest()[:16]


def short_name(name: str) -> str:
    """A name for a folder under runs/."""
    if sequences.is_sequences(name):
        return Path(names.parts(name)[1]).stem
    return _path(name).name if name.startswith(FOLDER) else name.replace("/", "_").replace(":", "_")


def _path(name: str) -> Path:
    path = names.parts(name)[1]
    if not path:
        raise UsageError("needs a path: folder:PATH", "dataset")
    return names.absolute(user_path(path, "dataset"))


def _tfds_folder(name: str, data_dir: Path) -> Path:
    if folder := tfds_folders.find(name, data_dir):
        return folder
    if name in PREPARABLE:
        command = f"./launch.sh prepare {name} --data_dir={data_dir}"
        raise UsageError(f"{name} is not in {data_dir}; type: {command} (with --from=DIR if you have its files)", "dataset")
    if name.startswith(ARRAYS):
        raise UsageError("trained on arrays of a program, which are not here", "dataset")
    known = ["digits", *teaching.TEACHING, *PREPARABLE]
    raise UsageError(f"{unknown(name, known)}; or a TFDS folder in {data_dir}, or folder:, npz:, tagged: or text:PATH", "dataset")


def _cached(
    read: Callable[[Path, Info, int], tuple],
    path: Path,
    made_from: _MadeFrom,
    cache: Path,
    info: Info,
    image_size: int,
    reading: Reading,
    note: Callable[[str], None] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """What `read(path, info, image_size)` makes of files, kept beside `cache` in a file that says what it was made from."""
    cache = cache.with_name(f"{cache.name}-{'-'.join(info.splits)}-{image_size}.safetensors")
    found = None if reading.fresh_cache else _kept(cache, made_from)
    pixels, labels, bad = found or read(path, info, image_size)
    what, total = "images" if read is folders.read else "records", len(pixels) + len(bad)
    check(bad, total, reading.max_bad_records, what)
    if bad and note:
        note(f"skipped, as --max_bad_records allows: {told(bad, total, what)}")
    if not found:
        # Suppressed: a folder that is only read; they are decoded again next time.
        with contextlib.suppress(StorageError), files.locked(cache.parent / ".lock", wait=True) as lock:
            deletion.delete_temporaries(lock, cache.parent, re.compile(re.escape(cache.name)))
            files.write_arrays(cache, {"images": pixels, "labels": labels}, {**made_from._asdict(), "bad": bad})
    return pixels, labels


def _kept(cache: Path, made_from: _MadeFrom) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """Images, labels and what is wrong with others, out of a cache; None where it is absent, damaged, or of other files."""
    try:
        arrays, meta = files.read_arrays(cache)
        if meta["stamp"] == made_from.stamp and made_from.checksum in ("", meta["checksum"]):
            return arrays["images"], arrays["labels"], list(meta["bad"])
    except (StorageError, KeyError, TypeError):
        pass
    return None


def _stamp(parts: Sequence[Path], code: str) -> str:
    """Files by name, size and time of change, and what reads them: does a cache hold what would be read now?"""
    rows = [(str(path), *_status(path)) for path in parts]
    sources = [Path(file).read_bytes() for file in (images.__file__, code)]
    return hashlib.sha256(repr((rows, PIL.__version__, sources)).encode()).hexdigest()
