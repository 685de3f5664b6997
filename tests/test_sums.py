"""Intervals of means and differences over replicates, against formulas of the tests' own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from t_intervals import OF_SHARES, of_difference, of_level

from transferbench.statistics import (
    Summand,
    level_factor,
    mean_of_replicates,
    paired_difference,
    replicate_difference,
    replicate_mean,
    weighted_sum,
)

NEAR = {0: 0.97, 1: 0.995, 2: 0.99, 3: 0.96, 4: 0.985}
MIDDLE = {0: 0.52, 1: 0.48, 2: 0.55, 3: 0.5, 4: 0.46}


def test_a_mean_near_a_bound_reaches_further_towards_the_middle():
    interval = replicate_mean(NEAR, ends=OF_SHARES)
    assert interval[:3] == pytest.approx(of_level(list(NEAR.values()), OF_SHARES), rel=1e-9)
    assert (interval.n, interval.method) == (5, "bounded-t-95")
    plain = replicate_mean(NEAR)
    assert interval.value - interval.low > 1.4 * (plain.value - plain.low)
    assert interval.high == min(plain.high, 1.0)


def test_a_range_of_any_size_gives_the_same_interval():
    kappas = {k: 2 * value - 1 for k, value in NEAR.items()}
    expected, interval = replicate_mean(NEAR, ends=OF_SHARES), replicate_mean(kappas, ends=(-1, 1))
    assert [(side + 1) / 2 for side in interval[:3]] == pytest.approx(expected[:3])


def test_a_difference_adds_the_errors_of_both_arms_each_in_its_part():
    expected = of_difference(list(NEAR.values()), list(MIDDLE.values()), OF_SHARES)
    interval, plain = (replicate_difference(NEAR, MIDDLE, ends=ends) for ends in (OF_SHARES, None))
    assert interval[:3] == pytest.approx(expected, rel=1e-9)
    assert interval.low < plain.low


def test_what_arms_share_is_cancelled_near_a_bound_too():
    other = {k: value - 0.05 + 0.001 * (-1) ** k for k, value in NEAR.items()}
    interval = replicate_difference(NEAR, other, ends=OF_SHARES)
    plain = replicate_difference(NEAR, other)
    assert plain.high - plain.low < interval.high - interval.low < 1.1 * (plain.high - plain.low)


def test_a_difference_without_a_range_is_the_paired_student_t():
    interval = replicate_difference(NEAR, MIDDLE)
    expected = paired_difference(list(NEAR.values()), list(MIDDLE.values()))
    assert interval[:3] == pytest.approx(expected[:3])
    assert interval.method == "jackknife-95"


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7])
def test_the_quantile_of_a_mean_holds_for_uniform_values(n):
    values = np.random.default_rng(n).uniform(-1, 1, size=(200_000, n))
    quantile = level_factor(n) * stats.t.ppf(0.975, n - 1)
    beyond = np.abs(values.mean(axis=1)) > quantile * stats.sem(values, axis=1)
    assert beyond.mean() / 2 == pytest.approx(0.027, abs=0.001)


def test_many_replicates_and_a_mean_of_two_arms_keep_student_t():
    values = dict(enumerate([0.3, 0.4, 0.2, 0.5, 0.1, 0.35, 0.25, 0.45]))
    expected = stats.t.interval(
        0.95, 7, np.mean(list(values.values())), stats.sem([*values.values()])
    )
    assert replicate_mean(values)[1:3] == pytest.approx(expected)
    arms = [Summand(0.5, mean_of_replicates(arm)) for arm in (NEAR, MIDDLE)]
    both = [(NEAR[k] + MIDDLE[k]) / 2 for k in NEAR]
    expected = stats.t.interval(0.95, 4, np.mean(both), stats.sem(both))
    assert weighted_sum(arms, range(5))[1:3] == pytest.approx(expected)


def test_equal_replicates_have_no_interval():
    for interval in (
        replicate_mean({0: 0.9, 1: 0.9, 2: 0.9}, ends=OF_SHARES),
        replicate_difference({0: 0.1, 1: 0.2}, {0: 0.3, 1: 0.4}, ends=OF_SHARES),
    ):
        assert (interval.low, interval.high) == (None, None)
        assert interval.reason == "every replicate gives the same value: their spread is not known"


def test_an_interval_of_a_higher_level_contains_that_of_a_lower_one():
    levels = [1 - 10.0**-power for power in range(1, 9)]
    intervals = [
        replicate_difference(NEAR, MIDDLE, level=level, ends=OF_SHARES) for level in levels
    ]
    lows, highs = zip(*((i.low, i.high) for i in intervals), strict=True)
    assert list(lows) == sorted(lows, reverse=True)
    assert list(highs) == sorted(highs)
    assert lows[-1] >= -1
    assert highs[-1] <= 1


def test_an_arm_without_replicates_has_no_mean():
    interval = replicate_mean({}, ends=OF_SHARES)
    assert (interval.value, interval.n) == (None, 0)
    assert interval.reason == "not defined by these replicates"
