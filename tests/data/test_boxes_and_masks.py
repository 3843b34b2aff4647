"""TFDS folders with boxes and masks: what was written is what is read, and a wrong record is named."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import load

from percept_jax.cli.main import main
from percept_jax.data import registry
from percept_jax.data.images import encode_png
from percept_jax.data.readers.base import ReaderConfig
from percept_jax.data.spec import VOID
from percept_jax.errors import DataError, UsageError
from percept_jax.tasks import task_of

SIZE = (12, 16)
PARTS = ("train", "test[:50%]", "test[50%:]")
SPLITS = [f"--{role}_split={part}" for role, part in zip(("train", "validation", "test"), PARTS, strict=True)]


def rectangle(seed):
    """An image with a bright rectangle of its class's brightness, its box, its class and its mask."""
    draws = np.random.default_rng(seed)
    high, wide, label = draws.integers(4, 8), draws.integers(4, 8), int(draws.integers(2))
    top, left = draws.integers(0, SIZE[0] - high), draws.integers(0, SIZE[1] - wide)
    image, mask = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
    image[top : top + high, left : left + wide] = 120 + 120 * label
    mask[top : top + high, left : left + wide] = 1 + label
    box = np.array([top, left, top + high, left + wide]) / np.tile(SIZE, 2)
    return image, box, label, mask


class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder of features and examples that a test gives: `{"train": [...], "test": [...]}`."""

    VERSION = tfds.core.Version("1.0.0")
    features, examples = {}, {}

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(rows) for split, rows in self.examples.items()}

    def _generate_examples(self, rows):
        yield from enumerate(rows)


def write(data_dir, name, features, examples):
    tfds.disable_progress_bar()
    builder = type(name, (Made,), {"features": features, "examples": examples}, skip_registration=True)
    made = builder(data_dir=data_dir, file_format="array_record")
    made.download_and_prepare()
    return Path(made.data_dir)


IMAGE = tfds.features.Image(shape=(*SIZE, 3), encoding_format="png")
CLASS = tfds.features.ClassLabel(names=["dim", "bright"])
BOX = tfds.features.BBoxFeature()


def bbox(box):
    return tfds.features.BBox(*(float(side) for side in box))


@pytest.fixture
def objects(tmp_path):
    """Images with none, one, two and three boxes."""
    sequence = tfds.features.Sequence({"bbox": BOX, "label": CLASS, "area": np.int64})
    truth = [[rectangle(10 * i + k) for k in range(i % 4)] for i in range(12)]
    rows = [
        {
            "image": encode_png(np.zeros((*SIZE, 3), np.uint8)),
            "objects": [{"bbox": bbox(box), "label": label, "area": 1} for _, box, label, _ in boxes],
        }
        for boxes in truth
    ]
    write(tmp_path, "cells", {"image": IMAGE, "objects": sequence}, {"train": rows[:8], "test": rows[8:]})
    return tmp_path, truth


def single(data_dir, count=120, wrong=None):
    """Images with one box and its class each; the box of the last may be wrong."""
    rows = []
    for i in range(count):
        image, box, label, _ = rectangle(i)
        rows.append({"image": encode_png(image), "bbox": bbox(wrong if wrong and i == count - 1 else box), "label": label})
    write(
        data_dir, "one", {"image": IMAGE, "bbox": BOX, "label": CLASS}, {"train": rows[count // 3 :], "test": rows[: count // 3]}
    )


@pytest.fixture
def masks(tmp_path):
    truth = [rectangle(i) for i in range(9)]
    values = [np.where(mask == 0, 7, mask - 1).astype(np.uint8)[..., None] for _, _, _, mask in truth]
    images = [image for image, *_ in truth]
    rows = [{"image": encode_png(i), "segmentation_mask": encode_png(v)} for i, v in zip(images, values, strict=True)]
    mask = tfds.features.Image(shape=(*SIZE, 1), encoding_format="png")
    write(tmp_path, "roads", {"image": IMAGE, "segmentation_mask": mask}, {"train": rows[:6], "test": rows[6:]})
    return tmp_path, truth


def test_boxes_are_read_as_they_were_written_and_padded_to_the_most(objects):
    data_dir, truth = objects
    spec = registry.describe("cells", data_dir)
    assert {name: tuple(feature.shape) for name, feature in spec.features.items()} == {
        "image": (*SIZE, 3), "boxes": (3, 4), "classes": (3,),
    }  # fmt: skip
    assert (spec.classes, spec.splits) == (("dim", "bright"), {"train": 8, "test": 4})
    found = registry.load("cells", data_dir, spec.select(*PARTS), (6, 8))
    order = {tuple(tuple(np.float32(box)) for _, box, _, _ in boxes): boxes for boxes in truth}
    for boxes, classes in zip(found.examples["boxes"], found.examples["classes"], strict=True):
        count = (classes >= 0).sum()
        wanted = order[tuple(tuple(box) for box in boxes[:count])]
        np.testing.assert_array_equal(classes[:count], [label for _, _, label, _ in wanted])
        np.testing.assert_array_equal(boxes[count:], 0)
    assert sorted((found.examples["classes"] >= 0).sum(1)) == sorted(map(len, truth))


def test_no_task_takes_boxes_in_silence(objects, capsys):
    flags = ["--dataset=cells", f"--data_dir={objects[0]}", "--model=mlp", "--steps=1", f"--run_dir={objects[0] / 'run'}"]
    assert main([*flags, *SPLITS]) == 2
    assert capsys.readouterr().err.endswith("--task: no task suits a data set whose examples have image, boxes, classes\n")


def test_a_mask_is_read_as_it_was_written(masks):
    data_dir, truth = masks
    with pytest.raises(UsageError, match="does not name the classes of its masks; give their names, such as road,car"):
        registry.describe("roads", data_dir)
    config = ReaderConfig(mask_classes="dim,bright", void=7)
    spec = registry.describe("roads", data_dir, config=config)
    assert (spec.mask_classes, spec.classes, tuple(spec.features["mask"].shape)) == (("dim", "bright"), (), SIZE)
    found = registry.load("roads", data_dir, spec.select(*PARTS), SIZE, config)
    wanted = {image.tobytes(): np.where(mask == 0, VOID, mask - 1) for image, _, _, mask in truth}
    for image, mask in zip(found.examples["image"], found.examples["mask"], strict=True):
        np.testing.assert_array_equal(mask, wanted[image.tobytes()])


def test_other_names_of_a_mask_are_read_again(masks):
    data_dir, _ = masks
    for config, most in ((ReaderConfig(mask_classes="dim,bright", void=7), 1), (ReaderConfig(mask_classes="a,b,c,d,e,f,g,h"), 7)):
        spec = registry.describe("roads", data_dir, config=config).select(*PARTS)
        mask = registry.load("roads", data_dir, spec, SIZE, config).examples["mask"]
        assert mask[mask != VOID].max() == most
    config = ReaderConfig(mask_classes="dim,bright")
    spec = registry.describe("roads", data_dir, config=config).select(*PARTS)
    with pytest.raises(DataError, match=r"roads.* record \d+: the mask has the value 7; there are 2 classes, and void is 255"):
        registry.load("roads", data_dir, spec, SIZE, config)


@pytest.mark.parametrize(("wrong", "said"), [
    ((0.5, 0.5, 0.5, 0.75), "is empty or inverted"),
    ((0.0, 0.5, 0.25, 1.0), None),
])  # fmt: skip
def test_a_wrong_box_is_told_of_with_its_record_or_skipped(tmp_path, capsys, wrong, said):
    single(tmp_path, 20, wrong)
    flags = [
        "--dataset=one",
        f"--data_dir={tmp_path}",
        "--model=mlp",
        "--steps=2",
        "--devices=1",
        f"--run_dir={tmp_path / 'run'}",
    ]
    assert main([*flags, *SPLITS]) == (4 if said else 0)
    err = capsys.readouterr().err
    if said:
        assert "record" in err
        assert said in err
        assert main([*flags, *SPLITS, "--max_bad_records=2"]) == 0
        assert "skipped, as --max_bad_records allows" in capsys.readouterr().out


def test_one_object_is_localized_from_flags_to_prediction(tmp_path, capsys):
    single(tmp_path)
    base = ["--dataset=one", f"--data_dir={tmp_path}", "--model=mlp", "--hidden=64", "--optimizer=adam", "--learning_rate=0.003"]
    base += [
        "--epochs=60",
        "--batch_size=20",
        "--validation_split=test[:50%]",
        "--test_split=test[50%:]",
        "--devices=1",
        "--eval_every=60",
    ]

    def run(*args):
        assert main([*args, "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    result = run(*base, f"--run_dir={tmp_path / 'run'}")
    assert set(result["test"]) == {"loss", "accuracy", "found", "localized", "iou", "examples"}
    # The box of the mean position and size has a mean IoU of less than 0.4.
    assert result["test"]["iou"] > 0.6
    assert run("evaluate", str(tmp_path / "run"), f"--data_dir={tmp_path}")["test"] == result["test"]
    image, box, label, _ = rectangle(3)
    (tmp_path / "image.png").write_bytes(encode_png(image))
    (found,) = run("predict", str(tmp_path / "run"), str(tmp_path / "image.png"))["predictions"]
    assert found["class"] == ["dim", "bright"][label]
    assert np.abs(np.array(found["box"]) - box).max() < 0.25
    # The boxes are left alone by who asks for something else.
    classified = run(*base, "--task=classification", f"--run_dir={tmp_path / 'other'}", "--epochs=2")
    assert "accuracy" in classified["test"]
    assert "iou" not in classified["test"]
    assert task_of(registry.describe("one", tmp_path)).name == "localization"


@pytest.mark.data
def test_real_boxes_and_masks(tmp_path):
    real = Path(os.environ["PERCEPT_TEST_DATA"]) / "tfds"
    for name in ("bccd", "bccd_wbc", "animal_boxes", "camvid"):
        (tmp_path / name).symlink_to(real / name)
    spec = registry.describe("bccd", tmp_path)
    assert (spec.splits, spec.classes) == ({"train": 205, "validation": 87, "test": 72}, ("RBC", "WBC", "Platelets"))
    found = load("bccd", tmp_path, 32)
    assert (found.examples["classes"] >= 0).sum() == 4886
    assert (found.examples["classes"] >= 0).sum(1).max() == 30 == spec.features["boxes"].shape[0]
    assert load("bccd_wbc", tmp_path, 32).examples["boxes"].shape[1:] == (1, 4)
    assert registry.describe("animal_boxes", tmp_path).shape == (0, 0, 3)
    config = ReaderConfig(mask_classes="sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,cyclist", void=11)
    spec = registry.describe("camvid", tmp_path, config=config).select()
    mask = registry.load("camvid", tmp_path, spec, (45, 60), config).examples["mask"]
    assert mask.shape == (701, 45, 60)
    assert set(np.unique(mask)) == {*range(11), VOID}
