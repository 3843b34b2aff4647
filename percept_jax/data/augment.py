"""Random changes of one training image, made inside the compiled step: jit-able, one key an example, mapped by the caller.

Images are `[height, width, channels]`, floating point from 0 to 1, with one channel or three. Random numbers are drawn in
float32 whatever the image's dtype, so that a float64 run draws the same ones; what is off costs nothing.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from percept_jax.knobs import knob

# How bright red, green and blue look (ITU-R BT.601), as in torchvision.
_LUMA = (0.2989, 0.587, 0.114)


# The number of each change's random stream. A new one gets a new number: every published run depends on those that are here.
STREAMS = {
    "random_crop": 0, "random_flip": 1, "pca_color": 2, "brightness": 3, "contrast": 4, "saturation": 5,
    "rotation": 6, "scale": 7, "shear": 8, "cutout": 9, "crop_area": 10,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """How strongly training images are changed: static numbers, off by default."""

    random_crop: int = knob(0, "static", "augmentation", "pad by this many pixels, then crop anywhere", "[0, 4096]")
    random_flip: bool = knob(False, "static", "augmentation", "mirror left and right, every other time")
    rotation: float = knob(0.0, "static", "augmentation", "turn by up to this many degrees", "[0, 180]")
    scale: float = knob(0.0, "static", "augmentation", "enlarge or shrink by up to this share", "[0, 1)")
    shear: float = knob(0.0, "static", "augmentation", "slant by up to this many degrees", "[0, 90)")
    brightness: float = knob(0.0, "static", "augmentation", "brighten or darken by up to this share", "[0, inf)")
    contrast: float = knob(0.0, "static", "augmentation", "raise or lower the contrast by up to this share", "[0, inf)")
    saturation: float = knob(0.0, "static", "augmentation", "raise or lower the saturation by up to this share", "[0, inf)")
    pca_color: float = knob(0.0, "static", "augmentation", "deviation of AlexNet's shifts along the principal colors", "[0, inf)")
    cutout: int = knob(0, "static", "augmentation", "blank a square of this many pixels a side, anywhere", "[0, 4096]")
    crop_area: float = knob(
        0.0,
        "static",
        "augmentation",
        "crop at least this share of the area, of sides 3:4 to 4:3, and resize it to what the model sees; 0: never",
        "[0, 1]",
    )
    mixup: float = knob(
        0.0, "static", "augmentation", "mix pairs of examples by shares out of Beta(this, this); 1 is uniform", "[0, inf)"
    )

    @property
    def changes(self) -> bool:
        """Whether `augment` does anything beside cropping larger images; mixup is made of whole batches."""
        return any(getattr(self, name) for name in STREAMS)


def augment(
    key: Array, example: Mapping[str, Array], components: Array, fill: Array, strengths: AugmentationConfig, size: int = 0
) -> dict[str, Array]:
    """Returns an example, changed at random in whichever ways are on; each draws from its own key.

    Args:
        key: of this example, in this step.
        example: its features; "image" `[height, width, channels]` has pixels from 0 to 1.
        components: `[channels, channels]`, see `shift_colors`; unused without pca_color.
        fill: `[channels]`, the color of a cutout; unused without one.
        strengths: how much of what, fixed when the step is compiled.
        size: pixels a side of the result, at most the image's: what is smaller is a crop of it; 0: those of the image.
    """
    image = example["image"]
    on, size = strengths, size or image.shape[0]

    def stream(name: str) -> Array:
        return jax.random.fold_in(key, STREAMS[name])

    def uniform(name: str, low: float, high: float) -> Array:
        return jax.random.uniform(stream(name), (), jnp.float32, low, high).astype(image.dtype)

    def factor(name: str) -> Array:
        share = getattr(on, name)
        return uniform(name, max(0.0, 1 - share), 1 + share)

    if on.crop_area:
        image = resized_crop(image, *random_box(stream("crop_area"), on.crop_area), size)
    elif size < image.shape[0]:
        corner = jax.random.randint(stream("crop_area"), (2,), 0, image.shape[0] - size + 1, jnp.int32)
        image = jax.lax.dynamic_slice(image, (*corner, 0), (size, size, image.shape[2]))
    height, width, channels = image.shape
    if on.rotation or on.scale or on.shear:
        degrees = uniform("rotation", -on.rotation, on.rotation) if on.rotation else 0.0
        zoom = factor("scale") if on.scale else 1.0
        image = warp(image, degrees, zoom, uniform("shear", -on.shear, on.shear) if on.shear else 0.0)
    if on.random_crop:
        moved = jax.random.randint(stream("random_crop"), (2,), -on.random_crop, on.random_crop + 1, jnp.int32)
        image = translate(image, moved[0], moved[1])
    if on.random_flip:
        image = flip(image, jax.random.bernoulli(stream("random_flip"), jnp.float32(0.5)))
    if on.brightness:
        image = brightness(image, factor("brightness"))
    if on.contrast:
        image = contrast(image, factor("contrast"))
    if on.saturation:
        image = saturation(image, factor("saturation"))
    if on.pca_color:
        alphas = on.pca_color * jax.random.normal(stream("pca_color"), (channels,), jnp.float32)
        image = shift_colors(image, components, alphas)
    if on.cutout:
        center = jax.random.randint(stream("cutout"), (2,), 0, jnp.array([height, width], jnp.int32), jnp.int32)
        image = cutout(image, center[0], center[1], on.cutout, fill)
    return {**example, "image": image}


def random_box(key: Array, least_area: float) -> tuple[Array, Array, Array, Array]:
    """Top, left, height and width of a box in a square of side 1, float32 (Szegedy et al. 2014, arXiv:1409.4842, section 6).

    Its area is uniform from `least_area` to 1, its sides are as 3:4 to 4:3. The first of ten that fits; else the whole, as in
    torchvision's RandomResizedCrop.
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


def resized_crop(image: Array, top: Array, left: Array, height: Array, width: Array, size: int) -> Array:
    """A box of an image, in shares of its sides, resized to `[size, size, channels]`: bilinearly, smoothed where it shrinks."""
    sides = jnp.array(image.shape[:2], image.dtype)
    box = jnp.stack([jnp.asarray(x, image.dtype) for x in (height, width)])
    corner = jnp.stack([jnp.asarray(x, image.dtype) for x in (top, left)])
    scale = size / (box * sides)
    return jax.image.scale_and_translate(
        image, (size, size, image.shape[2]), (0, 1), scale, -corner * sides * scale, "linear", precision=jax.lax.Precision.HIGHEST
    )


def translate(image: Array, rows: Array | int, columns: Array | int) -> Array:
    """Moved down and right by whole pixels, zeros coming in: padded and cropped (He et al. 2015, arXiv:1512.03385, 4.2)."""
    height, width = image.shape[:2]
    i, j = jnp.arange(height, dtype=jnp.int32)[:, None] - rows, jnp.arange(width, dtype=jnp.int32)[None] - columns
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    moved = image.at[jnp.clip(i, 0, height - 1), jnp.clip(j, 0, width - 1)].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], moved, 0)


def flip(image: Array, mirrored: Array | bool = True) -> Array:
    """Mirrored, left to right, or not.

    Columns are fetched, not chosen between two images: XLA would compute both, and twice what comes before them.
    """
    last = image.shape[1] - 1
    columns = jnp.arange(last + 1, dtype=jnp.int32)
    return image.at[:, jnp.where(mirrored, last - columns, columns)].get(mode="promise_in_bounds")


def shift_colors(image: Array, components: Array, alphas: Array) -> Array:
    """AlexNet's PCA color: `components @ alphas` is added to every pixel (Krizhevsky et al. 2012, section 4.1).

    The paper multiplies by eigenvalues. On its pixels, 0 to 255, these are variances in the thousands and would leave nothing
    of an image; the slight change of color that it reports, and every implementation since, takes their square roots.

    Args:
        image: `[height, width, channels]`.
        components: `[channels, channels]`; columns are principal components of the training pixels times their standard
            deviations, as of `principal_components`.
        alphas: `[channels]`, how far to go along each; the paper draws them with a standard deviation of 0.1.
    """
    components, alphas = components.astype(image.dtype), alphas.astype(image.dtype)
    # Not a matrix product, which GPUs round to ten bits.
    return _clip(image + (components * alphas[None]).sum(1)[None, None])


def brightness(image: Array, factor: Array | float) -> Array:
    """Every pixel times a factor, as torchvision's ColorJitter: 0 is black, 1 the image."""
    return _clip(image * jnp.asarray(factor, image.dtype))


def contrast(image: Array, factor: Array | float) -> Array:
    """Away from the image's mean luma by a factor, as torchvision's ColorJitter: 0 is one gray, 1 the image."""
    # Luma is linear, so the mean may come first.
    return _blend(image, _luma(image.mean((0, 1), keepdims=True)), factor)


def saturation(image: Array, factor: Array | float) -> Array:
    """Away from each pixel's luma by a factor, as torchvision's ColorJitter: 0 is gray, 1 the image; gray images stay."""
    return image if image.shape[-1] == 1 else _blend(image, _luma(image), factor)


def warp(image: Array, degrees: Array | float, zoom: Array | float, shear_degrees: Array | float) -> Array:
    """Slanted, enlarged, then turned about the image's center: resampled once, bilinearly, with zeros beyond the borders.

    An output pixel's place is traced back to a place in the input. There the four nearest pixels are mixed, and those beyond
    the border are zeros too, so that rounding at a border cannot make a row vanish.

    Args:
        image: `[height, width, channels]`.
        degrees: turned counter-clockwise, as one looks at it.
        zoom: enlarged by this factor above 0.
        shear_degrees: what stood upright leans to the right by this angle, below 90, as italics do.
    """
    height, width = image.shape[:2]
    degrees, zoom, shear_degrees = (jnp.asarray(x, image.dtype) for x in (degrees, zoom, shear_degrees))
    radians = math.pi / 180
    cos, sin = jnp.cos(radians * degrees) / zoom, jnp.sin(radians * degrees) / zoom
    y, x = (jnp.arange(size, dtype=image.dtype) - (size - 1) / 2 for size in (height, width))
    y, x = y[:, None], x[None]
    rows = sin * x + cos * y
    columns = cos * x - sin * y + jnp.tan(radians * shear_degrees) * rows
    # Clipped to the ring of zeros around the image: however far out, a place fits an integer, and costs no mask.
    rows = jnp.clip(rows + (height - 1) / 2, -1, height)
    columns = jnp.clip(columns + (width - 1) / 2, -1, width)
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
    """A square of `size` pixels a side in the color `fill [channels]` (DeVries and Taylor 2017, arXiv:1708.04552).

    Its center is the pixel (row, column), or below and right of the center's four where the size is even; what would lie
    beyond the border is cut off.
    """
    i = jnp.arange(image.shape[0], dtype=jnp.int32)[:, None] - (row - size // 2)
    j = jnp.arange(image.shape[1], dtype=jnp.int32)[None] - (column - size // 2)
    inside = (i >= 0) & (i < size) & (j >= 0) & (j < size)
    return jnp.where(inside[..., None], fill.astype(image.dtype)[None, None], image)


def mixup_share(key: Array, alpha: Array | float) -> Array:
    """How much of an example is kept when it is mixed with its partner (Zhang et al. 2018, arXiv:1710.09412): float32.

    The larger part of a share out of Beta(alpha, alpha): every example is somebody's partner, so the smaller one would add
    nothing but a swap, and an example's own label stays the major one.
    """
    # All or nothing already; 1e-39 underflows to NaN.
    alpha = jnp.maximum(jnp.asarray(alpha, jnp.float32), 1e-30)
    share = jax.random.beta(key, alpha, alpha, (), jnp.float32)
    return jnp.maximum(share, 1 - share)


def mixup_shift(key: Array, batch: int) -> Array:
    """Where partners are: that of position p is (p + shift) % batch. int32, 1 to batch - 1; 0 where there is no other."""
    return jax.random.randint(key, (), 1, batch, jnp.int32) if batch > 1 else jnp.int32(0)


def principal_components(covariance: np.ndarray) -> np.ndarray:
    """Covariance of the training pixels / 255, `[channels, channels]`, to what `shift_colors` takes, float64.

    Columns are eigenvectors times the roots of their eigenvalues, the largest first. The sign, which is arbitrary, is such
    that the largest entry is positive: the first of those about as large, since rounding would choose among equals.
    """
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    sizes = np.abs(vectors)
    largest = np.argmax(sizes > 0.999 * sizes.max(0), axis=0)
    signs = np.sign(vectors[largest, np.arange(len(values))])
    return vectors * signs * np.sqrt(values)


def _luma(image: Array) -> Array:
    """`[..., channels]` to `[..., 1]`: how bright each pixel looks; of one channel, that channel."""
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
