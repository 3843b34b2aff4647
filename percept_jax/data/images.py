"""Images on the host: files and bytes to uint8 arrays, always with the number of channels asked for."""

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
# Beyond so many, an image is made smaller while it is decoded: models see 4096 x 4096 pixels at most.
LARGE = 64_000_000
# Bytes of text in a PNG, over all of it.
_TEXT = 1 << 28
# What may say that an image has to be turned.
_TURNED = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


class _TooLargeError(ValueError):
    pass


def decode(encoded: bytes, channels: int) -> np.ndarray:
    """PNG or JPEG bytes to uint8 `[height, width, channels]` as a viewer shows them; 1 channel is luma, 3 are RGB.

    Transparent parts show the background that most viewers give them, white. An image of more than `LARGE` pixels is made
    smaller, by a whole factor. Raises ValueError where it is not an image, or has more than `MAX_PIXELS`.
    """
    if channels not in (1, 3):
        raise ValueError(f"an image file has 1 or 3 channels, not {channels}")
    mode = "L" if channels == 1 else "RGB"
    with _opened(io.BytesIO(encoded)) as image:
        factor = math.ceil(math.sqrt(image.width * image.height / LARGE))
        # A JPEG is made smaller by 2, 4 or 8 at no cost.
        if factor > 1 and image.format != "PNG":
            factor = min(size for size in (2, 4, 8) if size >= factor)
            image.draft(None, (image.width // factor, image.height // factor))
            factor = 1
        image.load()
        if factor > 1:
            image = _reduced(image, mode, factor)
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.asarray(_flat(image, mode))
        return pixels.reshape(*pixels.shape[:2], channels)


def header(path: Path) -> tuple[int, int, int]:
    """Height, width and channels (1 where it is gray) of a PNG or JPEG file. Raises ValueError where it is neither, OSError."""
    with _opened(path) as image:
        # Without the look, which decodes a PNG to find none.
        exif = image.getexif() if "exif" in image.info else {}
        # An orientation that swaps the sides.
        turned = exif.get(0x0112, 1) >= 5
        width, height = image.size[::-1] if turned else image.size
        return height, width, 1 if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I") else 3


@contextlib.contextmanager
def _opened(source: Any) -> Iterator[Image.Image]:
    """A PNG or JPEG file, or one in memory, for what is done to it in the block.

    Pillow's warnings are not for the person who trains: either an image can be decoded, or it is named. Its own bounds on pixels
    and texts take the place of ours afterwards. Raises ValueError for an image that cannot be read, OSError for a file.
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
    # Pillow raises many kinds for a damaged file, among them an OSError of no number.
    except Exception as error:
        if getattr(error, "errno", None):
            raise
        raise ValueError(f"not a PNG or JPEG image that can be read ({first_line(error)})") from error
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = before


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """An image in the mode L or RGB, 8 bits a channel, on a white background. One that is so is returned as it is."""
    # 16 bits a pixel: Pillow would clip them, not scale them.
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.uint32)
        clear = deep == image.info.get("transparency", -1)
        image = Image.fromarray(np.where(clear, 255, deep >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _reduced(image: Image.Image, mode: str, factor: int) -> Image.Image:
    """A flat image, smaller by a whole factor, made from one band after the other, so that there is no second large one."""
    rows = max(1, (1 << 22) // image.width // factor) * factor
    small = Image.new(mode, (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        small.paste(_flat(band, mode).reduce(factor), (0, top // factor))
    small.info = {key: value for key, value in image.info.items() if key in _TURNED}
    return small


def read(path: Path, channels: int) -> np.ndarray:
    """The image in a file, as `decode` gives it. Raises UsageError, naming the file."""
    try:
        return decode(path.read_bytes(), channels)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 `[h, w, channels]` to `[height, width, channels]`, bilinear, antialiased when it shrinks."""
    if image.shape[:2] == (height, width):
        return image
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in np.moveaxis(image, -1, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def encode_png(image: np.ndarray) -> bytes:
    """uint8 `[height, width, 1 or 3]` as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()
