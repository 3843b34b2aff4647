"""Initialized models, for several tests."""

import jax
import jax.numpy as jnp
import numpy as np

from percept_jax import models
from percept_jax.models import build

SMALL = ("linear", "mlp", "cnn", "lenet5", "lenet5_1998", "connectivity")  # larger families have tests of their own
CONNECTIVITIES = ("full", "local", "shared")


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def init(name, size=None, channels=1, **knobs):
    size = size or models.wanted_image_size(name) or 8
    module = build(name, num_classes=10, **knobs)
    images = jnp.linspace(-1, 1, 2 * size * size * channels).reshape(2, size, size, channels)
    return module, jax.jit(module.init)(jax.random.key(0), images), images


def filled(name, size=None, channels=1, **knobs):
    """As `init`, with weights that NumPy draws: it saves compiling the initial ones where nobody looks at them."""
    size = size or models.wanted_image_size(name) or 8
    module = build(name, num_classes=10, **knobs)
    images = jnp.linspace(-1, 1, 2 * size * size * channels).reshape(2, size, size, channels)
    shapes, draws = jax.eval_shape(module.init, jax.random.key(0), images), np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    params = jax.tree.map(lambda leaf: jnp.asarray(draws.uniform(-0.2, 0.2, leaf.shape), jnp.float32), shapes["params"])
    return module, {**variables, "params": params}, images
