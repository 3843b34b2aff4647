"""Metric: a number that measures a model on a split, with its direction and format. Nothing guesses these from a name.

A task declares its metrics (see `percept_jax.tasks`). A run writes them into provenance.json and a sweep into plan.json, so that
the readers of these files know the metrics of every task. The other numbers that a run logs (examples, positions, rates) are not
metrics: nothing is compared by them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from percept_jax.errors import UsageError


def _unknown(sums: Mapping[str, Any]) -> float:
    raise ValueError("a metric that was read from a file cannot be computed")


class Metric(NamedTuple):
    """A number that tells how good a model is on a split.

    Attributes:
        name: as in metrics.jsonl and result.json.
        higher_is_better: whether a larger value is better.
        format: the format specification, without a sign, for tables.
        compute: maps the sums of a split, by name, and arrays with a row for each of its examples, to the value.
        shown: whether the lines that a run prints contain it. The last shown metric of a task is its headline, which represents
            a split where there is room for one number.
        training: whether it can also be computed from the sums of training steps.
        of: "positions" or "examples" if it is a fraction of them; else empty.
    """

    name: str
    higher_is_better: bool
    format: str
    compute: Callable[[Mapping[str, Any]], float] = _unknown
    shown: bool = True
    training: bool = False
    of: str = ""

    @property
    def sign(self) -> int:
        """1 if a larger value is better, else -1."""
        return 1 if self.higher_is_better else -1

    def written(self, value: float, sign: str = "") -> str:
        """Returns a value as text for tables; with `sign` "+" as a difference."""
        return f"{value:{sign}{self.format}}".rstrip(".")


LOSS = Metric("loss", False, "#.4g", lambda sums: sums["loss"] / sums["positions"], training=True)

# The metrics of runs and sweeps from versions that did not record their metrics.
EARLIER = (
    LOSS,
    Metric("accuracy", True, "z.4f", of="positions"),
    Metric("top5_accuracy", True, "z.4f", shown=False, of="positions"),
    Metric("sequence_accuracy", True, "z.4f", shown=False, of="examples"),
    Metric("bits_per_character", False, "#.4g"),
    Metric("rmse", False, "#.4g"),
)


def recorded(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """Returns metrics as a file records them: everything except the computation."""
    return [{name: getattr(metric, name) for name in ("name", "higher_is_better", "format", "shown", "of")} for metric in metrics]


def read(record: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Returns the metrics that provenance.json or plan.json records. They cannot be computed."""
    return tuple(Metric(**metric) for metric in record["metrics"]) if "metrics" in record else EARLIER


def find(name: str, metrics: Sequence[Metric]) -> Metric:
    """Returns the metric of a name such as "accuracy" or "test/accuracy". Raises UsageError if there is none."""
    split, slash, number = name.rpartition("/")
    for metric in metrics:
        if metric.name == number:
            return metric
    known = ", ".join(dict.fromkeys(split + slash + metric.name for metric in metrics))
    raise UsageError(f"{name!r} is not a metric, so it has no better and worse values; choose from {known}", "metric")


def headline(metrics: Sequence[Metric], names: Iterable[str]) -> Metric:
    """Returns the headline metric of a split that has these numbers. Raises UsageError if none of them is a metric."""
    names = set(names)
    found = [metric for metric in metrics if metric.shown and metric.name in names]
    if not found:
        numbers = ", ".join(sorted(names)) or "nothing"
        raise UsageError(f"{numbers}: none of these is a metric; the metrics are {', '.join(m.name for m in metrics)}", "metric")
    return found[-1]


def as_number(value: Any) -> float | None:
    """Returns a value from a JSON file as a finite float; None if it is anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        # The integer is too large for a float.
        return None
