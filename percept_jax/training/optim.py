"""Optimisers and learning rate schedules as functions of traced numbers.

optax's own schedules check their arguments in Python and cannot take a tracer, hence the few lines here; its transformations can.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from percept_jax.experiment import HParams


def constant(progress: Array) -> Array:
    """Share of the learning rate at `progress`, 0 to 1, from the end of the warm-up to the end of training: always 1."""
    return jnp.ones_like(progress)


def cosine(progress: Array) -> Array:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts)."""
    return 0.5 * (1 + jnp.cos(jnp.pi * progress))


SCHEDULES: dict[str, Callable[[Array], Array]] = {"constant": constant, "cosine": cosine}


def learning_rate(schedule: Callable[[Array], Array], step: Array, hparams: HParams) -> Array:
    """Learning rate of update `step`, counted from 0: a linear rise over the warm-up, then the schedule."""
    dtype = hparams.learning_rate.dtype
    done, warmup, steps = (jnp.asarray(count, dtype) for count in (step, hparams.warmup_steps, hparams.steps))
    rise = jnp.minimum(1, (done + 1) / jnp.maximum(1, warmup))
    progress = jnp.clip((done - warmup) / jnp.maximum(1, steps - warmup), 0, 1)
    return hparams.learning_rate * rise * schedule(progress)


def kernels(params: Any) -> Any:
    """True for the leaves that weight decay applies to: the kernels, not biases nor normalisation scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def sgd(rate: Array, hparams: HParams, nesterov: bool = False) -> optax.GradientTransformation:
    """Gradient descent with momentum (Sutskever et al. 2013 for Nesterov's form) and L2 on the kernels."""
    return optax.chain(
        optax.add_decayed_weights(hparams.weight_decay, mask=kernels),
        optax.trace(decay=hparams.momentum, nesterov=nesterov),
        optax.scale_by_learning_rate(rate),
    )


def nesterov(rate: Array, hparams: HParams) -> optax.GradientTransformation:
    """`sgd` with Nesterov's momentum."""
    return sgd(rate, hparams, nesterov=True)


OPTIMIZERS: dict[str, Callable[[Array, HParams], optax.GradientTransformation]] = {"sgd": sgd, "nesterov": nesterov}
