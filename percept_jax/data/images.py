"""Images on the host: files and bytes to uint8 arrays, always with the number of channels asked for."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from percept_jax.errors import UsageError


def decode(encoded: bytes, channels: int) -> np.ndarray:
    """PNG or JPEG bytes to uint8 `[height, width, channels]` as a viewer shows them; 1 channel is luma, 3 are RGB.

    Transparent parts show the background that most viewers give them, white. Raises ValueError where it is not an image.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip them, not scale them
                deep = np.asarray(image).astype(np.uint32)
                clear = deep == image.info.get("transparency", -1)
                image = Image.fromarray(np.where(clear, 255, deep >> 8).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except UnidentifiedImageError as error:
        raise ValueError("not a PNG or JPEG image") from error
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise ValueError(f"not a PNG or JPEG image that can be read ({error})") from error
    if channels not in (1, 3):
        raise ValueError(f"an image file has 1 or 3 channels, not {channels}")
    return pixels.reshape(*pixels.shape[:2], channels)


def header(path: Path) -> tuple[int, int, int]:
    """Height, width and channels (1 where it is grey) of a PNG or JPEG file. Raises ValueError where it is neither, OSError."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            exif = image.getexif() if "exif" in image.info else {}  # without the look, which decodes a PNG to find none
            turned = exif.get(0x0112, 1) >= 5  # an orientation that swaps the sides
            width, height = image.size[::-1] if turned else image.size
            return height, width, 1 if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I") else 3
    except UnidentifiedImageError as error:
        raise ValueError("not a PNG or JPEG image") from error
    except Exception as error:  # Pillow raises many kinds for a damaged file, among them an OSError of no number
        if getattr(error, "errno", None):
            raise
        raise ValueError(f"not a PNG or JPEG image that can be read ({error})") from error


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
