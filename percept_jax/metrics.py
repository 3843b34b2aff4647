"""Metric: a number that a split is measured by, with its direction and its form. Nothing guesses these from a name.

A task declares its metrics (see `percept_jax.tasks`); a run writes them into provenance.json and a sweep into plan.json, so that
what reads these files knows the metrics of every task. What a run logs besides (examples, positions, rates) is no metric:
nothing is compared by it.
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
        name: as metrics.jsonl and result.json have it.
        higher_is_better: whether of two models the one with the larger value is better.
        format: how a table writes it, without a sign: a format specification.
        compute: the sums of a split, by name, and arrays with a row for each of its examples, to the value.
        shown: whether the lines that a run prints tell it. The last one of a task that is shown is its headline: it stands for a
            split where there is room for one number.
        training: whether the sums of training steps give it too.
        of: "positions" or "examples" where it is a share of them; else empty.
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
        """1 where a larger value is better, else -1."""
        return 1 if self.higher_is_better else -1

    def written(self, value: float, sign: str = "") -> str:
        """Returns a value as a table writes it; with `sign` "+" as a difference."""
        return f"{value:{sign}{self.format}}".rstrip(".")


LOSS = Metric("loss", False, "#.4g", lambda sums: sums["loss"] / sums["positions"], training=True)

# What runs and sweeps report that were made before they wrote their metrics down.
EARLIER = (
    LOSS,
    Metric("accuracy", True, "z.4f", of="positions"),
    Metric("top5_accuracy", True, "z.4f", shown=False, of="positions"),
    Metric("sequence_accuracy", True, "z.4f", shown=False, of="examples"),
    Metric("bits_per_character", False, "#.4g"),
    Metric("rmse", False, "#.4g"),
)


def recorded(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """Returns metrics as a file records them: all but the computation."""
    return [{name: getattr(metric, name) for name in ("name", "higher_is_better", "format", "shown", "of")} for metric in metrics]


def read(record: Mapping[str, Any]) -> tuple[Metric, ...]:
    """Returns the metrics that provenance.json or plan.json records. They cannot be computed."""
    return tuple(Metric(**metric) for metric in record["metrics"]) if "metrics" in record else EARLIER


def find(name: str, metrics: Sequence[Metric]) -> Metric:
    """Returns the metric of a name such as "accuracy" or "test/accuracy". Raises UsageError where there is none."""
    split, slash, own = name.rpartition("/")
    for metric in metrics:
        if metric.name == own:
            return metric
    there_are = ", ".join(dict.fromkeys(split + slash + metric.name for metric in metrics))
    raise UsageError(f"{name!r} is no metric: which of two values is better is not known; choose from {there_are}", "metric")


def headline(metrics: Sequence[Metric], names: Iterable[str]) -> Metric:
    """Returns the metric that stands for a split that has these numbers. Raises UsageError where none of them is one."""
    names = set(names)
    found = [metric for metric in metrics if metric.shown and metric.name in names]
    if not found:
        numbers = ", ".join(sorted(names)) or "nothing"
        raise UsageError(f"{numbers}: there is no metric among it; there are {', '.join(m.name for m in metrics)}", "metric")
    return found[-1]


def as_number(value: Any) -> float | None:
    """Returns a value out of a JSON file as a finite float; None where it is something else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        # A whole number beyond every float.
        return None
