"""Evaluation of a whole split: every example counts exactly once; sums are divided once, after the last batch."""

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from percept_jax.data.feed import Data
from percept_jax.training.parallel import Evaluation
from percept_jax.training.program import Program

# The most steps in flight: XLA:CPU's collectives abort the process when about a hundred are queued.
IN_FLIGHT = 8


def evaluate(step: Evaluation, variables: Any, batches: Iterable[tuple[Data, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the sums and rows from which the metrics of all examples are computed, as NumPy arrays with an axis of trials.

    Sums are `[K, ...]`, added up in float64 and int64; rows are `[K, examples, ...]`, in the order of the batches.
    """
    in_flight: collections.deque = collections.deque()
    total: dict[str, np.ndarray] = {}
    rows: dict[str, list[np.ndarray]] = {}

    def add_all_but(allowed: int) -> None:
        while len(in_flight) > allowed:
            index, (sums, new_rows) = jax.device_get(in_flight.popleft())
            for name, value in sums.items():
                total[name] = total.get(name, 0) + value.astype(np.float64 if value.dtype.kind == "f" else np.int64)
            for name, value in new_rows.items():
                rows.setdefault(name, []).append(value[:, index >= 0])

    for data, index in batches:
        in_flight.append((index, step(variables, index, data)))
        add_all_but(IN_FLIGHT)
    add_all_but(0)
    return total | {name: np.concatenate(parts, 1) for name, parts in rows.items()}


def metrics(totals: Mapping[str, np.ndarray], trial: int, program: Program) -> dict[str, Any]:
    """Returns the task's metrics of one trial from the result of `evaluate`, and the number of examples (and positions)."""
    values = {name: value[trial].item() if value.ndim == 1 else value[trial] for name, value in totals.items()}
    counts = {"positions": values["positions"]} if program.outputs.output_steps else {}
    return {**program.task.measure(values), **counts, "examples": values["examples"]}
