"""Evaluation of a whole split: every example exactly once, sums over batches, one division at the end."""

import collections
import math
from typing import Any

import jax
import numpy as np

from percept_jax.data.dataset import Dataset
from percept_jax.data.inputs import Input
from percept_jax.task import Task
from percept_jax.training.batch import Data
from percept_jax.training.parallel import Evaluation
from percept_jax.training.step import EvalSums

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
            sums = sums._replace(loss=sums.loss.astype(np.float64), squared_error=sums.squared_error.astype(np.float64))
            total = sums if total is None else EvalSums(*map(np.add, total, sums))
    return total


def metrics(sums: EvalSums, trial: int, task: Task) -> dict[str, Any]:
    """What one trial of `evaluate`'s sums comes to: loss, the metrics that suit the task, examples.

    Accuracy is a share of positions (examples, or the real steps of sequences), sequence_accuracy one of sequences without a
    mistake; rmse is in the data set's own units; bits_per_character is the loss of a language model in bits.
    """
    examples, positions = int(sums.examples[trial]), int(sums.positions[trial])
    found: dict[str, Any] = {"loss": float(sums.loss[trial]) / positions}
    if task.values:
        found["rmse"] = math.sqrt(float(sums.squared_error[trial]) / (positions * task.num_classes))
    else:
        found["accuracy"] = int(sums.correct[trial]) / positions
        found["top5_accuracy"] = int(sums.top5_correct[trial]) / positions
    if task.generates:
        found["bits_per_character"] = found["loss"] / math.log(2)
    elif task.output_steps and not task.values:
        found["sequence_accuracy"] = int(sums.all_correct[trial]) / examples
    if task.output_steps:
        found["positions"] = positions
    return found | {"examples": examples}


def metric_names(task: Task) -> list[str]:
    """What `metrics` tells of a split beside counts."""
    if task.values:
        return ["loss", "rmse"]
    extra = ["bits_per_character"] if task.generates else ["sequence_accuracy"] if task.output_steps else []
    return ["loss", "accuracy", "top5_accuracy", *extra]
