"""What a training step makes of its examples before the model sees them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from percept_jax.data import preprocess
from percept_jax.data.spec import Dataset, image_spec, size_of
from percept_jax.experiment import Experiment
from percept_jax.training.batch import evaluation_batch, training_batch
from percept_jax.training.parallel import AXIS
from percept_jax.training.program import make_program

pytestmark = pytest.mark.strict_dtypes

ALL_ON = {
    "random_crop": 2, "random_flip": True, "rotation": 20.0, "scale": 0.2, "shear": 10.0, "brightness": 0.3, "contrast": 0.3,
    "saturation": 0.5, "pca_color": 0.1, "cutout": 3, "crop_area": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def colorful():
    rng = np.random.default_rng(0)
    spec = image_spec((8, 8, 3), tuple("abcd"), {"train": 24, "validation": 4, "test": 4}).select()
    images = rng.integers(0, 256, (32, 8, 8, 3)).astype(np.uint8)
    return Dataset(spec, {"image": images, "label": rng.integers(0, 4, 32).astype(np.int32)})


def batch(dataset, devices=1, key=0, **on):
    """Images as the model sees them, and targets, of the first 16 examples; the batch split over `devices`."""
    experiment = dataclasses.replace(Experiment(model="linear", dtype="float64", steps=1), **on)
    with jax.enable_x64(True):
        data = preprocess.device_data(dataset, preprocess.fit("standard", dataset), experiment.real_dtype)
        index, key = np.arange(16, dtype=np.int32), jax.random.key(key, impl="threefry2x32")
        make = functools.partial(training_batch, program=make_program(experiment, dataset.spec, AXIS if devices > 1 else None))
        if devices == 1:
            return [np.asarray(x) for x in jax.jit(make)(key, index, data)[:2]], data
        split = jax.pmap(functools.partial(make, axis_name=AXIS), AXIS, in_axes=(None, 0, None))
        found = split(key, index.reshape(devices, -1), data)[:2]
        return [np.asarray(x).reshape(16, *x.shape[2:]) for x in found], data


def test_without_augmentation_a_model_sees_normalized_pixels_and_one_hot_targets(colorful):
    (images, targets), data = batch(colorful)
    np.testing.assert_allclose(images, (colorful.inputs[:16] - data.mean) * data.inv_std, rtol=1e-12)
    np.testing.assert_array_equal(targets, np.eye(4)[colorful.examples["label"][:16]])


def test_augmentation_changes_images_and_never_labels(colorful):
    plain = batch(colorful)[0][0]
    (images, targets), _ = batch(colorful, **ALL_ON)
    np.testing.assert_array_equal(targets, np.eye(4)[colorful.examples["label"][:16]])
    assert (np.abs(images - plain).max((1, 2, 3)) > 1e-6).all()
    assert np.abs(batch(colorful, key=1, **ALL_ON)[0][0] - images).max() > 1e-6
    assert images.shape == plain.shape


@pytest.mark.parametrize(
    "on", [pytest.param({}, id="none"), pytest.param(ALL_ON | {"mixup": 0.4}, id="all", marks=pytest.mark.slow)]
)
def test_four_devices_draw_what_one_does(colorful, on):
    one, four = (batch(colorful, devices, **on)[0] for devices in (1, 4))
    for a, b in zip(one, four, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_mixup_mixes_an_example_and_its_target_with_another_s_by_one_share(colorful):
    dataset = colorful._replace(examples={**colorful.examples, "label": np.arange(32, dtype=np.int32) % 4})
    plain, own = batch(dataset)[0]
    (images, targets), _ = batch(dataset, mixup=1.0)
    shifts = []
    for p in range(16):
        fits = []
        for shift in range(1, 16):
            partner = (p + shift) % 16
            share = np.vdot(images[p] - plain[partner], plain[p] - plain[partner]) / np.sum((plain[p] - plain[partner]) ** 2)
            mixed, target = (share * x[p] + (1 - share) * x[partner] for x in (plain, own))
            if np.allclose(mixed, images[p], atol=1e-9) and np.allclose(target, targets[p], atol=1e-6):
                fits.append((shift, share))
        assert fits, p
        shifts.append({shift for shift, share in fits if 0.5 <= share <= 1})
    assert len(set.intersection(*shifts)) == 1
    np.testing.assert_allclose(targets.sum(1), 1)
    assert len(np.unique(targets.max(1).round(6))) > 8  # a share an example


@pytest.mark.parametrize("size", [4, (4, 6)])
def test_a_larger_image_is_cropped_anywhere_in_training_and_in_the_middle_in_evaluation(colorful, size):
    experiment = Experiment(model="linear", steps=1, stored_size=8, image_size=size)
    height, width = size_of(size, "image_size")
    program = make_program(experiment, colorful.spec)
    data = preprocess.device_data(colorful, preprocess.fit("standard", colorful), experiment.real_dtype)
    seen = evaluation_batch(np.arange(16), data, program=program).inputs
    np.testing.assert_allclose(
        seen, (colorful.inputs[:16, 2:6, 4 - width // 2 : 4 + width // 2] - data.mean) * data.inv_std, rtol=1e-5, atol=1e-6
    )
    trained = training_batch(jax.random.key(0), np.arange(16), data, program=program).inputs
    assert trained.shape == (16, height, width, 3)
    whole = (colorful.inputs[:16] - data.mean) * data.inv_std
    windows = np.lib.stride_tricks.sliding_window_view(whole, (height, width), (1, 2)).transpose(0, 1, 2, 4, 5, 3)
    distance = np.abs(windows - np.asarray(trained)[:, None, None]).max((3, 4, 5))
    assert (distance.min((1, 2)) < 1e-5).all()
    assert len({np.unravel_index(row.argmin(), row.shape) for row in distance}) > 4
