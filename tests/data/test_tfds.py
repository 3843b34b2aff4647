"""Folders of TFDS, prepared here or by others."""

import gzip
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import load, pairs
from PIL import Image

from percept_jax.cli.main import main
from percept_jax.data import prepare, registry
from percept_jax.data.formats import tfrecord
from percept_jax.data.readers import tfds as tfds_folders
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.errors import DataError, UsageError

IMAGES = {
    split: np.random.default_rng(n).integers(0, 256, (n, 28, 28, 1), dtype=np.uint8) for split, n in (("train", 40), ("test", 15))
}
LABELS = {split: np.arange(len(images)) % 10 for split, images in IMAGES.items()}


@pytest.fixture
def authors_files(tmp_path, monkeypatch):
    """Four small files of MNIST's names and format, taken for those that its authors distribute."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for split, part in (("train", "train"), ("test", "t10k")):
        for kind, array in (("images-idx3", IMAGES[split][..., 0]), ("labels-idx1", LABELS[split].astype(np.uint8))):
            content = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    listed = {
        path.name: prepare.Remote(path.as_uri(), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.iterdir()
    }
    monkeypatch.setattr(prepare, "remote_files", lambda name: listed)
    return folder


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_prepare_then_train_on_a_tfds_folder_of_either_format(authors_files, tmp_path, capsys, file_format):
    data_dir = tmp_path / "data"
    flags = [
        "--dataset=mnist",
        f"--data_dir={data_dir}",
        "--model=linear",
        "--steps=5",
        "--devices=1",
        f"--run_dir={tmp_path / 'run'}",
    ]
    assert main(flags) == 2  # said at once, with the command
    assert f"mnist is not in {data_dir}; run: ./launch.sh prepare mnist --data_dir={data_dir}" in capsys.readouterr().err
    assert main(["prepare", "mnist", f"--from={authors_files}", f"--data_dir={data_dir}", f"--file_format={file_format}"]) == 0
    assert main(flags) == 0, capsys.readouterr().err
    info = registry.describe("mnist", data_dir).select("train[:30]", "train[30:]", "test")
    dataset = registry.load("mnist", data_dir, info, (28, 28))
    rows = {image.tobytes() + bytes([label]) for image, label in pairs(dataset)}
    assert rows == {
        image.tobytes() + bytes([label])
        for split in IMAGES
        for image, label in zip(IMAGES[split], LABELS[split], strict=True)
    }  # fmt: skip
    np.testing.assert_array_equal(np.sort(dataset.examples["label"][info.roles["test"]]), np.sort(LABELS["test"]))


class Scenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of somebody else's: color JPEGs of several sizes, other names of features and splits, a text beside them."""

    VERSION = tfds.core.Version("2.0.0")
    labels = (0, 1, 0, 1)

    def _info(self):
        features = {
            "picture": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "kind": tfds.features.ClassLabel(names=["day", "night"]),
            "title": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(30), "unlabeled": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            shade = np.full((10 + i, 12, 3), 200 * (1 - i % 2), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(shade).save(buffer, "jpeg")
            yield i, {"picture": buffer.getvalue(), "kind": i % 2, "title": str(i)}


def prepared(builder, data_dir, **options):
    tfds.disable_progress_bar()
    builder = builder(data_dir=data_dir, **options)
    builder.download_and_prepare()
    return Path(builder.data_dir)


def test_any_tfds_data_set_with_one_image_and_one_label(tmp_path, capsys):
    prepared(Scenes, tmp_path, file_format="array_record")
    info = registry.describe("scenes", tmp_path)
    assert (info.shape, info.classes, info.splits) == ((0, 0, 3), ("day", "night"), {"train": 30, "unlabeled": 4})
    flags = [
        "--dataset=scenes",
        f"--data_dir={tmp_path}",
        "--model=mlp",
        "--steps=30",
        "--devices=1",
        f"--run_dir={tmp_path / 'run'}",
    ]
    assert main(flags) == 2
    assert "scenes has images of several sizes: set the size to resize them to" in capsys.readouterr().err
    assert main([*flags, "--image_size=8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["test"] | {"loss": 0} == {"accuracy": 1, "top5_accuracy": 1, "examples": 6, "loss": 0}
    cached = [path.name for path in (tmp_path / "cache").glob("*.safetensors")]
    assert cached == ["scenes-2.0.0-train-8.safetensors"]  # splits that are not asked for are not read


def test_a_configuration_or_version_is_named_where_there_are_several(tmp_path):
    folder = prepared(Scenes, tmp_path / "made", file_format="array_record")
    for place in ("one/day/2.0.0", "one/night/2.0.0", "two/1.9.0", "two/1.10.0", "two/1.10.0.incompleteXYZ"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", folder, tmp_path / place], check=True)
    for name, there in (("one", "one/day:2.0.0, one/night:2.0.0"), ("one/noon", "one/day:2.0.0"), ("two:3.0.0", "two:1.10.0")):
        with pytest.raises(UsageError, match=f"there is no {name} in {tmp_path}, but {there}"):
            registry.describe(name, tmp_path)
    assert tfds_folders.find("one/night", tmp_path) == tmp_path / "one/night/2.0.0"
    assert tfds_folders.find("two", tmp_path) == tmp_path / "two/1.10.0"
    assert tfds_folders.find("two:1.9.0", tmp_path) == tmp_path / "two/1.9.0"
    for name in ("../made/scenes", "one/..", "one/../one/day", "/etc"):
        assert tfds_folders.find(name, tmp_path) is None


def test_two_images_or_no_label_are_refused(tmp_path):
    class Pairs(Scenes, skip_registration=True):
        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            features = {"picture": image, "kind": tfds.features.Scalar(np.int64), "title": tfds.features.Text()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    prepared(Pairs, tmp_path, file_format="array_record")
    with pytest.raises(UsageError, match="an example has 0 features of type ClassLabel, not one"):
        registry.describe("pairs", tmp_path)


def test_cifar100_has_two_labels_and_trains_on_the_fine_one(tmp_path):
    from test_prepare import small_cifar

    theirs = tmp_path / "cifar-100-binary.tar.gz"
    made = small_cifar(theirs, "cifar100", per_file=30)
    digest = hashlib.sha256(theirs.read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "remote_files", lambda name: {theirs.name: prepare.Remote(theirs.as_uri(), 0, digest)})
        prepare.prepare("cifar100", tmp_path / "data", tmp_path)
    info = registry.describe("cifar100", tmp_path / "data")
    dataset = registry.load("cifar100", tmp_path / "data", info.select("train[:20]", "train[20:]", "test"), (32, 32))
    wanted = {image.tobytes() + bytes([label[1]]) for part in made.values() for image, label in zip(*part, strict=True)}
    assert {image.tobytes() + bytes([label]) for image, label in pairs(dataset)} == wanted
    assert info.classes[3] == "kind 3"


def rewritten(folder, split, change):
    """The records of a TFRecord split with one of them changed, as damage that no checksum of the file shows."""
    path = next(folder.glob(f"*-{split}.tfrecord*"))
    tfrecord.write_records(path, [change(record) if i == 3 else record for i, record in enumerate(tfrecord.Records([path]))])


def test_a_bad_record_is_named_with_its_number(authors_files, tmp_path, capsys):
    folder = prepare.prepare("mnist", tmp_path, authors_files, "tfrecord")
    flags = [
        "--dataset=mnist",
        f"--data_dir={tmp_path}",
        "--model=linear",
        "--steps=5",
        "--devices=1",
        f"--run_dir={tmp_path / 'run'}",
    ]
    path = next(folder.glob("*-test.tfrecord*"))
    whole = path.read_bytes()

    def fault():
        assert main(flags) == 4
        _, err = capsys.readouterr()
        assert err.count("\n") == 1
        assert not (tmp_path / "run").exists()
        return err

    rewritten(folder, "test", lambda record: record.replace(b"IHDR", b"XXXX"))
    assert fault().startswith(f"{folder}: test record 3: not a PNG or JPEG image")
    path.write_bytes(whole)

    def wrong_label(record):
        from tensorflow_datasets.proto import tf_example_pb2

        example = tf_example_pb2.Example.FromString(record)
        example.features.feature["label"].int64_list.value[0] = 10
        return example.SerializeToString()

    rewritten(folder, "test", wrong_label)
    assert fault().startswith(f"{folder}: test record 3: label 10, but there are 10 classes")
    path.write_bytes(whole[:-300] + bytes([whole[-300] ^ 1]) + whole[-299:])
    assert "record" in fault()
    path.write_bytes(whole[:-9])
    assert "ends inside record 14" in fault()
    path.unlink()
    assert fault().startswith(f"{folder}: ")


def test_bad_records_are_listed_or_skipped(authors_files, tmp_path, capsys):
    folder = prepare.prepare("mnist", tmp_path, authors_files, "tfrecord")
    whole = load("mnist", tmp_path, 28)
    path = next(folder.glob("*-train.tfrecord*"))
    records = [*tfrecord.Records([path])]
    tfrecord.write_records(path, [r.replace(b"IHDR", b"XXXX") if i in (3, 7) else r for i, r in enumerate(records)])
    flags = ["--dataset=mnist", f"--data_dir={tmp_path}", "--model=linear", "--steps=5", "--devices=1"]
    for more, said in ((["--max_bad_records=1"], "; more than --max_bad_records=1"), ([], "")):
        assert main([*flags, *more, f"--run_dir={tmp_path / 'run'}"]) == 4
        error = capsys.readouterr().err
        assert error.startswith("2 of 55 records cannot be read: ")
        assert "train record 3: not a PNG or JPEG image" in error
        assert "train record 7: not a PNG or JPEG image" in error
        assert said in error
        assert not (tmp_path / "run").exists()
    notes, skipping = [], ReaderConfig(max_bad_records=2)
    for _ in range(2):  # and out of the cache
        info = registry.describe("mnist", tmp_path, config=skipping)
        assert info.splits == {"test": 15, "train": 38}
        found = registry.load("mnist", tmp_path, info.select(), (28, 28), skipping, notes.append)
        np.testing.assert_array_equal(found.inputs, np.delete(whole.inputs, (3, 7), 0))
        np.testing.assert_array_equal(found.examples["label"], np.delete(whole.examples["label"], (3, 7), 0))
    assert len(notes) == 2
    assert notes[0] == notes[1]
    assert notes[0].startswith("skipped, as --max_bad_records allows: 2 of 55 records cannot be read: ")
    assert main([*flags, "--max_bad_records=2", f"--run_dir={tmp_path / 'run'}"]) == 0
    assert main(["evaluate", str(tmp_path / "run"), f"--data_dir={tmp_path}"]) == 0


def test_a_damaged_array_record_is_named(authors_files, tmp_path):
    folder = prepare.prepare("mnist", tmp_path, authors_files)
    path = next(folder.glob("*-train.array_record*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train (record \d+|cannot be read)"):
        load("mnist", tmp_path, 28)


@pytest.mark.data
@pytest.mark.slow
def test_mnist_is_prepared_without_tensorflow_and_trains(tmp_path, capsys):
    theirs = Path(os.environ["PERCEPT_TEST_DATA"]) / "mnist"
    assert main(["prepare", "mnist", f"--from={theirs}", f"--data_dir={tmp_path}"]) == 0
    assert "tensorflow" not in sys.modules
    flags = [
        "--dataset=mnist",
        "--model=linear",
        "--epochs=2",
        "--batch_size=128",
        "--learning_rate=0.02",
        f"--data_dir={tmp_path}",
    ]
    assert main([*flags, "--devices=1", "--schedule=cosine", f"--run_dir={tmp_path / 'run'}", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["test"]["examples"], result["validation"]["examples"]) == (10_000, 6_000)
    assert result["test"]["accuracy"] > 0.915
