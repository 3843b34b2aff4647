"""folder:PATH, a data set of one's own: PNG or JPEG files in a sub-folder a class."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np

from percept_jax.data.dataset import Info
from percept_jax.data.images import decode, header, resize
from percept_jax.errors import DataError, UsageError

_IMAGES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif"}
_OTHER_IMAGES = {".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".avif", ".npy"}


def examples(root: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The files of each split, in the order in which they are held, and the names of the classes.

    PATH/class/file is one split, `train`; PATH/split/class/file names its splits. Within a split the classes are spread
    evenly, so that every slice of it is stratified; within a class the order is that of a hash of the file's name. Hidden
    files, and files that are no images, are passed over.

    Raises UsageError where there is no such folder, DataError for an empty class, for an image that is neither PNG nor JPEG,
    and for one that would be passed over where it is.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}", "dataset")
    tops = _folders(root)
    named = any(_folders(top) for top in tops)
    splits = {top.name: _folders(top) for top in tops} if named else {"train": tops}
    for place in [root, *(tops if named else [])]:
        if stray := _files(place):
            raise DataError(f"{stray[0]}: an image outside the folders of classes")
    classes = sorted({folder.name for folders in splits.values() for folder in folders})
    if len(classes) < 2:
        raise UsageError(f"{root} has {len(classes)} folders of classes; it takes one for each class, two or more", "dataset")
    for split, folders in splits.items():
        if unknown := sorted({folder.name for folder in folders} - {folder.name for folder in splits.get("train", folders)}):
            raise DataError(f"{root}: {split} has a class {unknown[0]!r} that train has not")
        for folder in folders:
            if deeper := _folders(folder):
                raise DataError(f"{deeper[0]}: a folder inside the folder of a class")
    files = {split: {folder.name: _files(folder) for folder in folders} for split, folders in splits.items()}
    return {split: _spread(by_class, root / split if named else root) for split, by_class in files.items()}, classes


def describe(root: Path) -> Info:
    """What is known of a folder from its files' names and headers. Raises UsageError and DataError, see `examples`."""
    files, classes = examples(root)
    sizes: Counter = Counter()
    grey = True
    for path in (path for paths in files.values() for path in paths):
        try:
            height, width, channels = header(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: {error}") from error
        sizes[height, width] += 1
        grey = grey and channels == 1
    height, width = next(iter(sizes)) if len(sizes) == 1 else (0, 0)
    return Info((height, width, 1 if grey else 3), tuple(classes), {split: len(paths) for split, paths in files.items()})


def read(root: Path, info: Info, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of the splits in `info`, as in `Dataset`. Raises DataError, naming the file."""
    files, classes = examples(root)
    paths = [path for split in info.splits for path in files[split]]
    images = np.empty((len(paths), image_size, image_size, info.shape[-1]), np.uint8)
    for i, path in enumerate(paths):
        try:
            images[i] = resize(decode(path.read_bytes(), info.shape[-1]), image_size, image_size)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: {error}") from error
    return images, np.array([classes.index(path.parent.name) for path in paths], np.int32)


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    found = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    for path in found:
        if path.suffix.lower() in _OTHER_IMAGES:
            raise DataError(f"{path}: neither PNG nor JPEG")
    return [path for path in found if path.suffix.lower() in _IMAGES]


def _spread(classes: dict[str, list[Path]], root: Path) -> list[Path]:
    rows = []
    for name, paths in classes.items():
        if not paths:
            raise DataError(f"{root}: the class folder {name} has no PNG or JPEG files")
        mixed = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path.name)).digest())
        rows += [((rank + 0.5) / len(paths), name, path) for rank, path in enumerate(mixed)]
    return [path for _, _, path in sorted(rows)]
