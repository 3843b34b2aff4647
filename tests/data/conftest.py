"""What the tests of this folder share."""

import gzip

import pytest
from helpers.authors import IMAGES, LABELS, idx, use


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder with four small files of MNIST's names and format."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for split, part in (("train", "train"), ("test", "t10k")):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[split][..., 0])))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[split])))
    use(monkeypatch, folder)
    return folder
