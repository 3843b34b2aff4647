"""Boxes `[..., (ymin, xmin, ymax, xmax)]` in fractions of an image's sides: how much two of them overlap."""

import jax
import jax.numpy as jnp
from jax import Array

# Against a division by zero; far below the area of any box.
TINY = 1e-9


def area(boxes: Array) -> Array:
    """Returns the area `[...]` of boxes; 0 for boxes that are inverted."""
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Array, b: Array) -> Array:
    """Returns the intersection of two boxes over their union, `[...]`, from 0 to 1."""
    return _overlap(a, b)[0]


def giou(a: Array, b: Array) -> Array:
    """Returns the generalized IoU `[...]`, from -1 to 1 (Rezatofighi et al. 2019, arXiv:1902.09630).

    It is the IoU less the share of the boxes' common hull that neither covers, so that it also has a gradient for boxes that do
    not overlap.
    """
    overlap, union = _overlap(a, b)
    hull = area(jnp.concatenate([jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])], -1))
    return overlap - (hull - union) / jnp.maximum(hull, TINY)


def _overlap(a: Array, b: Array) -> tuple[Array, Array]:
    """Returns the IoU and the area of the union."""
    common = area(jnp.concatenate([jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])], -1))
    union = area(a) + area(b) - common
    return common / jnp.maximum(union, TINY), union


def from_outputs(outputs: Array) -> Array:
    """Returns the box of four real outputs `[..., 4]`: the sigmoids of the first two are its center, of the others its sides."""
    shares = jax.nn.sigmoid(outputs)
    center, half = shares[..., :2], shares[..., 2:] / 2
    return jnp.concatenate([center - half, center + half], -1)
