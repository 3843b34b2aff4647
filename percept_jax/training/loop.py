"""The training loop. It advances a pack: trials that share one program, their steps and their intervals.

A single run is a pack of one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax

from percept_jax.data.spec import Dataset, DatasetSpec
from percept_jax.errors import Interrupted, UsageError
from percept_jax.experiment import Experiment
from percept_jax.files import Lock
from percept_jax.training import parallel
from percept_jax.training.pack import Pack
from percept_jax.training.parallel import CompiledProgram
from percept_jax.training.program import program_key
from percept_jax.training.reporter import Reporter
from percept_jax.training.trial import Trial

if TYPE_CHECKING:
    # jax.Device is this class, but type checkers cannot tell.
    from jaxlib._jax import Device


def train_pack(
    trials: Sequence[Trial],
    dataset: Dataset,
    report: Reporter,
    interrupted: Callable[[], int | None] = lambda: None,
    began: float | None = None,
    *,
    compiled: CompiledProgram | None = None,
    pack_lock: Lock | None = None,
) -> list[dict[str, Any]]:
    """Trains or resumes trials that differ only in traced values, and returns their results.

    Args:
        trials: experiments with their run directories, which this process holds; padding trials have none.
        dataset: the examples, already at the size that the model takes.
        report: shows the progress to the user.
        interrupted: returns the number of the signal that asked to stop, if one has arrived.
        began: `time.time()` at which the command was given.
        compiled: their program for this number of trials, to compile it once for many packs.
        pack_lock: the lock on a folder that holds one common checkpoint of the trials until they are finished.

    Raises:
        Interrupted: `interrupted` returned a signal; the state has been saved.
        ValueError: the trials cannot share a program.
        StorageError: a checkpoint or a file of a run directory cannot be written or is damaged.
    """
    first, spec = trials[0].experiment, dataset.spec
    examples = len(spec.roles["train"])
    if len({program_key(trial.experiment, trial.experiment.total_steps(examples)) for trial in trials}) > 1:
        raise ValueError("trials of a pack differ in more than traced values and length")
    with jax.enable_x64(first.dtype == "float64"):
        if compiled is None:
            devices = choose_devices(first, spec)
            compiled = parallel.compile_program(first, spec, dataset.inputs.shape[1:], devices, len(trials))
        pack = Pack(trials, dataset, compiled, report, began or time.time(), pack_lock)
        try:
            pack.start()
            while not pack.over:
                pack.advance()
                if pack.step == pack.steps or pack.step % pack.eval_every == 0:
                    pack.validate()
                signal = interrupted()
                if pack.over or signal or pack.due:
                    pack.save()
                if signal:
                    pack.wait()
                    raise Interrupted(signal, f" at step {pack.step}", first.fresh)
            totals = pack.test()
            if signal := interrupted():
                raise Interrupted(signal, f" at step {pack.step}", first.fresh)
            return pack.finish(totals)
        finally:
            pack.close()
            report.close()


def choose_devices(experiment: Experiment, spec: DatasetSpec, split: bool = True) -> list[Device]:
    """Returns the devices of a run.

    Raises UsageError if there are fewer than asked for, or if the batch is to be `split` over them and cannot be evenly.
    """
    try:
        devices = jax.local_devices()
    # JAX raises several kinds of errors.
    except Exception as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise UsageError(f"JAX finds no device (JAX_PLATFORMS={platforms!r}): {error or type(error).__name__}") from error
    if experiment.devices > len(devices):
        raise UsageError(f"{experiment.devices} devices requested, {len(devices)} available ({devices[0].platform})", "devices")
    devices = devices[: experiment.devices or None]
    batch = experiment.batch(len(spec.roles["train"]))
    if split and batch % len(devices):
        message = f"{batch} examples cannot be split evenly over {len(devices)} devices (see --devices)"
        raise UsageError(message, "batch_size")
    return devices
