"""Optimizers and learning rate schedules as functions of traced numbers, and the parameters that they leave unchanged.

optax's own schedules check their arguments in Python and cannot take a tracer, so the schedules are written here; its gradient
transformations can.
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
    """The settings of an update: optimizer, schedule, regularization, and which parameters are trained."""

    optimizer: Literal["sgd", "nesterov", "adam", "adamw", "rmsprop"] = knob(
        "sgd", "static", "training", "optimizer: gradient descent with heavy-ball (sgd) or Nesterov momentum, or an adaptive one"
    )
    schedule: Literal["constant", "cosine", "step", "exponential"] = knob(
        "constant",
        "static",
        "training",
        "learning rate after the warm-up: constant, a half cosine down to 0, multiplied by --decay_rate at each of --decay_at, "
        "or an exponential decay to --decay_rate times its value at the end",
    )
    learning_rate: float = knob(0.1, "traced", "training", "step size", "(0, inf)")
    decay_rate: float = knob(0.1, "traced", "training", "decay factor of the step and exponential schedules", "(0, 1]")
    decay_at: tuple[float, ...] = knob(
        (0.5, 0.75), "static", "training", "when the step schedule decays, as fractions of the steps after the warm-up", "(0, 1)"
    )
    warmup_steps: int = knob(0, "traced", "training", "the learning rate rises linearly over this many steps", "[0, 2147483647]")
    momentum: float = knob(0.9, "traced", "training", "fraction of the last update that is kept; beta1 of Adam", "[0, 1)")
    beta2: float = knob(0.999, "traced", "training", "decay of the mean squared gradient in Adam, AdamW and RMSProp", "[0, 1)")
    epsilon: float = knob(1e-8, "traced", "training", "added to the root mean square in Adam, AdamW and RMSProp", "(0, inf)")
    clip_norm: float = knob(0.0, "traced", "training", "the gradient is scaled down to at most this norm; 0: off", "[0, inf)")
    weight_decay: float = knob(
        0.0, "traced", "training", "L2 penalty: this times a kernel is added to its gradient; adamw: to its update", "[0, inf)"
    )
    ema_decay: float = knob(
        0.0, "static", "training", "decay of a running mean of the weights, which is evaluated instead of them; 0: off", "[0, 1)"
    )
    freeze: str = knob(
        "",
        "static",
        "training",
        "parameters that are not trained: layers or patterns such as conv1,layer1_* (see --dry_run); their batch norm keeps its "
        "running statistics too, but training still normalizes by the batch",
    )
    lr_scale: str = knob("", "static", "training", "learning rate multipliers by layer, such as head=10,conv*=0.1")


class OptimNumbers(Protocol):
    """The fields of `HParams` that an update uses."""

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
    """Returns the fraction of the learning rate at `progress`, which goes from 0 (end of the warm-up) to 1: always 1."""
    return jnp.ones_like(progress)


def cosine(progress: Array, decay_rate: Array, decay_at: Sequence[float]) -> Array:
    """Returns half a cosine from 1 to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts)."""
    return 0.5 * (1 + jnp.cos(jnp.pi * progress))


def step_decay(progress: Array, decay_rate: Array, decay_at: Sequence[float]) -> Array:
    """Returns 1, multiplied by `decay_rate` at each fraction of the training in `decay_at`."""
    reached = sum((progress >= share).astype(progress.dtype) for share in decay_at)
    return decay_rate**reached


def exponential(progress: Array, decay_rate: Array, decay_at: Sequence[float]) -> Array:
    """Returns an exponential decay from 1 to `decay_rate` at the end."""
    return decay_rate**progress


Schedule = Callable[[Array, Array, Sequence[float]], Array]
SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "step": step_decay, "exponential": exponential}


def learning_rate(schedule: Schedule, decay_at: Sequence[float], step: Array, hparams: OptimNumbers) -> Array:
    """Returns the learning rate of update `step`, counted from 0: a linear rise over the warm-up, then the schedule."""
    dtype = hparams.learning_rate.dtype
    done, warmup, steps = (jnp.asarray(count, dtype) for count in (step, hparams.warmup_steps, hparams.steps))
    rise = jnp.minimum(1, (done + 1) / jnp.maximum(1, warmup))
    progress = jnp.clip((done - warmup) / jnp.maximum(1, steps - warmup), 0, 1)
    return hparams.learning_rate * rise * schedule(progress, hparams.decay_rate, decay_at)


def kernels(params: Any) -> Any:
    """Returns True for the leaves that weight decay applies to: kernels, but not biases or normalization scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def clip(hparams: OptimNumbers) -> optax.GradientTransformation:
    """Scales a gradient down to the global norm `clip_norm` (Pascanu et al. 2013, arXiv:1211.5063); 0: no clipping."""
    return optax.clip_by_global_norm(jnp.where(hparams.clip_norm > 0, hparams.clip_norm, jnp.inf))


def decay(hparams: OptimNumbers) -> optax.GradientTransformation:
    """Adds the weight decay times the kernels; before an optimizer's scaling this is an L2 penalty."""
    return optax.add_decayed_weights(hparams.weight_decay, mask=kernels)


def sgd(hparams: OptimNumbers, nesterov: bool = False) -> optax.GradientTransformation:
    """Gradient descent with momentum (Nesterov's form: Sutskever et al. 2013) and an L2 penalty on the kernels."""
    return optax.chain(decay(hparams), optax.trace(decay=hparams.momentum, nesterov=nesterov))


def nesterov(hparams: OptimNumbers) -> optax.GradientTransformation:
    """`sgd` with Nesterov's momentum."""
    return sgd(hparams, nesterov=True)


def _adam_scaling(hparams: OptimNumbers) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=hparams.momentum, b2=hparams.beta2, eps=hparams.epsilon)


def adam(hparams: OptimNumbers) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) with an L2 penalty on the kernels; beta1 is the momentum."""
    return optax.chain(decay(hparams), _adam_scaling(hparams))


def adamw(hparams: OptimNumbers) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, added after the scaling (Loshchilov and Hutter 2019, arXiv:1711.05101)."""
    return optax.chain(_adam_scaling(hparams), decay(hparams))


def rmsprop(hparams: OptimNumbers) -> optax.GradientTransformation:
    """RMSProp (Hinton's lecture 6e, 2012) with an L2 penalty on the kernels, and momentum on the scaled gradient.

    The mean squared gradient is bias-corrected as in Adam, so the first steps are no larger than the later ones.
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
    optimizer, scaling = OPTIMIZERS[name](hparams), optax.scale_by_learning_rate(rate)
    if lr_scale:
        factors = functools.partial(scales, lr_scale=lr_scale)
        scaling = optax.chain(scaling, optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, factors(updates), updates)))
    trained = optax.chain(clip(hparams), optimizer, scaling)
    if not freeze:
        return trained

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda fixed: "frozen" if fixed else "trained", frozen(params, freeze))

    return optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels)


def matches(path: str, pattern: str) -> bool:
    """Whether a pattern matches a parameter's whole path, "layer1_0/conv1/kernel", or a leading part that ends before a "/"."""
    names = path.split("/")
    return any(fnmatch.fnmatchcase("/".join(names[:depth]), pattern) for depth in range(1, len(names) + 1))


def frozen(params: Any, freeze: str) -> Any:
    """Returns True for the leaves that match `freeze`, a comma-separated list of patterns. Raises UsageError."""
    patterns = _items(freeze, "freeze")
    return _by_path(lambda path: any(matches(path, pattern) for pattern in patterns), params)


def scales(params: Any, lr_scale: str) -> Any:
    """Returns each leaf's learning rate multiplier in `lr_scale`, such as "head=10,conv*=0.1"; 1 without a match.

    If several patterns match, the last one counts. Raises UsageError.
    """
    factors = _factors(lr_scale)[::-1]
    return _by_path(lambda path: next((factor for pattern, factor in factors if matches(path, pattern)), 1.0), params)


def check_patterns(params: Any, freeze: str, lr_scale: str) -> None:
    """Raises UsageError if a text is malformed, a pattern matches no parameter, or no parameter is left to train."""
    paths = jax.tree.leaves(_by_path(lambda path: path, params))
    tops = list(dict.fromkeys(path.split("/")[0] for path in paths))
    patterns = [(pattern, "freeze") for pattern in _items(freeze, "freeze")]
    for pattern, flag in [*patterns, *((pattern, "lr_scale") for pattern, _ in _factors(lr_scale))]:
        if not any(matches(path, pattern) for path in paths):
            near = difflib.get_close_matches(pattern, tops, n=3) or tops[:8]
            raise UsageError(f"{pattern!r} matches no parameter; there are {', '.join(near)}", flag)
    is_frozen, factors = frozen(params, freeze), scales(params, lr_scale)
    if not any(jax.tree.leaves(jax.tree.map(lambda fixed, factor: factor > 0 and not fixed, is_frozen, factors))):
        raise UsageError("no parameter is left to train", "freeze" if freeze else "lr_scale")


def _by_path(function: Callable[[str], Any], tree: Any) -> Any:
    """Returns a tree of the same structure whose leaves are `function` of their paths."""
    keystr = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return jax.tree_util.tree_map_with_path(lambda path, _: function(keystr(path)), tree)


def _items(text: str, flag: str) -> list[str]:
    """Returns the items of a flag's comma-separated text. Raises UsageError if one is empty."""
    items = [item.strip() for item in text.split(",")] if text else []
    if not all(items):
        raise UsageError(f"{text!r} has an empty item: nothing between two commas, or at one end", flag)
    return items


def _factors(lr_scale: str) -> list[tuple[str, float]]:
    """Returns patterns and their factors. Raises UsageError if a factor is missing or is not a finite number >= 0."""
    factors = []
    for item in _items(lr_scale, "lr_scale"):
        pattern, _, number = (part.strip() for part in item.rpartition("="))
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not (pattern and 0 <= factor < math.inf):
            raise UsageError(f"{item!r} is not of the form PATTERN=FACTOR with a factor of 0 or more", "lr_scale")
        factors.append((pattern, factor))
    return factors
