"""Objectives: one loss for each example, and the probabilities that the loss takes the outputs to mean."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array


class Objective(NamedTuple):
    """A named objective.

    Attributes:
        loss: (logits `[batch, classes]`, targets `[batch, classes]`) to losses `[batch]`.
        probabilities: logits `[batch, classes]` to class probabilities of the same shape.
    """

    loss: Callable[[Array, Array], Array]
    probabilities: Callable[[Array], Array]


def smoothed_targets(labels: Array, num_classes: int, smoothing: Array | float, dtype: jnp.dtype) -> Array:
    """Labels `[batch]` to target distributions `[batch, num_classes]` (Szegedy et al. 2016, arXiv:1512.00567, section 7)."""
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes, dtype=dtype), smoothing)


def quadratic(logits: Array, targets: Array) -> Array:
    """Half the squared distance between sigmoid outputs and targets, `[batch]`: the lectures' first loss."""
    return 0.5 * jnp.sum((jax.nn.sigmoid(logits) - targets) ** 2, axis=-1)


def _sigmoid_shares(logits: Array) -> Array:
    scores = jax.nn.sigmoid(logits)
    return scores / scores.sum(axis=-1, keepdims=True)


OBJECTIVES: dict[str, Objective] = {
    "softmax_cross_entropy": Objective(optax.softmax_cross_entropy, jax.nn.softmax),
    "quadratic": Objective(quadratic, _sigmoid_shares),
}
