"""Data sets are prepared from the files of their authors."""

import gzip
import hashlib
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from helpers.authors import COUNTS, IMAGES, LABELS, one_line, small_cifar, use
from tensorflow_datasets.core.hashing import Hasher

from percept_jax.data import prepare
from percept_jax.data.formats import cifar, tfrecord
from percept_jax.data.formats.idx import PARTS
from percept_jax.data.images import decode
from percept_jax.errors import DataError, StorageError, UsageError


def tfds_order(split, count):
    """The authors' numbers of a split's examples in the order in which TFDS writes them: by the hash of the key."""
    return sorted(range(count), key=Hasher(split).hash_key)


def test_array_record_folder_is_read_by_tfds_in_tfds_s_order(tmp_path, small_mnist):
    folder = prepare.prepare("mnist", tmp_path / "data", small_mnist)
    assert folder == tmp_path / "data" / "mnist" / "3.0.1"
    for split, count in COUNTS.items():
        found = list(tfds.data_source("mnist", data_dir=tmp_path / "data", split=split))
        order = tfds_order(split, count)
        np.testing.assert_array_equal([e["image"] for e in found], IMAGES[split][order])
        np.testing.assert_array_equal([e["label"] for e in found], LABELS[split][order])
    assert not list((tmp_path / "data").glob("**/*incomplete*"))


def test_tfrecord_folder_has_the_same_examples_in_the_same_order(tmp_path, small_mnist):
    folder = prepare.prepare("mnist", tmp_path / "data", small_mnist, "tfrecord")
    builder = tfds.builder_from_directory(folder)
    assert builder.info.file_format is tfds.core.FileFormat.TFRECORD
    for split, count in COUNTS.items():
        paths = builder.info.splits[split].filepaths
        assert [Path(path).name for path in paths] == [f"mnist-{split}.tfrecord-00000-of-00001"]
        skip = {"image": tfds.decode.SkipDecoding()}
        found = [builder.info.features.deserialize_example_np(r, decoders=skip) for r in tfrecord.Records(paths)]
        order = tfds_order(split, count)
        np.testing.assert_array_equal([decode(e["image"], 1) for e in found], IMAGES[split][order])
        np.testing.assert_array_equal([e["label"] for e in found], LABELS[split][order])


def test_tfrecord_folder_is_read_by_tfds_load(tmp_path, small_mnist):
    pytest.importorskip("tensorflow")
    prepare.prepare("mnist", tmp_path, small_mnist, "tfrecord")
    for split, count in COUNTS.items():
        found = list(tfds.as_numpy(tfds.load("mnist", data_dir=tmp_path, split=split, download=False)))
        order = tfds_order(split, count)
        np.testing.assert_array_equal([e["image"] for e in found], IMAGES[split][order])
        np.testing.assert_array_equal([e["label"] for e in found], LABELS[split][order])


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(tmp_path, monkeypatch, name):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    made = small_cifar(theirs / cifar.ARCHIVES[name].file, name)
    use(monkeypatch, theirs)
    folder = prepare.prepare(name, tmp_path / "data", theirs)
    assert folder.name == "3.0.2"
    builder = tfds.builder_from_directory(folder)
    labels = list(cifar.ARCHIVES[name].names)
    for label in labels:
        feature = builder.info.features[label]
        assert feature.names == [f"kind {i}" for i in range(feature.num_classes)]
    for split, (images, wanted) in made.items():
        found = list(builder.as_data_source(split))
        order = tfds_order(split, len(images))
        np.testing.assert_array_equal([e["image"] for e in found], images[order])
        np.testing.assert_array_equal([[e[label] for label in labels] for e in found], wanted[order])
        assert [e["id"].decode() for e in found] == [f"{split}_{i:05d}" for i in order]


@pytest.mark.parametrize("name", [name for name in prepare.NAMES if name != "digits"])
def test_all_but_the_reading_is_the_stock_builder_s(tmp_path, name):
    """So that a folder says what a stock one says. Nor is ours taken for it: `tfds.builder` stays TFDS's own."""
    stock = tfds.builder_cls(name)
    ours = prepare.builder_class(name)
    assert (ours.name, ours.VERSION) == (name, stock.VERSION)
    assert issubclass(ours, stock)
    ours, theirs = (kind(data_dir=tmp_path).info for kind in (ours, stock))
    assert repr(ours.features) == repr(theirs.features)
    assert ours.description == theirs.description
    assert tfds.builder_cls(name) is stock
    archive = cifar.ARCHIVES.get(name)
    wanted = (
        {archive.file} if archive else {f"{p}-{k}-ubyte.gz" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")}
    )
    remotes = prepare.remote_files(name)
    assert remotes.keys() == wanted
    assert all(len(r.sha256) == 64 and r.size > 4000 and r.url.endswith(file) for file, r in remotes.items())


def test_an_unknown_name_or_format(tmp_path):
    with pytest.raises(UsageError, match=r"cannot prepare 'imagenet'.*digits, mnist, .*cifar100; .*folder:PATH") as error:
        prepare.prepare("imagenet", tmp_path)
    one_line(error)
    with pytest.raises(UsageError, match="--file_format: 'parquet' is none of array_record, tfrecord"):
        prepare.prepare("digits", tmp_path, file_format="parquet")
    assert not list(tmp_path.iterdir())


def test_a_prepared_folder_is_returned_in_its_own_format_only(tmp_path, small_mnist):
    folder = prepare.prepare("mnist", tmp_path / "data", small_mnist)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare.prepare("mnist", tmp_path / "data") == folder  # whence does not matter any more
    assert prepare.prepare("mnist", tmp_path / "data", tmp_path / "nowhere") == folder
    with pytest.raises(
        UsageError, match=r"--file_format: .*3\.0\.1 already exists as array_record, .*--data_dir, or delete it"
    ) as error:
        prepare.prepare("mnist", tmp_path / "data", small_mnist, "tfrecord")
    one_line(error)
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_half_a_folder_is_a_storage_error(tmp_path, small_mnist):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"3\.0\.1: incomplete TFDS folder"):
        prepare.prepare("mnist", tmp_path, small_mnist)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(StorageError, match=r"3\.0\.1: its dataset_info\.json cannot be read"):
        prepare.prepare("mnist", tmp_path, small_mnist)


def test_digits_in_both_formats(tmp_path):
    found = []
    for file_format in prepare.FILE_FORMATS:
        info = tfds.builder_from_directory(prepare.prepare("digits", tmp_path / file_format, file_format=file_format)).info
        paths = [Path(path) for path in info.splits["validation"].filepaths]
        records = (tfrecord.Records if file_format == "tfrecord" else ArrayRecordDataSource)(paths)
        skip = {"image": tfds.decode.SkipDecoding()}  # records themselves differ: protobuf writes their two features in any order
        examples = [info.features.deserialize_example_np(record, decoders=skip) for record in records]
        found.append([(example["image"], int(example["label"])) for example in examples])
    assert len(found[0]) == 360
    assert found[0] == found[1]


def test_a_missing_file_is_named_with_those_expected(tmp_path, small_mnist):
    (small_mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    said = r"--from: .*theirs/t10k-labels-idx1-ubyte\.gz: no such file; mnist is made from t10k-images.*, train-labels.*\.gz$"
    with pytest.raises(UsageError, match=said) as error:
        prepare.prepare("mnist", tmp_path / "data", small_mnist)
    one_line(error)
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_not_the_authors(tmp_path, small_mnist):
    path = small_mnist / "train-labels-idx1-ubyte.gz"
    wanted = prepare.remote_files("mnist")[path.name]
    path.write_bytes(gzip.compress(b"another"))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError) as error:
        prepare.prepare("mnist", tmp_path / "data", small_mnist)
    said = one_line(error)
    assert said.startswith(f"{path}: sha256 is {found[:12]}..., not {wanted.sha256[:12]}...;")
    assert said.endswith(f"the authors' file has {wanted.size} bytes")
    assert not (tmp_path / "data").exists()


def test_a_download_is_verified_kept_and_used_again(tmp_path, small_mnist, monkeypatch):
    data_dir = tmp_path / "data"
    downloads = data_dir / "downloads" / "mnist"
    downloads.mkdir(parents=True)
    name = "train-images-idx3-ubyte.gz"
    (downloads / f".{name}.99.percept-part").write_bytes((small_mnist / name).read_bytes()[:100])  # what a killed download left
    (downloads / "train-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    prepare.prepare("mnist", data_dir)
    wanted = {path.name: path.read_bytes() for path in small_mnist.iterdir()}
    assert {path.name: path.read_bytes() for path in downloads.iterdir()} == wanted
    assert len(tfds.data_source("mnist", data_dir=data_dir, split="train")) == 40

    def refuse(url, timeout):
        raise AssertionError(url)

    monkeypatch.setattr(prepare.urllib.request, "urlopen", refuse)
    for path in small_mnist.iterdir():
        path.unlink()
    (data_dir / "mnist").rename(tmp_path / "elsewhere")
    prepare.prepare("mnist", data_dir)


def test_a_download_that_fails(tmp_path, small_mnist):
    remotes = prepare.remote_files("mnist")
    first = next(iter(remotes))
    content = (small_mnist / first).read_bytes()
    (small_mnist / first).unlink()
    with pytest.raises(UsageError, match=rf"cannot download {remotes[first].url} \(.+\); download .* --from=DIR") as error:
        prepare.prepare("mnist", tmp_path / "data")
    one_line(error)
    (small_mnist / first).write_bytes(content[:-5])
    with pytest.raises(DataError, match=rf"{remotes[first].url}: sha256 is .*; it has {len(content) - 5} bytes, the authors'"):
        prepare.prepare("mnist", tmp_path / "data")
    assert not list((tmp_path / "data" / "downloads" / "mnist").iterdir())


def test_a_connection_that_is_lost(tmp_path, small_mnist, monkeypatch):
    class Lost(io.BytesIO):
        def read(self, size):
            return super().read(10) or self.fail()

        def fail(self):
            raise TimeoutError("timed out")

    monkeypatch.setattr(prepare.urllib.request, "urlopen", lambda url, timeout: Lost(bytes(100)))
    with pytest.raises(UsageError, match=r"cannot download .* \(timed out\)"):
        prepare.prepare("mnist", tmp_path)
    assert not list((tmp_path / "downloads" / "mnist").iterdir())


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("file_format", prepare.FILE_FORMATS)
def test_all_of_mnist(tmp_path, file_format):
    source = Path(os.environ["PERCEPT_TEST_DATA"]) / "mnist"
    builder = tfds.builder_from_directory(prepare.prepare("mnist", tmp_path, source, file_format))
    assert "tensorflow" not in sys.modules
    for split, part in PARTS.items():
        images = np.frombuffer(gzip.decompress((source / f"{part}-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
        labels = np.frombuffer(gzip.decompress((source / f"{part}-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
        assert len(labels) == builder.info.splits[split].num_examples == {"train": 60_000, "test": 10_000}[split]
        skip = {"image": tfds.decode.SkipDecoding()}
        if file_format == "tfrecord":
            records = tfrecord.Records(builder.info.splits[split].filepaths)
            found = (builder.info.features.deserialize_example_np(record, decoders=skip) for record in records)
        else:
            source_of_split = builder.as_data_source(split, decoders=skip)
            found = source_of_split.__getitems__(range(len(source_of_split)))
        for number, example in zip(tfds_order(split, len(labels)), found, strict=True):
            assert example["label"] == labels[number]
            assert decode(example["image"], 1).tobytes() == images[784 * number : 784 * (number + 1)].tobytes()
