"""The one training loop. It advances a pack: trials that share one program, steps and cadence; a single run is a pack of one."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from percept_jax.data.dataset import Dataset, Info
from percept_jax.errors import Interrupted, UsageError
from percept_jax.experiment import KNOBS, Experiment
from percept_jax.training.pack import Pack, Trial
from percept_jax.training.progress import Reporter


def train_pack(
    trials: Sequence[Trial],
    dataset: Dataset,
    report: Reporter,
    interrupted: Callable[[], int | None] = lambda: None,
    began: float | None = None,
) -> list[dict[str, Any]]:
    """Trains trials that differ in traced values only, or finishes what was begun of them; their results.

    Args:
        trials: experiments with the run directories that they hold.
        dataset: already resized to what the model wants.
        report: what tells a person how it goes.
        interrupted: the number of a signal that asks to stop, once one has come.
        began: `time.time()` at which the command was given.

    Raises:
        Interrupted: when `interrupted` says so; all is saved.
        ValueError: the trials cannot share a program.
        StorageError: a checkpoint or a file of a run directory cannot be written or is damaged.
    """
    if len({_shared(trial.experiment, dataset.info) for trial in trials}) > 1:
        raise ValueError("trials of a pack differ in more than traced values and length")
    with jax.enable_x64(trials[0].experiment.dtype == "float64"):
        pack = Pack(trials, dataset, choose_devices(trials[0].experiment, dataset.info), report, began or time.time())
        try:
            pack.start()
            while not pack.over:
                pack.advance()
                signal = interrupted()
                if pack.step == pack.steps or pack.step % pack.eval_every == 0:
                    pack.validate()
                if pack.over or signal or pack.step % pack.checkpoint_every == 0:
                    pack.save()
                if signal and not pack.over:
                    pack.saver.wait()
                    raise Interrupted(signal, pack.step, trials[0].experiment.fresh)
            return pack.finish()
        finally:
            pack.saver.close()
            report.close()


def _shared(experiment: Experiment, info: Info) -> str:
    static = {name: value for name, value in experiment.science().items() if name not in KNOBS or KNOBS[name].role == "static"}
    return repr((static, experiment.total_steps(len(info.index["train"]))))


def choose_devices(experiment: Experiment, info: Info) -> list[jax.Device]:
    """The devices of a run. Raises UsageError where there are fewer than asked for, or the batch cannot be split over them."""
    try:
        devices = jax.local_devices()
    except Exception as error:  # JAX raises several kinds
        said = os.environ.get("JAX_PLATFORMS", "")
        raise UsageError(f"JAX finds no device (JAX_PLATFORMS={said!r}): {error or type(error).__name__}") from error
    if experiment.devices > len(devices):
        raise UsageError(f"{experiment.devices} asked for, {len(devices)} here ({devices[0].platform})", "devices")
    devices = devices[: experiment.devices or None]
    batch = experiment.batch(len(info.index["train"]))
    if batch % len(devices):
        message = f"{batch} examples cannot be split evenly over {len(devices)} devices (see --devices)"
        raise UsageError(message, "batch_size")
    return devices
