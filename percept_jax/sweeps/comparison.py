"""What a comparison is made of: arms with their trials, and a row of numbers for each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from percept_jax.metrics import EARLIER, Metric


class Outcome(NamedTuple):
    """What is known of one trial.

    Attributes:
        seed: its seed.
        path: its run directory, there or not.
        status: missing: not finished, or not begun.
        result: what result.json holds; None without one.
        git_sha, pack: of provenance.json: the commit that it ran with, and how many trials were stepped together; None: unknown.
        error: why it failed, or what is damaged.
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
        name: as the table shows it.
        flags: all flags that decide the result, but the seed, spelled as flag files spell them.
        outcomes: its trials.
        metrics: what they are measured by.
    """

    name: str
    flags: Mapping[str, str]
    outcomes: Sequence[Outcome]
    metrics: Sequence[Metric] = EARLIER


class Row(NamedTuple):
    """One arm in numbers; None where there are too few trials to know.

    Attributes:
        values: metric of each trial that is done, by seed.
        planned, diverged, failed, damaged: trials; `len(values)` are done, the rest are missing.
        mean, sd: of the values (sd: with n - 1).
        paired: seeds that both this arm and the baseline have values of.
        difference, low, high: mean of the paired differences to the baseline, and its 95 % t interval.
        p_t, p_sign: of the paired t test and the exact sign-flip test, two-sided; p_t_holm, p_sign_holm: Holm-corrected.
        seconds: of a trial, the mean.
        changed: flags whose value is not the baseline's, as flag files spell them; "" where the arm has no such flag.
        flags: all of them.
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
    """A table.

    Attributes:
        name: its heading.
        metric: what it compares, as split/number.
        measure: the metric of that name.
        baseline: the name of an arm, whose row comes first.
        rows: one an arm.
        notes: what the table cannot show, a sentence each.
    """

    name: str
    metric: str
    measure: Metric
    baseline: str
    rows: Sequence[Row]
    notes: Sequence[str]
