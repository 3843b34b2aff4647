"""Data set name -> what is known of it, and the images and labels of its splits.

A name stands for a TFDS folder in the data directory, for a folder of image files, for a file of sequences, or for points to
teach with. Images are decoded and resized once, into a checksummed cache in the data directory.
"""

import contextlib
import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL

from percept_jax import files
from percept_jax.checks import unknown
from percept_jax.data import folders, images, sequences, teaching, tfds_folders
from percept_jax.data.dataset import Dataset, Info
from percept_jax.data.sequences import Reading
from percept_jax.errors import DataError, StorageError, UsageError

READING = Reading()
FOLDER, ARRAYS = "folder:", "arrays-"

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


def describe(name: str, data_dir: Path, absent_too: bool = False, reading: Reading = READING) -> Info:
    """What is known of a data set; `reading` says how a file of sequences is read.

    Raises UsageError where it is not there, with the command that prepares it; unless `absent_too`, and it is known well enough.
    """
    if name in teaching.TEACHING:
        return teaching.describe(name)
    if name == "digits":
        return DIGITS  # without a look at its folder, which is prepared on first use
    if name.startswith(FOLDER):
        return folders.describe(_path(name))
    if sequences.is_sequences(name):
        return sequences.load(name, data_dir, reading).info
    known = PREPARABLE | {"imagenet2012": IMAGENET}
    if absent_too and name in known and not is_prepared(name, data_dir):
        return known[name]
    return tfds_folders.describe(_tfds_folder(name, data_dir))


def load(name: str, data_dir: Path, info: Info, image_size: int, reading: Reading = READING) -> Dataset:
    """The splits of a data set that `info` names, resized to `image_size` pixels a side: out of the cache, if they are there.

    Raises UsageError as `describe`, DataError for a bad image or record, StorageError where a folder cannot be written.
    """
    if sequences.is_sequences(name):
        return sequences.restrict(sequences.load(name, data_dir, reading), info)
    if info.kind == "points":
        found = teaching.read(name, info, data_dir)
    elif name.startswith(FOLDER):
        path = _path(name)
        title = f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        parts = [file for files in folders.examples(path)[0].values() for file in files]
        found = _cached(folders.read, path, parts, data_dir, title, info, image_size)
    else:
        if name == "digits" and not is_prepared(name, data_dir):
            from percept_jax.data.prepare import prepare

            prepare(name, data_dir)
        path = _tfds_folder(name, data_dir)
        title = "-".join(path.relative_to(data_dir).parts)
        found = _cached(tfds_folders.read, path, sorted(path.iterdir()), data_dir, title, info, image_size)
    if len(found[0]) != sum(info.splits.values()):
        raise DataError(f"{name}: {len(found[0])} examples, not {sum(info.splits.values())}")
    return Dataset(info, *found)


def is_prepared(name: str, data_dir: Path) -> bool:
    """Whether a data set needs no preparation, or has been prepared in `data_dir`."""
    own = name.startswith(FOLDER) or sequences.is_sequences(name)
    return name in teaching.TEACHING or own or tfds_folders.find(name, data_dir) is not None


def located(name: str, data_dir: Path) -> str:
    """The name with a folder's path made absolute: a run means the same data wherever it is resumed from."""
    if sequences.is_sequences(name):
        return f"{name.partition(':')[0]}:{sequences.path_of(name, data_dir)}"
    return FOLDER + str(_path(name)) if name.startswith(FOLDER) else name


def identified(name: str, data_dir: Path) -> str:
    return name


def short_name(name: str) -> str:
    """A name for a folder under runs/."""
    if sequences.is_sequences(name):
        return Path(name.partition(":")[2]).stem
    return _path(name).name if name.startswith(FOLDER) else name.replace("/", "_").replace(":", "_")


def _path(name: str) -> Path:
    if name == FOLDER:
        raise UsageError("needs a path: folder:PATH", "dataset")
    return Path(name.removeprefix(FOLDER)).expanduser().resolve()


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
    parts: Sequence[Path],
    data_dir: Path,
    title: str,
    info: Info,
    image_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What `read(path, info, image_size)` makes of the files `parts`, kept in a file whose header says what it was made from."""
    cache = data_dir / "cache" / f"{title}-{'-'.join(info.splits)}-{image_size}.safetensors"
    made_from = _stamp(parts, [images.__file__, inspect.getfile(read)])
    try:
        arrays, meta = files.read_arrays(cache)
        if meta == made_from:
            return arrays["images"], arrays["labels"]
    except StorageError:
        pass  # absent or damaged: it can be made again
    pixels, labels = read(path, info, image_size)
    with contextlib.suppress(StorageError):  # a folder that is only read: decoded again next time
        files.write_arrays(cache, {"images": pixels, "labels": labels}, made_from)
    return pixels, labels


def _stamp(parts: Sequence[Path], code: Sequence[str]) -> str:
    """Files by name, size and time of change, and what reads them: does a cache hold what would be read now?"""
    rows = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in ((path, path.stat()) for path in parts)]
    return hashlib.sha256(repr((rows, PIL.__version__, [Path(file).read_bytes() for file in code])).encode()).hexdigest()
