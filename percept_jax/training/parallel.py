"""Where a step runs: on one device, over the shards of a batch on several, or over the trials of a pack.

State, index and hyperparameters always carry a leading axis of trials; a pack of one drops it, so a single run is mapped over
nothing. This file holds the only `jax.pmap`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from percept_jax.experiment import HParams
from percept_jax.training.batch import Data
from percept_jax.training.program import Program
from percept_jax.training.step import EvalSums, State, TrainSums, eval_step, init_state, train_step

AXIS = "batch"

Step = Callable[[State, np.ndarray, HParams, Data], tuple[State, TrainSums]]
Evaluation = Callable[[Any, np.ndarray, Data], EvalSums]


def axis_name(devices: Sequence[jax.Device]) -> str | None:
    """The name of the axis over which a batch is split: none on one device."""
    return AXIS if len(devices) > 1 else None


def place(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Copies a pytree to every device once, in the sharding that the steps return, so that step 2 compiles nothing."""
    if len(devices) == 1:
        return jax.device_put(tree, devices[0])
    return jax.device_put(tree, NamedSharding(Mesh(np.array(devices), AXIS), PartitionSpec()))


def compile_init(program: Program, trials: int, shape: tuple[int, ...]) -> Callable[[HParams], State]:
    """`hparams [K] -> state [K]` for inputs of this shape, on one device: to be placed."""
    return jax.jit(_over_trials(functools.partial(init_state, shape=shape, program=program), trials, (0,)))


def compile_train(program: Program, devices: Sequence[jax.Device], trials: int) -> Step:
    """`(state [K], index [K, batch], hparams [K], data) -> (state [K], sums [K])`; the state given is used up."""
    name = axis_name(devices)
    step = _over_trials(functools.partial(train_step, program=program, axis_name=name), trials, (0, 0, 0, None))
    if name is None:
        return jax.jit(step, donate_argnums=0)
    mapped = jax.pmap(step, name, in_axes=(None, 0, None, None), out_axes=None, devices=devices, donate_argnums=0)
    return lambda state, index, hparams, data: mapped(state, _shards(index, len(devices)), hparams, data)


def compile_eval(program: Program, devices: Sequence[jax.Device], trials: int) -> Evaluation:
    """`(variables [K], index [batch], data) -> sums [K]`: every trial sees the same examples."""
    name = axis_name(devices)
    step = _over_trials(functools.partial(eval_step, program=program, axis_name=name), trials, (0, None, None))
    if name is None:
        return jax.jit(step)
    mapped = jax.pmap(step, name, in_axes=(None, 0, None), out_axes=None, devices=devices)
    return lambda variables, index, data: mapped(variables, _shards(index, len(devices)), data)


def _over_trials(step: Callable[..., Any], trials: int, in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """`step` over a leading axis of trials in the arguments whose `in_axes` is 0, and in every result."""
    if trials > 1:
        return functools.wraps(step.func)(jax.vmap(step, in_axes))

    @functools.wraps(step.func)
    def only(*args: Any) -> Any:
        args = [a if axis is None else jax.tree.map(lambda x: x[0], a) for a, axis in zip(args, in_axes, strict=True)]
        return jax.tree.map(lambda x: x[None], step(*args))

    return only


def _shards(index: np.ndarray, devices: int) -> np.ndarray:
    """`[..., batch]` to `[devices, ..., batch / devices]`, consecutive examples on one device."""
    return np.moveaxis(index.reshape(*index.shape[:-1], devices, -1), -2, 0)
