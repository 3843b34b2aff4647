"""The one training loop. It advances a pack: trials that share one program, steps and cadence; a single run is a pack of one."""

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
from percept_jax.training.parallel import Functions
from percept_jax.training.program import program_key
from percept_jax.training.reporter import Reporter
from percept_jax.training.trial import Trial

if TYPE_CHECKING:
    # jax.Device is this class, which type checkers do not see.
    from jaxlib._jax import Device


def train_pack(
    trials: Sequence[Trial],
    dataset: Dataset,
    report: Reporter,
    interrupted: Callable[[], int | None] = lambda: None,
    began: float | None = None,
    *,
    functions: Functions | None = None,
    held: Lock | None = None,
) -> list[dict[str, Any]]:
    """Trains trials that differ in traced values only, or finishes what was begun of them; their results.

    Args:
        trials: experiments with the run directories that they hold; without one, an experiment fills the pack up.
        dataset: already resized to what the model wants.
        report: what tells a person how it goes.
        interrupted: the number of a signal that asks to stop, once one has come.
        began: `time.time()` at which the command was given.
        functions: of their program, for so many trials, to compile once for many packs.
        held: the lock on a folder where one file holds the checkpoint of them all, until they are finished.

    Raises:
        Interrupted: when `interrupted` says so; all is saved.
        ValueError: the trials cannot share a program.
        StorageError: a checkpoint or a file of a run directory cannot be written or is damaged.
    """
    first, spec = trials[0].experiment, dataset.spec
    examples = len(spec.roles["train"])
    if len({program_key(trial.experiment, trial.experiment.total_steps(examples)) for trial in trials}) > 1:
        raise ValueError("trials of a pack differ in more than traced values and length")
    with jax.enable_x64(first.dtype == "float64"):
        if functions is None:
            devices = choose_devices(first, spec)
            functions = parallel.functions(first, spec, dataset.inputs.shape[1:], devices, len(trials))
        pack = Pack(trials, dataset, functions, report, began or time.time(), held)
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
    """The devices of a run. Raises UsageError where there are fewer than asked for, or a batch to `split` has no equal parts."""
    try:
        devices = jax.local_devices()
    # JAX raises several kinds.
    except Exception as error:
        said = os.environ.get("JAX_PLATFORMS", "")
        raise UsageError(f"JAX finds no device (JAX_PLATFORMS={said!r}): {error or type(error).__name__}") from error
    if experiment.devices > len(devices):
        raise UsageError(f"{experiment.devices} asked for, {len(devices)} here ({devices[0].platform})", "devices")
    devices = devices[: experiment.devices or None]
    batch = experiment.batch(len(spec.roles["train"]))
    if split and batch % len(devices):
        message = f"{batch} examples cannot be split evenly over {len(devices)} devices (see --devices)"
        raise UsageError(message, "batch_size")
    return devices
