"""The training and evaluation steps: pure functions that get everything they use as arguments.

They are written for one trial. `parallel` maps them over the shards of a batch, or over the trials of a pack.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from percept_jax import models
from percept_jax.data.feed import Data
from percept_jax.errors import UsageError
from percept_jax.experiment import HParams
from percept_jax.tasks.base import Batch, Sums
from percept_jax.training.batch import center_crop, evaluation_batch, normalize, training_batch
from percept_jax.training.optim import frozen
from percept_jax.training.program import Program


class State(NamedTuple):
    """The train state: the number of updates, and pytrees of arrays; `average` is empty without --ema_decay."""

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variables to evaluate, as Flax's modules take them: the running mean of the weights if there is one."""
        return self.average or {"params": self.params, "batch_stats": self.batch_stats}


def init_state(hparams: HParams, shape: tuple[int, ...], *, program: Program) -> State:
    """Returns the state before the first step, which depends only on the seed, for inputs of this shape.

    Initial values are always drawn in float32.
    """
    key, _ = _keys(hparams)
    shape = (*program.crop, shape[-1]) if program.crop else shape
    variables = program.module.init(key, jnp.zeros((1, *shape), jnp.int32 if program.outputs.vocabulary else jnp.float32))
    variables = jax.tree.map(lambda x: x.astype(program.param_dtype), variables)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    opt_state = program.optimizer(hparams.learning_rate, hparams).init(params)
    average = {"params": params, "batch_stats": batch_stats} if program.ema_decay else {}
    return State(jnp.zeros((), jnp.int32), params, batch_stats, opt_state, average)


def train_step(
    state: State, index: Array, hparams: HParams, data: Data, *, program: Program, axis_name: str | None = None
) -> tuple[State, Sums]:
    """Makes one update from the examples `index [batch]`, or from this shard of them if the batch is split over `axis_name`.

    Returns the next state, and sums over the whole batch: "loss" and the task's sums, over the positions that count; the number
    of these "positions"; and the number of "examples".
    """
    _, key = _keys(hparams)
    input_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    batch = training_batch(input_key, index, data, program=program, axis_name=axis_name)
    if program.task.distributions:
        batch = batch._replace(targets=optax.smooth_labels(batch.targets, hparams.label_smoothing))
    positions = jnp.int32(len(index)) if batch.mask is None else batch.mask.sum(dtype=jnp.int32)
    total = jax.lax.psum(positions, axis_name) if axis_name else positions

    def mean_loss(params: Any) -> tuple[Array, tuple[Array, Array, Any]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, heads, batch_stats = _forward(variables, batch.inputs, batch.lengths, program, hparams.dropout_rate, dropout_key)
        loss = _sum(_losses(logits, batch, program), batch.mask)
        extra = [program.module.auxiliary_weight * program.objective.loss(head, batch.targets).sum() for head in heads]
        return sum(extra, loss) / jnp.maximum(1, total).astype(loss.dtype), (loss, logits, batch_stats)

    grads, (loss, logits, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
    task_sums = program.task.train_sums(logits, batch)
    sums = {**task_sums, "loss": loss, "positions": positions, "examples": jnp.int32(len(index))}
    if axis_name:
        grads, sums = jax.lax.psum((grads, sums), axis_name)
    rate = program.learning_rate(state.step, hparams)
    updates, opt_state = program.optimizer(rate, hparams).update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    if program.freeze:
        is_frozen = frozen(batch_stats, program.freeze)
        batch_stats = jax.tree.map(lambda fixed, old, new: old if fixed else new, is_frozen, state.batch_stats, batch_stats)
    average = _average(state, {"params": params, "batch_stats": batch_stats}, program) if program.ema_decay else {}
    return State(state.step + 1, params, batch_stats, opt_state, average), sums


def _losses(outputs: Array, batch: Batch, program: Program) -> Array:
    """Returns the loss of each position. Raises UsageError if outputs, targets and losses do not have the shapes they should."""
    losses = program.objective.loss(outputs, batch.targets)
    positions = (len(batch.targets),) if batch.mask is None else batch.mask.shape
    if losses.shape != positions:
        sizes = f"outputs {list(outputs.shape)}, targets {list(batch.targets.shape)}"
        problem = (
            f"{sizes}: the loss of {program.task.name} is {list(losses.shape)}, not {list(positions)}, one number a position"
        )
        raise UsageError(problem, "model")
    return losses


def _sum(losses: Array, mask: Array | None) -> Array:
    return losses.sum() if mask is None else jnp.where(mask, losses, 0).sum()


def _average(state: State, new: Mapping[str, Any], program: Program) -> Any:
    """Returns the updated running mean of all variables: decay `ema_decay`, with Adam's bias correction built in."""
    steps = (state.step + 1).astype(program.param_dtype)
    # -expm1(steps * log(decay)) is 1 - decay^steps without its rounding error.
    share = (1 - program.ema_decay) / -jnp.expm1(steps * math.log(program.ema_decay))
    return jax.tree.map(lambda mean, x: mean + share * (x - mean), state.average, new)


def eval_step(
    variables: Mapping[str, Any], index: Array, data: Data, *, program: Program, axis_name: str | None = None
) -> tuple[Sums, Sums]:
    """Measures the examples `index [batch]`; an index of -1 fills up the last batch and counts for nothing.

    Returns sums as those of `train_step`, the loss without label smoothing; and the task's rows, `[batch, ...]`.
    """
    present, index = index >= 0, jnp.maximum(index, 0)
    batch = evaluation_batch(index, data, program=program)
    outputs, _, _ = _forward(variables, batch.inputs, batch.lengths, program)
    losses = _losses(outputs, batch, program)
    mask = present if batch.mask is None else batch.mask & present.reshape(-1, *[1] * (batch.mask.ndim - 1))
    own = program.task.eval_sums(outputs, batch, mask, present)
    sums = {**own, "loss": jnp.sum(jnp.where(mask, losses, 0)), "positions": mask.sum(), "examples": jnp.sum(present)}
    rows = program.task.eval_rows(outputs, batch) if program.task.eval_rows else {}
    if axis_name:
        sums, rows = jax.lax.psum(sums, axis_name), jax.lax.all_gather(rows, axis_name, tiled=True)
    return sums, rows


def predict_step(
    variables: Mapping[str, Any], inputs: Array, lengths: Array | None, mean: Array, inv_std: Array, *, program: Program
) -> tuple[Array, Array]:
    """Returns logits and probabilities `[batch, (time,) classes]` of inputs as in `Dataset`; if targets are values, both are the
    outputs.
    """
    logits, _, _ = _forward(variables, normalize(center_crop(inputs, program), mean, inv_std, program), lengths, program)
    probabilities = program.objective.probabilities
    return logits, probabilities(logits) if probabilities else logits


def generate_step(
    variables: Mapping[str, Any], carry: Any, token: Array, temperature: Array, key: Array, *, program: Program
) -> tuple[Array, Any]:
    """Returns the token that a language model generates after `token`, and the new carry; `carry` is its state before `token`.

    The token is drawn from the softmax of logits / temperature; at temperature 0 it is the likeliest one.
    """
    cast = jax.tree.map(lambda p: p.astype(program.dtype), variables["params"])
    logits, updated = program.module.apply({"params": cast, "carry": carry}, token[None, None], mutable=["carry"])
    logits = logits[0, -1].astype(program.param_dtype)
    drawn = jax.random.categorical(key, logits / jnp.maximum(temperature, 1e-6).astype(logits.dtype))
    return jnp.where(temperature > 0, drawn, jnp.argmax(logits)), updated["carry"]


def _keys(hparams: HParams) -> Array:
    """Returns two keys from the seed: one for the initial values, one for everything that is drawn in a step."""
    return jax.random.split(jax.random.key(hparams.seed, impl="threefry2x32"))


def _forward(
    variables: Mapping[str, Any],
    inputs: Array,
    lengths: Array | None,
    program: Program,
    dropout_rate: Any = None,
    dropout_key: Any = None,
) -> tuple[Array, list[Array], Any]:
    """Returns the logits and those of auxiliary heads, in param_dtype, and the new running statistics.

    The model runs in training mode if `dropout_key` is given.
    """
    options: dict[str, Any] = {} if lengths is None else {"lengths": lengths}
    cast = {**variables, "params": jax.tree.map(lambda p: p.astype(program.dtype), variables["params"])}
    if dropout_key is None:
        logits: Any = program.module.apply(cast, inputs, train=False, **options)
        return logits.astype(program.param_dtype), [], {}
    if models.has_dropout(program.module):
        options["dropout_rate"] = dropout_rate
    logits, updated = program.module.apply(
        cast, inputs, train=True, rngs={"dropout": dropout_key}, mutable=["batch_stats", "auxiliary"], **options
    )
    heads = [head.astype(program.param_dtype) for head in jax.tree.leaves(updated.get("auxiliary", {}))]
    return logits.astype(program.param_dtype), heads, updated.get("batch_stats", {})
