"""folder:PATH, a user's own data set: PNG or JPEG files in one sub-folder for each class.

Files that operating systems and storage devices create beside images (see `LITTER`) are skipped, and reported.
"""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from percept_jax.data.bad_records import check, reason
from percept_jax.data.images import decode, header
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.data.spec import DatasetSpec, image_spec
from percept_jax.errors import DataError, UsageError, in_a_line

IMAGES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif"}
_OTHER_IMAGES = {".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".avif", ".npy"}
# Names, in lower case, of files and folders that operating systems create; names that begin with "._" count too.
LITTER = {
    "__macosx", ".ds_store", ".localized", ".spotlight-v100", ".trashes", ".fseventsd", "thumbs.db", "ehthumbs.db", "desktop.ini",
    "$recycle.bin", "system volume information", "@eadir", "@recycle", "#recycle", "#snapshot", ".@__thumb", ".thumbnails",
    "lost+found", ".directory", ".ipynb_checkpoints",
}  # fmt: skip
_SPLITS = {"train", "training", "validation", "val", "valid", "dev", "test", "testing"}


def is_litter(name: str) -> bool:
    """Returns whether a file or folder was created by an operating system, see `LITTER`."""
    return name.lower() in LITTER or name.startswith("._")


def examples(root: Path, note: Callable[[str], None] | None = None) -> tuple[dict[str, list[Path]], list[str]]:
    """Returns the files of each split, in their stored order, and the names of the classes.

    PATH/class/file is one split, `train`. PATH/split/class/file names its splits; the case of train, validation and test does
    not matter. Within a split the classes are spread evenly, so that every slice of it is stratified; within a class files are
    ordered by a hash of their names. Hidden files, litter and files that are not images are skipped; `note` is called with a
    message about litter.

    Raises UsageError if there is no such folder; DataError for an empty class, for an image that is neither PNG nor JPEG or lies
    outside the folders of classes, and for a folder's name that is not printable.
    """
    if not os.path.isdir(root):
        raise UsageError(f"there is no folder {_shown(root)}", "dataset")
    litter: set[Path] = set()
    tops = _folders(root, litter)
    named = _are_splits(tops)
    places = _named_splits(root, tops) if named else {"train": root}
    splits = {split: _folders(place, litter) if named else tops for split, place in places.items()}
    for place in [root, *(tops if named else [])]:
        if lost := [path for path in _listed(place, litter) if _is_broken(path)]:
            raise DataError(_broken(lost[0]))
        if stray := _files(place, litter):
            raise DataError(f"{_shown(stray[0])}: an image outside the folders of classes")
    classes = sorted({folder.name for folders in splits.values() for folder in folders})
    if len(classes) < 2:
        raise UsageError(f"{_shown(root)} has {len(classes)} class folders; it needs one for each class, two or more", "dataset")
    for split, folders in splits.items():
        if unknown := sorted({folder.name for folder in folders} - {folder.name for folder in splits.get("train", folders)}):
            raise DataError(f"{_shown(root)}: {split} has a class {unknown[0]!r} that train does not have")
        for folder in folders:
            if deeper := _folders(folder, litter):
                raise DataError(
                    f"{_shown(deeper[0])}: a folder inside the class folder {folder.name}; put the images directly in it"
                )
    files = {split: {folder.name: _files(folder, litter) for folder in folders} for split, folders in splits.items()}
    if litter and note:
        counts = Counter("._*" if path.name.startswith("._") else path.name for path in litter)
        names = ", ".join(name if count == 1 else f"{name} ({count})" for name, count in sorted(counts.items()))
        note(f"{_shown(root)}: skipped files of the operating system: {_shown(names)}")
    return {split: _spread(by_class, places[split]) for split, by_class in files.items()}, classes


class ImageFolder:
    """Reads a folder of images with one sub-folder for each class. See `Reader`; it also raises the errors of `examples`."""

    records = "images"

    def __init__(self, kind: str, root: Path, config: ReaderConfig, note: Callable[[str], None] | None = None):
        """Opens the folder `root`; `note` is called with a message about litter that is skipped."""
        self.root, self._max_bad, self._note = root, config.max_bad_records, note
        self.cache_name = f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:12]}"

    @functools.cached_property
    def _examples(self) -> tuple[dict[str, list[Path]], list[str]]:
        return examples(self.root, self._note)

    def describe(self) -> DatasetSpec:
        """Returns the spec of the folder, read from the names and headers of its files.

        Up to max_bad_records images that cannot be read are left out; unless it is 0, every image is decoded to find them. Raises
        DataError, which lists the images, if there are more.
        """
        files, classes = self._examples
        headers, bad = _tried(header, [path for paths in files.values() for path in paths])
        total = len(headers) + len(bad)
        if bad or self._max_bad:
            bad |= _tried(lambda path: decode(path.read_bytes(), 3).shape, [*headers])[1]
        check([bad[path] for path in sorted(bad)], total, self._max_bad, self.records)
        good = {path: found for path, found in headers.items() if path not in bad}
        if lost := sorted({path.parent for path in bad} - {path.parent for path in good}):
            raise DataError(f"{_shown(lost[0])}: no image in it can be read")
        sizes = {found[:2] for found in good.values()}
        height, width = sizes.pop() if len(sizes) == 1 else (0, 0)
        gray = all(channels == 1 for _, _, channels in good.values())
        splits = {split: sum(path in good for path in paths) for split, paths in files.items()}
        return image_spec((height, width, 1 if gray else 3), tuple(classes), splits)

    def source(self, split: str) -> "_Files":
        """Returns the images of a split, labeled by their folders."""
        files, classes = self._examples
        return _Files(files[split], classes)

    def files(self) -> dict[str, Path]:
        """Returns the image files, by split, class and name."""
        return {f"{split}/{path.parent.name}/{path.name}": path for split, paths in self._examples[0].items() for path in paths}


class _Files:
    """The images of one split."""

    def __init__(self, paths: Sequence[Path], classes: Sequence[str]):
        self._paths, self._label = paths, {name: label for label, name in enumerate(classes)}

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: Sequence[int]) -> dict[str, list[Any]]:
        paths = [self._paths[i] for i in indices]
        return {"image": [_content(path) for path in paths], "label": [self._label[path.parent.name] for path in paths]}

    def where(self, index: int) -> str:
        return _shown(self._paths[index])


def _content(path: Path) -> bytes | Exception:
    try:
        return path.read_bytes()
    except OSError as error:
        return ValueError(f"a broken link, to {_shown(os.readlink(path))}") if _is_broken(path) else error


def _tried(read: Callable[[Path], Any], paths: Sequence[Path]) -> tuple[dict[Path, Any], dict[Path, str]]:
    """Returns the result of `read` for each good image, and the error message of each bad one."""
    good, bad = {}, {}
    for path in paths:
        try:
            good[path] = read(path)
        except (OSError, ValueError, MemoryError) as error:
            bad[path] = _broken(path) if _is_broken(path) else f"{_shown(path)}: {reason(error)}"
    return good, bad


def _are_splits(tops: list[Path]) -> bool:
    """Returns whether the folders are splits, which contain class folders, rather than classes."""
    deep = [top for top in tops if _folders(top, set())]
    if any(top.name.lower() in _SPLITS for top in deep):
        return True
    return bool(deep) and not any(_files(top, set()) for top in tops)


def _named_splits(root: Path, tops: list[Path]) -> dict[str, Path]:
    """Returns the folder of each split; the name Train means train. Raises DataError if two folders are the same split."""
    places: dict[str, Path] = {}
    for top in tops:
        split = top.name.lower() if top.name.lower() in _SPLITS else top.name
        if split in places:
            raise DataError(f"{_shown(root)}: {places[split].name} and {top.name} are both the split {split}")
        places[split] = top
    return dict(sorted(places.items()))


def _listed(folder: Path, litter: set[Path]) -> list[Path]:
    """Returns the sorted paths in a folder that are neither hidden nor litter; litter is added to the set `litter`."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{_shown(folder)}: {error.strerror}") from error
    litter.update(path for path in found if is_litter(path.name))
    return [path for path in found if not path.name.startswith(".") and not is_litter(path.name)]


def _folders(path: Path, litter: set[Path]) -> list[Path]:
    """Returns the folders in a folder. Raises DataError for a name that is not printable."""
    found = [place for place in _listed(path, litter) if os.path.isdir(place)]
    for place in found:
        if place.name != in_a_line(place.name):
            raise DataError(f"{_shown(place)}: the folder's name has a control character or a line break, or is not UTF-8")
    return found


def _files(folder: Path, litter: set[Path]) -> list[Path]:
    """Returns the images in a folder, including broken links to images, which cannot be read."""
    found = [path for path in _listed(folder, litter) if os.path.isfile(path) or _is_broken(path)]
    for path in found:
        if path.suffix.lower() in _OTHER_IMAGES:
            raise DataError(f"{_shown(path)}: neither PNG nor JPEG")
    return [path for path in found if path.suffix.lower() in IMAGES]


def _is_broken(path: Path) -> bool:
    return path.is_symlink() and not os.path.exists(path)


def _broken(path: Path) -> str:
    return f"{_shown(path)}: a broken link, to {_shown(os.readlink(path))}"


def _shown(path: str | Path) -> str:
    return in_a_line(os.fspath(path))


def _spread(classes: dict[str, list[Path]], root: Path) -> list[Path]:
    rows = []
    for name, paths in classes.items():
        if not paths:
            raise DataError(f"{_shown(root)}: the class folder {name} has no PNG or JPEG files")
        mixed = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path.name)).digest())
        rows += [((rank + 0.5) / len(paths), name, path) for rank, path in enumerate(mixed)]
    return [path for _, _, path in sorted(rows)]
