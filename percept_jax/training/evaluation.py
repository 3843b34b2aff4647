"""Evaluation of a whole split: every example exactly once, sums over batches, one division at the end."""

import collections
import math
from typing import Any

import jax
import numpy as np

from percept_jax.data.dataset import Dataset
from percept_jax.data.inputs import Input
from percept_jax.training.parallel import Evaluation
from percept_jax.training.step import Data, EvalSums

BATCH = 512  # examples at a time, at most
IN_FLIGHT = 8  # steps: XLA:CPU's collectives abort the process when about a hundred are queued


def device_data(dataset: Dataset, input: Input, dtype: np.dtype) -> Data:
    """What the steps gather from, as NumPy arrays, to be placed on the devices."""
    numbers = (np.array(number, dtype) for number in (input.mean, input.scale, input.components))
    return Data(dataset.images, dataset.labels, *numbers)


def batch_size(dataset: Dataset, devices: int) -> int:
    """Examples in one call of an evaluation step: the same for every held-out split, and a multiple of the devices."""
    held_out = max(len(index) for role, index in dataset.info.index.items() if role != "train")
    return math.ceil(min(held_out, BATCH) / devices) * devices


def evaluate(step: Evaluation, variables: Any, index: np.ndarray, batch: int, data: Data) -> EvalSums:
    """Sums over the examples `index`, as NumPy arrays `[K, ...]`, the losses added up in float64."""
    padded = np.full(max(1, math.ceil(len(index) / batch)) * batch, -1, np.int32)
    padded[: len(index)] = index
    running: collections.deque = collections.deque()
    total = None
    for part in [*padded.reshape(-1, batch), None]:
        if part is not None:
            running.append(step(variables, part, data))
        while running and (part is None or len(running) > IN_FLIGHT):
            sums = jax.device_get(running.popleft())
            sums = sums._replace(loss=sums.loss.astype(np.float64))
            total = sums if total is None else EvalSums(*map(np.add, total, sums))
    return total


def metrics(sums: EvalSums, trial: int) -> dict[str, Any]:
    """Loss, accuracy, top-5 accuracy and number of examples of one trial of `evaluate`'s sums."""
    examples = int(sums.examples[trial])
    return {
        "loss": float(sums.loss[trial]) / examples,
        "accuracy": int(sums.correct[trial]) / examples,
        "top5_accuracy": int(sums.top5_correct[trial]) / examples,
        "examples": examples,
    }
