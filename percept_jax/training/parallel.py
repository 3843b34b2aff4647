"""Compiles the steps for their devices: for one device, for a batch split over several, or for the trials of a pack.

State, index and hyperparameters always carry a leading axis of trials; a pack of one drops it, so a single run is not vmapped.
On several devices either the batch of a pack of one is split, or the trials of a wider pack are distributed, never both. This
file holds the only `jax.pmap`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from percept_jax import models
from percept_jax.data.feed import Data
from percept_jax.experiment import Experiment, HParams
from percept_jax.tasks.base import Spec, Sums
from percept_jax.training.program import Program, make_program
from percept_jax.training.step import State, eval_step, init_state, train_step

if TYPE_CHECKING:
    # jax.Device is this class, but type checkers cannot tell.
    from jaxlib._jax import Device

AXIS = "batch"
TRIALS = "trials"

Init = Callable[[HParams], State]
Step = Callable[[State, np.ndarray, HParams, Data], tuple[State, Sums]]
Evaluation = Callable[[Any, np.ndarray, Data], tuple[Sums, Sums]]


class CompiledProgram(NamedTuple):
    """The jitted functions of a program for given devices and a number of trials; each compiles once, on its first call."""

    program: Program
    devices: tuple[Device, ...]
    trials: int
    init: Init
    train: Step
    evaluate: Evaluation


def compile_program(
    experiment: Experiment, spec: Spec, shape: tuple[int, ...], devices: Sequence[Device], trials: int
) -> CompiledProgram:
    """Returns the jitted functions of an experiment's program on a data set whose inputs have this shape.

    Raises ValueError if the trials cannot be distributed evenly, or are more than `max_trials_per_device` allows.
    """
    if trials > 1 and trials % len(devices):
        raise ValueError(f"{trials} trials on {len(devices)} devices: not the same number on each")
    if trials // len(devices) > max_trials_per_device(experiment, devices):
        raise ValueError(f"trials of {experiment.model} cannot be stacked on a CPU")
    program = make_program(experiment, spec, _batch_axis(devices, trials))
    init, train = compile_init(program, trials, shape), compile_train(program, devices, trials)
    return CompiledProgram(program, tuple(devices), trials, init, train, compile_eval(program, devices, trials))


def max_trials_per_device(experiment: Experiment, devices: Sequence[Device]) -> float:
    """Returns how many trials a device can step together, memory aside.

    Recurrent networks are limited to one on a CPU: with two threads or more XLA's runtime hangs in a scan over stacked matrix
    products (jax 0.10.2; with one thread stacking six trials saved 10 %).
    """
    recurrent = models.takes_sequences(models.module_class(experiment.model))
    return 1 if recurrent and devices[0].platform == "cpu" else math.inf


def axis_name(devices: Sequence[Device]) -> str | None:
    """Returns the name of the axis over which a batch is split; None on one device."""
    return AXIS if len(devices) > 1 else None


def place(tree: Any, devices: Sequence[Device], trials: int = 1) -> Any:
    """Copies a pytree to the devices, with the sharding that the steps return, so that step 2 does not compile again.

    With `trials` > 1 the leaves are `[trials, ...]`, and each device gets its share of the trials.
    """
    if len(devices) == 1:
        return jax.device_put(tree, devices[0])
    axis, spec = (TRIALS, PartitionSpec(TRIALS)) if trials > 1 else (AXIS, PartitionSpec())
    return jax.device_put(tree, NamedSharding(Mesh(np.array(devices), axis), spec))


@jax.jit
def select(better: Array, new: Any, old: Any) -> Any:
    """Returns `new` for the trials that are `better [K]`, and `old` for the others."""
    return jax.tree.map(lambda n, o: jnp.where(better.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, old)


def compile_init(program: Program, trials: int, shape: tuple[int, ...]) -> Init:
    """Returns `hparams [K] -> state [K]` for inputs of this shape; the state is on one device and still to be placed."""
    return jax.jit(_over_trials(functools.partial(init_state, shape=shape, program=program), trials, (0,)))


def compile_train(program: Program, devices: Sequence[Device], trials: int) -> Step:
    """Returns `(state [K], index [K, batch], hparams [K], data) -> (state [K], sums [K])`, which donates its state."""
    name, in_axes = _batch_axis(devices, trials), (0, 0, 0, None)
    step = functools.partial(train_step, program=program, axis_name=name)
    if name is None:
        return jax.jit(_distribute(step, devices, trials, in_axes), donate_argnums=0)
    mapped = jax.pmap(
        _over_trials(step, 1, in_axes), name, in_axes=(None, 0, None, None), out_axes=None, devices=devices, donate_argnums=0
    )
    return lambda state, index, hparams, data: mapped(state, _shards(index, len(devices)), hparams, data)


def compile_eval(program: Program, devices: Sequence[Device], trials: int) -> Evaluation:
    """Returns `(variables [K], index [batch], data) -> (sums [K], rows [K, batch])`; all trials see the same examples."""
    name, in_axes = _batch_axis(devices, trials), (0, None, None)
    step = functools.partial(eval_step, program=program, axis_name=name)
    if name is None:
        return jax.jit(_distribute(step, devices, trials, in_axes))
    mapped = jax.pmap(_over_trials(step, 1, in_axes), name, in_axes=(None, 0, None), out_axes=None, devices=devices)
    return lambda variables, index, data: mapped(variables, _shards(index, len(devices)), data)


def _batch_axis(devices: Sequence[Device], trials: int) -> str | None:
    return axis_name(devices) if trials == 1 else None


def _distribute(
    step: Callable[..., Any], devices: Sequence[Device], trials: int, in_axes: tuple[int | None, ...]
) -> Callable[..., Any]:
    """Returns `step` for all trials, the same number on each device. Trials are independent, so there are no collectives."""
    on_each = _over_trials(step, trials // len(devices), in_axes)
    if len(devices) == 1:
        return on_each
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec(TRIALS) for axis in in_axes)
    mesh = Mesh(np.array(devices), TRIALS)
    mapped = jax.shard_map(on_each, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(TRIALS), check_vma=False)
    return _named_as(step)(mapped)


def _over_trials(step: Callable[..., Any], trials: int, in_axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """Returns `step` with a leading axis of trials in the arguments whose `in_axes` is 0, and in every result."""
    if trials > 1:
        return _named_as(step)(jax.vmap(step, in_axes))

    @_named_as(step)
    def one_trial(*args: Any) -> Any:
        first = [a if axis is None else jax.tree.map(lambda x: x[0], a) for a, axis in zip(args, in_axes, strict=True)]
        return jax.tree.map(lambda x: x[None], step(*first))

    return one_trial


def _named_as(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a decorator that gives a function the name of the step that it maps, for messages and profiles."""
    return functools.wraps(getattr(step, "func", step))


def _shards(index: np.ndarray, devices: int) -> np.ndarray:
    """Reshapes `[..., batch]` to `[devices, ..., batch / devices]`; consecutive examples stay on one device."""
    return np.moveaxis(index.reshape(*index.shape[:-1], devices, -1), -2, 0)


def memory_bytes(compiled: Any) -> int:
    """Returns the bytes that a compiled function takes on a device, as XLA predicts them."""
    memory = compiled.memory_analysis()
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes - memory.alias_size_in_bytes
