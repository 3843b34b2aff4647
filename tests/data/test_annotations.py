"""Boxes and masks as they are stored: what is wrong is said of its box or value."""

import io

import numpy as np
import pytest
from PIL import Image

from percept_jax.data.annotations import stored_boxes, stored_mask
from percept_jax.data.images import encode_png
from percept_jax.data.spec import VOID

NAMES = ("cat", "dog")


def test_boxes_are_padded_and_clipped():
    boxes, classes = stored_boxes(np.array([[-0.004, 0.1, 0.5, 1.003]]), np.array([1]), NAMES, 3)
    np.testing.assert_allclose(boxes, [[0, 0.1, 0.5, 1], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(classes, [1, -1, -1])
    assert (boxes.dtype, classes.dtype) == (np.float32, np.int32)
    assert stored_boxes(np.zeros((0, 4)), [], NAMES, 2)[1].tolist() == [-1, -1]


@pytest.mark.parametrize(("box", "label", "said"), [
    ([0.1, 0.1, 0.1, 0.5], 0, r"the box \[0.1, 0.1, 0.1, 0.5\] .* is empty or inverted"),
    ([0.5, 0.1, 0.4, 0.5], 0, "is empty or inverted"),
    ([0.1, 0.5, 0.4, 0.2], 0, "is empty or inverted"),
    ([0.1, 0.1, 0.4, 1.2], 0, "is outside of the image, which goes from 0 to 1"),
    ([-0.1, 0.1, 0.4, 0.5], 0, "is outside of the image"),
    ([0.1, 0.1, float("nan"), 0.5], 0, "is outside of the image"),
    ([0.1, 0.1, 0.4, 0.5], 2, "has class 2, but there are 2 classes"),
    ([0.1, 0.1, 0.4, 0.5], -1, "has class -1, but there are 2 classes"),
])  # fmt: skip
def test_a_wrong_box_is_told_of(box, label, said):
    with pytest.raises(ValueError, match=said):
        stored_boxes(np.array([[0, 0, 1, 1], box]), np.array([0, label]), NAMES, 5)


def png(mask, mode="L"):
    buffer = io.BytesIO()
    image = Image.fromarray(mask.astype(np.uint8))
    if mode == "P":
        image = image.convert("P")
        image = Image.fromarray(mask.astype(np.uint8), "L")
        image.putpalette([255, 0, 0, 0, 255, 0] + [9] * 762)
    image.save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.filterwarnings("ignore:'mode' parameter")
def test_a_mask_keeps_its_numbers_with_a_palette_too(mode):
    mask = np.random.default_rng(0).choice([0, 1, 11], (6, 8))
    found = stored_mask(png(mask, mode), (6, 8), (6, 8), NAMES, 11)
    np.testing.assert_array_equal(found, np.where(mask == 11, VOID, mask))


def test_a_mask_is_resized_to_its_nearest_pixels():
    mask = np.arange(12).reshape(3, 4) % 2
    found = stored_mask(png(mask), (3, 4), (6, 2), NAMES, 255)
    np.testing.assert_array_equal(found, np.repeat(mask[:, [1, 3]], 2, 0))


@pytest.mark.parametrize(("mask", "said"), [
    (png(np.full((6, 8), 2)), "the mask has the value 2; there are 2 classes, and void is 255"),
    (png(np.zeros((6, 7))), "the mask has 6x7 pixels, its image 6x8"),
    (encode_png(np.zeros((6, 8, 3), np.uint8)), "the mask has several channels"),
    (b"no png", "not a PNG or JPEG image"),
])  # fmt: skip
def test_a_wrong_mask_is_told_of(mask, said):
    with pytest.raises(ValueError, match=said):
        stored_mask(mask, (6, 8), (6, 8), NAMES, 255)
