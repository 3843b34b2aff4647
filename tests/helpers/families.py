"""What the tests of model families share."""

import jax
import jax.numpy as jnp
import numpy as np

from percept_jax.models import build

SMALL = {"stem": "small"}


def shapes(name, num_classes=10, size=None, **values):
    """The module, its variables and two images, all abstract but the module."""
    module = build(name, num_classes=num_classes, **values)
    size = size or module.image_size
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return module, jax.eval_shape(module.init, jax.random.key(0), images), images


def paths(variables):
    return {"/".join(part.key for part in path) for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])}


def drawn(module, images):
    """Initial variables as He's, drawn by NumPy: it saves compiling the module's own."""
    draws = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return draws.normal(size=leaf.shape).astype(np.float32) * np.float32((2 / np.prod(leaf.shape[:-1])) ** 0.5)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(module.init, jax.random.key(0), images))
