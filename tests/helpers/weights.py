"""What the tests of weights share."""

import jax
import jax.numpy as jnp
import numpy as np


def template(module, *shape, dtype=jnp.float32):
    return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype))


def cell(gates, units=6, inputs=5, prefix=""):
    """A state dict of one layer of a recurrent module."""
    sizes = {"weight_ih": (gates * units, inputs), "weight_hh": (gates * units, units)}
    sizes |= dict.fromkeys(("bias_ih", "bias_hh"), gates * units)
    return {f"{prefix}{name}_l0": np.ones(size, np.float32) for name, size in sizes.items()}
