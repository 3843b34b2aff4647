"""Intervals and tests against scipy, by hand, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from percept_jax.analysis.statistics import (
    holm,
    least_sign_flip,
    paired_t,
    seeds_needed,
    sign_flip,
    t_interval,
)

DIFFERENCES = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=1, max_size=8)


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_t_and_sign_flip_are_scipys(n):
    random = np.random.default_rng(n)
    a, b = random.normal(0.5, 1, n), random.normal(0, 1, n)
    expected = stats.ttest_rel(a, b)
    assert paired_t(a - b) == pytest.approx(expected.pvalue, rel=1e-12)
    assert t_interval(a - b) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-12)
    flipped = stats.permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(a - b) == pytest.approx(flipped.pvalue, rel=1e-12)


def test_too_few_differences_and_those_without_spread():
    assert t_interval([]) == t_interval([1.0]) == (None, None)
    assert paired_t([]) is paired_t([1.0]) is sign_flip([]) is None
    assert sign_flip([0.3]) == 1
    assert sign_flip([0.0, 0.0, 0.0]) == 1
    for alike in ([0.0, 0.0, 0.0], [0.25, 0.25, 0.25], [0.3 - 0.2, 0.2 - 0.1, 0.4 - 0.3]):  # the last but for rounding
        assert paired_t(alike) is None
        assert t_interval(alike) == (None, None)


def test_ties_of_sums_count_despite_rounding():
    # 0.1 + 0.2 + 0.3 - 0.6 is 0, but for rounding: every sum is at least as far from 0.
    assert sign_flip([0.1, 0.2, 0.3, -0.6]) == 1
    # 0.1 + 0.2 - 0.3 + 0.4 = 0.4; the sums with +0.4 are 1, 0.8, 0.6, 0.4, 0.4, 0.2, 0 and -0.2: 5 of 8 are as far from 0,
    # and as many of those with -0.4.
    assert sign_flip([0.1, 0.2, -0.3, 0.4]) == 10 / 16


def test_beyond_20_differences_the_sign_flips_are_drawn_and_come_close():
    differences = np.random.default_rng(0).normal(0.4, 1, 21)
    sums = np.zeros(1)
    for d in differences:
        sums = np.concatenate([sums + d, sums - d])
    exact = np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-9)
    assert sign_flip(differences) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2**20))
    assert sign_flip(differences) == sign_flip(differences)
    assert sign_flip([1.0] * 40) == 1 / (2**20 + 1)  # never 0


@given(DIFFERENCES)
def test_sign_flip_is_a_share_of_sign_vectors_whatever_the_sign_of_all(differences):
    p, n = sign_flip(differences), len(differences)
    assert p * 2**n == round(p * 2**n)
    assert least_sign_flip(n) <= p <= 1
    assert sign_flip([-d for d in differences]) == p
    assert sign_flip(differences[::-1]) == p


@given(DIFFERENCES)
def test_t_does_not_depend_on_which_arm_is_the_baseline(differences):
    other = [-d for d in differences]
    assert paired_t(other) == paired_t(differences)
    low, high = t_interval(differences)
    if low is not None:
        assert t_interval(other) == (-high, -low)
        assert low <= np.mean(differences) <= high


def test_holm_worked_by_hand():
    # in order 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; none below the one before: 0.06
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([None, 0.03]) == [None, 0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_lies_between_no_correction_and_bonferroni(p):
    corrected = holm(p)
    assert all(x <= y <= min(1, len(p) * x) for x, y in zip(p, corrected, strict=True))
    assert [c for _, c in sorted(zip(p, corrected, strict=True))] == sorted(corrected)


def test_seeds_that_the_sign_flip_test_needs():
    assert least_sign_flip(5) == sign_flip([1, 2, 3, 4, 5]) == 0.0625
    assert [seeds_needed(comparisons) for comparisons in (1, 3, 7)] == [6, 7, 9]
    assert seeds_needed(1, alpha=0.01) == 8


def test_the_t_interval_covers_the_truth_in_95_of_100_and_a_normal_one_does_not():
    draws = np.random.default_rng(0).normal(0.3, 2, (4000, 5))
    covered = np.mean([low <= 0.3 <= high for low, high in map(t_interval, draws)])
    assert abs(covered - 0.95) < 0.015
    half = 1.96 * draws.std(axis=1, ddof=1) / math.sqrt(5)
    assert np.mean(np.abs(draws.mean(axis=1) - 0.3) <= half) < 0.90
