"""METRICS: the numbers that a split is measured by, each with its direction and its form. Nothing guesses these from a name.

A new metric is a line in METRICS. What a run logs besides (examples, positions, rates) is no metric: nothing is compared by it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from percept_jax.errors import UsageError


class Metric(NamedTuple):
    """A number that tells how good a model is on a split.

    Attributes:
        name: as metrics.jsonl and result.json have it.
        higher_is_better: whether of two models the one with the larger value is better.
        format: how a table writes it, without a sign: a format specification.
        headline: whether it may stand for a split alone. Of several, the one that METRICS lists last does.
        selects: where this is the headline, the metrics by which the best step is chosen: by the first, at a tie by the next.
    """

    name: str
    higher_is_better: bool
    format: str
    headline: bool = True
    selects: tuple[str, ...] = ("loss",)

    @property
    def sign(self) -> int:
        """1 where a larger value is better, else -1."""
        return 1 if self.higher_is_better else -1


_SHARE, _REAL = "z.4f", "#.4g"  # a share of 1, to four places; any other number, to four digits

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("loss", False, _REAL),
        Metric("accuracy", True, _SHARE, selects=("accuracy", "loss")),
        Metric("top5_accuracy", True, _SHARE, headline=False),
        Metric("sequence_accuracy", True, _SHARE, headline=False),
        Metric("bits_per_character", False, _REAL),
        Metric("rmse", False, _REAL),
    )
}


def metric(name: str) -> Metric:
    """Returns the metric of a name such as "accuracy", or "test/accuracy". Raises UsageError where there is none."""
    known = METRICS.get(name.partition("/")[2] if "/" in name else name)
    if known is None:
        split = name.partition("/")[0] + "/" if "/" in name else ""
        there_are = ", ".join(split + m for m in METRICS)
        raise UsageError(f"{name!r} is no metric: which of two values is better is not known; choose from {there_are}", "metric")
    return known


def headline(names: Iterable[str]) -> str:
    """Returns which of the names is the metric that tells a person most. Raises UsageError where none is one."""
    names = set(names)
    found = [name for name, metric in METRICS.items() if metric.headline and name in names]
    if not found:
        told = ", ".join(sorted(names)) or "nothing"
        raise UsageError(f"{told}: there is no metric among it; there are {', '.join(METRICS)}", "metric")
    return found[-1]


def rank(numbers: Mapping[str, Any]) -> tuple[float, ...]:
    """Returns how good the metrics of a validation are: the greater, the better. The metrics of one task can be compared."""
    return tuple(METRICS[name].sign * numbers[name] for name in METRICS[headline(numbers)].selects)


def as_number(value: Any) -> float | None:
    """Returns a value out of a JSON file as a finite float; None where it is something else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond every float
        return None


def written(name: str, value: float, sign: str = "") -> str:
    """Returns a value as a table writes it; with `sign` "+" as a difference."""
    return f"{value:{sign}{metric(name).format}}".rstrip(".")
