"""Recurrent networks with drawn weights, for several tests."""

import jax
import jax.numpy as jnp
import numpy as np

from percept_jax.models import build

CELLS = ("rnn", "mgu", "gru", "lstm")
SEQ2SEQ = ("gru_seq2seq", "lstm_seq2seq")
EACH = {"output_steps": 9}


def normal(shape, key=0):
    return np.random.default_rng(key).normal(size=shape).astype(np.float32)


def filled(name, x, key=0, **knobs):
    """A model, and weights that NumPy draws."""
    module = build(name, num_classes=knobs.pop("num_classes", 3), **{"hidden": (5,), **knobs})
    tokens = np.issubdtype(x.dtype, np.integer)
    like = jax.ShapeDtypeStruct(x.shape, x.dtype if tokens else jnp.float32)
    draws, shapes = np.random.default_rng(key), jax.eval_shape(module.init, jax.random.key(0), like)
    dtype = jnp.float32 if tokens else x.dtype
    return module, jax.tree.map(lambda leaf: draws.uniform(-0.5, 0.5, leaf.shape).astype(dtype), shapes)


def run(module, variables, x, **arguments):
    return jax.jit(lambda v, x, a: module.apply(v, x, **a))(variables, x, arguments)


def leaves(tree):
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
