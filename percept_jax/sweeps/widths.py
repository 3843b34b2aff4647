"""How many trials of a program to step together: measured, where measuring pays for itself.

Stacked matrix products are one larger product, so networks without convolutions gain from the widest pack that fits. Stacked
convolutions become grouped convolutions, for which XLA may know no fast code: on a CPU three times slower and more.
"""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from percept_jax.data import inputs
from percept_jax.data.dataset import Dataset, Info
from percept_jax.data.order import Order
from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.training import evaluation, parallel
from percept_jax.training.batch import Data
from percept_jax.training.parallel import Functions

MOST = 64  # trials on a device
SHARE = 0.03  # of the training time that is predicted goes into measuring, at most
MEMORY = 0.5  # of what is free on a device may a pack take
CHUNKS, CHUNK_SECONDS = 3, 0.05


class Subject(NamedTuple):
    """What is measured: an experiment, its data set, and what its steps gather from, as NumPy arrays."""

    experiment: Experiment
    info: Info
    data: Data

    @property
    def steps(self) -> int:
        """Of a trial."""
        return self.experiment.total_steps(len(self.info.index["train"]))

    def functions(self, devices: Sequence[jax.Device], width: int) -> Functions:
        """Of its program, for packs of so many trials."""
        return parallel.functions(self.experiment, self.info.task, self.data.inputs.shape[1:], devices, width)


def real(experiment: Experiment, dataset: Dataset) -> Subject:
    """With the examples themselves."""
    described = inputs.describe(experiment.normalize, dataset)
    return Subject(experiment, dataset.info, evaluation.device_data(dataset, described, experiment.real_dtype))


class Choice(NamedTuple):
    """A width in trials, the milliseconds of a step of one trial by width as far as they were measured, and what was compiled."""

    width: int
    milliseconds: dict[int, float]
    compiled: dict[int, Functions]


def choose(subject: Subject, devices: Sequence[jax.Device], trials: int, workers: int = 1) -> Choice:
    """The width at which `trials` of a program take the least time, when `workers` share them."""
    on = len(devices)
    widest = _even(math.ceil(trials / workers / on), MOST)
    measured: dict[int, float] = {}
    compiled: dict[int, Functions] = {}
    spent = cost = 0.0

    def total(width: int) -> float:
        return math.ceil(trials / width) * width * measured[width] * subject.steps / 1000

    if widest == 1 and on == 1:
        return Choice(1, {}, {})
    state = jax.eval_shape(subject.functions(devices[:1], 1).init, stack_hparams([subject.experiment], subject.steps))
    convolves = any(leaf.ndim == 5 for leaf in jax.tree.leaves(state.params))  # [trial, height, width, in, out]
    for width in _candidates(widest, on, rising=convolves):
        if measured and spent + 1.5 * cost > SHARE * min(map(total, measured)):
            break
        began = time.monotonic()
        setting = _Setting(subject, devices, width)
        if width > on and setting.memory() > MEMORY * free_memory(devices[0]):
            if convolves:
                break
            continue
        measured[width], compiled[width] = setting.milliseconds(), setting.functions
        cost = time.monotonic() - began
        spent += cost if len(measured) > 1 else 0  # what comes first is wanted anyway
        if measured[width] > 1.2 * min(measured.values()):
            break
    if not measured:
        return Choice(on, {}, {})
    least = min(map(total, measured))
    width = min(width for width in measured if total(width) <= 1.02 * least)
    return Choice(width, {w: round(ms, 4) for w, ms in measured.items()}, {width: compiled[width]})


def measure(subject: Subject, devices: Sequence[jax.Device], width: int) -> float:
    """Milliseconds of a step, divided by the trials, at one width."""
    return _Setting(subject, devices, width).milliseconds()


def _even(trials: int, most: int) -> int:
    """The size of packs of at most `most` that are as few and as equal as can be."""
    return max(1, math.ceil(trials / max(1, math.ceil(trials / most))))


def _candidates(widest: int, devices: int, rising: bool) -> Iterator[int]:
    doubling = [2**i for i in range(widest.bit_length()) if 2**i < widest] + [widest]
    for width in doubling if rising else reversed(doubling):
        yield width * devices


class _Setting:
    """A pack that is stepped for the clock alone."""

    def __init__(self, subject: Subject, devices: Sequence[jax.Device], width: int):
        self.functions, self._data = subject.functions(devices, width), subject.data
        train, experiment = subject.info.index["train"], subject.experiment
        orders = [Order(seed, len(train), experiment.batch(len(train))) for seed in range(width)]
        self._index = np.stack([train[order(0)] for order in orders]) % len(subject.data.inputs)
        self._hparams = stack_hparams([experiment] * width, subject.steps)

    def memory(self) -> float:
        """Bytes on a device, as XLA predicts them."""
        state = jax.eval_shape(self.functions.init, self._hparams)
        step = self.functions.train.lower(state, self._index, self._hparams, self._data).compile()
        return parallel.memory_bytes(step)

    def milliseconds(self) -> float:
        """Of a step, divided by the trials: the best of some chunks of steps, since others may use the machine."""
        width, devices = self.functions.trials, self.functions.devices
        state = parallel.place(self.functions.init(self._hparams), devices, width)
        hparams, data = parallel.place(self._hparams, devices, width), parallel.place(self._data, devices)
        seconds, steps = math.inf, 1
        for chunk in range(-2, CHUNKS):  # the first compiles, the second tells how many steps there are to a chunk
            began = time.monotonic()
            state, sums = self._steps(steps if chunk >= 0 else 1, state, hparams, data)
            jax.block_until_ready(sums)
            took = (time.monotonic() - began) / steps
            if chunk == -1:
                steps = max(1, min(evaluation.IN_FLIGHT, round(CHUNK_SECONDS / took)))
            if chunk >= 0:
                seconds = min(seconds, took)
        return 1000 * seconds / width

    def _steps(self, count: int, state: Any, hparams: Any, data: Any) -> tuple[Any, Any]:
        for _ in range(count):
            state, sums = self.functions.train(state, self._index, hparams, data)
        return state, sums


def free_memory(device: jax.Device) -> float:
    """Bytes that are free on a device; on a CPU, in the machine. Infinite where nothing tells."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)
