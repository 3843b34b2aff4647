"""Large and odd images: decoded within bounded memory, without a warning, or refused in one line."""

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from helpers import some
from PIL import Image, ImageOps, PngImagePlugin

from percept_jax.data import images
from percept_jax.errors import UsageError


def encoded(image, kind="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, kind, rows=None):
    """A PNG file of one color, made row by row; without its pixels unless there are `rows`. Kind 2 is RGB, 6 has alpha too."""
    packed = zlib.compressobj(1)
    row = b"\0" + bytes([100] * (width if rows else 1) * {0: 1, 2: 3, 6: 4}[kind])
    data = b"".join(packed.compress(row) for _ in range(rows or 1)) + packed.flush()

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_by_the_header_alone(tmp_path):
    for side in (20_000, 60_000):
        path = tmp_path / "huge.png"
        path.write_bytes(png(side, side, 2))
        wanted = f"an image of {side} x {side} pixels; at most 300 million can be read"
        with pytest.raises(ValueError, match=f"^{wanted}$"):
            images.header(path)
        with pytest.raises(ValueError, match=f"^{wanted}$"):
            images.decode(path.read_bytes(), 3)
        with pytest.raises(UsageError, match=f"huge.png: {wanted}$"):
            images.read(path, 3)
    path.write_bytes(png(17_300, 17_300, 2))
    assert images.header(path) == (17_300, 17_300, 3)


def test_pillow_never_warns_and_keeps_its_own_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    noise = np.random.default_rng(0).integers(0, 256, (60, 60)).astype(np.uint8)
    palette = Image.fromarray(noise).quantize(16)
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\3\0\1\0\0\0\6\0\0\0"  # a count of entries that there are not
    path = tmp_path / "x.png"
    for content in (
        encoded(Image.fromarray(noise)), encoded(palette, transparency=bytes(range(0, 256, 16))),
        encoded(Image.fromarray(noise), "jpeg", exif=exif),
    ):  # fmt: skip
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert images.decode(content, 3).shape == (60, 60, 3)
            assert images.header(path)[:2] == (60, 60)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.slow
def test_long_texts_in_a_png_do_not_matter():
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for zipped in (False, True):
        texts = PngImagePlugin.PngInfo()
        for n in range(3):
            texts.add_text(f"comment {n}", "x" * 25_000_000, zip=zipped)
        np.testing.assert_array_equal(images.decode(encoded(picture, pnginfo=texts), 1)[..., 0], np.asarray(picture))


@pytest.mark.parametrize("turn", some([1, 3, 6], 6))
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "I;16", "1", "jpeg", "gray jpeg"])
def test_large_images_are_made_smaller_while_they_are_decoded(mode, turn, monkeypatch):
    """They look the same, and are turned the same way."""
    i, j = np.indices((210, 330))
    smooth = np.stack([i * 255 // 210, j * 255 // 330, (i + j) * 255 // 540], -1).astype(np.uint8)
    rgb, gray = Image.fromarray(smooth), Image.fromarray(smooth).convert("L")
    picture = {
        "RGB": rgb, "L": gray, "P": rgb.quantize(200), "RGBA": Image.fromarray(np.dstack([smooth, smooth[..., 2]])), "jpeg": rgb,
        "LA": gray.convert("LA"), "I;16": Image.fromarray(np.asarray(gray).astype(np.uint16) * 257), "1": gray.convert("1"),
        "gray jpeg": gray,
    }[mode]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(picture, "jpeg" if "jpeg" in mode else "png", exif=exif)
    whole = images.decode(content, 3)
    assert whole.shape == ((330, 210, 3) if turn == 6 else (210, 330, 3))
    for most in (40_000, 8_000, 1_500):
        monkeypatch.setattr(images, "LARGE", most)
        small = images.decode(content, 3)
        assert most / 5 < small[..., 0].size <= most
        wanted = images.resize(whole, *small.shape[:2])
        assert np.abs(small.astype(int) - wanted).mean() < (40 if mode == "1" else 4)


def test_images_of_ordinary_size_keep_their_bits():
    """As Pillow decodes them by itself."""
    rng = np.random.default_rng(0)
    for kind in ("png", "jpeg"):
        content = encoded(Image.fromarray(rng.integers(0, 256, (700, 900, 3)).astype(np.uint8)), kind)
        for channels, mode in ((1, "L"), (3, "RGB")):
            wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert(mode))
            np.testing.assert_array_equal(images.decode(content, channels), wanted.reshape(700, 900, channels))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rgb", "rgba", "jpeg"])
def test_300_megapixels_take_bounded_memory(kind, tmp_path):
    path = tmp_path / "large"
    if kind == "jpeg":
        Image.linear_gradient("L").resize((17_300, 17_300)).convert("RGB").save(path, "jpeg", progressive=True)
    else:
        path.write_bytes(png(17_300, 17_300, {"rgb": 2, "rgba": 6}[kind], rows=17_300))
    code = (
        "import re, sys; from percept_jax.data import images; from pathlib import Path\n"
        "image = images.resize(images.read(Path(sys.argv[1]), 3), 32, 32)\n"
        "print(image.mean(), int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    mean, gigabytes = map(float, done.stdout.split())
    assert done.stderr == ""
    assert 90 < mean < 200
    assert gigabytes < 2  # the pixels alone are 1.2 GB, 4 bytes each as Pillow holds them
