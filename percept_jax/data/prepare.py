"""Puts TFDS folders on disk, without TensorFlow: our builders hand over encoded image bytes."""

import contextlib
import fcntl
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from percept_jax.data.images import encode_png
from percept_jax.data.sources import stratified_split
from percept_jax.errors import StorageError, first_line


class Digits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 scans of handwritten digits, 8x8 pixels with 17 grey levels, that scikit-learn carries.

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

        digits = load_digits()
        return {
            split: self._generate_examples(digits.images[index], digits.target[index], index)
            for split, index in stratified_split(digits.target).items()
        }

    def _generate_examples(self, scans: np.ndarray, labels: np.ndarray, index: np.ndarray) -> Iterator:
        for key, scan, label in zip(index, scans, labels, strict=True):
            pixels = np.round(scan * (255 / 16)).astype(np.uint8)  # ink 0..16 to 0..255
            yield int(key), {"image": encode_png(pixels[..., None]), "label": int(label)}


BUILDERS: dict[str, type[tfds.core.GeneratorBasedBuilder]] = {"digits": Digits}


def prepare(name: str, data_dir: Path) -> None:
    """Writes the data set `name` as an ArrayRecord folder under `data_dir`, once, however many processes ask at a time.

    Raises StorageError where it cannot be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with open(data_dir / f".{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tfds.disable_progress_bar()
            with contextlib.redirect_stdout(io.StringIO()):  # where TFDS says that it begins and ends
                BUILDERS[name](data_dir=data_dir, file_format="array_record").download_and_prepare()
    except Exception as error:  # TFDS raises kinds of its own where it finds half a folder
        said = getattr(error, "strerror", None) or first_line(error)
        raise StorageError(f"{data_dir}: cannot prepare {name}: {said}") from error
