"""Folders of images."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import load, read_all
from PIL import Image

from percept_jax import train
from percept_jax.cli.main import main
from percept_jax.data import cache, registry
from percept_jax.data.images import encode_png
from percept_jax.data.readers import image_folder
from percept_jax.data.readers import tfds as tfds_folders
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.errors import UsageError

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
    assert "has 1 class folders; it needs one for each class, two or more" in fault(2)
    root = tmp_path / "pets"
    for where, said in (("", "an image outside the folders of classes"), ("cats/more", "a folder inside the class folder cats")):
        save(root / where / "stray.png", Image.new("L", (4, 4)))
        assert said in fault(4)
        (root / where / "stray.png").unlink()
    (root / "cats" / "more").rmdir()
    root = tmp_path / "split"
    for place in ("train/cat", "train/dog", "test/Cat", "test/dog"):
        save(root / place / "x.png", Image.new("L", (4, 4)))
    assert fault(4) == f"{root}: test has a class 'Cat' that train does not have\n"
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
    with pytest.raises(UsageError, match="has changed since"):
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


@pytest.mark.data
@pytest.mark.slow
def test_a_folder_that_others_prepared_is_read(tmp_path):
    """CIFAR-10 as JPEG, in ArrayRecord: read-only, so that the cache cannot lie beside it."""
    there = Path(os.environ["PERCEPT_TEST_DATA"]) / "tfds"
    info = registry.describe("cifar10_jpeg", there).select("train[:99%]", "train[99%:]", "test")
    assert (info.shape, len(info.classes)) == ((32, 32, 3), 10)
    reader = tfds_folders.TfdsFolder(there / "cifar10_jpeg" / "1.0.0", there, ReaderConfig())
    examples = cache.load(reader, info._replace(splits={"test": 10_000}), (32, 32), ReaderConfig(), tmp_path).examples
    images, labels = examples["image"], examples["label"]
    assert images.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [1000] * 10
