"""Compares arms over their seeds: intervals, tests, and notes on their limits.

The paired t test is computed with scipy.special. scipy.stats.ttest_rel gives the same numbers (a test holds them to 1e-12), but
takes 1.4 s more to import, at every start of a comparison.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import special

from percept_jax import metrics
from percept_jax.analysis.comparison import Arm, Comparison, Outcome, Row

ALPHA = 0.05

# The sign-flip test is exact for at most this many differences: 2**20 is a million sign vectors.
_EXACT = 20


def t_interval(differences: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns low and high of the 95 % t interval of the mean (Student 1908); None, None if `paired_t` is None."""
    n = len(differences)
    if n < 2 or _alike(differences):
        return None, None
    mean, half = np.mean(differences), special.stdtrit(n - 1, 1 - ALPHA / 2) * np.std(differences, ddof=1) / math.sqrt(n)
    return float(mean - half), float(mean + half)


def paired_t(differences: Sequence[float]) -> float | None:
    """Returns the two-sided p value of the paired t test.

    It is None for fewer than two differences. It is also None if all differences are equal, as may happen with a few seeds and a
    small test set: the differences then have no spread to compare their mean with.
    """
    n = len(differences)
    if n < 2 or _alike(differences):
        return None
    t = np.mean(differences) / (np.std(differences, ddof=1) / math.sqrt(n))
    return float(2 * special.stdtr(n - 1, -abs(t)))


def sign_flip(differences: Sequence[float]) -> float | None:
    """Returns the two-sided p value of the sign-flip test of the mean (Fisher 1935, Pitman 1937); None for no differences.

    If an arm does not differ from the baseline, each difference could as well have the other sign: p is the fraction of sign
    vectors whose sum is at least as far from 0 as the observed sum. It is exact for 20 differences or fewer; for more it is
    estimated from 2**20 random sign vectors, the same ones each time.
    """
    if not len(differences):
        return None
    exact = len(differences) <= _EXACT
    sums = np.zeros(1 if exact else 2**_EXACT)
    # The raw bits of a generator are the same in every version of NumPy.
    bits = np.random.Philox(key=0)
    for d in differences:
        if exact:
            sums = np.concatenate([sums + d, sums - d])
        else:
            sums += np.where(np.unpackbits(bits.random_raw(len(sums) // 64).view(np.uint8)), d, -d)
    rounding = 1e-12 * np.sum(np.abs(differences))
    hits = np.count_nonzero(np.abs(sums) >= abs(np.sum(differences)) - rounding)
    return float(hits / len(sums) if exact else (hits + 1) / (len(sums) + 1))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Returns p values corrected for their number (Holm 1979, step-down). A None stays None, and is not counted."""
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * value))
        corrected[i] = highest
    return corrected


def least_sign_flip(n: int) -> float:
    """Returns the smallest p value of the exact sign-flip test for `n` differences: all of one sign, or all of the other."""
    return 2.0 ** (1 - n)


def seeds_needed(comparisons: int, alpha: float = ALPHA) -> int:
    """Returns the fewest seeds with which the sign-flip test can go below `alpha`, Holm-corrected for `comparisons`."""
    n = 1
    while comparisons * least_sign_flip(n) >= alpha:
        n += 1
    return n


def value(outcome: Outcome, metric: str) -> float | None:
    """Returns a metric, given as split/name, of a trial that is done; None if there is no finite number."""
    split, _, number = metric.partition("/")
    if outcome.status != "done" or not outcome.result:
        return None
    numbers = outcome.result.get(split) if split in ("validation", "test") else None
    return metrics.as_number(numbers.get(number)) if isinstance(numbers, Mapping) else None


def changed(flags: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """Returns the flags whose text differs from that in `base`, or that only one of the two has; "" where `flags` lacks them."""
    return {flag: flags.get(flag, "") for flag in {**flags, **base} if flags.get(flag) != base.get(flag)}


def compare(name: str, arms: Sequence[Arm], metric: str, baseline: str, left_out: int = 0) -> Comparison:
    """Returns the table of a metric by arm, the baseline first. Differences are taken between trials of the same seed.

    Holm's correction counts all arms except the baseline, separately for each test.

    Args:
        name: the heading of the table.
        arms: the arms with their trials.
        metric: as split/name.
        baseline: the name of an arm.
        left_out: the number of trials that were left out because they repeat another one's flags and seed.

    Raises:
        KeyError: no arm has the name of the baseline.
        UsageError: no arm has the metric.
    """
    measure = metrics.find(metric, [known for arm in arms for known in arm.metrics])
    base = {arm.name: arm for arm in arms}[baseline]
    arms = [base, *(arm for arm in arms if arm is not base)]
    rows = [_row(arm, base, metric) for arm in arms]
    p_t, p_sign = holm([row.p_t for row in rows]), holm([row.p_sign for row in rows])
    rows = [row._replace(p_t_holm=t, p_sign_holm=sign) for row, t, sign in zip(rows, p_t, p_sign, strict=True)]
    outcomes = [outcome for arm in arms for outcome in arm.outcomes]
    notes = [*_test_notes(rows, metric), *_pair_notes(rows), *_trial_notes(outcomes, metric), *_origin_notes(outcomes)]
    if left_out:
        notes.append(f"{_count(left_out, 'trial')} left out, with the same flags and seed as another one.")
    return Comparison(name, metric, measure, baseline, rows, notes)


def _alike(differences: Sequence[float]) -> bool:
    """Returns whether all differences are equal, up to rounding."""
    return bool(np.ptp(differences) <= 1e-9 * np.max(np.abs(differences)))


def _row(arm: Arm, base: Arm, metric: str) -> Row:
    values, base_values = _values(arm, metric), _values(base, metric)
    paired = [seed for seed in values if seed in base_values]
    differences = [values[seed] - base_values[seed] for seed in paired] if arm is not base else []
    low, high = t_interval(differences)
    status = Counter(outcome.status for outcome in arm.outcomes)
    return Row(
        arm=arm.name,
        values=values,
        planned=len(arm.outcomes),
        diverged=status["diverged"],
        failed=status["failed"],
        damaged=status["damaged"],
        mean=_mean(list(values.values())),
        sd=float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else None,
        paired=len(paired),
        difference=_mean(differences),
        low=low,
        high=high,
        p_t=paired_t(differences),
        p_sign=sign_flip(differences),
        p_t_holm=None,
        p_sign_holm=None,
        seconds=_mean([sum(outcome.result["seconds"].values()) for outcome in arm.outcomes if outcome.result]),
        changed=changed(arm.flags, base.flags),
        flags=arm.flags,
    )


def _values(arm: Arm, metric: str) -> dict[int, float]:
    found = {outcome.seed: value(outcome, metric) for outcome in sorted(arm.outcomes, key=lambda o: o.seed)}
    return {seed: number for seed, number in found.items() if number is not None}


def _mean(numbers: Sequence[float]) -> float | None:
    return float(np.mean(numbers)) if len(numbers) else None


def _test_notes(rows: Sequence[Row], metric: str) -> Iterable[str]:
    """Yields notes on the limits of the tests."""
    split = metric.partition("/")[0]
    least = holm([least_sign_flip(row.paired) if row.p_sign is not None else None for row in rows])
    powerless = [row.paired for row, p in zip(rows, least, strict=True) if p is not None and p >= ALPHA]
    if powerless:
        n, comparisons = min(powerless), sum(p is not None for p in least)
        corrected = f", or {min(1, comparisons * least_sign_flip(n)):.4g} after Holm's correction for {comparisons} comparisons"
        yield (
            f"With {_count(n, 'paired seed')} the sign-flip test cannot go below {least_sign_flip(n):.4g}"
            f"{corrected if comparisons > 1 else ''}: it cannot show a difference at {ALPHA}; "
            f"{seeds_needed(comparisons)} seeds would be needed."
        )
    if any(row.paired > 1 and row.p_t is None for row in rows[1:]):
        yield "If all differences are equal there is no t test and no interval; more seeds would show their spread."
    if any(row.low is not None or row.p_sign is not None for row in rows):
        yield f"Intervals and p values are over seeds on this fixed {split} set; they say nothing about other {split} sets."
    if split == "test":
        yield "The tested weights are those of the best step on validation."
    else:
        yield "These values also selected the best step, so they are optimistic."


def _pair_notes(rows: Sequence[Row]) -> Iterable[str]:
    """Yields a note for each arm that has values for other seeds than the baseline."""
    base = len(rows[0].values)
    for row in rows[1:]:
        if row.values and row.paired < max(len(row.values), base):
            yield (
                f"{row.arm}: {_count(row.paired, 'seed')} in common with the baseline "
                f"(values: {len(row.values)}, the baseline's: {base}); the difference is over these seeds only."
            )


def _trial_notes(outcomes: Sequence[Outcome], metric: str) -> Iterable[str]:
    """Yields notes on the trials that are not in the means."""
    status = Counter(outcome.status for outcome in outcomes)
    if status["diverged"]:
        yield f"{_count(status['diverged'], 'trial')} of {len(outcomes)} diverged and did not enter the means."
    if status["damaged"]:
        fault = next(outcome.error for outcome in outcomes if outcome.status == "damaged")
        yield f"{_count(status['damaged'], 'trial')} of {len(outcomes)} damaged; the first: {fault.splitlines()[0]}"
    if status["failed"]:
        error = next((outcome.error for outcome in outcomes if outcome.status == "failed" and outcome.error), "unknown")
        yield f"{_count(status['failed'], 'trial')} of {len(outcomes)} failed; the first error: {error.splitlines()[0]}"
    if status["missing"]:
        yield f"{_count(status['missing'], 'trial')} of {len(outcomes)} missing: not finished, or not started."
    if without := sum(outcome.status == "done" and value(outcome, metric) is None for outcome in outcomes):
        yield f"{_count(without, 'trial')} of {len(outcomes)} done, but without {metric}."


def _origin_notes(outcomes: Sequence[Outcome]) -> Iterable[str]:
    """Yields the commits and the pack widths, if trials differ in them."""
    finished = [outcome for outcome in outcomes if outcome.result]
    commits = {sha[:9] for outcome in finished for sha in (outcome.git_sha or "unknown").split("+")}
    if len(commits) > 1:
        yield f"Trials were run at different commits: {', '.join(sorted(commits))}."
    packs = {outcome.pack for outcome in finished if outcome.pack}
    if len(packs) > 1:
        yield (
            f"Trials ran in packs of different widths ({', '.join(map(str, sorted(packs)))}): "
            "their results agree only up to rounding; compare statistics, not bits."
        )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
