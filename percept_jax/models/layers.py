"""Layers and choices that two model families or more share."""

import functools
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "elu", "softplus", "maxout"]
Initializer = Literal[
    "lecun_normal",
    "lecun_uniform",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "orthogonal",
    "normal",
    "zeros",
]
Pooling = Literal["max", "average"]
Norm = Literal["none", "batch"]

INITIALIZERS: dict[str, nn.initializers.Initializer] = {
    "lecun_normal": nn.initializers.lecun_normal(),  # Flax's own default, and the models'
    "lecun_uniform": nn.initializers.lecun_uniform(),
    "glorot_normal": nn.initializers.glorot_normal(),
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "he_normal": nn.initializers.he_normal(),
    "he_uniform": nn.initializers.he_uniform(),
    "orthogonal": nn.initializers.orthogonal(),
    "normal": nn.initializers.normal(0.01),
    "zeros": nn.initializers.zeros_init(),
}


def units(kind: Activation, features: int) -> int:
    """How many outputs a layer computes where `features` are wanted behind its non-linearity: twice as many for maxout."""
    return 2 * features if kind == "maxout" else features


def activate(x: Array, kind: Activation, negative_slope: float) -> Array:
    """A non-linearity by name, `[..., units]` to `[..., features]`; `negative_slope` is leaky ReLU's.

    Maxout (Goodfellow et al. 2013, arXiv:1302.4389) takes the larger of two linear pieces, feature i of the first and the
    second half of the units.
    """
    if kind == "maxout":
        return _larger(*jnp.split(x, 2, axis=-1))
    if kind == "leaky_relu":
        return nn.leaky_relu(x, negative_slope)
    return getattr(nn, kind)(x)


def pool(x: Array, kind: Pooling, window: int, stride: int) -> Array:
    """`[batch, height, width, channels]` to the maximum or the mean of square windows, without padding.

    Taken over strided slices: the value of Flax's pooling, and a gradient without select-and-scatter, which does not run
    under deterministic GPU operations (github.com/google/flax/issues/4233). A maximum's gradient goes to one of equals.
    """
    rows, columns = ((size - window) // stride + 1 for size in x.shape[1:3])
    slices = [
        x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(window)
        for j in range(window)
    ]
    if kind == "max":
        return functools.reduce(_larger, slices)
    return functools.reduce(jnp.add, slices) / window**2


def _larger(a: Array, b: Array) -> Array:
    """The larger of each pair, NaN where either is. Not `jnp.maximum`, whose gradient compares its result with its arguments.

    Where XLA computes those anew beside the gradient, rounded otherwise, neither is equal and the gradient is lost. Behind batch
    norm and ReLU that put LeNet-5's parameters off by up to 2e-3 in one step, in float64 too, and otherwise on 2 devices.
    """
    return jnp.where((a >= b) | jnp.isnan(a), a, b)


def norm(kind: Norm, train: bool, axis_name: str | None) -> Callable[[Array], Array]:
    """A normalisation layer by name, to be called once; batch norm takes its statistics over every device of `axis_name`.

    Running statistics keep 0.9 of their value a step (Ioffe and Szegedy 2015, arXiv:1502.03167).
    """
    if kind == "none":
        return lambda x: x
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=axis_name)


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) with a traced rate, one draw an example.

    Each example's mask comes from its position in the global batch, so it does not depend on the number of devices. Masks
    are drawn in float32 whatever the arithmetic, and not at all while the rate is 0.

    Attributes:
        axis_name: the mapped axis over which the batch is split, if it is.
    """

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, rate: Array | float, train: bool) -> Array:
        """`[batch, ...]` to the same shape: zero with probability `rate` in [0, 1), the rest divided by 1 - rate."""
        if not train or (isinstance(rate, float) and rate == 0):
            return x
        shard = jax.lax.axis_index(self.axis_name) if self.axis_name else 0
        positions = shard * len(x) + jnp.arange(len(x))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.make_rng("dropout"), positions)

        def drop(x: Array) -> Array:
            draws = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], jnp.float32))(keys)
            return jnp.where(draws >= jnp.float32(rate), x / jnp.asarray(1 - rate, x.dtype), 0)

        return jax.lax.cond(rate > 0, drop, lambda x: x, x)
