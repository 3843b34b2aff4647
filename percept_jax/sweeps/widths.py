"""How many trials of a program to step together: measured, where measuring pays for itself.

Stacked matrix products are one larger product, so perceptrons gain from the widest pack that fits. Stacked convolutions become
grouped convolutions, for which XLA may know no fast code: on a CPU they may be three times slower and more.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from percept_jax.data import preprocess
from percept_jax.data.feed import Data
from percept_jax.data.sampler import Sampler
from percept_jax.data.spec import Dataset, DatasetSpec
from percept_jax.experiment import Experiment, stack_hparams
from percept_jax.training import evaluation, parallel
from percept_jax.training.parallel import Functions

if TYPE_CHECKING:
    # jax.Device is this class, which type checkers do not see.
    from jaxlib._jax import Device

# Trials on a device.
MOST = 64
# Of the training time that is predicted goes into measuring, at most.
SHARE = 0.03
# Of what is free on a device may a pack take.
MEMORY = 0.5
# Of the best time so far must another width take, or less, to be chosen.
CLEARLY = 0.95
CHUNKS, CHUNK_SECONDS = 4, 0.05


class Subject(NamedTuple):
    """What is measured: an experiment, its data set, and what its steps gather from, as NumPy arrays."""

    experiment: Experiment
    spec: DatasetSpec
    data: Data

    @property
    def steps(self) -> int:
        """Of a trial."""
        return self.experiment.total_steps(len(self.spec.roles["train"]))

    def functions(self, devices: Sequence[Device], width: int) -> Functions:
        """Of its program, for packs of so many trials."""
        return parallel.functions(self.experiment, self.spec, self.data.features[self.spec.input].shape[1:], devices, width)


def on_examples(experiment: Experiment, dataset: Dataset) -> Subject:
    """With the examples themselves."""
    preprocessing = preprocess.fit(experiment.normalize, dataset)
    return Subject(experiment, dataset.spec, preprocess.device_data(dataset, preprocessing, experiment.real_dtype))


class Choice(NamedTuple):
    """A width in trials, the milliseconds of a step of one trial by width as far as they were measured, and what was compiled."""

    width: int
    milliseconds: dict[int, float]
    compiled: dict[int, Functions]


def choose(subject: Subject, devices: Sequence[Device], trials: int, workers: int = 1) -> Choice:
    """The width at which `trials` of a program take the least time, when `workers` share them.

    A width is measured in turns with the best so far, since others may use the machine, and takes its place only where it is
    clearly faster.
    """
    on = len(devices)
    widest = _even(math.ceil(trials / workers / on), min(MOST, parallel.most_together(subject.experiment, devices)))
    if widest == 1:
        return Choice(on, {}, {})
    state = jax.eval_shape(subject.functions(devices[:1], 1).init, stack_hparams([subject.experiment], subject.steps))
    # [trial, height, width, in, out].
    convolves = any(leaf.ndim == 5 for leaf in jax.tree.leaves(state.params))
    best: _Setting | None = None
    measured: dict[int, float] = {}
    spent = cost = 0.0
    for width in _candidates(widest, on, rising=convolves):
        if best and spent + 1.5 * cost > SHARE * best.seconds(trials, subject.steps):
            break
        began, setting = time.monotonic(), None
        try:
            setting = _Setting(subject, devices, width)
            fits = width == on or setting.memory() < MEMORY * free_memory(devices[0])
            if fits:
                setting.race(best)
        except Exception as error:
            if width == on or not re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", str(error)):
                raise
            fits = False
        if setting is None or not fits:
            if convolves:
                break
            continue
        measured[width] = round(setting.milliseconds, 4)
        cost = time.monotonic() - began
        # What comes first is wanted anyway.
        spent += cost if best else 0
        if best and setting.milliseconds > 1.2 * best.milliseconds:
            break
        if not best or setting.seconds(trials, subject.steps) < CLEARLY * best.seconds(trials, subject.steps):
            best = setting
    if not best:
        return Choice(on, {}, {})
    return Choice(best.functions.trials, measured, {best.functions.trials: best.functions})


def measure(subject: Subject, devices: Sequence[Device], width: int) -> float:
    """Milliseconds of a step, divided by the trials, at one width."""
    setting = _Setting(subject, devices, width)
    setting.race(None)
    return setting.milliseconds


def _even(trials: int, most: float) -> int:
    """The size of packs of at most `most` that are as few and as equal as can be."""
    return max(1, math.ceil(trials / max(1, math.ceil(trials / most))))


def _candidates(widest: int, devices: int, rising: bool) -> Iterator[int]:
    doubling = [2**i for i in range(widest.bit_length()) if 2**i < widest] + [widest]
    for width in doubling if rising else reversed(doubling):
        yield width * devices


class _Setting:
    """A pack that is stepped for the clock alone; `milliseconds` a step, divided by the trials, in its last race."""

    milliseconds = math.inf

    def __init__(self, subject: Subject, devices: Sequence[Device], width: int):
        self.functions, train = subject.functions(devices, width), subject.spec.roles["train"]
        batch = subject.experiment.batch(len(train))
        samplers = [Sampler(seed, len(train), batch) for seed in range(width)]
        self._index = np.stack([train[sampler(0)] for sampler in samplers]) % len(subject.data.features[subject.spec.input])
        hparams = stack_hparams([subject.experiment] * width, subject.steps)
        self._state = parallel.place(self.functions.init(hparams), devices, width)
        self._rest = parallel.place(hparams, devices, width), parallel.place(subject.data, devices)

    def memory(self) -> float:
        """Bytes on a device, as XLA predicts them."""
        train: Any = self.functions.train
        return parallel.memory_bytes(train.lower(self._state, self._index, *self._rest).compile())

    def race(self, other: _Setting | None) -> None:
        """Steps some chunks, in turns with another setting; a chunk is as long as the clock needs."""
        # Compiles.
        self._chunk(1)
        self._steps = max(1, min(evaluation.IN_FLIGHT, round(CHUNK_SECONDS / self._chunk(1))))
        runners = [self, other] if other else [self]
        for runner in runners:
            runner.milliseconds = math.inf
        for _ in range(CHUNKS):
            for runner in runners:
                took = runner._chunk(runner._steps)
                runner.milliseconds = min(runner.milliseconds, 1000 * took / runner.functions.trials)

    def _chunk(self, steps: int) -> float:
        began, sums = time.monotonic(), {}
        for _ in range(steps):
            self._state, sums = self.functions.train(self._state, self._index, *self._rest)
        jax.block_until_ready(sums)
        return (time.monotonic() - began) / steps

    def seconds(self, trials: int, steps: int) -> float:
        """Of so many trials of so many steps; what fills the last pack up counts too."""
        width = self.functions.trials
        return math.ceil(trials / width) * width * steps * self.milliseconds / 1000


def free_memory(device: Device) -> float:
    """Bytes that are free on a device; on a CPU, in the machine. Infinite where nothing tells."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)
