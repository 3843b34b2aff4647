"""Random augmentation of one training image inside the compiled step. The functions take one key; the caller vmaps them.

Images are `[height, width, channels]`, floating point from 0 to 1, with one channel or three. Random numbers are drawn in
float32 whatever the image's dtype, so that a float64 run draws the same ones. An augmentation that is off costs nothing.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from percept_jax.data.geometry import Marks, marks_of, traced
from percept_jax.data.spec import Size
from percept_jax.knobs import knob

# Weights of red, green and blue in the luma (ITU-R BT.601), as in torchvision.
_LUMA = (0.2989, 0.587, 0.114)


# The number of each augmentation's random stream. A new augmentation gets a new number: published runs depend on these.
STREAMS = {
    "random_crop": 0, "random_flip": 1, "pca_color": 2, "brightness": 3, "contrast": 4, "saturation": 5,
    "rotation": 6, "scale": 7, "shear": 8, "cutout": 9, "crop_area": 10,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """How strongly training images are augmented: static numbers, off by default."""

    random_crop: int = knob(0, "static", "augmentation", "pad by this many pixels, then crop at a random place", "[0, 4096]")
    random_flip: bool = knob(False, "static", "augmentation", "mirror left to right with probability 1/2")
    rotation: float = knob(0.0, "static", "augmentation", "rotate by up to this many degrees", "[0, 180]")
    scale: float = knob(0.0, "static", "augmentation", "enlarge or shrink by up to this fraction", "[0, 1)")
    shear: float = knob(0.0, "static", "augmentation", "shear by up to this many degrees", "[0, 90)")
    brightness: float = knob(0.0, "static", "augmentation", "brighten or darken by up to this fraction", "[0, inf)")
    contrast: float = knob(0.0, "static", "augmentation", "raise or lower the contrast by up to this fraction", "[0, inf)")
    saturation: float = knob(0.0, "static", "augmentation", "raise or lower the saturation by up to this fraction", "[0, inf)")
    pca_color: float = knob(0.0, "static", "augmentation", "standard deviation of AlexNet's PCA color shifts", "[0, inf)")
    cutout: int = knob(0, "static", "augmentation", "blank a square of this many pixels a side at a random place", "[0, 4096]")
    crop_area: float = knob(
        0.0,
        "static",
        "augmentation",
        "crop at least this fraction of the area, with an aspect ratio of 3:4 to 4:3, and resize it to the model's input; 0: off",
        "[0, 1]",
    )
    mixup: float = knob(
        0.0, "static", "augmentation", "mix pairs of examples with weights from Beta(this, this); 1 is uniform", "[0, inf)"
    )

    @property
    def changes(self) -> bool:
        """Whether `augment` changes images beyond cropping larger ones; mixup works on whole batches and does not count."""
        return any(getattr(self, name) for name in STREAMS)


class _Draws(NamedTuple):
    """Draws the random numbers of one example: each augmentation has a stream of its own."""

    key: Array
    strengths: AugmentationConfig
    dtype: jnp.dtype

    def stream(self, name: str) -> Array:
        """Returns the key of an augmentation."""
        return jax.random.fold_in(self.key, STREAMS[name])

    def uniform(self, name: str, low: float, high: float) -> Array:
        """Returns a number from `low` to `high`."""
        return jax.random.uniform(self.stream(name), (), jnp.float32, low, high).astype(self.dtype)

    def factor(self, name: str) -> Array:
        """Returns a factor around 1, at most the augmentation's strength away from it."""
        share = getattr(self.strengths, name)
        return self.uniform(name, max(0.0, 1 - share), 1 + share)


def augment(
    key: Array,
    example: Mapping[str, Array],
    components: Array,
    fill: Array,
    strengths: AugmentationConfig,
    size: Size | None = None,
) -> dict[str, Array]:
    """Returns the example with every augmentation that is on applied to its image; its boxes and its mask move with it.

    Args:
        key: the key of this example in this step.
        example: its features; "image" `[height, width, channels]` has pixels from 0 to 1. See `geometry.marks_of` for the others.
        components: `[channels, channels]`, see `shift_colors`; unused without pca_color.
        fill: `[channels]`, the color of a cutout; unused without cutout.
        strengths: the strength of each augmentation, fixed when the step is compiled.
        size: height and width of the result, at most the image's; a smaller size crops the image; None: the size of the image.
    """
    draws = _Draws(key, strengths, example["image"].dtype)
    image, marks = _move(draws, example["image"], marks_of(example), size)
    return {**example, **marks.features(), "image": _recolor(draws, image, components, fill)}


def _move(draws: _Draws, image: Array, marks: Marks, size: Size | None) -> tuple[Array, Marks]:
    """Returns the image and its marks, cropped, warped, shifted and mirrored."""
    on, stored = draws.strengths, image.shape[:2]
    size = size or (stored[0], stored[1])
    if on.crop_area:
        box = random_box(draws.stream("crop_area"), on.crop_area)
        image, marks = resized_crop(image, *box, size), marks.resized_crop(*box, size)
    elif size != stored:
        last = jnp.array([stored[0] - size[0], stored[1] - size[1]], jnp.int32)
        corner = jax.random.randint(draws.stream("crop_area"), (2,), 0, last + 1, jnp.int32)
        image = jax.lax.dynamic_slice(image, (*corner, 0), (*size, image.shape[2]))
        marks = marks.crop(corner[0], corner[1], size)
    if on.rotation or on.scale or on.shear:
        degrees = draws.uniform("rotation", -on.rotation, on.rotation) if on.rotation else 0.0
        zoom = draws.factor("scale") if on.scale else 1.0
        shear = draws.uniform("shear", -on.shear, on.shear) if on.shear else 0.0
        image, marks = warp(image, degrees, zoom, shear), marks.warp(degrees, zoom, shear)
    if on.random_crop:
        moved = jax.random.randint(draws.stream("random_crop"), (2,), -on.random_crop, on.random_crop + 1, jnp.int32)
        image, marks = translate(image, moved[0], moved[1]), marks.translate(moved[0], moved[1])
    if on.random_flip:
        mirrored = jax.random.bernoulli(draws.stream("random_flip"), jnp.float32(0.5))
        image, marks = flip(image, mirrored), marks.flip(mirrored)
    return image, marks


def _recolor(draws: _Draws, image: Array, components: Array, fill: Array) -> Array:
    """Returns the image with other colors, and with a square blanked."""
    on, (height, width, channels) = draws.strengths, image.shape
    if on.brightness:
        image = brightness(image, draws.factor("brightness"))
    if on.contrast:
        image = contrast(image, draws.factor("contrast"))
    if on.saturation:
        image = saturation(image, draws.factor("saturation"))
    if on.pca_color:
        alphas = on.pca_color * jax.random.normal(draws.stream("pca_color"), (channels,), jnp.float32)
        image = shift_colors(image, components, alphas)
    if on.cutout:
        center = jax.random.randint(draws.stream("cutout"), (2,), 0, jnp.array([height, width], jnp.int32), jnp.int32)
        image = cutout(image, center[0], center[1], on.cutout, fill)
    return image


def random_box(key: Array, least_area: float) -> tuple[Array, Array, Array, Array]:
    """Returns top, left, height, width of a random box in the unit square (Szegedy et al. 2014, arXiv:1409.4842, section 6).

    All four are float32. The box's area is uniform from `least_area` to 1, its aspect ratio 3:4 to 4:3. Ten boxes are drawn; the
    first that fits is taken, or the whole square if none does, as in torchvision's RandomResizedCrop.
    """
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    area = jax.random.uniform(area_key, (10,), jnp.float32, least_area, 1)
    ratio = jnp.exp(jax.random.uniform(ratio_key, (10,), jnp.float32, -math.log(4 / 3), math.log(4 / 3)))
    heights, widths = jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)
    fits = (heights <= 1) & (widths <= 1)
    first = jnp.argmax(fits)
    height, width = (jnp.where(fits.any(), sides[first], 1) for sides in (heights, widths))
    down, right = jax.random.uniform(place_key, (2,), jnp.float32)
    return down * (1 - height), right * (1 - width), height, width


def resized_crop(image: Array, top: Array, left: Array, height: Array, width: Array, size: Size) -> Array:
    """Returns a box of an image, given in fractions of its sides, resized to `[*size, channels]`: bilinear, antialiased."""
    sides = jnp.array(image.shape[:2], image.dtype)
    box = jnp.stack([jnp.asarray(x, image.dtype) for x in (height, width)])
    corner = jnp.stack([jnp.asarray(x, image.dtype) for x in (top, left)])
    scale = jnp.array(size, image.dtype) / (box * sides)
    return jax.image.scale_and_translate(
        image, (*size, image.shape[2]), (0, 1), scale, -corner * sides * scale, "linear", precision=jax.lax.Precision.HIGHEST
    )


def translate(image: Array, rows: Array | int, columns: Array | int) -> Array:
    """Returns the image moved down and right by whole pixels and filled with zeros (He et al. 2015, arXiv:1512.03385, 4.2)."""
    height, width = image.shape[:2]
    i, j = jnp.arange(height, dtype=jnp.int32)[:, None] - rows, jnp.arange(width, dtype=jnp.int32)[None] - columns
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    moved = image.at[jnp.clip(i, 0, height - 1), jnp.clip(j, 0, width - 1)].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], moved, 0)


def flip(image: Array, mirrored: Array | bool = True) -> Array:
    """Returns the image mirrored left to right if `mirrored`, else as it is.

    The columns are gathered. Selecting between two images would make XLA compute both, and everything before them twice.
    """
    last = image.shape[1] - 1
    columns = jnp.arange(last + 1, dtype=jnp.int32)
    return image.at[:, jnp.where(mirrored, last - columns, columns)].get(mode="promise_in_bounds")


def shift_colors(image: Array, components: Array, alphas: Array) -> Array:
    """Returns the image with `components @ alphas` added to every pixel: AlexNet's PCA color (Krizhevsky et al. 2012, 4.1).

    The paper multiplies by eigenvalues. For pixels from 0 to 255 these are variances in the thousands, which would destroy the
    image. The slight color change that the paper reports needs their square roots, which every implementation since has used.

    Args:
        image: `[height, width, channels]`.
        components: `[channels, channels]`; columns are principal components of the training pixels times their standard
            deviations, as `principal_components` returns them.
        alphas: `[channels]`, the shift along each component; the paper draws them with a standard deviation of 0.1.
    """
    components, alphas = components.astype(image.dtype), alphas.astype(image.dtype)
    # This is not a matrix product, because GPUs round those to ten bits.
    return _clip(image + (components * alphas[None]).sum(1)[None, None])


def brightness(image: Array, factor: Array | float) -> Array:
    """Returns the image times a factor, as in torchvision's ColorJitter: 0 gives black, 1 the image itself."""
    return _clip(image * jnp.asarray(factor, image.dtype))


def contrast(image: Array, factor: Array | float) -> Array:
    """Returns the image scaled around its mean luma, as in torchvision's ColorJitter: 0 gives one gray, 1 the image itself."""
    # Luma is linear, so the mean may be taken first.
    return _blend(image, _luma(image.mean((0, 1), keepdims=True)), factor)


def saturation(image: Array, factor: Array | float) -> Array:
    """Returns the image scaled around each pixel's luma, as in torchvision's ColorJitter: 0 gives gray, 1 the image itself.

    Images of one channel are returned unchanged.
    """
    return image if image.shape[-1] == 1 else _blend(image, _luma(image), factor)


def warp(image: Array, degrees: Array | float, zoom: Array | float, shear_degrees: Array | float) -> Array:
    """Returns the image sheared, scaled, then rotated about its center: resampled once, bilinearly, with zeros outside.

    Each output pixel is traced back to a position in the input, where the four nearest pixels are interpolated. Pixels beyond
    the border count as zeros, so that rounding at a border cannot make a row vanish.

    Args:
        image: `[height, width, channels]`.
        degrees: the rotation, counter-clockwise as one looks at the image.
        zoom: the scale factor, above 0; above 1 enlarges.
        shear_degrees: the angle, below 90, by which vertical lines lean to the right, as in italics.
    """
    height, width = image.shape[:2]
    rows, columns = traced(image.shape[:2], degrees, zoom, shear_degrees, image.dtype)
    # Positions are clipped to the ring of zeros around the image, so that they always fit an integer and need no mask.
    rows, columns = jnp.clip(rows, -1, height), jnp.clip(columns, -1, width)
    top, left = jnp.minimum(jnp.floor(rows), height - 1), jnp.minimum(jnp.floor(columns), width - 1)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    i, j = top.astype(jnp.int32) + 1, left.astype(jnp.int32) + 1
    ringed = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))

    def at(i: Array, j: Array) -> Array:
        return ringed.at[i, j].get(mode="promise_in_bounds")

    upper = (1 - right) * at(i, j) + right * at(i, j + 1)
    lower = (1 - right) * at(i + 1, j) + right * at(i + 1, j + 1)
    return (1 - down) * upper + down * lower


def cutout(image: Array, row: Array | int, column: Array | int, size: int, fill: Array) -> Array:
    """Returns the image with a square of `size` pixels a side set to `fill [channels]` (DeVries and Taylor, arXiv:1708.04552).

    The pixel (row, column) is the center of the square, or the lower right of its four central pixels if the size is even. The
    square is cut off at the border.
    """
    i = jnp.arange(image.shape[0], dtype=jnp.int32)[:, None] - (row - size // 2)
    j = jnp.arange(image.shape[1], dtype=jnp.int32)[None] - (column - size // 2)
    inside = (i >= 0) & (i < size) & (j >= 0) & (j < size)
    return jnp.where(inside[..., None], fill.astype(image.dtype)[None, None], image)


def _luma(image: Array) -> Array:
    """Returns the luma `[..., 1]` of pixels `[..., channels]`; a single channel is returned as it is."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = jnp.split(image, 3, axis=-1)
    # Ten times faster than a sum over an axis of three.
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _blend(image: Array, other: Array, factor: Array | float) -> Array:
    factor = jnp.asarray(factor, image.dtype)
    return _clip(factor * image + (1 - factor) * other)


def _clip(image: Array) -> Array:
    return jnp.clip(image, 0, 1)
