"""Moves the boxes and the mask of an image as augmentation moves the image. Positions are `(y, x)` in pixels.

A pixel (i, j) covers the square from (i, j) to (i + 1, j + 1), so its center is at (i + 0.5, j + 0.5).
"""

import math
from collections.abc import Callable, Mapping
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
        boxes: `[boxes, (ymin, xmin, ymax, xmax)]` in pixels, clipped to the image; an absent box has no area. None: no boxes.
        visible: `[boxes]`, the fraction of each box that was not clipped.
        mask: uint8 `[height, width]`, the class of each pixel, or VOID. None: there is no mask.
    """

    size: tuple[int, ...]
    boxes: Array | None
    visible: Array | None
    mask: Array | None

    def crop(self, top: Array | int, left: Array | int, size: Size) -> "Marks":
        """Returns the marks of a window of the image with its upper left pixel at (top, left)."""
        mask = None if self.mask is None else jax.lax.dynamic_slice(self.mask, (top, left), size)
        starts = jnp.asarray(top, jnp.int32), jnp.asarray(left, jnp.int32)
        return self._moved(size, lambda y, x: (y - starts[0].astype(y.dtype), x - starts[1].astype(x.dtype)), mask)

    def resized_crop(self, top: Array, left: Array, height: Array, width: Array, size: Size) -> "Marks":
        """Returns the marks of a box of the image, given in fractions of its sides, resized to `size`."""
        places = []
        for start, share, old, new in zip((top, left), (height, width), self.size, size, strict=True):
            centers = (jnp.arange(new, dtype=jnp.float32) + 0.5) * (share * old / new) + start * old
            places.append(jnp.clip(jnp.floor(centers), 0, old - 1).astype(jnp.int32))

        def move(y: Array, x: Array) -> tuple[Array, Array]:
            starts = (top * self.size[0]).astype(y.dtype), (left * self.size[1]).astype(x.dtype)
            down, right = (size[0] / (height * self.size[0])).astype(y.dtype), (size[1] / (width * self.size[1])).astype(x.dtype)
            return (y - starts[0]) * down, (x - starts[1]) * right

        return self._moved(size, move, _taken(self.mask, places[0][:, None], places[1][None]))

    def warp(self, degrees: Array | float, zoom: Array | float, shear_degrees: Array | float) -> "Marks":
        """Returns the marks of the image that `augment.warp` returns for these arguments."""
        mask, middle = self.mask, (self.size[0] / 2, self.size[1] / 2)
        if mask is not None:
            positions = traced(self.size, degrees, zoom, shear_degrees, jnp.dtype("float32"))
            mask = _taken(mask, *(jnp.round(position).astype(jnp.int32) for position in positions))

        def move(y: Array, x: Array) -> tuple[Array, Array]:
            cos, sin, tan = _coefficients(degrees, zoom, shear_degrees, y.dtype)
            rows, columns = y - middle[0], x - middle[1]
            columns = columns - tan * rows
            area = cos**2 + sin**2
            return (cos * rows - sin * columns) / area + middle[0], (cos * columns + sin * rows) / area + middle[1]

        return self._moved(self.size, move, mask)

    def translate(self, rows: Array, columns: Array) -> "Marks":
        """Returns the marks of the image moved down and right by whole pixels."""
        height, width = self.size
        i, j = jnp.arange(height, dtype=jnp.int32)[:, None] - rows, jnp.arange(width, dtype=jnp.int32)[None] - columns
        return self._moved(
            self.size, lambda y, x: (y + rows.astype(y.dtype), x + columns.astype(x.dtype)), _taken(self.mask, i, j)
        )

    def flip(self, mirrored: Array) -> "Marks":
        """Returns the marks of the image mirrored left to right if `mirrored`, else as they are."""
        height, width = self.size
        columns = jnp.arange(width, dtype=jnp.int32)
        i, j = jnp.arange(height, dtype=jnp.int32), jnp.where(mirrored, width - 1 - columns, columns)
        mask = _taken(self.mask, i[:, None], j[None])
        return self._moved(self.size, lambda y, x: (y, jnp.where(mirrored, width - x, x)), mask)

    def features(self) -> dict[str, Array]:
        """Returns the boxes, in fractions of the image's sides, and the mask as features of an example.

        A box is dropped, which means that its sides become 0, if less than 40 % of it is visible.
        """
        found = {} if self.mask is None else {"mask": self.mask}
        if self.boxes is None or self.visible is None:
            return found
        sides = jnp.array((*self.size, *self.size), self.boxes.dtype)[None]
        return {**found, "boxes": jnp.where((self.visible >= VISIBLE)[:, None], self.boxes / sides, 0)}

    def _moved(self, size: tuple[int, ...], move: Callable[[Array, Array], tuple[Array, Array]], mask: Array | None) -> "Marks":
        """Returns the marks with each box replaced by the hull of its moved corners, clipped to an image of this size."""
        if self.boxes is None or self.visible is None:
            return Marks(size, None, None, mask)
        top, left, bottom, right = self.boxes.T
        y, x = move(jnp.stack([top, top, bottom, bottom], -1), jnp.stack([left, right, left, right], -1))
        hull = jnp.stack([y.min(1), x.min(1), y.max(1), x.max(1)], -1)
        clipped = jnp.clip(hull, 0, jnp.array((*size, *size), hull.dtype)[None])
        whole = _area(hull)
        return Marks(size, clipped, self.visible * jnp.where(whole > 0, _area(clipped) / whole, 0), mask)


def marks_of(example: Mapping[str, Array]) -> Marks:
    """Returns the marks of an example with an "image" `[height, width, channels]`.

    It may have "boxes" `[boxes, (ymin, xmin, ymax, xmax)]` in fractions of the image's sides, and a "mask".
    """
    size, boxes, visible = example["image"].shape[:2], None, None
    if "boxes" in example:
        boxes = example["boxes"].astype(example["image"].dtype)
        boxes = boxes * jnp.array((*size, *size), boxes.dtype)[None]
        visible = (_area(boxes) > 0).astype(boxes.dtype)
    return Marks(size, boxes, visible, example.get("mask"))


def _area(boxes: Array) -> Array:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


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


def _taken(mask: Array | None, rows: Array, columns: Array) -> Array | None:
    """Returns the mask's values at rows and columns, which are broadcast; VOID outside of it."""
    if mask is None:
        return None
    height, width = mask.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    values = mask.at[jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)].get(mode="promise_in_bounds")
    return jnp.where(inside, values, jnp.uint8(VOID))
