"""Where data come from: slices of splits, TFDS folders in both formats, folders of images, points."""

import dataclasses
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
from helpers import load, pairs, read_all
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from percept_jax import Experiment, train
from percept_jax.cli.main import main
from percept_jax.data import cache, prepare, registry
from percept_jax.data.formats import tfrecord
from percept_jax.data.images import encode_png
from percept_jax.data.readers import image_folder
from percept_jax.data.readers import tfds as tfds_folders
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.data.readers.toy import TOYS
from percept_jax.data.splits import choose
from percept_jax.errors import DataError, UsageError

BOUND = st.one_of(st.just(""), st.integers(-100, 100).map(lambda n: f"{n}%"), st.integers(-60, 60).map(str))


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 200), BOUND, BOUND)
def test_a_slice_has_the_examples_that_a_list_of_them_would_give(size, low, high):
    """Percentages are rounded to the nearest example, ties to even; what lies outside, or is empty, is an error."""
    if (not low and not high) or (low and high and ("%" in low) != ("%" in high)):  # TFDS takes one unit a slice
        return

    def bound(text, default):
        if not text:
            return default
        return round(float(text[:-1]) * size / 100) if text.endswith("%") else int(text)

    first, last = bound(low, 0), bound(high, size)
    wanted = np.arange(size)[first:last] + 7  # behind the test split
    spec = f"train[{low}:{high}]"
    if abs(first) > size or abs(last) > size or not len(wanted):
        with pytest.raises(UsageError, match="train_split"):
            choose({"test": 7, "train": size, "validation": 5}, train=spec)
    else:
        np.testing.assert_array_equal(choose({"test": 7, "train": size, "validation": 5}, train=spec)["train"], wanted)


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({"train": 100, "test": 20}, ((0, 90), (90, 100), (100, 120))),
        ({"test": 20, "train": 100}, ((20, 110), (110, 120), (0, 20))),
        ({"train": 100}, ((0, 60), (60, 80), (80, 100))),
        ({"train": 100, "validation": 10, "test": 20}, ((0, 100), (100, 110), (110, 130))),
        ({"train": 100, "val": 10}, ((0, 80), (100, 110), (80, 100))),
    ],
)
def test_what_is_not_given_is_held_out_of_train(own, wanted):
    for (role, index), (first, last) in zip(choose(own).items(), wanted, strict=True):
        np.testing.assert_array_equal(index, np.arange(first, last), err_msg=role)


def test_without_a_train_split_all_that_is_left_is_trained_on():
    index = choose({"train": 100, "test": 20}, validation="train[:5]+train[95%:]")
    np.testing.assert_array_equal(index["train"], np.arange(5, 95))
    with pytest.raises(UsageError, match="--train_split: nothing is left of train"):
        choose({"train": 100, "test": 20}, validation="train")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--train_split=trian"],
            "--train_split: there is no split 'trian'; there are train (1077), validation (360), test (360)",
        ),
        (["--test_split=train[:5000]"], "--test_split: 'train[:5000]': Requested slice [:5000] incompatible with 1077 examples"),
        (["--validation_split=test"], "--test_split: test shares 360 examples with --validation_split=test"),
        (["--train_split=train", "--test_split=train[:9]"], "--test_split: train[:9] shares 9 examples with --train_split=train"),
        (["--train_split=train[9:9]"], "--train_split: train[9:9] has no examples"),
        (["--train_split=train+train[:9]"], "--train_split: train+train[:9] has examples twice"),
    ],
)
def test_a_wrong_split_is_one_line(flags, message, tmp_path, capsys):
    assert main(["--steps=1", "--model=linear", "--devices=1", f"--run_dir={tmp_path / 'run'}", *flags]) == 2
    assert capsys.readouterr().err.removeprefix("command line: ").startswith(message)
    assert not (tmp_path / "run").exists()


def test_a_run_sees_the_examples_of_its_splits_and_no_others(small, digits):
    """The training images are moved; what is trained, validated and tested must not notice the rest."""
    experiment = dataclasses.replace(
        small, train_split="train[:50%]+validation[300:]", validation_split="validation[:100]", test_split="test[-40:]"
    )
    run = train(experiment)
    assert run.result["test"]["examples"] == 40
    assert run.result["validation"]["examples"] == 100
    predicted = run.predict(digits.inputs[digits.spec.roles["test"][-40:]]).labels
    assert (predicted == digits.examples["label"][digits.spec.roles["test"][-40:]]).mean() == run.result["test"]["accuracy"]
    assert json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])["epoch"] == pytest.approx(5 * 32 / (538 + 60))


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


def quick(dataset, data_dir):
    return [f"--dataset={dataset}", f"--data_dir={data_dir}", "--model=linear", "--steps=5", "--devices=1"]


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
    assert f"mnist is not in {data_dir}; type: ./launch.sh prepare mnist --data_dir={data_dir}" in capsys.readouterr().err
    assert main(["prepare", "mnist", f"--from={authors_files}", f"--data_dir={data_dir}", f"--file_format={file_format}"]) == 0
    assert main(flags) == 0, capsys.readouterr().err
    info = registry.describe("mnist", data_dir).select("train[:30]", "train[30:]", "test")
    dataset = registry.load("mnist", data_dir, info, 28)
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
    assert "scenes has images of several sizes: give the one to resize them to" in capsys.readouterr().err
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
    dataset = registry.load("cifar100", tmp_path / "data", info.select("train[:20]", "train[20:]", "test"), 32)
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
        found = registry.load("mnist", tmp_path, info.select(), 28, skipping, notes.append)
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


# Folders of images


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def checkers(size, color, cells):
    i, j = np.indices(size) * cells // max(size)
    return np.where((i + j)[..., None] % 2, np.array(color, np.uint8), np.uint8(255)).astype(np.uint8)


@pytest.fixture
def pets(tmp_path):
    """Two classes of pictures, coarse and fine checkers, in every mode a file may have; 30 a class, of all sizes."""
    root = tmp_path / "pets"
    for kind, cells in (("cats", 2), ("dogs", 8)):
        for n in range(30):
            size, color = (16 + n, 40 - n // 2), (20 * (n % 3), 90, 10 * (n % 5))
            rgb = Image.fromarray(checkers(size, color, cells))
            gray = rgb.convert("L")
            deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
            clear = Image.fromarray(np.dstack([np.zeros((*size, 3), np.uint8), 255 - np.asarray(gray)]))
            mode = [rgb, rgb.quantize(8), rgb.convert("RGBA"), clear, gray, deep, gray.convert("1"), gray.convert("LA")][n % 8]
            save(root / kind / f"{n}.png", mode)
        save(root / kind / "cmyk.jpg", Image.fromarray(checkers((20, 20), (0, 90, 10), cells)).convert("CMYK"), quality=95)
        save(root / kind / "photo.JPEG", Image.fromarray(checkers((30, 20), (0, 0, 0), cells)), quality=95)
        (root / kind / ".hidden").write_text("no image")
        (root / kind / "notes.txt").write_text("no image")
    return root


@pytest.mark.slow
def test_a_folder_of_mixed_images_becomes_a_trained_model_and_a_prediction(pets, tmp_path, launch):
    flags = [
        "--model=mlp",
        "--image_size=16",
        "--steps=60",
        "--learning_rate=0.02",
        "--devices=1",
        "--run_dir=run",
        "--data_dir=d",
    ]
    done = launch("--dataset=folder:pets", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test"]["accuracy"] > 0.9
    assert result["test"]["examples"] == 13
    done = launch("predict", "run", "pets/cats/4.png", "pets/dogs/5.png", "pets/cats/cmyk.jpg", "--json", cwd=tmp_path)
    found = json.loads(done.stdout.splitlines()[-1])["predictions"]
    assert [p["class"] for p in found] == ["cats", "dogs", "cats"]
    again = launch("run/run.flags", "--run_dir=run", "--data_dir=d", cwd=tmp_path)  # from anywhere: the path is absolute
    assert again.returncode == 0, again.stderr
    assert "test accuracy" in again.stdout


def test_every_image_of_a_folder_is_what_a_viewer_shows(pets):
    found = read_all(f"folder:{pets}", pets.parent, 32)
    info, images = found.spec, found.examples["image"]
    assert info.shape == (0, 0, 3)
    assert sum(info.splits.values()) == len(images) == 64
    for image, label in zip(images, found.examples["label"], strict=True):
        white = (image > 200).all(-1)
        assert 0.3 < white.mean() < 0.6
        edges = np.abs(np.diff(white.astype(int), axis=1)).sum()
        assert (edges > 65) == (info.classes[label] == "dogs")


def test_slices_of_a_folder_are_stratified_and_never_change(tmp_path):
    for kind, count in (("many", 200), ("few", 20)):
        for n in range(count):
            save(tmp_path / kind / f"{n}.png", Image.new("L", (2, 2), n))
    files, classes = image_folder.examples(tmp_path)
    assert classes == ["few", "many"]
    kinds = np.array([path.parent.name for path in files["train"]])
    for first in range(0, 220, 22):
        assert (kinds[first : first + 22] == "few").sum() in (1, 2, 3)
    names = [path.name for path in files["train"] if path.parent.name == "few"]
    assert names != sorted(names)
    save(tmp_path / "few" / "another.png", Image.new("L", (2, 2)))
    more = [path.name for path in image_folder.examples(tmp_path)[0]["train"] if path.parent.name == "few"]
    assert [name for name in more if name != "another.png"] == names
    assert registry.describe(f"folder:{tmp_path}", tmp_path).shape == (2, 2, 1)


def test_a_folder_may_name_its_splits(tmp_path):
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        for kind in ("a", "b"):
            for n in range(count):
                save(tmp_path / split / kind / f"{n}.png", Image.new("RGB", (4, 4), (n, n, 100)))
    info = registry.describe(f"folder:{tmp_path}", tmp_path).select()
    assert info.splits == {"test": 4, "train": 12, "val": 6}
    assert {role: len(index) for role, index in info.roles.items()} == {"train": 12, "validation": 6, "test": 4}


def test_faults_of_a_folder_are_named(tmp_path, capsys):
    def fault(code):
        flags = [f"--dataset=folder:{root}", "--model=mlp", "--steps=1", "--devices=1", f"--data_dir={tmp_path}"]
        assert main([*flags, f"--run_dir={tmp_path / 'run'}"]) == code
        _, err = capsys.readouterr()
        assert err.count("\n") == 1
        assert not (tmp_path / "run").exists()
        return err.removeprefix("command line: ")

    root = tmp_path / "pets"
    assert fault(2) == f"--dataset: there is no folder {root}\n"
    for kind in ("cats", "dogs"):
        for n in range(5):
            save(root / kind / f"{n}.png", Image.new("L", (4, 4), n))
    (root / "birds").mkdir()
    assert fault(4) == f"{root}: the class folder birds has no PNG or JPEG files\n"
    (root / "birds").rmdir()
    broken = root / "cats" / "broken.png"
    broken.write_bytes(b"no image")
    assert fault(4) == f"{broken}: not a PNG or JPEG image\n"
    broken.write_bytes(encode_png(np.random.default_rng(0).integers(0, 255, (4, 4, 1)).astype(np.uint8))[:-30])
    assert fault(4).startswith(f"{broken}: not a PNG or JPEG image that can be read")
    broken.unlink()
    gif = root / "dogs" / "moving.gif"
    Image.new("L", (4, 4)).save(gif)
    assert fault(4) == f"{gif}: neither PNG nor JPEG\n"
    gif.unlink()
    (tmp_path / "one" / "cats").mkdir(parents=True)
    root = tmp_path / "one"
    assert "has 1 folders of classes; it takes one for each class, two or more" in fault(2)
    root = tmp_path / "pets"
    for where, said in (("", "an image outside the folders of classes"), ("cats/more", "a folder inside the class folder cats")):
        save(root / where / "stray.png", Image.new("L", (4, 4)))
        assert said in fault(4)
        (root / where / "stray.png").unlink()
    (root / "cats" / "more").rmdir()
    root = tmp_path / "split"
    for place in ("train/cat", "train/dog", "test/Cat", "test/dog"):
        save(root / place / "x.png", Image.new("L", (4, 4)))
    assert fault(4) == f"{root}: test has a class 'Cat' that train has not\n"
    root = tmp_path / "flat"
    for place in ("train/cat", "train/dog", "test"):
        save(root / place / "x.png", Image.new("L", (4, 4)))
    assert fault(4) == f"{root / 'test' / 'x.png'}: an image outside the folders of classes\n"
    root = ""
    assert fault(2) == "--dataset: needs a path: folder:PATH\n"


def test_a_changed_folder_is_read_again(tmp_path):
    (tmp_path / "set").mkdir()
    for kind, shade in (("a", 0), ("b", 255)):
        (tmp_path / "set" / kind).symlink_to(tmp_path / f"real_{kind}")
        for n in range(5):
            save(tmp_path / f"real_{kind}" / f"{n}.png", Image.new("L", (4, 4), shade))
    name = f"folder:{tmp_path / 'set'}"
    assert load(name, tmp_path, 4).inputs.max() == 255
    for n in range(5):
        save(tmp_path / "set" / "b" / f"{n}.png", Image.new("L", (4, 4), 100))
    assert load(name, tmp_path, 4).inputs.max() == 100


def test_a_model_is_not_evaluated_on_data_that_it_was_not_made_for(small, tmp_path):
    for kind in ("a", "b"):
        for n in range(10):
            save(tmp_path / "set" / kind / f"{n}.png", Image.new("L", (4, 4), n + 100 * (kind == "b")))
    experiment = dataclasses.replace(small, dataset=f"folder:{tmp_path / 'set'}", data_dir=str(tmp_path))
    run = train(experiment)
    assert run.evaluate(str(tmp_path))["test"] == run.result["test"]
    save(tmp_path / "set" / "aa" / "0.png", Image.new("L", (4, 4)))
    with pytest.raises(UsageError, match="is not what it was when"):
        run.evaluate(str(tmp_path))


def test_names_may_hold_any_letter(small, tmp_path):
    """Dollars are no formulas, and a file name need not be text."""
    for kind in ("$x_$", "β ü"):
        for n in range(5):
            save(tmp_path / "set #1" / kind / f"{n}.png", Image.new("L", (4, 4), n + 100 * (kind == "β ü")))
    os.rename(os.fsencode(tmp_path / "set #1" / "$x_$" / "0.png"), os.fsencode(tmp_path / "set #1" / "$x_$") + b"/\xff.png")
    run = train(dataclasses.replace(small, dataset=f"folder:{tmp_path / 'set #1'}", data_dir=str(tmp_path)))
    assert (run.path / "confusion.png").exists()
    assert main([str(run.path / "run.flags"), f"--run_dir={tmp_path / 'again'}", f"--data_dir={tmp_path}", "--devices=1"]) == 0


# Points


@pytest.mark.parametrize("name", TOYS)
def test_points_are_fixed_balanced_and_finite(name, data_dir):
    dataset = load(name, data_dir, 1)
    assert dataset.inputs.shape == (sum(dataset.spec.splits.values()), 1, 1, 2)
    assert dataset.inputs.dtype == np.float32
    assert np.isfinite(dataset.inputs).all()
    assert set(np.unique(dataset.examples["label"])) == {0, 1}
    for index in dataset.spec.roles.values():
        assert 0.4 < dataset.examples["label"][index].mean() < 0.6
    np.testing.assert_array_equal(load(name, data_dir, 1).inputs, dataset.inputs)


def test_xnor_is_its_truth_table(data_dir):
    dataset = load("xnor", data_dir, 1)
    for index in dataset.spec.roles.values():
        table = {tuple(point[0, 0]): label for point, label in pairs(dataset, index)}
        assert table == {(0, 0): 1, (0, 1): 0, (1, 0): 0, (1, 1): 1}


def test_a_perceptron_parts_the_blobs_without_a_mistake(small):
    run = train(dataclasses.replace(small, dataset="blobs", model="linear", knobs={}, loss="perceptron", batch_size=1, steps=400))
    assert run.result["test"]["accuracy"] == 1
    assert run.evaluate()["test"]["loss"] == 0


def xnor(tmp_path, model, seed, **knobs):
    experiment = Experiment(
        dataset="xnor", model=model, knobs=knobs, loss="binary_cross_entropy", batch_size="all", steps=1000, learning_rate=0.3,
        eval_every=1000, log_every=1000, seed=seed, devices=1, run_dir=str(tmp_path / f"{model}{seed}"),
    )  # fmt: skip
    return train(experiment).result["test"]["accuracy"]


@pytest.mark.slow
def test_xnor_is_learnt_by_two_hidden_units_and_by_no_linear_model(tmp_path, monkeypatch):
    learnt = [xnor(tmp_path, "mlp", seed, hidden=(2,), activation="maxout") for seed in range(10)]
    assert sum(accuracy == 1 for accuracy in learnt) >= 9
    assert max(xnor(tmp_path, "linear", seed) for seed in range(3)) <= 0.75  # of four, at most three lie right of a line


def test_what_needs_images_or_colors_is_refused_for_points_and_gray_images(tmp_path, capsys):
    for flags, message in (
        (["--dataset=xnor", "--model=linear", "--random_crop=2"], "--random_crop: xnor has points, not images"),
        (["--dataset=xnor", "--model=linear", "--mixup=1"], "--mixup: xnor has points, not images"),
        (["--dataset=xnor", "--model=lenet5"], "--model: lenet5 takes images, xnor has points; take linear or mlp"),
        (["--dataset=xnor", "--model=linear", "--normalize=unit"], "--normalize: points do not go from 0 to 255"),
        (["--model=linear", "--saturation=0.5"], "--saturation: digits has 1 channels, not red, green and blue"),
        (["--model=linear", "--pca_color=0.1"], "--pca_color: digits has 1 channels, not red, green and blue"),
    ):
        assert main([*flags, "--steps=1", "--devices=1", f"--run_dir={tmp_path / 'run'}"]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


# Pictures


@pytest.mark.slow
def test_plot_draws_a_boundary_and_the_pictures_of_a_run_again(tmp_path, capsys):
    path = tmp_path / "run"
    assert main(["--dataset=moons", "--model=mlp", "--steps=50", "--devices=1", f"--run_dir={path}"]) == 0
    assert main(["plot", str(path), "--boundary"]) == 0
    picture = np.asarray(Image.open(path / "boundary.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    for name in ("training.png", "confusion.png"):
        (path / name).unlink()
    assert main(["plot", str(path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["pictures"]) == 2
    assert (path / "confusion.png").exists()
    (path / "metrics.jsonl").write_text((path / "metrics.jsonl").read_text()[:-20])
    assert main(["plot", str(path)]) == 3  # it is not what the run wrote
    (path / "result.json").unlink()
    assert main(["plot", str(path)]) == 0  # as a process that was killed leaves it
    assert main(["predict", str(path), "-0.5,1"]) == 0
    for point, message in (("0.5;1", "'0.5;1' is not a point"), ("nan,1", "'nan,1' is not a point"), ("1,2,3", "a point is [3]")):
        assert main(["predict", str(path), point]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_plot_shows_what_augmentation_does_to_training_images(tmp_path, capsys, monkeypatch):
    from percept_jax.training import run_dir

    monkeypatch.setattr(run_dir, "ROOT", tmp_path)
    (tmp_path / "my.flags").write_text("--epochs=1\n--model=mlp\n--rotation=30\n--cutout=3\n--mixup=0.2\n")
    assert main(["plot", "--augmentations", str(tmp_path / "my.flags")]) == 0
    assert (tmp_path / "runs" / "my" / "augmentations.png").exists()
    assert main([str(tmp_path / "my.flags"), "--augmentations"]) == 2
    assert main(["plot", "x", "--boundary"]) == 2
    assert main(["plot", "--augmentations", "--dataset=digits"]) == 2
    assert "--augmentations: there is none" in capsys.readouterr().err
    assert main(["plot", "--augmentations", "--dataset=digits", "--cutout=3"]) == 0


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


@pytest.mark.data
@pytest.mark.slow
def test_a_folder_that_others_prepared_is_read(tmp_path):
    """CIFAR-10 as JPEG, in ArrayRecord: read-only, so that the cache cannot lie beside it."""
    there = Path(os.environ["PERCEPT_TEST_DATA"]) / "tfds"
    info = registry.describe("cifar10_jpeg", there).select("train[:99%]", "train[99%:]", "test")
    assert (info.shape, len(info.classes)) == ((32, 32, 3), 10)
    reader = tfds_folders.TfdsFolder(there / "cifar10_jpeg" / "1.0.0", there, ReaderConfig())
    examples = cache.load(reader, info._replace(splits={"test": 10_000}), 32, ReaderConfig(), tmp_path).examples
    images, labels = examples["image"], examples["label"]
    assert images.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [1000] * 10
