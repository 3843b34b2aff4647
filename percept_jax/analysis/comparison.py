"""The types of a comparison: arms with their trials, and the table of numbers that is computed from them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from percept_jax.metrics import EARLIER, Metric


class Outcome(NamedTuple):
    """The state and the result of one trial.

    Attributes:
        seed: its seed.
        path: its run directory, which may not exist.
        status: "missing" means not started, or not finished.
        result: the content of result.json; None if there is none.
        git_sha: the commit that it ran with, from provenance.json; None if it is unknown.
        pack: the width of its pack, from provenance.json; None if it is unknown.
        error: why it failed, or which file is damaged and how.
    """

    seed: int
    path: Path
    status: Literal["done", "diverged", "failed", "damaged", "missing"]
    result: Mapping[str, Any] | None = None
    git_sha: str | None = None
    pack: int | None = None
    error: str = ""


class Arm(NamedTuple):
    """One setting over all its seeds.

    Attributes:
        name: its name in the table.
        flags: all flags that decide the result, except the seed, as flag files spell them.
        outcomes: one for each of its trials.
        metrics: the metrics of its task.
    """

    name: str
    flags: Mapping[str, str]
    outcomes: Sequence[Outcome]
    metrics: Sequence[Metric] = EARLIER


class Row(NamedTuple):
    """The numbers of one arm; a number is None if there are too few trials for it.

    Attributes:
        values: by seed, the metric of each trial that is done.
        planned, diverged, failed, damaged: counts of trials; `len(values)` are done, and the rest are missing.
        mean, sd: mean and standard deviation (with n - 1) of the values.
        paired: the number of seeds that have a value for both this arm and the baseline.
        difference, low, high: the mean of the paired differences to the baseline, and its 95 % t interval.
        p_t, p_sign: two-sided p values of the paired t test and of the exact sign-flip test.
        p_t_holm, p_sign_holm: the same after Holm's correction.
        seconds: the mean time of a trial.
        changed: the flags whose values differ from the baseline's, as flag files spell them; "" where the arm lacks the flag.
        flags: all flags of the arm.
    """

    arm: str
    values: Mapping[int, float]
    planned: int
    diverged: int
    failed: int
    mean: float | None
    sd: float | None
    paired: int
    difference: float | None
    low: float | None
    high: float | None
    p_t: float | None
    p_sign: float | None
    p_t_holm: float | None
    p_sign_holm: float | None
    seconds: float | None
    changed: Mapping[str, str]
    flags: Mapping[str, str] = MappingProxyType({})
    damaged: int = 0


class Comparison(NamedTuple):
    """A table that compares arms.

    Attributes:
        name: its heading.
        metric: the metric that is compared, as split/name.
        measure: the same metric, with its direction and format.
        baseline: the name of the arm in the first row.
        rows: one for each arm.
        notes: remarks on the trials and the limits of the table, one sentence each.
    """

    name: str
    metric: str
    measure: Metric
    baseline: str
    rows: Sequence[Row]
    notes: Sequence[str]
