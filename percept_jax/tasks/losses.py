"""OBJECTIVES: losses of one position, by the names that --loss takes, and the probabilities that each takes outputs to mean.

A position is an example, or a step of it where every step has a target; `...` stands for `batch` or `batch, steps`.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from percept_jax.knobs import knob


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """What is made small."""

    loss: Literal["softmax_cross_entropy", "binary_cross_entropy", "quadratic", "perceptron", "squared_error"] = knob(
        "softmax_cross_entropy",
        "static",
        "training",
        "objective; binary: one logistic output a class; quadratic: half the squared error of sigmoid outputs; perceptron: "
        "by how much the best wrong class is ahead; squared_error: of values, to forecast",
    )
    label_smoothing: float = knob(0.0, "traced", "training", "share of the target spread evenly over the classes", "[0, 1)")


class Objective(NamedTuple):
    """A named objective.

    Attributes:
        loss: (logits `[..., classes]`, targets `[..., classes]`) to losses `[...]`.
        probabilities: logits `[..., classes]` to class probabilities of the same shape; None where the targets are values.
    """

    loss: Callable[[Array, Array], Array]
    probabilities: Callable[[Array], Array] | None


def quadratic(logits: Array, targets: Array) -> Array:
    """Half the squared distance between sigmoid outputs and targets, `[...]`: the lectures' first loss."""
    return optax.l2_loss(jax.nn.sigmoid(logits), targets).sum(axis=-1)


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Cross-entropy of one logistic output a class, summed over the classes, `[...]`: logistic regression, one against all."""
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


def perceptron(logits: Array, targets: Array) -> Array:
    """Rosenblatt's perceptron criterion, `[...]`: by how much the highest output is above the target's, 0 where it is that.

    For two classes it is max(0, -y (w.x + b)), y = +-1, w and b the difference of the outputs' (Duda, Hart and Stork 2001,
    sections 5.5 and 5.12); at a tie its gradient is half a correction, so training from zero weights moves.
    """
    return jnp.max(logits, axis=-1) - jnp.sum(targets * logits, axis=-1)


def squared_error(outputs: Array, targets: Array) -> Array:
    """The mean over features of the squared error, `[...]`."""
    return optax.squared_error(outputs, targets).mean(axis=-1)


def _decision(logits: Array) -> Array:
    # It knows of no doubt.
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype)


def _sigmoid_shares(logits: Array) -> Array:
    # Shares of the sigmoids, also where these are 0 to the computer.
    return jax.nn.softmax(jax.nn.log_sigmoid(logits))


OBJECTIVES: dict[str, Objective] = {
    "softmax_cross_entropy": Objective(optax.softmax_cross_entropy, jax.nn.softmax),
    "binary_cross_entropy": Objective(binary_cross_entropy, _sigmoid_shares),
    "quadratic": Objective(quadratic, _sigmoid_shares),
    "perceptron": Objective(perceptron, _decision),
    "squared_error": Objective(squared_error, None),
}
