"""The training and the evaluation step: pure functions; everything they use comes in as an argument.

One trial is written here. `parallel` maps it over the shards of a batch, or over the trials of a pack.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from percept_jax import models
from percept_jax.experiment import Experiment, HParams
from percept_jax.training.objectives import OBJECTIVES, Objective, smoothed_targets
from percept_jax.training.optim import OPTIMIZERS, SCHEDULES, learning_rate


class State(NamedTuple):
    """What a step changes: the count of updates, and pytrees of arrays."""

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What the module is applied to, as Flax spells it."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class Data(NamedTuple):
    """A data set on the device, all splits in one.

    Attributes:
        images: uint8 `[examples, height, width, channels]`.
        labels: int32 `[examples]`.
        mean, scale: `[channels]`; a model sees `(image - mean) * scale`.
    """

    images: Array
    labels: Array
    mean: Array
    scale: Array


class Program(NamedTuple):
    """All that is fixed when a step is compiled.

    Attributes:
        module: the model; its logits give the number of classes.
        num_classes: classes of the data set.
        objective: loss of each example, and probabilities.
        optimizer: (learning rate, hparams) to an optax transformation.
        schedule: progress in [0, 1] to a share of the learning rate.
        dtype: arithmetic of the forward and backward pass.
        augment: (key, image `[height, width, channels]`, normalised) to an image, applied to each training example.
    """

    module: nn.Module
    num_classes: int
    objective: Objective
    optimizer: Callable[[Array, HParams], optax.GradientTransformation]
    schedule: Callable[[Array], Array]
    dtype: jnp.dtype
    augment: Callable[[Array, Array], Array] | None = None


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


def make_program(
    experiment: Experiment,
    num_classes: int,
    axis_name: str | None = None,
    augment: Callable[[Array, Array], Array] | None = None,
) -> Program:
    """The program of an experiment, for batches that are split over `axis_name`, if they are."""
    return Program(
        module=models.build(experiment.model, num_classes=num_classes, axis_name=axis_name, **experiment.knobs),
        num_classes=num_classes,
        objective=OBJECTIVES[experiment.loss],
        optimizer=OPTIMIZERS[experiment.optimizer],
        schedule=SCHEDULES[experiment.schedule],
        dtype=jnp.dtype(experiment.dtype),
        augment=augment,
    )


def init_state(hparams: HParams, image_shape: tuple[int, int, int], *, program: Program) -> State:
    """The state before the first step, from the seed alone. Initial values are drawn in float32 whatever the arithmetic."""
    key, _ = _keys(hparams)
    variables = program.module.init(key, jnp.zeros((1, *image_shape), jnp.float32))
    variables = jax.tree.map(lambda x: x.astype(_wide(program.dtype)), variables)
    opt_state = program.optimizer(hparams.learning_rate, hparams).init(variables["params"])
    return State(jnp.zeros((), jnp.int32), variables["params"], variables.get("batch_stats", {}), opt_state)


def train_step(
    state: State, index: Array, hparams: HParams, data: Data, *, program: Program, axis_name: str | None = None
) -> tuple[State, TrainSums]:
    """One update from the examples `index [batch]`, or from this shard of them when the batch is split over `axis_name`."""
    total = len(index) * (jax.lax.axis_size(axis_name) if axis_name else 1)
    _, key = _keys(hparams)
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    images, labels = _gather(data, index, program.dtype)
    if program.augment:
        first = jax.lax.axis_index(axis_name) * len(index) if axis_name else 0
        keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, first + jnp.arange(len(index)))
        images = jax.vmap(program.augment)(keys, images)

    def mean_loss(params: Any) -> tuple[Array, tuple[Array, Array, Any]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, batch_stats = _forward(variables, images, program, hparams.dropout_rate, dropout_key)
        targets = smoothed_targets(labels, program.num_classes, hparams.label_smoothing, logits.dtype)
        losses = program.objective.loss(logits, targets)
        return losses.sum() / total, (losses, logits, batch_stats)

    grads, (losses, logits, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
    correct = jnp.sum(jax.lax.argmax(logits, 1, jnp.int32) == labels)
    sums = TrainSums(losses.sum(), correct, jnp.int32(len(index)))
    if axis_name:
        grads, sums = jax.lax.psum((grads, sums), axis_name)
    rate = learning_rate(program.schedule, state.step, hparams)
    updates, opt_state = program.optimizer(rate, hparams).update(grads, state.opt_state, state.params)
    return State(state.step + 1, optax.apply_updates(state.params, updates), batch_stats, opt_state), sums


def eval_step(
    variables: Mapping[str, Any], index: Array, data: Data, *, program: Program, axis_name: str | None = None
) -> EvalSums:
    """Sums over the examples `index [batch]` whose index is not negative: -1 fills up the last batch and counts for nothing.

    The loss is the objective without label smoothing; the five best guesses count as all of them where classes are fewer.
    """
    real = index >= 0
    images, labels = _gather(data, jnp.maximum(index, 0), program.dtype)
    logits, _ = _forward(variables, images, program)
    losses = program.objective.loss(logits, smoothed_targets(labels, program.num_classes, 0.0, logits.dtype))
    guesses = jax.lax.top_k(logits, min(5, program.num_classes))[1]
    hits = (guesses == labels[:, None]) & real[:, None]
    confusion = jnp.zeros((program.num_classes,) * 2, jnp.int32).at[labels, guesses[:, 0]].add(real.astype(jnp.int32))
    sums = EvalSums(jnp.sum(jnp.where(real, losses, 0)), hits[:, 0].sum(), hits.sum(), real.sum(), confusion)
    return jax.lax.psum(sums, axis_name) if axis_name else sums


def predict_step(variables: Mapping[str, Any], images: Array, mean: Array, scale: Array, *, program: Program) -> Array:
    """Probabilities `[batch, classes]` of uint8 images `[batch, height, width, channels]`."""
    images = _normalize(images, mean, scale, program.dtype)
    return program.objective.probabilities(_forward(variables, images, program)[0])


def _keys(hparams: HParams) -> Array:
    """The seed's two keys: for the initial values, and for everything drawn in a step."""
    return jax.random.split(jax.random.key(hparams.seed, impl="threefry2x32"))


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    """What parameters and losses are kept in: float32, also under bfloat16 arithmetic, or float64."""
    return jnp.dtype("float64" if dtype == jnp.float64 else "float32")


def _gather(data: Data, index: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    return _normalize(data.images[index], data.mean, data.scale, dtype), data.labels[index]


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
