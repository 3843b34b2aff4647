"""File formats: TFRecord, IDX, gzip, archives, whole and damaged."""

import gzip

import numpy as np
import pytest
from helpers.authors import IMAGES, LABELS, RNG, idx, one_line, small_cifar, use

from percept_jax.data import prepare
from percept_jax.data.formats import cifar, tfrecord
from percept_jax.data.formats.idx import read_idx
from percept_jax.errors import DataError


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
