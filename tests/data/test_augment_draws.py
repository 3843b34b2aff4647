"""What augmentation draws, and all augmentations together."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.augment import DTYPES, TOLERANCE, arithmetic, cut, luma, some_image, translated, warped
from scipy import stats

from percept_jax.data import augment as module
from percept_jax.data import mixup, preprocess
from percept_jax.data.augment import STREAMS, AugmentationConfig, augment

pytestmark = pytest.mark.strict_dtypes


# All but crops, which change the size.
ALL = AugmentationConfig(
    random_crop=3, random_flip=True, pca_color=0.1, brightness=0.4, contrast=0.5, saturation=0.6, rotation=30.0, scale=0.2,
    shear=10.0, cutout=3,
)  # fmt: skip
OFF = dict.fromkeys(STREAMS, 0)
COMPONENTS = np.array([[0.2, 0.05, 0.01], [0.19, -0.01, -0.02], [0.18, -0.04, 0.01]])


def some_keys(count, seed=0):
    return jax.random.split(jax.random.key(seed, impl="threefry2x32"), count)


def draws(keys, strengths, dtype="float32", shape=(8, 10, 3)):
    """What each change is called with, of every key: name -> `[keys, parameters]`."""

    def one(key):
        seen = {}

        def record(name, places):
            def change(image, *parameters):
                seen[name] = jnp.stack([jnp.asarray(parameters[place]) for place in places])
                return image

            return change

        image = jnp.ones(shape, dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "flip", record("flip", [0]))
            for name in ("brightness", "contrast", "saturation"):
                patch.setattr(module, name, record(name, [0]))
            patch.setattr(module, "warp", record("warp", [0, 1, 2]))
            patch.setattr(module, "resized_crop", record("resized_crop", [0, 1, 2, 3]))
            patch.setattr(module, "translate", record("translate", [0, 1]))
            patch.setattr(module, "cutout", record("cutout", [0, 1]))
            patch.setattr(module, "shift_colors", lambda image, _, alphas: seen.__setitem__("pca", alphas) or image)
            augment(key, {"image": image}, jnp.zeros((3, 3), dtype), jnp.zeros(3, dtype), strengths)["image"]
        return seen

    with arithmetic(dtype):
        return {name: np.asarray(drawn) for name, drawn in jax.vmap(one)(keys).items()}


@pytest.fixture(scope="module")
def drawn():
    return draws(some_keys(4000, seed=1), ALL)


def is_uniform(numbers, low, high):
    numbers = np.asarray(numbers, np.float64)
    assert low <= numbers.min() + 1e-6
    assert numbers.max() - 1e-6 <= high
    return stats.kstest((numbers - low) / (high - low), "uniform").pvalue > 0.01


def is_even(numbers, values):
    counts = np.array([np.sum(numbers == value) for value in values])
    assert counts.sum() == len(numbers)  # nothing else is drawn
    return stats.chisquare(counts).pvalue > 0.01


def test_real_parameters_are_uniform_over_their_ranges(drawn):
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.5, 1.5), "saturation": (0.4, 1.6)}
    for name, (low, high) in ranges.items():
        assert is_uniform(drawn[name][:, 0], low, high), name
    for place, (low, high) in enumerate([(-30, 30), (0.8, 1.2), (-10, 10)]):
        assert is_uniform(drawn["warp"][:, place], low, high), place


def test_whole_parameters_are_uniform_over_their_ranges_and_a_flip_is_a_toss(drawn):
    rows, columns = drawn["translate"].T
    assert is_even(7 * rows + columns, [7 * i + j for i in range(-3, 4) for j in range(-3, 4)])
    rows, columns = drawn["cutout"].T  # of images 8 by 10
    assert is_even(10 * rows + columns, range(80))
    assert is_even(drawn["flip"][:, 0], [False, True])
    assert drawn["translate"].dtype == drawn["cutout"].dtype == np.int32


def test_alphas_are_normal_with_the_standard_deviation_of_the_flag(drawn):
    assert stats.kstest(drawn["pca"].ravel() / 0.1, "norm").pvalue > 0.01
    assert drawn["pca"].shape == (4000, 3)


def test_no_draw_says_anything_about_another(drawn):
    columns = np.concatenate([drawn[name].astype(np.float64) for name in sorted(drawn)], axis=1)
    related = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert columns.shape == (4000, 3 + 3 + 2 + 2 + 3 + 1)
    assert np.abs(related).max() < 0.06  # four standard deviations


def test_a_factor_is_never_below_zero():
    low = draws(some_keys(4000, seed=1), AugmentationConfig(brightness=2.0))["brightness"]
    assert 0 <= low.min() < 0.05
    assert low.max() > 2.9


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "crop_area"])
def test_switching_one_on_leaves_the_draws_of_the_others_alone(name, drawn):
    keys = some_keys(4000, seed=1)
    alone, without = (
        draws(keys, s) for s in (AugmentationConfig(**{name: getattr(ALL, name)}), dataclasses.replace(ALL, **{name: 0}))
    )
    changes = {
        "random_crop": "translate",
        "random_flip": "flip",
        "pca_color": "pca",
    } | dict.fromkeys(("rotation", "scale", "shear"), "warp")
    change, place = changes.get(name, name), {"scale": 1, "shear": 2}.get(name, 0)
    own = slice(place, place + 1) if change == "warp" else slice(None)
    np.testing.assert_array_equal(alone[change][:, own], drawn[change][:, own])
    assert set(alone) == {change}  # what is off is not called
    for other, numbers in without.items():
        same = numbers == drawn[other]
        if other == change:
            assert not same[:, own].all()
            same[:, own] = True
        assert same.all(), other


def test_float64_draws_the_same_numbers(drawn):
    for name, numbers in draws(some_keys(4000, seed=1)[:50], ALL, "float64").items():
        np.testing.assert_array_equal(numbers, drawn[name][:50], err_msg=name)
        assert numbers.dtype in (np.int32, bool, np.float64 if name != "pca" else np.float32)


def test_two_keys_draw_differently(drawn):
    for name in ("warp", "brightness", "contrast", "saturation", "pca"):
        assert len(np.unique(drawn[name][:, 0])) > 3990, name


def test_the_draws_are_the_ones_of_the_first_release(drawn):
    # A change here would make every published run another run.
    wanted = {
        "brightness": [0.60068923],
        "contrast": [0.60001373],
        "cutout": [4, 8],
        "flip": [False],
        "pca": [-0.084331684, -0.0084735025, -0.0015556477],
        "saturation": [1.4816396],
        "translate": [1, -3],
        "warp": [-16.052513, 0.86339366, 3.427763],
    }
    assert set(drawn) == set(wanted)
    for name, numbers in wanted.items():
        np.testing.assert_allclose(drawn[name][0], numbers, rtol=1e-6, err_msg=name)


def changed(key, image, strengths=ALL, fill=(0.4, 0.5, 0.6)):
    components, fill = jnp.asarray(COMPONENTS, image.dtype), jnp.asarray(fill, image.dtype)
    return augment(key, {"image": image}, components, fill, strengths)["image"]


def test_what_is_off_costs_nothing():
    image = jnp.asarray(some_image((6, 6, 3)), jnp.float32)
    key = some_keys(1)[0]
    assert changed(key, image, AugmentationConfig()) is image
    assert not AugmentationConfig().changes
    assert AugmentationConfig() == AugmentationConfig(**OFF)
    jaxpr = str(jax.make_jaxpr(lambda key, image: changed(key, image, AugmentationConfig(random_flip=True)))(key, image))
    assert jaxpr.count("random_fold_in") == 1


def changed_one_by_one(image, numbers, fill):
    image = translated(warped(image, *numbers["warp"]), *numbers["translate"])
    image = np.clip(numbers["brightness"] * (image[:, ::-1] if numbers["flip"] else image), 0, 1)
    for name, other in (("contrast", lambda x: luma(x).mean()), ("saturation", luma)):
        image = np.clip(numbers[name] * image + (1 - numbers[name]) * other(image), 0, 1)
    if image.shape[-1] == 3:
        image = np.clip(image + COMPONENTS @ numbers["pca"].astype(np.float64), 0, 1)
    return cut(image, *numbers["cutout"], ALL.cutout, fill)


@DTYPES
def test_changes_follow_one_another_in_the_documented_order(dtype, drawn):
    images, keys = some_image((20, 8, 10, 3)), some_keys(4000, seed=1)[:20]
    with arithmetic(dtype):
        got = jax.jit(jax.vmap(changed))(keys, images.astype(dtype))
    assert got.dtype == dtype
    # 1e-6 at least, since draws are float32, and their last bits depend on what they are compiled with.
    for k, image in enumerate(images):
        wanted = changed_one_by_one(image, {name: numbers[k] for name, numbers in drawn.items()}, (0.4, 0.5, 0.6))
        np.testing.assert_allclose(got[k], wanted, rtol=0, atol=max(1e-6, 2 * TOLERANCE[dtype]))


def test_many_at_once_are_as_one_at_a_time_with_one_channel_too(drawn):
    images, keys = some_image((3, 8, 10, 1)).astype(np.float32), some_keys(4000, seed=1)[:3]
    strengths = dataclasses.replace(ALL, pca_color=0)

    def one(key, image):
        return augment(key, {"image": image}, jnp.ones((1, 1)), jnp.full(1, 0.5), strengths)["image"]

    with arithmetic("float32"):
        many, alone = jax.jit(jax.vmap(one))(keys, images), jax.jit(one)
        for k, image in enumerate(images):
            numbers = {name: numbers[k] for name, numbers in drawn.items()}
            np.testing.assert_allclose(many[k], changed_one_by_one(image.astype(np.float64), numbers, 0.5), atol=1e-5)
            np.testing.assert_allclose(many[k], alone(keys[k], image), rtol=0, atol=1e-6)


def test_pixels_stay_between_zero_and_one_at_the_strongest():
    strengths = AugmentationConfig(
        random_crop=2, random_flip=True, pca_color=5.0, brightness=3.0, contrast=3.0, saturation=3.0, rotation=180.0,
        scale=1 - 2**-24, shear=89.9999, cutout=2,
    )  # fmt: skip
    images = some_image((64, 8, 8, 3)).astype(np.float32)
    got = np.asarray(jax.jit(jax.vmap(lambda key, image: changed(key, image, strengths)))(some_keys(64), images))
    assert 0 <= got.min() < got.max() <= 1


@pytest.mark.slow
def test_mixup_shares_are_the_larger_part_of_a_beta_share():
    sample, found = jax.jit(jax.vmap(mixup.mixup_share, (0, None))), {}
    for dtype in TOLERANCE:
        with arithmetic(dtype):
            alphas = (0.2, 1.0, 8.0, 1e-44, 1e-30, 1e20, 3e38)
            found[dtype] = {alpha: np.asarray(sample(some_keys(3000), np.float32(alpha))) for alpha in alphas}
    for alpha, share in found["float32"].items():
        np.testing.assert_allclose(found["float64"][alpha], share, rtol=1e-5)
        assert share.dtype == np.float32
        assert 0.5 <= share.min() <= share.max() <= 1
        if 0.1 < alpha < 10:
            places = np.linspace(0.5, 0.99, 50)
            parts = (share <= places[:, None]).mean(1)
            np.testing.assert_allclose(parts, 2 * stats.beta.cdf(places, alpha, alpha) - 1, atol=0.03)
        else:
            np.testing.assert_allclose(share, 1 if alpha < 1 else 0.5)
    assert abs(found["float32"][1.0].mean() - 0.75) < 0.01


def test_mixup_partners_are_never_the_example_itself_where_there_is_another():
    with jax.numpy_dtype_promotion("strict"):
        shifts = {n: np.asarray(jax.vmap(lambda key, n=n: mixup.mixup_shift(key, n))(some_keys(2000))) for n in (1, 2, 6)}
    assert is_even(shifts[6], range(1, 6))
    assert set(shifts[2]) == {1}
    assert set(shifts[1]) == {0}
    assert all(shift.dtype == np.int32 for shift in shifts.values())


def test_principal_components_are_those_of_the_pixels():
    pixels = (
        np.random.default_rng(0).normal(size=(500, 3)) @ np.diag([0.01, 0.2, 0.05]) @ np.array([[2, 1, 0], [1, 1, 1], [0, 1, 3]])
    )
    covariance = np.cov(pixels.T)
    components = preprocess.principal_components(covariance)
    assert components.dtype == np.float64
    np.testing.assert_allclose(components @ components.T, covariance, rtol=1e-9)  # alphas of variance 1 give the pixels' own
    sizes = np.linalg.norm(components, axis=0)
    assert sizes[0] > sizes[1] > sizes[2] > 0
    for size, component in zip(sizes, components.T, strict=True):
        np.testing.assert_allclose(covariance @ component, size**2 * component, rtol=1e-8)
        np.testing.assert_allclose(np.std(pixels @ (component / size), ddof=1), size, rtol=1e-9)
        assert component[np.argmax(np.abs(component))] > 0


def test_principal_components_of_gray_pixels_and_of_one_channel():
    gray = preprocess.principal_components(np.full((3, 3), 0.09))
    np.testing.assert_allclose(gray, np.stack([np.full(3, 0.3), np.zeros(3), np.zeros(3)], 1), atol=1e-8)
    np.testing.assert_allclose(preprocess.principal_components(np.array([[0.04]])), [[0.2]])


def test_rounding_does_not_choose_the_sign_of_a_principal_component():
    apart = np.array([1, -1, 0]) / np.sqrt(2)
    covariance = 0.3 * np.outer(apart, apart) + 0.1 * np.outer([0, 0, 1], [0, 0, 1])
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=(3, 3)) * 1e-12
        components = preprocess.principal_components(covariance + noise + noise.T)
        np.testing.assert_allclose(components[:, 0], np.sqrt(0.3) * apart, atol=1e-9)


def test_a_box_keeps_its_share_and_its_shape_inside_the_image():
    keys = jax.random.split(jax.random.key(0), 2000)
    top, left, height, width = (np.asarray(x) for x in jax.vmap(functools.partial(module.random_box, least_area=0.08))(keys))
    area, ratio = height * width, width / height
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 1 + 1e-6).all()
    assert (left + width <= 1 + 1e-6).all()
    assert area.min() >= 0.08 - 1e-6
    assert 0.75 - 1e-4 <= ratio.min() < 0.8
    assert 1.25 < ratio.max() <= 4 / 3 + 1e-4
    assert abs(area[area < 0.7].mean() - 0.39) < 0.02  # uniform as long as every shape fits


def test_a_resized_crop_is_the_box_resized():
    image = jnp.asarray(np.random.default_rng(0).random((8, 12, 3)))
    whole = module.resized_crop(image[:, :8], 0.0, 0.0, 1.0, 1.0, (8, 8))
    np.testing.assert_allclose(whole, image[:, :8], atol=1e-6)
    part = module.resized_crop(image, 0.5, 0.25, 0.5, 1 / 3, (4, 4))
    np.testing.assert_allclose(part, image[4:8, 3:7], atol=1e-6)
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 16)[:, None, None], (16, 16, 1))
    half = np.asarray(module.resized_crop(ramp, 0.25, 0.0, 0.5, 1.0, (4, 4)))[:, :, 0]
    np.testing.assert_allclose(half[1:3], np.asarray(ramp)[4:12, :4, 0].reshape(4, 2, 4).mean(1)[1:3], atol=1e-6)
    assert (np.diff(half, axis=0) > 0).all()


def test_a_crop_of_a_larger_image_is_one_of_its_windows():
    image = jnp.arange(36.0).reshape(6, 6, 1) / 36
    corners = set()
    for key in jax.random.split(jax.random.key(0), 200):
        seen = module.augment(key, {"image": image}, jnp.zeros((1, 1)), jnp.zeros(1), module.AugmentationConfig(), size=(4, 4))[
            "image"
        ]
        corner = divmod(round(float(seen[0, 0, 0]) * 36), 6)
        np.testing.assert_allclose(seen, image[corner[0] : corner[0] + 4, corner[1] : corner[1] + 4])
        corners.add(corner)
    assert corners == {(i, j) for i in range(3) for j in range(3)}


@pytest.mark.slow
def test_a_crop_is_drawn_alike_in_float64_and_leaves_the_other_draws_alone(drawn):
    keys = some_keys(4000, seed=1)[:50]
    with_crop = draws(keys, dataclasses.replace(ALL, crop_area=0.3))
    np.testing.assert_array_equal(
        draws(keys, dataclasses.replace(ALL, crop_area=0.3), "float64")["resized_crop"], with_crop.pop("resized_crop")
    )
    for name, numbers in with_crop.items():
        np.testing.assert_array_equal(numbers, drawn[name][:50])
