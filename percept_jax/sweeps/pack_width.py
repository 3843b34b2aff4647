"""Chooses how many trials of a program to step together. Widths are measured where that costs less than it saves.

Stacked matrix products are one larger product, so perceptrons gain from the widest pack that fits. Stacked convolutions become
grouped convolutions, for which XLA may have no fast code: on a CPU they can be more than three times slower.
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
from percept_jax.training.parallel import CompiledProgram

if TYPE_CHECKING:
    # jax.Device is this class, but type checkers cannot tell.
    from jaxlib._jax import Device

# The most trials of a pack on each device.
MOST = 64
# Measuring takes at most this share of the predicted training time.
SHARE = 0.03
# A pack takes at most this share of the free memory of a device.
MEMORY = 0.5
# Switch to another width only if it takes at most this share of the best time so far, so that noise does not decide.
MARGIN = 0.95
# The number of chunks of steps over which a width is measured, and the seconds that a chunk takes, approximately.
CHUNKS, CHUNK_SECONDS = 4, 0.05


class Subject(NamedTuple):
    """A program to measure.

    Attributes:
        experiment: any experiment of the program.
        spec: the description of its data set.
        data: the NumPy arrays from which its steps gather examples.
    """

    experiment: Experiment
    spec: DatasetSpec
    data: Data

    @property
    def steps(self) -> int:
        """The number of steps of a trial."""
        return self.experiment.total_steps(len(self.spec.roles["train"]))

    def compile(self, devices: Sequence[Device], width: int) -> CompiledProgram:
        """Returns the jitted functions of the program, for packs of `width` trials."""
        shape = self.data.features[self.spec.input].shape[1:]
        return parallel.compile_program(self.experiment, self.spec, shape, devices, width)


def subject_of(experiment: Experiment, dataset: Dataset) -> Subject:
    """Returns the subject of an experiment on a data set."""
    preprocessing = preprocess.fit(experiment.normalize, dataset)
    return Subject(experiment, dataset.spec, preprocess.device_data(dataset, preprocessing, experiment.real_dtype))


class Choice(NamedTuple):
    """The chosen width.

    Attributes:
        width: the number of trials that are stepped together, on all devices.
        milliseconds: the measured time of a step per trial, by width.
        compiled: the programs that were compiled for the measurement, by width.
    """

    width: int
    milliseconds: dict[int, float]
    compiled: dict[int, CompiledProgram]


def choose(subject: Subject, devices: Sequence[Device], trials: int, workers: int = 1) -> Choice:
    """Returns the width at which the trials of a program take the least time.

    Each width is measured alternately with the best one so far, because other processes may use the machine too.

    Args:
        subject: an experiment of the program.
        devices: the devices that share a pack.
        trials: the number of trials of the program that are left.
        workers: the number of workers that share them.
    """
    on = len(devices)
    widest = _even_width(math.ceil(trials / workers / on), min(MOST, parallel.max_trials_per_device(subject.experiment, devices)))
    if widest == 1:
        return Choice(on, {}, {})
    state = jax.eval_shape(subject.compile(devices[:1], 1).init, stack_hparams([subject.experiment], subject.steps))
    # The kernel of a convolution is [trial, height, width, in, out].
    convolves = any(leaf.ndim == 5 for leaf in jax.tree.leaves(state.params))
    best: _TimedPack | None = None
    measured: dict[int, float] = {}
    spent = cost = 0.0
    for width in _candidates(widest, on, rising=convolves):
        if best and spent + 1.5 * cost > SHARE * best.seconds(trials, subject.steps):
            break
        began, pack = time.monotonic(), None
        try:
            pack = _TimedPack(subject, devices, width)
            fits = width == on or pack.memory() < MEMORY * free_memory(devices[0])
            if fits:
                pack.race(best)
        except Exception as error:
            if width == on or not re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", str(error)):
                raise
            fits = False
        if pack is None or not fits:
            if convolves:
                break
            continue
        measured[width] = round(pack.milliseconds, 4)
        cost = time.monotonic() - began
        # The first width costs nothing extra, because one width must be compiled in any case.
        spent += cost if best else 0
        if best and pack.milliseconds > 1.2 * best.milliseconds:
            break
        if not best or pack.seconds(trials, subject.steps) < MARGIN * best.seconds(trials, subject.steps):
            best = pack
    if not best:
        return Choice(on, {}, {})
    return Choice(best.compiled.trials, measured, {best.compiled.trials: best.compiled})


def measure(subject: Subject, devices: Sequence[Device], width: int) -> float:
    """Returns the milliseconds of a step per trial at one width."""
    pack = _TimedPack(subject, devices, width)
    pack.race(None)
    return pack.milliseconds


def _even_width(trials: int, most: float) -> int:
    """Returns the width that divides trials evenly over the fewest packs of at most `most` trials."""
    return max(1, math.ceil(trials / max(1, math.ceil(trials / most))))


def _candidates(widest: int, devices: int, rising: bool) -> Iterator[int]:
    """Yields the widths to measure: powers of two up to the widest one, on all devices."""
    doubling = [2**i for i in range(widest.bit_length()) if 2**i < widest] + [widest]
    for width in doubling if rising else reversed(doubling):
        yield width * devices


class _TimedPack:
    """A pack that is stepped only to measure its time.

    Attributes:
        compiled: the jitted functions of its program.
        milliseconds: the time of a step per trial, in its last race.
    """

    def __init__(self, subject: Subject, devices: Sequence[Device], width: int):
        # The number of steps in a chunk is set by the first race.
        self.milliseconds, self._steps = math.inf, 1
        self.compiled, train = subject.compile(devices, width), subject.spec.roles["train"]
        batch = subject.experiment.batch(len(train))
        samplers = [Sampler(seed, len(train), batch) for seed in range(width)]
        self._index = np.stack([train[sampler(0)] for sampler in samplers]) % len(subject.data.features[subject.spec.input])
        hparams = stack_hparams([subject.experiment] * width, subject.steps)
        self._state = parallel.place(self.compiled.init(hparams), devices, width)
        self._rest = parallel.place(hparams, devices, width), parallel.place(subject.data, devices)

    def memory(self) -> float:
        """Returns the bytes that a step takes on a device, as XLA predicts them."""
        train: Any = self.compiled.train
        return parallel.memory_bytes(train.lower(self._state, self._index, *self._rest).compile())

    def race(self, other: _TimedPack | None) -> None:
        """Times some chunks of steps, in turns with another pack, and sets `milliseconds` of both to their best chunks."""
        # The first step compiles; the time of the second one determines the number of steps in a chunk.
        self._chunk(1)
        self._steps = max(1, min(evaluation.IN_FLIGHT, round(CHUNK_SECONDS / self._chunk(1))))
        packs = [self, other] if other else [self]
        for pack in packs:
            pack.milliseconds = math.inf
        for _ in range(CHUNKS):
            for pack in packs:
                seconds = pack._chunk(pack._steps)
                pack.milliseconds = min(pack.milliseconds, 1000 * seconds / pack.compiled.trials)

    def _chunk(self, steps: int) -> float:
        """Makes some steps. Returns the seconds per step."""
        began, sums = time.monotonic(), {}
        for _ in range(steps):
            self._state, sums = self.compiled.train(self._state, self._index, *self._rest)
        jax.block_until_ready(sums)
        return (time.monotonic() - began) / steps

    def seconds(self, trials: int, steps: int) -> float:
        """Returns the predicted time of `trials` trials of `steps` steps, including the padding trials of the last pack."""
        width = self.compiled.trials
        return math.ceil(trials / width) * width * steps * self.milliseconds / 1000


def free_memory(device: Device) -> float:
    """Returns the free bytes of a device, or of the machine for a CPU; infinity if unknown."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)
