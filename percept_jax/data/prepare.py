"""Writes TFDS folders without TensorFlow: the builders here yield encoded image bytes, and write TFRecord files themselves.

A data set that has a stock TFDS builder keeps its version, features and keys. TFDS shuffles by a hash of the keys, so a folder
written here holds the same examples in the same order as one written by TFDS.
"""

import contextlib
import functools
import hashlib
import http.client
import io
import json
import re
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from percept_jax.data.formats import cifar, idx, tfrecord
from percept_jax.data.formats.archives import Example
from percept_jax.data.images import encode_png
from percept_jax.data.readers.arrays import stratified_split
from percept_jax.deletion import delete_temporaries
from percept_jax.errors import DataError, PerceptError, StorageError, UsageError, first_line
from percept_jax.files import in_place, locked

NAMES = ("digits", "mnist", "fashion_mnist", "kmnist", *cifar.ARCHIVES)
# The first is read by tfds.data_source, the second by tfds.load.
FILE_FORMATS = ("array_record", "tfrecord")
# Seconds without a response after which a download fails.
TIMEOUT = 30


class Remote(NamedTuple):
    """A file as its authors distribute it: its URL, its size in bytes and its checksum."""

    url: str
    size: int
    sha256: str


class _Writer(tfds.core.ExampleWriter):
    """TFDS's writer of record files, but TFRecord files are written without TensorFlow."""

    def write(self, path: Any, examples: Any) -> Any:
        if self.file_format is not tfds.core.FileFormat.TFRECORD:
            return super().write(path, examples)
        return tfrecord.write_records(Path(path), (record for _, record in examples))


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The base class of the builders here.

    Attributes:
        files: the authors' verified files, by name.
    """

    files: Mapping[str, Path]

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _Writer(self.info.file_format or tfds.core.FileFormat.ARRAY_RECORD)


class Digits(_Builder):
    """The 1,797 scans of handwritten digits, 8x8 pixels with 17 gray levels, that are part of scikit-learn.

    They are the test part of E. Alpaydin and C. Kaynak's "Optical Recognition of Handwritten Digits" (UCI, 1998).
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        return {
            split: self._generate_examples(digits.images[index], digits.target[index], index)
            for split, index in stratified_split(digits.target).items()
        }

    def _generate_examples(self, scans: np.ndarray, labels: np.ndarray, index: np.ndarray) -> Iterator:
        for key, scan, label in zip(index, scans, labels, strict=True):
            # The ink from 0 to 16 becomes pixels from 0 to 255.
            pixels = np.round(scan * (255 / 16)).astype(np.uint8)
            yield int(key), {"image": encode_png(pixels[..., None]), "label": int(label)}


class _FromAuthors(_Builder, skip_registration=True):
    """A mixin for a stock builder: it reads the authors' files directly, where the stock builder downloads and unpacks them."""

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        features: Any = self.info.features
        if archive := cifar.ARCHIVES.get(self.name):
            classes = {label: features[label].num_classes for label in archive.names}
            splits, names = cifar.read_cifar(self.files[archive.file], archive, classes)
            for label in names:
                features[label].names = names[label]
        else:
            splits = idx.read_mnist(self.files, features["image"].shape, features["label"].num_classes)
        return {split: self._generate_examples(examples) for split, examples in splits.items()}

    def _generate_examples(self, examples: Iterable[Example]) -> Iterator:
        for key, image, others in examples:
            yield key, {"image": encode_png(image), **others}


@functools.cache
def builder_class(name: str) -> type[_Builder]:
    """Returns the class that prepares one of NAMES. It is not registered, so that `tfds.builder(name)` stays TFDS's own."""
    if name == "digits":
        return Digits
    stock = tfds.builder_cls(name)
    return type(stock.__name__, (_FromAuthors, stock), {"__module__": __name__}, skip_registration=True)


def remote_files(name: str) -> dict[str, Remote]:
    """Returns the authors' files that a data set is made from, by name, as TFDS lists them; none for the digits."""
    if name == "digits":
        return {}
    listed = tfds.builder_cls(name).url_infos or {}
    return {url.rsplit("/", 1)[-1]: Remote(url, int(info.size), info.checksum) for url, info in listed.items()}


def prepare(name: str, data_dir: Path, source: Path | None = None, file_format: str = "array_record") -> Path:
    """Writes the data set `name` as a TFDS folder under `data_dir` and returns the folder.

    Several processes may call this at the same time; the folder is written once. `source` is a folder with the authors' files;
    without it they are downloaded into `data_dir`.

    Raises UsageError for a wrong name, format or `source`, or if a download fails; DataError if a file differs from the
    authors'; StorageError if the folder cannot be written.
    """
    if name not in NAMES:
        hint = "prepare other data sets with TFDS's own tools; use a folder of images as folder:PATH"
        raise UsageError(f"cannot prepare {name!r}, only {', '.join(NAMES)}; {hint}")
    if file_format not in FILE_FORMATS:
        raise UsageError(f"{file_format!r} is none of {', '.join(FILE_FORMATS)}", "file_format")
    folder = data_dir / name / str(builder_class(name).VERSION)
    # This is checked before locking, because the folder may be read-only.
    if _is_prepared(folder, file_format):
        return folder
    remotes = remote_files(name)
    files = _find(name, source, remotes) if source else {}
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with locked(data_dir / f".{name}.lock", wait=True) as lock:
            if not _is_prepared(folder, file_format):
                if not source:
                    downloads = data_dir / "downloads" / name
                    delete_temporaries(lock, downloads, re.compile("|".join(map(re.escape, remotes))))
                    files = {file: _download(remote, downloads / file) for file, remote in remotes.items()}
                _build(name, data_dir, files, file_format)
    except PerceptError:
        raise
    # TFDS raises errors of its own if it cannot write.
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise StorageError(f"{data_dir}: cannot prepare {name}: {reason}") from error
    return folder


def _is_prepared(folder: Path, file_format: str) -> bool:
    """Returns whether the folder exists in this format. Raises UsageError if it exists in another one, StorageError."""
    try:
        info = json.loads((folder / "dataset_info.json").read_bytes())
        # Old versions of TFDS wrote TFRecord only, and no format.
        found = info.get("fileFormat", "tfrecord")
    except FileNotFoundError:
        # TFDS renames complete folders into place, and takes any existing folder for a complete one.
        if folder.exists():
            raise StorageError(f"{folder}: incomplete TFDS folder, it has no dataset_info.json; delete it") from None
        return False
    # Creating the folder reports this error.
    except NotADirectoryError:
        return False
    except (OSError, ValueError, AttributeError) as error:
        raise StorageError(f"{folder}: its dataset_info.json cannot be read: {first_line(error)}") from error
    if found != file_format:
        message = f"{folder} already exists as {found}, and one folder cannot hold both formats"
        raise UsageError(f"{message}; choose another --data_dir, or delete it", "file_format")
    return True


def _build(name: str, data_dir: Path, files: Mapping[str, Path], file_format: str) -> None:
    tfds.disable_progress_bar()
    # TFDS prints when it starts and ends.
    with contextlib.redirect_stdout(io.StringIO()):
        builder = builder_class(name)(data_dir=data_dir, file_format=file_format)
        builder.files = files
        builder.download_and_prepare()


def _find(name: str, source: Path, remotes: Mapping[str, Remote]) -> dict[str, Path]:
    """Returns the authors' files in a folder, verified. Raises UsageError if one is absent, DataError if one differs."""
    files = {file: source / file for file in remotes}
    for path in files.values():
        if not path.is_file():
            raise UsageError(f"{path}: no such file; {name} is made from {', '.join(files)}", "from")
    for file, path in files.items():
        try:
            found = _sha256(path)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", "from") from error
        _check(path, found, path.stat().st_size, remotes[file])
    return files


def _download(remote: Remote, path: Path) -> Path:
    """Downloads and verifies a file, unless it exists; returns its path. Raises UsageError if this fails, DataError."""
    if path.exists() and _sha256(path) == remote.sha256:
        return path
    sha256, size = hashlib.sha256(), 0
    # A temporary file is used, so that a truncated download is never taken for the file.
    with in_place(path) as part, open(part, "r+b") as file:
        for block in _fetch(remote.url):
            sha256.update(block)
            size += len(block)
            file.write(block)
        _check(remote.url, sha256.hexdigest(), size, remote)
    return path


def _fetch(url: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            while block := response.read(1 << 20):
                yield block
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", None) or first_line(cause)
        raise UsageError(f"cannot download {url} ({reason}); download the files yourself and give --from=DIR") from error


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(where: Path | str, sha256: str, size: int, remote: Remote) -> None:
    if sha256 != remote.sha256:
        message = f"sha256 is {sha256[:12]}..., not {remote.sha256[:12]}..."
        raise DataError(f"{where}: {message}; it has {size} bytes, the authors' file has {remote.size} bytes")
