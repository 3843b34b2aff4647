"""Files as the authors of MNIST and CIFAR-10 distribute them, but small."""

import hashlib
import io
import struct
import tarfile

import numpy as np

from percept_jax.data import prepare
from percept_jax.data.formats import cifar

COUNTS = {"train": 40, "test": 15}
RNG = np.random.default_rng(0)
IMAGES = {split: RNG.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8) for split, n in COUNTS.items()}
LABELS = {split: RNG.integers(0, 10, n, dtype=np.uint8) for split, n in COUNTS.items()}


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def use(monkeypatch, folder):
    """Takes the files in a folder for those that their authors distribute."""
    listed = {
        path.name: prepare.Remote(path.as_uri(), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    }
    monkeypatch.setattr(prepare, "remote_files", lambda name: listed)


def small_cifar(path, name, per_file=7, cut=None):
    """An archive of CIFAR's names and format: (images, labels) of each split, in the authors' order."""
    archive, classes = cifar.ARCHIVES[name], {"cifar10": [10], "cifar100": [20, 100]}[name]
    rng, made, contents = np.random.default_rng(1), {}, {}
    for split, members in archive.splits.items():
        images = rng.integers(0, 256, (per_file * len(members), 32, 32, 3), dtype=np.uint8)
        labels = np.stack([rng.integers(0, n, len(images), dtype=np.uint8) for n in classes], 1)
        rows = np.concatenate([labels, images.transpose(0, 3, 1, 2).reshape(len(images), -1)], 1)
        contents |= dict(zip(members, (part.tobytes() for part in np.split(rows, len(members))), strict=True))
        made[split] = images, labels
    for member, n in zip(archive.names.values(), classes, strict=True):
        contents[member] = "".join(f"kind {i}\n" for i in range(n)).encode() + b"\n"
    with tarfile.open(path, "w:gz") as tar:
        for member, content in reversed(contents.items()):  # the authors' order of members is none either
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)
