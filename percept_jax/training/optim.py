"""Optimisers and learning rate schedules as functions of traced numbers.

optax's own schedules check their arguments in Python and cannot take a tracer, hence the few lines here; its transformations can.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from percept_jax.experiment import HParams


def constant(progress: Array, decay_rate: Array, decay_at: Sequence[float]) -> Array:
    """Share of the learning rate at `progress`, 0 to 1, from the end of the warm-up to the end of training: always 1."""
    return jnp.ones_like(progress)


def cosine(progress: Array, decay_rate: Array, decay_at: Sequence[float]) -> Array:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts)."""
    return 0.5 * (1 + jnp.cos(jnp.pi * progress))


def step_decay(progress: Array, decay_rate: Array, decay_at: Sequence[float]) -> Array:
    """Times `decay_rate` at each share of the training in `decay_at`."""
    reached = sum((progress >= share).astype(progress.dtype) for share in decay_at)
    return decay_rate**reached


def exponential(progress: Array, decay_rate: Array, decay_at: Sequence[float]) -> Array:
    """From 1 smoothly down to `decay_rate` at the end."""
    return decay_rate**progress


Schedule = Callable[[Array, Array, Sequence[float]], Array]
SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "step": step_decay, "exponential": exponential}


def learning_rate(schedule: Schedule, decay_at: Sequence[float], step: Array, hparams: HParams) -> Array:
    """Learning rate of update `step`, counted from 0: a linear rise over the warm-up, then the schedule."""
    dtype = hparams.learning_rate.dtype
    done, warmup, steps = (jnp.asarray(count, dtype) for count in (step, hparams.warmup_steps, hparams.steps))
    rise = jnp.minimum(1, (done + 1) / jnp.maximum(1, warmup))
    progress = jnp.clip((done - warmup) / jnp.maximum(1, steps - warmup), 0, 1)
    return hparams.learning_rate * rise * schedule(progress, hparams.decay_rate, decay_at)


def kernels(params: Any) -> Any:
    """True for the leaves that weight decay applies to: the kernels, not biases nor normalisation scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def clip(hparams: HParams) -> optax.GradientTransformation:
    """Scales a gradient down to at most `clip_norm` over all its leaves (Pascanu et al. 2013, arXiv:1211.5063); 0: never."""
    return optax.clip_by_global_norm(jnp.where(hparams.clip_norm > 0, hparams.clip_norm, jnp.inf))


def decay(hparams: HParams) -> optax.GradientTransformation:
    """Adds weight decay times the kernels: before an optimiser's scaling it is an L2 penalty."""
    return optax.add_decayed_weights(hparams.weight_decay, mask=kernels)


def sgd(hparams: HParams, nesterov: bool = False) -> optax.GradientTransformation:
    """Gradient descent with momentum (Sutskever et al. 2013 for Nesterov's form) and L2 on the kernels."""
    return optax.chain(decay(hparams), optax.trace(decay=hparams.momentum, nesterov=nesterov))


def nesterov(hparams: HParams) -> optax.GradientTransformation:
    """`sgd` with Nesterov's momentum."""
    return sgd(hparams, nesterov=True)


def _adam_scaling(hparams: HParams) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=hparams.momentum, b2=hparams.beta2, eps=hparams.epsilon)


def adam(hparams: HParams) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) with L2 on the kernels; beta1 is the momentum."""
    return optax.chain(decay(hparams), _adam_scaling(hparams))


def adamw(hparams: HParams) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101): it shrinks kernels past the scaling."""
    return optax.chain(_adam_scaling(hparams), decay(hparams))


def rmsprop(hparams: HParams) -> optax.GradientTransformation:
    """RMSProp (Hinton's lecture 6e, 2012) with L2 on the kernels, and momentum upon the scaled gradient.

    The mean squared gradient is corrected for its start at 0, as Adam's is: the first steps are no longer than the others.
    """
    scaling = optax.scale_by_rms(decay=hparams.beta2, eps=hparams.epsilon, eps_in_sqrt=False, bias_correction=True)
    return optax.chain(decay(hparams), scaling, optax.trace(decay=hparams.momentum))


OPTIMIZERS: dict[str, Callable[[HParams], optax.GradientTransformation]] = {
    "sgd": sgd,
    "nesterov": nesterov,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
}


def make_optimizer(name: str, rate: Array, hparams: HParams) -> optax.GradientTransformation:
    """The optimiser of one step: clipping, then OPTIMIZERS[name], then the learning rate."""
    return optax.chain(clip(hparams), OPTIMIZERS[name](hparams), optax.scale_by_learning_rate(rate))
