"""The authors' files into TFDS folders: small stand-ins in the authors' formats, and MNIST itself."""

import gzip
import hashlib
import io
import os
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.core.hashing import Hasher

from percept_jax.data import prepare
from percept_jax.data.formats import cifar, tfrecord
from percept_jax.data.formats.idx import PARTS, read_idx
from percept_jax.data.images import decode
from percept_jax.errors import DataError, StorageError, UsageError

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


def tfds_order(split, count):
    """The authors' numbers of a split's examples in the order in which TFDS writes them: by the hash of the key."""
    return sorted(range(count), key=Hasher(split).hash_key)


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_tfrecord_round_trip_over_shards(tmp_path):
    records = [bytes(RNG.integers(0, 256, n, dtype=np.uint8)) for n in (0, 1, 7, 1000, 0, 70_000, 3)]
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, part in zip(paths, (records[:3], [], records[3:]), strict=True):
        tfrecord.write_records(path, part)
    read = tfrecord.Records(paths)
    assert len(read) == 7
    assert list(read) == records
    assert (read[-1], read[-7]) == (records[-1], records[0])
    for index in (7, -8):
        with pytest.raises(IndexError):
            read[index]
    assert len(tfrecord.Records([])) == 0


def test_tfrecord_is_what_tensorflow_writes(tmp_path):
    """Bytes of `tf.io.TFRecordWriter` (TensorFlow 2.21) for one record, "percept"."""
    tfrecord.write_records(tmp_path / "file", [b"percept"])
    assert (tmp_path / "file").read_bytes().hex() == "0700000000000000bbd79f1170657263657074dbc8c19a"


def test_tfrecord_damage_is_named_by_file_and_record(tmp_path):
    path = tmp_path / "file"
    tfrecord.write_records(path, [b"0" * 20, b"1" * 20, b"2" * 20])
    whole, size = path.read_bytes(), 8 + 4 + 20 + 4

    def damaged(position):
        content = bytearray(whole)
        content[position] ^= 1
        path.write_bytes(content)
        return path

    for position in (size + 12, size + 31, size + 32, size + 35):  # data, and their CRC
        records = tfrecord.Records([damaged(position)])
        assert records[0] + records[2] == b"0" * 20 + b"2" * 20
        with pytest.raises(DataError, match=r"file: record 1 is damaged"):
            records[1]
    for position in (2 * size, 2 * size + 7, 2 * size + 8):  # a length, and its CRC
        with pytest.raises(DataError, match=r"file: record 2 is damaged \(the CRC32C of its length"):
            tfrecord.Records([damaged(position)])
    for left, record in ((1, 0), (size - 1, 0), (size + 11, 1), (size + 12, 1), (3 * size - 1, 2)):
        path.write_bytes(whole[:left])
        with pytest.raises(DataError, match=f"file: ends inside record {record}"):
            tfrecord.Records([path])
    with pytest.raises(DataError, match="none: No such file"):
        tfrecord.Records([tmp_path / "none"])


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
        UsageError, match=r"--file_format: .*3\.0\.1 is array_record already, .*--data_dir, or delete it"
    ) as error:
        prepare.prepare("mnist", tmp_path / "data", small_mnist, "tfrecord")
    one_line(error)
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_half_a_folder_is_a_storage_error(tmp_path, small_mnist):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    with pytest.raises(StorageError, match=r"3\.0\.1: no whole TFDS folder"):
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
    assert said.endswith(f"the authors' file is {wanted.size} bytes")
    assert not (tmp_path / "data").exists()


CONTENT = idx(IMAGES["train"][..., 0])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CONTENT[:-1], "ends inside record 39 of 40"),
        (CONTENT[: 16 + 3 * 784], "ends inside record 3 of 40"),
        (CONTENT[:15], "ends inside its header"),
        (CONTENT + b"12", "2 bytes follow its 40 records"),
        (idx(LABELS["train"]), "begins with 00000801, not 00000803"),
        (b"", "begins with nothing, not 00000803"),
        (idx(IMAGES["test"][..., 0]), "40 labels for 15 images"),
        (idx(np.zeros((40, 28, 20), np.uint8)), r"images are \[28, 20, 1\], not \[28, 28, 1\]"),
    ],
    ids=["a byte", "a record", "the header", "more", "rank", "empty", "fewer", "shape"],
)
def test_an_idx_file_that_is_damaged(tmp_path, small_mnist, monkeypatch, content, said):
    (small_mnist / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    use(monkeypatch, small_mnist)  # as if its checksum were right
    with pytest.raises(DataError, match=said) as error:
        prepare.prepare("mnist", tmp_path / "data", small_mnist)
    assert str(small_mnist / "train-") in one_line(error)
    assert not (tmp_path / "data" / "mnist" / "3.0.1").exists()


def test_a_label_outside_the_classes(tmp_path, small_mnist, monkeypatch):
    labels = LABELS["test"].copy()
    labels[[6, 9]] = 10
    (small_mnist / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    use(monkeypatch, small_mnist)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: record 6: label 10 of 10 classes") as error:
        prepare.prepare("mnist", tmp_path / "data", small_mnist)
    one_line(error)


def test_a_gzip_file_that_is_cut_or_damaged(tmp_path):
    path = tmp_path / "file.gz"
    whole = gzip.compress(CONTENT, mtime=0)  # noise: not smaller than it was, so a cut is at about the same place
    path.write_bytes(whole[: 18 + 5 * 784 + 400])
    with pytest.raises(DataError, match=r"file\.gz: ends inside record [45] of 40"):
        read_idx(path, 3)
    path.write_bytes(whole[:-3])
    with pytest.raises(DataError, match=r"file\.gz: ends after record 39, before its gzip checksum"):
        read_idx(path, 3)
    for content in (b"no gzip file", whole[:-8] + bytes(8), whole[:10] + bytes([255] * 20) + whole[30:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"file\.gz: not a gzip file, or a damaged one") as error:
            read_idx(path, 3)
        one_line(error)
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_idx(path, 3), IMAGES["train"][..., 0])


def test_cifar_records_that_are_damaged(tmp_path):
    classes = {"coarse_label": 20, "label": 100}
    record = bytes([19, 99]) + bytes(range(256)) * 12
    images, labels = cifar.parse_cifar(record * 3, "here", classes)
    assert (images.shape, labels.tolist()) == ((3, 32, 32, 3), [[19, 99]] * 3)
    assert images[2, 0, 5].tolist() == [5, 5, 5]
    for content, said in (
        (record * 2 + record[:-1], "here: ends inside record 2"),
        (b"", "here: ends inside record 0"),
        (record * 2 + bytes([20]) + record[1:], "here: record 2: label 20 of 20 classes"),
        (record + bytes([0, 100]) + record[2:], "here: record 1: label 100 of 100 classes"),
    ):
        with pytest.raises(DataError, match=said):
            cifar.parse_cifar(content, "here", classes)


def test_an_archive_that_is_cut_or_damaged(tmp_path):
    archive, path = cifar.ARCHIVES["cifar10"], tmp_path / "file.tar.gz"
    small_cifar(path, "cifar10")
    whole = path.read_bytes()

    def read(content, archive=archive):
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            cifar.read_cifar(path, archive, {"label": 10})
        assert one_line(error).startswith(f"{path}: ")
        return one_line(error)

    # members stand in the file from the last to the first: the names, the test batch, then five training batches
    assert read(whole[:30_000]).endswith("data_batch_5.bin: ends inside record 2")
    assert "not a gzipped tar file" in read(b"no archive")
    assert "not a gzipped tar file" in read(b"")
    assert "has no cifar-100-binary/coarse_label_names.txt" in read(whole, cifar.ARCHIVES["cifar100"])
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"batches\.meta\.txt names 10 classes, not 11"):
        cifar.read_cifar(path, archive, {"label": 11})


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
    with pytest.raises(UsageError, match=rf"cannot download {remotes[first].url} \(.+\); fetch .* --from=DIR") as error:
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
