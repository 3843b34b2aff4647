"""The training and the evaluation step: pure functions; everything they use comes in as an argument.

One trial is written here. `parallel` maps it over the shards of a batch, or over the trials of a pack.
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
from percept_jax.experiment import HParams
from percept_jax.tasks.base import Sums
from percept_jax.training.batch import center_crop, evaluation_batch, normalize, training_batch
from percept_jax.training.optim import frozen
from percept_jax.training.program import Program


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


def init_state(hparams: HParams, shape: tuple[int, ...], *, program: Program) -> State:
    """The state before the first step, from the seed alone, for inputs of this shape.

    Initial values are drawn in float32 whatever the arithmetic.
    """
    key, _ = _keys(hparams)
    shape = (program.crop, program.crop, shape[-1]) if program.crop else shape
    variables = program.module.init(key, jnp.zeros((1, *shape), jnp.int32 if program.outputs.vocabulary else jnp.float32))
    variables = jax.tree.map(lambda x: x.astype(program.param_dtype), variables)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    opt_state = program.optimizer(hparams.learning_rate, hparams).init(params)
    average = {"params": params, "batch_stats": batch_stats} if program.ema_decay else {}
    return State(jnp.zeros((), jnp.int32), params, batch_stats, opt_state, average)


def train_step(
    state: State, index: Array, hparams: HParams, data: Data, *, program: Program, axis_name: str | None = None
) -> tuple[State, Sums]:
    """One update from the examples `index [batch]`, or from this shard of them when the batch is split over `axis_name`.

    Returns the next state, and sums over the whole batch: "loss" and what the task sums, over the positions that count;
    "positions", how many do; and "examples".
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
        loss = _sum(program.objective.loss(logits, batch.targets), batch.mask)
        extra = [program.module.auxiliary_weight * program.objective.loss(head, batch.targets).sum() for head in heads]
        return sum(extra, loss) / jnp.maximum(1, total).astype(loss.dtype), (loss, logits, batch_stats)

    grads, (loss, logits, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
    own = program.task.train_sums(logits, batch)
    sums = {**own, "loss": loss, "positions": positions, "examples": jnp.int32(len(index))}
    if axis_name:
        grads, sums = jax.lax.psum((grads, sums), axis_name)
    rate = program.learning_rate(state.step, hparams)
    updates, opt_state = program.optimizer(rate, hparams).update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    if program.freeze:
        still = frozen(batch_stats, program.freeze)
        batch_stats = jax.tree.map(lambda fixed, old, new: old if fixed else new, still, state.batch_stats, batch_stats)
    average = _average(state, {"params": params, "batch_stats": batch_stats}, program) if program.ema_decay else {}
    return State(state.step + 1, params, batch_stats, opt_state, average), sums


def _sum(losses: Array, mask: Array | None) -> Array:
    return losses.sum() if mask is None else jnp.where(mask, losses, 0).sum()


def _average(state: State, new: Mapping[str, Any], program: Program) -> Any:
    """The running mean of all variables so far, each step weighing `ema_decay` times the next: Adam's correction built in."""
    steps = (state.step + 1).astype(program.param_dtype)
    # Of 1 - decay^steps, without its rounding.
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
    losses = program.objective.loss(outputs, batch.targets)
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
    """Logits and probabilities `[batch, (time,) classes]` of inputs as in `Dataset`; of values, the outputs twice."""
    logits, _, _ = _forward(variables, normalize(center_crop(inputs, program), mean, inv_std, program), lengths, program)
    probabilities = program.objective.probabilities
    return logits, probabilities(logits) if probabilities else logits


def generate_step(
    variables: Mapping[str, Any], carry: Any, token: Array, temperature: Array, key: Array, *, program: Program
) -> tuple[Array, Any]:
    """The next token, and the carry behind it, of a language model that has read `token` after what `carry` remembers.

    It is drawn from the softmax of logits / temperature; at temperature 0 it is the likeliest one.
    """
    cast = jax.tree.map(lambda p: p.astype(program.dtype), variables["params"])
    logits, updated = program.module.apply({"params": cast, "carry": carry}, token[None, None], mutable=["carry"])
    logits = logits[0, -1].astype(program.param_dtype)
    drawn = jax.random.categorical(key, logits / jnp.maximum(temperature, 1e-6).astype(logits.dtype))
    return jnp.where(temperature > 0, drawn, jnp.argmax(logits)), updated["carry"]


def _keys(hparams: HParams) -> Array:
    """The seed's two keys: for the initial values, and for everything drawn in a step."""
    return jax.random.split(jax.random.key(hparams.seed, impl="threefry2x32"))


def _forward(
    variables: Mapping[str, Any],
    inputs: Array,
    lengths: Array | None,
    program: Program,
    dropout_rate: Any = None,
    dropout_key: Any = None,
) -> tuple[Array, list[Array], Any]:
    """Logits and those of auxiliary heads, float32 or wider, and the new running statistics; trains where there is a key."""
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
