"""Moves the boxes and the mask of an image as augmentation moves the image. Positions are `(y, x)` in pixels.

A pixel (i, j) covers the square from (i, j) to (i + 1, j + 1), so its center is at (i + 0.5, j + 0.5).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from percept_jax.data.spec import VOID, Size

# A box of which a smaller fraction remains inside the image is dropped.
VISIBLE = 0.4


class Marks(NamedTuple):
    """The boxes and the mask of one image.

    Attributes:
        size: height and width of the image.
        corners: `[boxes, 4, 2]`, the corners of each box; the area of an absent box is 0. None: there are no boxes.
        mask: uint8 `[height, width]`, the class of each pixel, or VOID. None: there is no mask.
    """

    size: tuple[int, ...]
    corners: Array | None
    mask: Array | None

    def crop(self, top: Array | int, left: Array | int, size: Size) -> "Marks":
        """Returns the marks of a window of the image with its upper left pixel at (top, left)."""
        mask = None if self.mask is None else jax.lax.dynamic_slice(self.mask, (top, left), size)
        return Marks(size, _shifted(self.corners, -top, -left), mask)

    def resized_crop(self, top: Array, left: Array, height: Array, width: Array, size: Size) -> "Marks":
        """Returns the marks of a box of the image, given in fractions of its sides, resized to `size`."""
        boxed, places = self.corners, []
        if boxed is not None:
            starts = jnp.stack([top * self.size[0], left * self.size[1]]).astype(boxed.dtype)
            scale = jnp.stack([size[0] / (height * self.size[0]), size[1] / (width * self.size[1])]).astype(boxed.dtype)
            boxed = (boxed - starts[None, None]) * scale[None, None]
        for start, share, old, new in zip((top, left), (height, width), self.size, size, strict=True):
            centers = (jnp.arange(new, dtype=jnp.float32) + 0.5) * (share * old / new) + start * old
            places.append(jnp.clip(jnp.floor(centers), 0, old - 1).astype(jnp.int32))
        return Marks(size, boxed, _taken(self.mask, places[0][:, None], places[1][None]))

    def warp(self, degrees: Array | float, zoom: Array | float, shear_degrees: Array | float) -> "Marks":
        """Returns the marks of the image that `augment.warp` returns for these arguments."""
        corners, mask = self.corners, self.mask
        if corners is not None:
            cos, sin, tan = _coefficients(degrees, zoom, shear_degrees, corners.dtype)
            rows, columns = corners[..., 0] - self.size[0] / 2, corners[..., 1] - self.size[1] / 2
            columns = columns - tan * rows
            y, x = cos * rows - sin * columns, cos * columns + sin * rows
            middle = jnp.array([self.size[0] / 2, self.size[1] / 2], corners.dtype)
            corners = jnp.stack([y, x], -1) / (cos**2 + sin**2) + middle[None, None]
        if mask is not None:
            positions = traced(self.size, degrees, zoom, shear_degrees, jnp.dtype("float32"))
            mask = _taken(mask, *(jnp.round(position).astype(jnp.int32) for position in positions))
        return Marks(self.size, corners, mask)

    def translate(self, rows: Array, columns: Array) -> "Marks":
        """Returns the marks of the image moved down and right by whole pixels."""
        height, width = self.size
        i, j = jnp.arange(height, dtype=jnp.int32)[:, None] - rows, jnp.arange(width, dtype=jnp.int32)[None] - columns
        return Marks(self.size, _shifted(self.corners, rows, columns), _taken(self.mask, i, j))

    def flip(self, mirrored: Array) -> "Marks":
        """Returns the marks of the image mirrored left to right if `mirrored`, else as they are."""
        height, width = self.size
        columns = jnp.arange(width, dtype=jnp.int32)
        corners, i, j = self.corners, jnp.arange(height, dtype=jnp.int32), jnp.where(mirrored, width - 1 - columns, columns)
        if corners is not None:
            x = jnp.where(mirrored, width - corners[..., 1], corners[..., 1])
            corners = jnp.stack([corners[..., 0], x], -1)
        return Marks(self.size, corners, _taken(self.mask, i[:, None], j[None]))

    def features(self) -> dict[str, Array]:
        """Returns the boxes and the mask as features of an example.

        A box is the hull of its moved corners, clipped to the image. It is dropped, which means that its sides become 0, if less
        than 40 % of the hull is visible.
        """
        found = {} if self.mask is None else {"mask": self.mask}
        if self.corners is None:
            return found
        low, high = self.corners.min(1), self.corners.max(1)
        sides = jnp.array(self.size, low.dtype)[None]
        inside = jnp.clip(low, 0, sides), jnp.clip(high, 0, sides)
        whole, visible = jnp.prod(high - low, -1), jnp.prod(inside[1] - inside[0], -1)
        kept = (whole > 0) & (visible >= VISIBLE * whole)
        boxes = jnp.concatenate([inside[0] / sides, inside[1] / sides], -1)
        return {**found, "boxes": jnp.where(kept[:, None], boxes, 0)}


def marks_of(example: Mapping[str, Array]) -> Marks:
    """Returns the marks of an example with an "image" `[height, width, channels]`.

    It may have "boxes" `[boxes, (ymin, xmin, ymax, xmax)]` in fractions of the image's sides, and a "mask".
    """
    size, corners = example["image"].shape[:2], None
    if "boxes" in example:
        boxes = example["boxes"].astype(example["image"].dtype)
        y, x = boxes[:, 0::2] * size[0], boxes[:, 1::2] * size[1]
        corners = jnp.stack([jnp.repeat(y, 2, 1), jnp.tile(x, (1, 2))], -1)
    return Marks(size, corners, example.get("mask"))


def traced(
    size: tuple[int, ...], degrees: Array | float, zoom: Array | float, shear_degrees: Array | float, dtype: jnp.dtype
) -> tuple[Array, Array]:
    """Returns for each pixel of a warped image the row and the column in the original that it shows, `[height, width]` each.

    Both are indices of pixels with fractions: 0 is the center of the first row or column.
    """
    height, width = size
    cos, sin, tan = _coefficients(degrees, zoom, shear_degrees, dtype)
    y, x = (jnp.arange(side, dtype=dtype) - (side - 1) / 2 for side in (height, width))
    y, x = y[:, None], x[None]
    rows = sin * x + cos * y
    columns = cos * x - sin * y + tan * rows
    return rows + (height - 1) / 2, columns + (width - 1) / 2


def _coefficients(
    degrees: Array | float, zoom: Array | float, shear_degrees: Array | float, dtype: jnp.dtype
) -> tuple[Array, Array, Array]:
    """Returns cosine and sine of the rotation, both over the zoom, and the tangent of the shear."""
    degrees, zoom, shear_degrees = (jnp.asarray(x, dtype) for x in (degrees, zoom, shear_degrees))
    radians = math.pi / 180
    return jnp.cos(radians * degrees) / zoom, jnp.sin(radians * degrees) / zoom, jnp.tan(radians * shear_degrees)


def _shifted(corners: Array | None, rows: Array | int, columns: Array | int) -> Array | None:
    return None if corners is None else corners + jnp.stack([rows, columns]).astype(corners.dtype)[None, None]


def _taken(mask: Array | None, rows: Array, columns: Array) -> Array | None:
    """Returns the mask's values at rows and columns, which are broadcast; VOID outside of it."""
    if mask is None:
        return None
    height, width = mask.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    values = mask.at[jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)].get(mode="promise_in_bounds")
    return jnp.where(inside, values, jnp.uint8(VOID))
