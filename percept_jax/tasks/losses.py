"""OBJECTIVES: the losses of a position, by the names that --loss takes, each with its mapping from outputs to probabilities.

A position is an example, or a time step if every step has a target; `...` stands for `batch` or `batch, steps`.
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
    """The loss that training minimizes."""

    loss: Literal["auto", "softmax_cross_entropy", "binary_cross_entropy", "quadratic", "perceptron", "squared_error"] = knob(
        "auto",
        "static",
        "training",
        "objective; auto: the task's own, such as softmax_cross_entropy for classes; binary: one logistic output per class; "
        "quadratic: half the squared error of sigmoid outputs; perceptron: how far the best wrong class is ahead of the right "
        "one; squared_error: for forecasts of values",
    )
    label_smoothing: float = knob(0.0, "traced", "training", "fraction of the target spread evenly over the classes", "[0, 1)")


class Objective(NamedTuple):
    """A named objective.

    Attributes:
        loss: maps (logits `[..., classes]`, targets `[..., classes]`) to losses `[...]`.
        probabilities: maps logits `[..., classes]` to class probabilities of the same shape; None if the targets are values.
    """

    loss: Callable[[Array, Array], Array]
    probabilities: Callable[[Array], Array] | None


def quadratic(logits: Array, targets: Array) -> Array:
    """Returns half the squared distance between sigmoid outputs and targets, `[...]`: the lectures' first loss."""
    return optax.l2_loss(jax.nn.sigmoid(logits), targets).sum(axis=-1)


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Returns the cross-entropy of one logistic output for each class, summed over classes, `[...]`: one-vs-rest regression."""
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


def perceptron(logits: Array, targets: Array) -> Array:
    """Returns Rosenblatt's perceptron criterion, `[...]`: the highest output minus the target's, 0 if the target's is highest.

    For two classes it is max(0, -y (w.x + b)) with y = +-1, where w and b are the differences of the outputs' weights and biases
    (Duda, Hart and Stork 2001, sections 5.5 and 5.12). At a tie its gradient is half a correction, so that training can start
    from zero weights.
    """
    return jnp.max(logits, axis=-1) - jnp.sum(targets * logits, axis=-1)


def squared_error(outputs: Array, targets: Array) -> Array:
    """Returns the mean over features of the squared error, `[...]`."""
    return optax.squared_error(outputs, targets).mean(axis=-1)


def _decision(logits: Array) -> Array:
    # The perceptron has no probabilities: all weight is on the highest output.
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype)


def _sigmoid_shares(logits: Array) -> Array:
    # The sigmoids are normalized to sum to 1, in log space because they may underflow to 0.
    return jax.nn.softmax(jax.nn.log_sigmoid(logits))


OBJECTIVES: dict[str, Objective] = {
    "softmax_cross_entropy": Objective(optax.softmax_cross_entropy, jax.nn.softmax),
    "binary_cross_entropy": Objective(binary_cross_entropy, _sigmoid_shares),
    "quadratic": Objective(quadratic, _sigmoid_shares),
    "perceptron": Objective(perceptron, _decision),
    "squared_error": Objective(squared_error, None),
}
