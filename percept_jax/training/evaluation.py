"""Evaluation of a whole split: every example exactly once, sums over batches, one division at the end."""

import collections
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from percept_jax.data.dataset import Dataset
from percept_jax.data.inputs import Input
from percept_jax.training.batch import Data
from percept_jax.training.parallel import Evaluation
from percept_jax.training.program import Program

BATCH = 512  # examples at a time, at most
PIXELS = BATCH * 64 * 64 * 3  # numbers at a time, at most: large images are fewer
IN_FLIGHT = 8  # steps: XLA:CPU's collectives abort the process when about a hundred are queued


def device_data(dataset: Dataset, input: Input, dtype: np.dtype) -> Data:
    """What the steps gather from, as NumPy arrays, to be placed on the devices."""
    rows = (input.mean, input.scale, input.components, input.target_mean, input.target_scale)
    return Data(dataset.inputs, dataset.targets, dataset.lengths, *(np.array(row, dtype) for row in rows))


def batch_size(dataset: Dataset, devices: int) -> int:
    """Examples in one call of an evaluation step: the same for every held-out split, and a multiple of the devices."""
    held_out = max(len(index) for role, index in dataset.info.index.items() if role != "train")
    most = max(1, min(BATCH, PIXELS // math.prod(dataset.inputs.shape[1:])))
    return math.ceil(min(held_out, most) / devices) * devices


def evaluate(step: Evaluation, variables: Any, index: np.ndarray, batch: int, data: Data) -> dict[str, np.ndarray]:
    """Returns what the metrics of the examples `index` are computed from, by name, as NumPy arrays with an axis of trials.

    Sums are `[K, ...]`, added up in float64 and int64; rows are `[K, examples, ...]`, in the order of `index`.
    """
    padded = np.full(max(1, math.ceil(len(index) / batch)) * batch, -1, np.int32)
    padded[: len(index)] = index
    running: collections.deque = collections.deque()
    total: dict[str, np.ndarray] = {}
    rows: dict[str, list[np.ndarray]] = {}
    for part in [*padded.reshape(-1, batch), None]:
        if part is not None:
            running.append(step(variables, part, data))
        while running and (part is None or len(running) > IN_FLIGHT):
            sums, own = jax.device_get(running.popleft())
            for name, value in sums.items():
                total[name] = total.get(name, 0) + value.astype(np.float64 if value.dtype.kind == "f" else np.int64)
            for name, value in own.items():
                rows.setdefault(name, []).append(value)
    return total | {name: np.concatenate(parts, 1)[:, : len(index)] for name, parts in rows.items()}


def metrics(totals: Mapping[str, np.ndarray], trial: int, program: Program) -> dict[str, Any]:
    """Returns what one trial of `evaluate` comes to: the task's metrics, and how many examples (and positions) there were."""
    own = {name: value[trial].item() if value.ndim == 1 else value[trial] for name, value in totals.items()}
    counts = {"positions": own["positions"]} if program.outputs.output_steps else {}
    return {**program.task.measure(own), **counts, "examples": own["examples"]}
