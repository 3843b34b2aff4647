"""The training and the evaluation step: pure functions; everything they use comes in as an argument.

One trial is written here. `parallel` maps it over the shards of a batch, or over the trials of a pack.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from percept_jax import models
from percept_jax.data.augment import Augmentation, augment, mixup_share, mixup_shift
from percept_jax.experiment import Experiment, HParams
from percept_jax.training.objectives import OBJECTIVES, Objective
from percept_jax.training.optim import SCHEDULES, learning_rate, make_optimizer


class State(NamedTuple):
    """What a step changes: the count of updates, and pytrees of arrays; `average` is empty without --ema_decay."""

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What is evaluated, as Flax's modules take it: the running mean of the weights where one is kept."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}


class Data(NamedTuple):
    """A data set on the device, all splits in one.

    Attributes:
        images: uint8 `[examples, height, width, channels]`; points are float32 `[examples, 1, 1, features]`.
        labels: int32 `[examples]`.
        mean, scale: `[channels]`; a model sees `(image - mean) * scale`.
        components: `[channels, channels]`, the principal components of the training pixels, for --pca_color.
    """

    images: Array
    labels: Array
    mean: Array
    scale: Array
    components: Array


class Program(NamedTuple):
    """All that is fixed when a step is compiled.

    Attributes:
        module: the model; its logits give the number of classes.
        num_classes: classes of the data set.
        objective: loss of each example, and probabilities.
        optimizer: (learning rate, hparams) to an optax transformation.
        learning_rate: (step, hparams) to a learning rate.
        ema_decay: share of the weights' running mean that a step keeps; 0: there is none.
        dtype: arithmetic of the forward and backward pass.
        augmentation: what is done to the training images.
        mixup: pairs are mixed by shares out of Beta(mixup, mixup); 0: they are not.
    """

    module: nn.Module
    num_classes: int
    objective: Objective
    optimizer: Callable[[Array, HParams], optax.GradientTransformation]
    learning_rate: Callable[[Array, HParams], Array]
    ema_decay: float
    dtype: jnp.dtype
    augmentation: Augmentation
    mixup: float


class TrainSums(NamedTuple):
    """Sums over one batch: of losses, of correct predictions, of examples."""

    loss: Array
    correct: Array
    examples: Array


class EvalSums(NamedTuple):
    """Sums over the real examples of one batch; `confusion[true, predicted]` is `[classes, classes]`, int32."""

    loss: Array
    correct: Array
    top5_correct: Array
    examples: Array
    confusion: Array


def make_program(experiment: Experiment, num_classes: int, axis_name: str | None = None) -> Program:
    """The program of an experiment, for batches that are split over `axis_name`, if they are."""
    return Program(
        module=models.build(experiment.model, num_classes=num_classes, axis_name=axis_name, **experiment.knobs),
        num_classes=num_classes,
        objective=OBJECTIVES[experiment.loss],
        optimizer=functools.partial(make_optimizer, experiment.optimizer),
        learning_rate=functools.partial(learning_rate, SCHEDULES[experiment.schedule], experiment.decay_at),
        ema_decay=experiment.ema_decay,
        dtype=jnp.dtype(experiment.dtype),
        augmentation=Augmentation(*(getattr(experiment, name) for name in Augmentation._fields)),
        mixup=experiment.mixup,
    )


def init_state(hparams: HParams, image_shape: tuple[int, int, int], *, program: Program) -> State:
    """The state before the first step, from the seed alone. Initial values are drawn in float32 whatever the arithmetic."""
    key, _ = _keys(hparams)
    variables = program.module.init(key, jnp.zeros((1, *image_shape), jnp.float32))
    variables = jax.tree.map(lambda x: x.astype(_wide(program.dtype)), variables)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    opt_state = program.optimizer(hparams.learning_rate, hparams).init(params)
    average = {"params": params, "batch_stats": batch_stats} if program.ema_decay else {}
    return State(jnp.zeros((), jnp.int32), params, batch_stats, opt_state, average)


def train_step(
    state: State, index: Array, hparams: HParams, data: Data, *, program: Program, axis_name: str | None = None
) -> tuple[State, TrainSums]:
    """One update from the examples `index [batch]`, or from this shard of them when the batch is split over `axis_name`."""
    total = len(index) * (jax.lax.axis_size(axis_name) if axis_name else 1)
    _, key = _keys(hparams)
    input_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    images, targets = training_batch(input_key, index, data, program=program, axis_name=axis_name)
    targets = optax.smooth_labels(targets, hparams.label_smoothing)

    def mean_loss(params: Any) -> tuple[Array, tuple[Array, Array, Any]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, batch_stats = _forward(variables, images, program, hparams.dropout_rate, dropout_key)
        losses = program.objective.loss(logits, targets)
        return losses.sum() / total, (losses, logits, batch_stats)

    grads, (losses, logits, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
    correct = jnp.sum(jax.lax.argmax(logits, 1, jnp.int32) == data.labels[index])
    sums = TrainSums(losses.sum(), correct, jnp.int32(len(index)))
    if axis_name:
        grads, sums = jax.lax.psum((grads, sums), axis_name)
    rate = program.learning_rate(state.step, hparams)
    updates, opt_state = program.optimizer(rate, hparams).update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = _average(state, {"params": params, "batch_stats": batch_stats}, program) if program.ema_decay else {}
    return State(state.step + 1, params, batch_stats, opt_state, average), sums


def training_batch(
    key: Array, index: Array, data: Data, *, program: Program, axis_name: str | None = None
) -> tuple[Array, Array]:
    """Augmented, normalised images and target distributions `[batch, classes]` of the examples `index [batch]`.

    Each example's draws come from its position in the global batch, so they do not depend on the number of devices.
    """
    first = jax.lax.axis_index(axis_name) * len(index) if axis_name else 0
    positions = first + jnp.arange(len(index))
    augment_key, share_key, shift_key = jax.random.split(key, 3)

    def examples(index: Array, positions: Array) -> tuple[Array, Array]:
        pixels = data.images[index].astype(data.mean.dtype)
        if any(program.augmentation):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, positions)
            change = functools.partial(augment, strengths=program.augmentation)
            pixels = 255 * jax.vmap(change, (0, 0, None, None))(keys, pixels / 255, data.components, data.mean / 255)
        return pixels, jax.nn.one_hot(data.labels[index], program.num_classes, dtype=_wide(program.dtype))

    pixels, targets = examples(index, positions)
    if program.mixup:
        whole = jax.lax.all_gather(index, axis_name, tiled=True) if axis_name else index
        partners = (positions + mixup_shift(shift_key, len(whole))) % len(whole)
        others = examples(whole[partners], partners)  # as they are seen themselves, on whichever device
        keys = jax.vmap(jax.random.fold_in, (None, 0))(share_key, positions)
        share = jax.vmap(mixup_share, (0, None))(keys, program.mixup).astype(pixels.dtype)
        pixels = share[:, None, None, None] * pixels + (1 - share[:, None, None, None]) * others[0]
        targets = share[:, None] * targets + (1 - share[:, None]) * others[1]
    return _normalize(pixels, data.mean, data.scale, program.dtype), targets


def _average(state: State, new: Mapping[str, Any], program: Program) -> Any:
    """The running mean of all variables so far, each step weighing `ema_decay` times the next: Adam's correction built in."""
    steps = (state.step + 1).astype(_wide(program.dtype))
    share = (1 - program.ema_decay) / -jnp.expm1(steps * math.log(program.ema_decay))  # of 1 - decay^steps, without its rounding
    return jax.tree.map(lambda mean, x: mean + share * (x - mean), state.average, new)


def eval_step(
    variables: Mapping[str, Any], index: Array, data: Data, *, program: Program, axis_name: str | None = None
) -> EvalSums:
    """Sums over the examples `index [batch]` whose index is not negative: -1 fills up the last batch and counts for nothing.

    The loss is the objective without label smoothing; the five best guesses count as all of them where classes are fewer.
    """
    real, index = index >= 0, jnp.maximum(index, 0)
    images, labels = _normalize(data.images[index], data.mean, data.scale, program.dtype), data.labels[index]
    logits, _ = _forward(variables, images, program)
    losses = program.objective.loss(logits, jax.nn.one_hot(labels, program.num_classes, dtype=logits.dtype))
    guesses = jax.lax.top_k(logits, min(5, program.num_classes))[1]
    hits = (guesses == labels[:, None]) & real[:, None]
    confusion = jnp.zeros((program.num_classes,) * 2, jnp.int32).at[labels, guesses[:, 0]].add(real.astype(jnp.int32))
    sums = EvalSums(jnp.sum(jnp.where(real, losses, 0)), hits[:, 0].sum(), hits.sum(), real.sum(), confusion)
    return jax.lax.psum(sums, axis_name) if axis_name else sums


def predict_step(
    variables: Mapping[str, Any], images: Array, mean: Array, scale: Array, *, program: Program
) -> tuple[Array, Array]:
    """Logits and probabilities `[batch, classes]` of images `[batch, height, width, channels]`, pixels 0 to 255."""
    logits, _ = _forward(variables, _normalize(images, mean, scale, program.dtype), program)
    return logits, program.objective.probabilities(logits)


def _keys(hparams: HParams) -> Array:
    """The seed's two keys: for the initial values, and for everything drawn in a step."""
    return jax.random.split(jax.random.key(hparams.seed, impl="threefry2x32"))


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    """What parameters and losses are kept in: float32, also under bfloat16 arithmetic, or float64."""
    return jnp.dtype("float64" if dtype == jnp.float64 else "float32")


def _normalize(pixels: Array, mean: Array, scale: Array, dtype: jnp.dtype) -> Array:
    return ((pixels.astype(mean.dtype) - mean) * scale).astype(dtype)


def _forward(
    variables: Mapping[str, Any], images: Array, program: Program, dropout_rate: Any = None, dropout_key: Any = None
) -> tuple[Array, Any]:
    """Logits in float32 or wider, and the new running statistics; trains where a dropout key is given."""
    cast = {**variables, "params": jax.tree.map(lambda p: p.astype(program.dtype), variables["params"])}
    if dropout_key is None:
        logits, updated = program.module.apply(cast, images, train=False), variables
    else:
        rate = {"dropout_rate": dropout_rate} if models.has_dropout(program.module) else {}
        logits, updated = program.module.apply(
            cast, images, train=True, rngs={"dropout": dropout_key}, mutable=["batch_stats"], **rate
        )
    return logits.astype(_wide(program.dtype)), updated.get("batch_stats", {})
