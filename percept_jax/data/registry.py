"""READERS: finds the reader of a data set by the set's name, and describes or loads the data set with it.

A name is that of a toy data set, of a TFDS folder in the data directory, or KIND:PATH for a user's own data.
KIND:PATH#CHECKSUM also fixes the content of the data. To add a format, write its reader in a file and add a line to READERS.
"""

import contextlib
import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from percept_jax.data import cache
from percept_jax.data.readers import tfds, toy
from percept_jax.data.readers.arrays import Arrays
from percept_jax.data.readers.base import Reader, ReaderConfig
from percept_jax.data.readers.image_folder import ImageFolder
from percept_jax.data.readers.sequence_files import SequenceFile
from percept_jax.data.readers.tfds import TfdsFolder
from percept_jax.data.spec import Dataset, DatasetSpec, Size, image_spec
from percept_jax.errors import DataError, UsageError
from percept_jax.paths import user_path
from percept_jax.validation import unknown

Note = Callable[[str], None] | None


class Kind(NamedTuple):
    """A format of a user's own data.

    Attributes:
        reader: a class of readers, called with (kind, path, config, note); `note` is called with a message about skipped files.
        is_folder: whether the path names a folder. A file is also looked for in the data directory.
    """

    reader: Callable[[str, Path, ReaderConfig, Note], Reader]
    is_folder: bool = False


READERS: dict[str, Kind] = {
    "folder": Kind(ImageFolder, is_folder=True),
    "npz": Kind(SequenceFile),
    "tagged": Kind(SequenceFile),
    "text": Kind(SequenceFile),
}

ARRAYS = "arrays-"
DIGITS = image_spec((8, 8, 1), tuple("0123456789"), {"train": 1077, "validation": 360, "test": 360}, "1.0.0")
# The data sets that `prepare` can write, described as far as is needed before they are prepared.
PREPARABLE: dict[str, DatasetSpec] = {
    name: image_spec(shape, tuple(map(str, range(classes))), {"train": train, "test": 10_000})
    for name, shape, classes, train in (
        ("mnist", (28, 28, 1), 10, 60_000),
        ("fashion_mnist", (28, 28, 1), 10, 60_000),
        ("kmnist", (28, 28, 1), 10, 60_000),
        ("cifar10", (32, 32, 3), 10, 50_000),
        ("cifar100", (32, 32, 3), 100, 50_000),
    )
}
IMAGENET = image_spec((0, 0, 3), tuple(map(str, range(1000))), {"train": 1_281_167, "validation": 50_000})


def describe(name: str, data_dir: Path, absent_too: bool = False, config: ReaderConfig | None = None) -> DatasetSpec:
    """Returns the spec of a data set; `config` says how the data are read.

    If the data are absent, raises UsageError with the command that prepares them; with `absent_too`, returns the spec that is
    known in advance, if there is one.
    """
    if name == "digits":
        # The folder is not read, since it is prepared on first use.
        return DIGITS
    known = PREPARABLE | {"imagenet2012": IMAGENET}
    if absent_too and name in known and not is_prepared(name, data_dir):
        return known[name]
    return open_reader(name, data_dir, config or ReaderConfig()).describe()


def load(
    name: str, data_dir: Path, spec: DatasetSpec, image_size: Size, config: ReaderConfig | None = None, note: Note = None
) -> Dataset:
    """Returns the splits of a data set that `spec` names; images are resized to `image_size`, height and width.

    Raises UsageError like `describe`; DataError for examples that cannot be read, see `cache.load`, or whose number differs from
    that in `spec`; StorageError if a folder cannot be written.
    """
    if name == "digits" and not is_prepared(name, data_dir):
        from percept_jax.data.prepare import prepare

        prepare(name, data_dir)
    config = config or ReaderConfig()
    reader = open_reader(name, data_dir, config, note)
    dataset = cache.load(reader, spec, image_size, config, data_dir / "cache", parts(name)[2], note)
    if len(dataset.inputs) != sum(spec.splits.values()):
        raise DataError(f"{name}: {len(dataset.inputs)} examples, not {sum(spec.splits.values())}")
    return dataset


def reader_class(name: str) -> Any:
    """Returns the class of a data set's reader, whether or not the data exist."""
    if kind := parts(name)[0]:
        return READERS[kind].reader
    if name.startswith(ARRAYS):
        return Arrays
    return toy.Toy if name in toy.TOYS else TfdsFolder


def open_reader(name: str, data_dir: Path, config: ReaderConfig, note: Note = None) -> Reader:
    """Returns the reader of a data set; `note` is called with a message about skipped files.

    Raises UsageError if the data are absent or the name is unknown.
    """
    if name in toy.TOYS:
        return toy.Toy(name, functools.partial(_digits, data_dir))
    kind = parts(name)[0]
    if kind:
        return READERS[kind].reader(kind, path_of(name, data_dir), config, note)
    if folder := tfds.find(name, data_dir):
        return TfdsFolder(folder, data_dir, config)
    if name in PREPARABLE:
        command = f"./launch.sh prepare {name} --data_dir={data_dir}"
        raise UsageError(f"{name} is not in {data_dir}; run: {command} (with --from=DIR if you have its files)", "dataset")
    if name.startswith(ARRAYS):
        raise UsageError("the model was trained on arrays passed from Python, which are not stored", "dataset")
    known = ["digits", *toy.TOYS, *PREPARABLE]
    kinds = [f"{kind}:" for kind in READERS]
    raise UsageError(
        f"{unknown(name, known)}; or a TFDS folder in {data_dir}, or {', '.join(kinds[:-1])} or {kinds[-1]}PATH", "dataset"
    )


def _digits(data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels of all splits of the digits."""
    examples = load("digits", data_dir, DIGITS.select(), (8, 8)).examples
    return examples["image"], examples["label"]


def is_prepared(name: str, data_dir: Path) -> bool:
    """Returns whether a data set needs no preparation or is already prepared in `data_dir`."""
    return name in toy.TOYS or bool(parts(name)[0]) or tfds.find(name, data_dir) is not None


def parts(name: str) -> tuple[str, str, str]:
    """Returns kind, path and checksum of KIND:PATH#CHECKSUM; the checksum may be empty, and all are for any other name."""
    kind, colon, rest = name.partition(":")
    if not colon or kind not in READERS:
        return "", "", ""
    found = re.search(r"#([0-9a-f]{16})\Z", rest)
    return (kind, rest[: found.start()], found[1]) if found else (kind, rest, "")


def plain(name: str) -> str:
    """Returns the name without a checksum."""
    kind, path, _ = parts(name)
    return f"{kind}:{path}" if kind else name


def path_of(name: str, data_dir: Path) -> Path:
    """Returns the file or folder that KIND:PATH means. Raises UsageError if the file is absent or the path is invalid."""
    kind, path, _ = parts(name)
    if not path:
        raise UsageError(f"needs a path: {kind}:PATH", "dataset")
    place = user_path(path, "dataset")
    if READERS[kind].is_folder:
        return _absolute(place)
    found = next((p for p in (place, data_dir / path, data_dir / Path(path).name) if os.path.isfile(p)), None)
    if found is None:
        raise UsageError(f"there is no file {path}, neither here nor in {data_dir}", "dataset")
    return _absolute(found)


def _absolute(path: Path) -> Path:
    """Returns the absolute path, links unresolved; `..` is removed, unless that would lead elsewhere because of a link."""
    straight = os.path.abspath(path)
    return Path(straight) if os.path.realpath(straight) == os.path.realpath(path) else path.absolute()


def located(name: str, data_dir: Path) -> str:
    """Returns the name with its path made absolute, so that it means the same data in any working directory.

    Links and a checksum are kept. The data need not exist. Raises UsageError for an invalid path.
    """
    kind, path, checksum = parts(name)
    if not kind:
        return name
    if not path:
        raise UsageError(f"needs a path: {kind}:PATH", "dataset")
    place = user_path(path, "dataset")
    with contextlib.suppress(UsageError):
        place = path_of(name, data_dir)
    return f"{kind}:{_absolute(place)}" + (checksum and f"#{checksum}")


def fingerprint(name: str, data_dir: Path, fresh: bool = False) -> str:
    """Returns the checksum of the content of KIND:PATH, see `cache.fingerprint`; "" for any other name."""
    kind = parts(name)[0]
    return cache.fingerprint(open_reader(name, data_dir, ReaderConfig()), kind, data_dir / "cache", fresh) if kind else ""


def identified(name: str, data_dir: Path, fresh: bool = False) -> str:
    """Returns KIND:PATH with the checksum of its data appended; any other name unchanged.

    A name that has a checksum is also returned unchanged if the data are absent. Raises UsageError if the data are absent and
    the name has no checksum, or if the data have another one.
    """
    kind, path, checksum = parts(name)
    if not kind:
        return name
    try:
        found = fingerprint(name, data_dir, fresh)
    except UsageError:
        if checksum and not is_there(name, data_dir):
            return name
        raise
    if checksum and found != checksum:
        raise UsageError(f"{path} holds other data than expected: their checksum is {found}, not {checksum}", "dataset")
    return f"{kind}:{path}#{found}"


def is_there(name: str, data_dir: Path) -> bool:
    """Returns whether the file or folder that a name's path means exists. Raises UsageError for an invalid path."""
    if READERS[parts(name)[0]].is_folder:
        return os.path.isdir(path_of(name, data_dir))
    try:
        return bool(path_of(name, data_dir))
    except UsageError:
        return False


def short_name(name: str) -> str:
    """Returns the data set's name as a folder under runs/ uses it. Raises UsageError for KIND: without a path."""
    kind, path, _ = parts(name)
    if not kind:
        return name.replace("/", "_").replace(":", "_")
    if not path:
        raise UsageError(f"needs a path: {kind}:PATH", "dataset")
    return _absolute(user_path(path, "dataset")).name if READERS[kind].is_folder else Path(path).stem
