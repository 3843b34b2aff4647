"""Each augmentation against a reference in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.augment import DTYPES, TOLERANCE, arithmetic, cut, luma, some_image, translated, warped

from percept_jax.data import augment as module

pytestmark = pytest.mark.strict_dtypes


SHAPES = pytest.mark.parametrize("shape", [(7, 7, 3), (4, 7, 3), (6, 5, 1)])


def check(change, wanted, image, *parameters, dtype):
    """`change`, compiled, of a traced image and traced parameters, is `wanted` to the precision of dtype."""
    with arithmetic(dtype):
        numbers = [np.asarray(p, np.int32 if isinstance(p, int) else dtype) for p in parameters]
        got = jax.jit(change)(image.astype(dtype), *numbers)
        assert (got.dtype, got.shape) == (dtype, image.shape)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE[dtype])


@DTYPES
@SHAPES
def test_translate_moves_down_and_right_and_brings_in_zeros(shape, dtype):
    image = some_image(shape)
    for rows, columns in ((0, 0), (1, 0), (0, 2), (-3, 2), (2, -3), (-1, -1), (100, 0), (0, -100)):
        check(module.translate, translated(image, rows, columns), image, rows, columns, dtype=dtype)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))  # the recipe: pad, then crop
    check(module.translate, padded[1 : 1 + shape[0], 4 : 4 + shape[1]], image, 1, -2, dtype=dtype)


@DTYPES
@SHAPES
def test_flip_swaps_left_and_right(shape, dtype):
    image = some_image(shape)
    check(module.flip, np.stack([row[::-1] for row in image]), image, dtype=dtype)
    for mirrored in (False, True):
        with arithmetic(dtype):
            got = jax.jit(module.flip)(image.astype(dtype), mirrored)
        np.testing.assert_array_equal(got, image[:, ::-1].astype(dtype) if mirrored else image.astype(dtype))


@DTYPES
@SHAPES
def test_shift_colors_adds_the_components_times_alphas_to_every_pixel(shape, dtype):
    image, rng = some_image(shape), np.random.default_rng(1)
    components, alphas = rng.normal(size=(shape[-1],) * 2), rng.normal(size=shape[-1])
    wanted = np.empty_like(image)
    for i, j in np.ndindex(image.shape[:2]):
        wanted[i, j] = np.clip(image[i, j] + components @ alphas, 0, 1)
    assert 0 < np.mean((wanted > 0) & (wanted < 1)) < 1  # clipping shows, and something else
    check(module.shift_colors, wanted, image, components, alphas, dtype=dtype)


@DTYPES
@SHAPES
def test_brightness_contrast_and_saturation_are_those_of_torchvision(shape, dtype):
    image = some_image(shape)
    for factor in (0.0, 0.4, 1.0, 1.7):
        others = {module.brightness: 0, module.contrast: luma(image).mean(), module.saturation: luma(image)}
        for change, other in others.items():
            check(change, np.clip(factor * image + (1 - factor) * other, 0, 1), image, factor, dtype=dtype)


@DTYPES
@SHAPES
def test_warp_is_shear_then_zoom_then_rotation_and_bilinear(shape, dtype):
    image = some_image(shape)
    for degrees, zoom, shear in (
        (20, 1, 0),
        (0, 1.3, 0),
        (0, 0.6, 0),
        (0, 1, 15),
        (-35.0, 1.1, -25),
        (170, 0.8, 40),
        (0, 1e-6, 89),
    ):
        wanted = warped(image, degrees, zoom, shear)
        check(module.warp, wanted, image, float(degrees), float(zoom), float(shear), dtype=dtype)


@DTYPES
@pytest.mark.parametrize("size", [6, 7])
def test_warp_turns_counter_clockwise_as_numpy_does(size, dtype):
    image = some_image((size, size, 3))
    for quarters in (-1, 1, 2):
        check(module.warp, np.rot90(image, quarters), image, 90.0 * quarters, 1.0, 0.0, dtype=dtype)


def test_warp_leans_to_the_right_and_enlarges():
    upright = np.zeros((7, 7, 1))
    upright[:, 3] = 1
    check(module.warp, np.eye(7)[:, ::-1, None], upright, 0.0, 1.0, 45.0, dtype="float64")
    point = np.zeros((5, 5, 1))
    point[2, 2] = 1
    tent = np.array([0, 0.5, 1, 0.5, 0])
    check(module.warp, np.outer(tent, tent)[..., None], point, 0.0, 2.0, 0.0, dtype="float64")


@DTYPES
@SHAPES
def test_cutout_fills_a_square_that_borders_cut_off(shape, dtype):
    image, fill = some_image(shape), np.linspace(0.1, 0.9, shape[-1])
    for row, column, size in ((2, 2, 1), (2, 1, 3), (0, 0, 4), (shape[0] - 1, shape[1] - 1, 4), (1, 2, 50)):

        def change(image, row, column, fill, size=size):
            return module.cutout(image, row, column, size, fill)

        check(change, cut(image, row, column, size, fill), image, row, column, fill, dtype=dtype)
    assert (cut(np.zeros((9, 9, 1)), 4, 4, 3, 1).sum(), cut(np.zeros((9, 9, 1)), 4, 4, 4, 1).sum()) == (9, 16)


@DTYPES
@SHAPES
def test_a_change_by_nothing_is_the_image_bit_by_bit(shape, dtype):
    def unchanged(image, zero, one, black, none):  # traced, so that nothing is known when it is compiled
        return {
            "translate": module.translate(image, none, none),
            "flip": module.flip(image, none > 0),
            "shift_colors": module.shift_colors(image, jnp.eye(shape[-1]), black),
            "brightness": module.brightness(image, one),
            "contrast": module.contrast(image, one),
            "saturation": module.saturation(image, one),
            "warp": module.warp(image, zero, one, zero),
            "cutout": module.cutout(image, none, none, 0, black),
        }

    image = some_image(shape).astype(dtype)
    with arithmetic(dtype):
        numbers = np.zeros((), dtype), np.ones((), dtype), np.zeros(shape[-1], dtype), np.int32(0)
        for name, same in jax.jit(unchanged)(image, *numbers).items():
            np.testing.assert_array_equal(same, image, err_msg=name)
