"""Optimizers and learning rate schedules as functions of traced numbers, and which parameters they leave as they are.

optax's own schedules check their arguments in Python and cannot take a tracer, hence the few lines here; its transformations can.
"""

import dataclasses
import difflib
import fnmatch
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import Array

from percept_jax.errors import UsageError
from percept_jax.knobs import knob


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """What makes an update of a gradient."""

    optimizer: Literal["sgd", "nesterov", "adam", "adamw", "rmsprop"] = knob(
        "sgd", "static", "training", "gradient descent with heavy-ball or Nesterov momentum, or scaled by past gradients"
    )
    schedule: Literal["constant", "cosine", "step", "exponential"] = knob(
        "constant",
        "static",
        "training",
        "learning rate after the warm-up: constant, a half cosine to 0, times --decay_rate at each of --decay_at, or smoothly "
        "down to --decay_rate of it at the end",
    )
    learning_rate: float = knob(0.1, "traced", "training", "step size", "(0, inf)")
    decay_rate: float = knob(0.1, "traced", "training", "factor of the step and the exponential schedule", "(0, 1]")
    decay_at: tuple[float, ...] = knob(
        (0.5, 0.75), "static", "training", "where the step schedule decays, as shares of the steps after the warm-up", "(0, 1)"
    )
    warmup_steps: int = knob(0, "traced", "training", "the learning rate rises linearly over this many steps", "[0, 2147483647]")
    momentum: float = knob(0.9, "traced", "training", "share of the last update that is kept; beta1 of Adam", "[0, 1)")
    beta2: float = knob(0.999, "traced", "training", "share kept of the mean squared gradient: Adam, AdamW, RMSProp", "[0, 1)")
    epsilon: float = knob(1e-8, "traced", "training", "added to the root of that mean: Adam, AdamW, RMSProp", "(0, inf)")
    clip_norm: float = knob(0.0, "traced", "training", "the gradient is scaled down to at most this norm; 0: never", "[0, inf)")
    weight_decay: float = knob(
        0.0, "traced", "training", "L2 penalty: this times a kernel is added to its gradient; under adamw to its step", "[0, inf)"
    )
    ema_decay: float = knob(
        0.0, "static", "training", "share a step keeps of a running mean of weights, then evaluated; 0: off", "[0, 1)"
    )
    freeze: str = knob(
        "",
        "static",
        "training",
        "parameters that stay: layers or patterns such as conv1,layer1_* (see --dry_run); batch norm's running statistics "
        "stay with them, but training still normalizes by the batch",
    )
    lr_scale: str = knob("", "static", "training", "factors of the learning rate by layer, such as head=10,conv*=0.1")


class OptimNumbers(Protocol):
    """The traced numbers of an update, as `HParams` has them."""

    learning_rate: Array
    decay_rate: Array
    warmup_steps: Array
    steps: Array
    momentum: Array
    beta2: Array
    epsilon: Array
    clip_norm: Array
    weight_decay: Array


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


def learning_rate(schedule: Schedule, decay_at: Sequence[float], step: Array, hparams: OptimNumbers) -> Array:
    """Learning rate of update `step`, counted from 0: a linear rise over the warm-up, then the schedule."""
    dtype = hparams.learning_rate.dtype
    done, warmup, steps = (jnp.asarray(count, dtype) for count in (step, hparams.warmup_steps, hparams.steps))
    rise = jnp.minimum(1, (done + 1) / jnp.maximum(1, warmup))
    progress = jnp.clip((done - warmup) / jnp.maximum(1, steps - warmup), 0, 1)
    return hparams.learning_rate * rise * schedule(progress, hparams.decay_rate, decay_at)


def kernels(params: Any) -> Any:
    """True for the leaves that weight decay applies to: the kernels, not biases nor normalization scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def clip(hparams: OptimNumbers) -> optax.GradientTransformation:
    """Scales a gradient down to at most `clip_norm` over all its leaves (Pascanu et al. 2013, arXiv:1211.5063); 0: never."""
    return optax.clip_by_global_norm(jnp.where(hparams.clip_norm > 0, hparams.clip_norm, jnp.inf))


def decay(hparams: OptimNumbers) -> optax.GradientTransformation:
    """Adds weight decay times the kernels: before an optimizer's scaling it is an L2 penalty."""
    return optax.add_decayed_weights(hparams.weight_decay, mask=kernels)


def sgd(hparams: OptimNumbers, nesterov: bool = False) -> optax.GradientTransformation:
    """Gradient descent with momentum (Sutskever et al. 2013 for Nesterov's form) and L2 on the kernels."""
    return optax.chain(decay(hparams), optax.trace(decay=hparams.momentum, nesterov=nesterov))


def nesterov(hparams: OptimNumbers) -> optax.GradientTransformation:
    """`sgd` with Nesterov's momentum."""
    return sgd(hparams, nesterov=True)


def _adam_scaling(hparams: OptimNumbers) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=hparams.momentum, b2=hparams.beta2, eps=hparams.epsilon)


def adam(hparams: OptimNumbers) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) with L2 on the kernels; beta1 is the momentum."""
    return optax.chain(decay(hparams), _adam_scaling(hparams))


def adamw(hparams: OptimNumbers) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101): it shrinks kernels past the scaling."""
    return optax.chain(_adam_scaling(hparams), decay(hparams))


def rmsprop(hparams: OptimNumbers) -> optax.GradientTransformation:
    """RMSProp (Hinton's lecture 6e, 2012) with L2 on the kernels, and momentum upon the scaled gradient.

    The mean squared gradient is corrected for its start at 0, as Adam's is: the first steps are no longer than the others.
    """
    scaling = optax.scale_by_rms(decay=hparams.beta2, eps=hparams.epsilon, eps_in_sqrt=False, bias_correction=True)
    return optax.chain(decay(hparams), scaling, optax.trace(decay=hparams.momentum))


OPTIMIZERS: dict[str, Callable[[OptimNumbers], optax.GradientTransformation]] = {
    "sgd": sgd,
    "nesterov": nesterov,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
}


def make_optimizer(
    name: str, rate: Array, hparams: OptimNumbers, freeze: str = "", lr_scale: str = ""
) -> optax.GradientTransformation:
    """Returns the optimizer of one step: clipping, then OPTIMIZERS[name], then the learning rate.

    A frozen leaf gets no update and has no optimizer state, and its gradient does not count in the norm that is clipped.
    """
    optimizer, last = OPTIMIZERS[name](hparams), optax.scale_by_learning_rate(rate)
    if lr_scale:
        factors = functools.partial(scales, lr_scale=lr_scale)
        last = optax.chain(last, optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, factors(updates), updates)))
    trained = optax.chain(clip(hparams), optimizer, last)
    if not freeze:
        return trained

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda still: "frozen" if still else "trained", frozen(params, freeze))

    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels)


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern is of a parameter's whole path, "layer1_0/conv1/kernel", or of a leading part that ends at a "/"."""
    names = path.split("/")
    return any(fnmatch.fnmatchcase("/".join(names[:depth]), pattern) for depth in range(1, len(names) + 1))


def frozen(params: Any, freeze: str) -> Any:
    """True for the leaves that `freeze`, patterns between commas, says to leave as they are. Raises UsageError."""
    patterns = _items(freeze, "freeze")
    return _by_path(lambda path: any(matches(path, pattern) for pattern in patterns), params)


def scales(params: Any, lr_scale: str) -> Any:
    """The factor on each leaf's learning rate that `lr_scale`, such as "head=10,conv*=0.1", gives it; 1 without a match.

    Of several that match, the last one counts. Raises UsageError.
    """
    factors = _factors(lr_scale)[::-1]
    return _by_path(lambda path: next((factor for pattern, factor in factors if matches(path, pattern)), 1.0), params)


def check_patterns(params: Any, freeze: str, lr_scale: str) -> None:
    """Raises UsageError for text that is malformed, a pattern that matches no parameter, and where nothing is left to train."""
    paths = jax.tree.leaves(_by_path(lambda path: path, params))
    tops = list(dict.fromkeys(path.split("/")[0] for path in paths))
    said = [(pattern, "freeze") for pattern in _items(freeze, "freeze")]
    for pattern, flag in [*said, *((pattern, "lr_scale") for pattern, _ in _factors(lr_scale))]:
        if not any(matches(path, pattern) for path in paths):
            near = difflib.get_close_matches(pattern, tops, n=3) or tops[:8]
            raise UsageError(f"{pattern!r} matches no parameter; there are {', '.join(near)}", flag)
    still, factors = frozen(params, freeze), scales(params, lr_scale)
    if not any(jax.tree.leaves(jax.tree.map(lambda fixed, factor: factor > 0 and not fixed, still, factors))):
        raise UsageError("nothing is left to train", "freeze" if freeze else "lr_scale")


def _by_path(function: Callable[[str], Any], tree: Any) -> Any:
    """A tree of the same structure, each leaf made from its path."""
    keystr = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return jax.tree_util.tree_map_with_path(lambda path, _: function(keystr(path)), tree)


def _items(text: str, flag: str) -> list[str]:
    """What stands between the commas of a flag's text. Raises UsageError where that is nothing."""
    items = [item.strip() for item in text.split(",")] if text else []
    if not all(items):
        raise UsageError(f"{text!r} has nothing between two commas, or at an end", flag)
    return items


def _factors(lr_scale: str) -> list[tuple[str, float]]:
    """Patterns and their factors. Raises UsageError where a factor is missing, or not a finite number of 0 or more."""
    factors = []
    for item in _items(lr_scale, "lr_scale"):
        pattern, _, number = (part.strip() for part in item.rpartition("="))
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not (pattern and 0 <= factor < math.inf):
            raise UsageError(f"{item!r} is not a pattern, '=' and a number of 0 or more", "lr_scale")
        factors.append((pattern, factor))
    return factors
