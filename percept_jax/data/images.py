"""Decodes, resizes and encodes images on the host. Decoded images are uint8 arrays with the number of channels asked for."""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from percept_jax.errors import UsageError, first_line

MAX_PIXELS = 300_000_000
# An image of more pixels is shrunk while it is decoded: models see 4096 x 4096 pixels at most.
LARGE = 64_000_000
# At most this many bytes of text in a PNG.
_TEXT = 1 << 28
# The metadata that may hold an orientation.
_ORIENTATION_KEYS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


class _TooLargeError(ValueError):
    pass


def decode(encoded: bytes, channels: int, upright: bool = True) -> np.ndarray:
    """Returns a PNG or JPEG as uint8 `[height, width, channels]`, as a viewer shows it; 1 channel is luma, 3 are RGB.

    Transparent parts become white. Unless `upright`, the orientation in its metadata is ignored. An image of more than
    `LARGE` pixels is shrunk by an integer factor. Raises ValueError if the bytes are not an image, or if it has more than
    `MAX_PIXELS`.
    """
    if channels not in (1, 3):
        raise ValueError(f"an image file has 1 or 3 channels, not {channels}")
    mode = "L" if channels == 1 else "RGB"
    with opened(io.BytesIO(encoded)) as image:
        factor = math.ceil(math.sqrt(image.width * image.height / LARGE))
        # Decoding a JPEG at 1/2, 1/4 or 1/8 of its size costs nothing.
        if factor > 1 and image.format != "PNG":
            factor = min(size for size in (2, 4, 8) if size >= factor)
            image.draft(None, (image.width // factor, image.height // factor))
            factor = 1
        image.load()
        if factor > 1:
            image = _reduced(image, mode, factor)
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        pixels = np.asarray(_flat(image, mode))
        return pixels.reshape(*pixels.shape[:2], channels)


def header(path: Path) -> tuple[int, int, int]:
    """Returns height, width and channels (1 if gray) of a PNG or JPEG file. Raises ValueError if it is neither, OSError."""
    with opened(path) as image:
        # Without the check, getexif would decode the whole PNG to find nothing.
        exif = image.getexif() if "exif" in image.info else {}
        # Orientations from 5 on swap height and width.
        swapped = exif.get(0x0112, 1) >= 5
        width, height = image.size[::-1] if swapped else image.size
        return height, width, 1 if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I") else 3


@contextlib.contextmanager
def opened(source: Any) -> Iterator[Image.Image]:
    """Opens a PNG or JPEG, from a path or a file object, within a with block.

    Pillow's warnings are silenced: an image that cannot be decoded raises an error anyway. Pillow's global limits on pixels and
    text are replaced within the block and restored after it. Raises ValueError for a bad image, OSError for a bad file.
    """
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = None, _TEXT, _TEXT
            with Image.open(source, formats=("PNG", "JPEG")) as image:
                if image.width * image.height <= MAX_PIXELS:
                    yield image
                    return
                size = f"{image.width} x {image.height}"
        raise _TooLargeError(f"an image of {size} pixels; at most {MAX_PIXELS // 10**6} million can be read")
    except UnidentifiedImageError as error:
        raise ValueError("not a PNG or JPEG image") from error
    except (MemoryError, _TooLargeError):
        raise
    # Pillow raises many kinds of errors for a damaged file, among them an OSError without an errno.
    except Exception as error:
        if getattr(error, "errno", None):
            raise
        raise ValueError(f"not a PNG or JPEG image that can be read ({first_line(error)})") from error
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = before


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """Returns the image in mode L or RGB, 8 bits a channel, on a white background."""
    # Pillow would clip 16-bit pixels instead of scaling them.
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.uint32)
        clear = deep == image.info.get("transparency", -1)
        image = Image.fromarray(np.where(clear, 255, deep >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _reduced(image: Image.Image, mode: str, factor: int) -> Image.Image:
    """Returns a flat image that is smaller by an integer factor, made band by band to avoid a second image of full size."""
    rows = max(1, (1 << 22) // image.width // factor) * factor
    small = Image.new(mode, (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        small.paste(_flat(band, mode).reduce(factor), (0, top // factor))
    small.info = {key: value for key, value in image.info.items() if key in _ORIENTATION_KEYS}
    return small


def read(path: Path, channels: int) -> np.ndarray:
    """Returns the image in a file, decoded by `decode`. Raises UsageError, naming the file."""
    try:
        return decode(path.read_bytes(), channels)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a uint8 image `[h, w, channels]` resized to `[height, width, channels]`: bilinear, antialiased when it shrinks."""
    if image.shape[:2] == (height, width):
        return image
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def encode_png(image: np.ndarray) -> bytes:
    """Returns a uint8 image `[height, width, 1 or 3]` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()
