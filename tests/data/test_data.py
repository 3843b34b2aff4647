import io

import numpy as np
import pytest
from helpers import load
from PIL import Image
from sklearn.datasets import load_digits

from percept_jax.data import images, preprocess
from percept_jax.data.readers.arrays import stratified_split
from percept_jax.errors import StorageError, UsageError


def encoded(image, kind="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_digits_are_scikit_learn_s_all_of_them_once(digits):
    theirs = load_digits()
    split = stratified_split(theirs.target)
    order = np.concatenate([split[name] for name in ("train", "validation", "test")])
    assert sorted(order) == list(range(1797))
    pixels = {image.tobytes() + bytes([label]) for image, label in zip(digits.inputs, digits.examples["label"], strict=True)}
    scans = np.round(theirs.images * 255 / 16).astype(np.uint8)
    assert pixels == {scan.tobytes() + bytes([label]) for scan, label in zip(scans, theirs.target, strict=True)}
    assert {name: len(index) for name, index in digits.spec.roles.items()} == {"train": 1077, "validation": 360, "test": 360}


def test_the_split_is_stratified_and_fixed():
    target = load_digits().target
    split = stratified_split(target)
    for name, wanted in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        shares = np.bincount(target[split[name]]) / np.bincount(target)
        np.testing.assert_allclose(shares, wanted, atol=0.01)
    assert int(np.sum(split["test"] * np.arange(1, 361))) == 61227901  # another split would make other results


def test_a_damaged_cache_is_made_again(tmp_path):
    first = load("digits", tmp_path, 8)
    cache = next((tmp_path / "cache").glob("digits-*-8.safetensors"))
    content = bytearray(cache.read_bytes())
    content[-100] ^= 255
    cache.write_bytes(content)
    again = load("digits", tmp_path, 8)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert cache.read_bytes() != content


def test_a_cache_of_another_folder_is_not_used(tmp_path):
    load("digits", tmp_path, 8)
    cache = next((tmp_path / "cache").glob("digits-*-8.safetensors"))
    before = cache.stat().st_mtime_ns
    record = next((tmp_path / "digits" / "1.0.0").glob("digits-test*"))
    record.touch()
    load("digits", tmp_path, 8)
    assert cache.stat().st_mtime_ns > before


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot prepare digits"):
        load("digits", tmp_path / "file" / "data", 8)


def test_normalization(digits):
    pixels = digits.inputs[digits.spec.roles["train"]].astype(np.float64)
    seen = {name: preprocess.fit(name, digits) for name in ("standard", "unit", "none")}

    def model_sees(name):
        return (pixels - seen[name].mean) * seen[name].inv_std

    assert abs(model_sees("standard").mean()) < 1e-12
    assert abs(model_sees("standard").std() - 1) < 1e-12
    np.testing.assert_allclose(model_sees("unit"), pixels / 255)
    np.testing.assert_array_equal(model_sees("none"), pixels)


def test_images_of_every_mode_are_decoded_to_what_a_viewer_shows():
    ramp = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    color = np.stack([ramp, ramp.T, 255 - ramp], -1)
    gray, rgb = Image.fromarray(ramp), Image.fromarray(color)
    clear = Image.fromarray(np.dstack([color, np.full((8, 8), 255, np.uint8)]))
    half = Image.fromarray(np.dstack([color, np.zeros((8, 8), np.uint8)]))
    deep = Image.fromarray(ramp.astype(np.uint16) * 257)
    as_rgb = np.repeat(ramp[..., None], 3, -1)
    for image, channels, wanted in (
        (gray, 1, ramp[..., None]), (gray, 3, as_rgb), (rgb, 3, color), (clear, 3, color), (deep, 1, ramp[..., None]),
        (deep, 3, as_rgb), (half, 3, np.full((8, 8, 3), 255)),
        (rgb.quantize(256), 3, np.asarray(rgb.quantize(256).convert("RGB"))),
        (rgb, 1, np.asarray(rgb.convert("L"))[..., None]), (gray.convert("LA"), 1, ramp[..., None]),
    ):  # fmt: skip
        np.testing.assert_array_equal(images.decode(encoded(image), channels), wanted, err_msg=image.mode)
    jpeg = images.decode(encoded(rgb.convert("CMYK"), "jpeg", quality=95), 3)
    assert np.abs(jpeg.astype(int) - color).mean() < 12  # lossy


def test_a_photograph_is_turned_as_its_camera_says():
    wide = Image.fromarray(np.arange(32, dtype=np.uint8).reshape(4, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert images.decode(encoded(wide, "jpeg", exif=exif), 1).shape == (8, 4, 1)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", "gif", "cut"])
def test_what_is_no_image_is_refused_by_name(tmp_path, content):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8))
    content = {"gif": lambda: encoded(picture, "gif"), "cut": lambda: encoded(picture)[:2000]}.get(content, lambda: content)()
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"picture\.png: not a PNG or JPEG image"):
        images.read(path, 1)
    with pytest.raises(UsageError, match="No such file"):
        images.read(tmp_path / "none.png", 1)


def test_resizing_is_the_identity_at_its_size_and_keeps_means():
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    assert images.resize(image, 16, 16) is image
    assert images.resize(image, 8, 4).shape == (8, 4, 3)
    np.testing.assert_allclose(images.resize(image, 8, 8).mean((0, 1)), image.mean((0, 1)), atol=2)
