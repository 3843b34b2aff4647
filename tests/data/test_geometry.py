"""Boxes and masks move with their image: what is drawn in all three is in the same place afterwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import some
from helpers.augment import arithmetic

from percept_jax.data.augment import AugmentationConfig, augment
from percept_jax.data.geometry import marks_of
from percept_jax.data.spec import VOID

pytestmark = pytest.mark.strict_dtypes

SHAPE = (40, 56)
MOVES = {
    "nothing": ({}, None),
    "flip": ({"random_flip": True}, None),
    "translation": ({"random_crop": 9}, None),
    "rotation": ({"rotation": 40.0}, None),
    "scale": ({"scale": 0.5}, None),
    "shear": ({"shear": 25.0}, None),
    "window": ({}, (30, 31)),
    "resized crop": ({"crop_area": 0.3}, (48, 40)),
    "all": ({"random_flip": True, "random_crop": 4, "rotation": 20.0, "scale": 0.2, "shear": 8.0, "crop_area": 0.6}, (33, 44)),
}
# Their hulls are larger than what is visible of them where the image cuts them off.
TURNS = ("rotation", "shear", "all")


def rectangles(count, seed=0):
    """Images with one white rectangle on black; its box, behind it an absent one; and its mask."""
    draws = np.random.default_rng(seed)
    images, boxes = np.zeros((count, *SHAPE, 1), np.float32), np.zeros((count, 2, 4), np.float32)
    for image, box in zip(images, boxes, strict=True):
        high, wide = draws.integers(8, 16), draws.integers(8, 20)
        top, left = draws.integers(0, SHAPE[0] - high), draws.integers(0, SHAPE[1] - wide)
        image[top : top + high, left : left + wide] = 1
        box[0] = np.array([top, left, top + high, left + wide]) / np.tile(SHAPE, 2)
    return {"image": images, "boxes": boxes, "mask": images[..., 0].astype(np.uint8)}


def moved(examples, strengths, size, dtype="float32"):
    keys = jax.random.split(jax.random.key(1, impl="threefry2x32"), len(examples["image"]))
    examples = {**examples, "image": examples["image"].astype(dtype)}
    nothing = jnp.zeros((1, 1), jnp.float32), jnp.zeros(1, jnp.float32)

    def one(key, example):
        return augment(key, example, *nothing, AugmentationConfig(**strengths), size)

    with arithmetic(dtype):
        return jax.device_get(jax.jit(jax.vmap(one))(keys, examples))


def extent(image, least):
    """The box around what is at least that white, in pixels."""
    rows, columns = np.nonzero(image > least)
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])


@pytest.mark.parametrize("move", some(MOVES, "translation", "all"))
def test_a_box_is_around_its_rectangle_over_many_draws(move):
    strengths, size = MOVES[move]
    found = moved(rectangles(1000), strengths, size)
    height, width = found["image"].shape[1:3]
    sides, compared = np.array([height, width, height, width]), 0
    for image, boxes in zip(found["image"][..., 0], found["boxes"], strict=True):
        np.testing.assert_array_equal(boxes[1], 0)
        box = boxes[0] * sides
        if not box.any():
            continue
        whole = (box[:2] > 0).all() and (box[2:] < sides[2:]).all()
        if whole or move not in TURNS:
            # Of a turned corner, the last pixels are hardly white. "all" interpolates twice.
            seen = extent(image, 0.03 if move in TURNS else 0.49)
            assert np.abs(seen - box).max() <= {"all": 2, "rotation": 1.5, "shear": 1.5}.get(move, 1), (box, seen)
            compared += 1
    assert compared > 400


@pytest.mark.parametrize("move", some(MOVES, "nothing", "all"))
def test_a_mask_moves_with_its_image(move):
    strengths, size = MOVES[move]
    found = moved(rectangles(200), strengths, size)
    white, mask = found["image"][..., 0], found["mask"]
    assert set(np.unique(mask)) <= {0, 1, VOID}
    assert (mask[white > 0.75] == 1).mean() > 0.999
    assert (mask[white < 0.01] != 1).mean() > 0.99
    if move in ("nothing", "flip", "window"):
        np.testing.assert_array_equal(mask, white)
    assert (VOID in mask) == (move not in ("nothing", "flip", "window", "resized crop"))


def test_beyond_the_border_a_mask_is_void_and_an_image_black():
    examples = rectangles(50)
    found = moved({**examples, "image": np.ones_like(examples["image"])}, {"rotation": 40.0, "random_crop": 5}, None)
    assert (found["image"][found["mask"] == VOID] < 0.51).all()
    assert (found["image"][found["mask"] != VOID] > 0.49).mean() > 0.99


def test_a_box_that_is_hardly_visible_is_dropped_and_another_one_clipped():
    image = jnp.zeros((10, 10, 1), jnp.float32)
    boxes = jnp.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.2, 0.0, 0.3, 1.0]], jnp.float32)
    found = marks_of({"image": image, "boxes": boxes}).crop(4, 0, (6, 10)).features()["boxes"]
    # Of the first, a fifth remains; the second stays whole; of the third nothing remains.
    np.testing.assert_allclose(found, [[0, 0, 0, 0], [1 / 6, 0.5, 1, 1], [0, 0, 0, 0]], atol=1e-6)
    half = marks_of({"image": image, "boxes": boxes}).crop(2, 0, (8, 10)).features()["boxes"]
    np.testing.assert_allclose(half[0], [0, 0, 3 / 8, 0.5], atol=1e-6)


def test_boxes_in_float64_are_those_in_float32():
    examples = rectangles(50)
    strengths, size = MOVES["all"]
    found = [moved(examples, strengths, size, dtype)["boxes"] for dtype in ("float32", "float64")]
    assert found[1].dtype == np.float64
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
