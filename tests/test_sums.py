"""Intervals of means and differences over replicates, against formulas of the tests' own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from t_intervals import ANY, OF_SHARES, of_difference, of_level, quantile

from transferbench.statistics import (
    Summand,
    mean_of_replicates,
    paired_difference,
    quantile_factor,
    replicate_difference,
    replicate_mean,
    weighted_sum,
)

NEAR = {0: 0.97, 1: 0.995, 2: 0.99, 3: 0.96, 4: 0.985}

MIDDLE = {0: 0.52, 1: 0.48, 2: 0.55, 3: 0.5, 4: 0.46}


def test_a_mean_near_a_bound_reaches_further_towards_the_middle():
    interval = replicate_mean(NEAR, ends=OF_SHARES)
    assert interval[:3] == pytest.approx(of_level(list(NEAR.values()), OF_SHARES), rel=1e-9)
    assert (interval.n, interval.method) == (5, "ranged-t-95")
    plain = replicate_mean(NEAR, ends=ANY)
    assert interval.value - interval.low > 1.4 * (plain.value - plain.low)
    assert interval.high == min(plain.high, 1.0)


def test_a_range_of_any_size_gives_the_same_interval():
    kappas = {k: 2 * value - 1 for k, value in NEAR.items()}
    expected, interval = replicate_mean(NEAR, ends=OF_SHARES), replicate_mean(kappas, ends=(-1, 1))
    assert [(side + 1) / 2 for side in interval[:3]] == pytest.approx(expected[:3])


def test_a_difference_adds_the_errors_of_both_arms_each_in_its_part():
    expected = of_difference(list(NEAR.values()), list(MIDDLE.values()), OF_SHARES)
    interval, plain = (replicate_difference(NEAR, MIDDLE, ends=ends) for ends in (OF_SHARES, ANY))
    assert interval[:3] == pytest.approx(expected, rel=1e-9)
    assert interval.low < plain.low


def test_what_arms_share_is_cancelled_near_a_bound_too():
    other = {k: value - 0.05 + 0.001 * (-1) ** k for k, value in NEAR.items()}
    interval = replicate_difference(NEAR, other, ends=OF_SHARES)
    plain = replicate_difference(NEAR, other, ends=ANY)
    assert plain.high - plain.low < interval.high - interval.low < 1.1 * (plain.high - plain.low)


def test_arms_of_equal_variance_have_the_paired_student_t():
    other = {k: NEAR[(k + 1) % 5] for k in NEAR}
    interval = replicate_difference(NEAR, other, ends=ANY)
    expected = paired_difference(list(NEAR.values()), list(other.values()))
    assert interval[:3] == pytest.approx(expected[:3])
    assert interval.method == "ranged-t-95"


def test_without_a_range_an_interval_is_as_wide_as_skewed_values_need():
    interval, plain = (replicate_difference(NEAR, MIDDLE, ends=ends) for ends in (None, ANY))
    assert interval[:3] == pytest.approx(of_difference(list(NEAR.values()), list(MIDDLE.values())))
    assert interval.method == "wide-t-95"
    assert interval.high - interval.low > 2 * (plain.high - plain.low)


def test_next_to_the_only_end_of_a_range_an_interval_reaches_away_from_it():
    values = {0: 0.2, 1: 1.9, 2: 0.4, 3: 1.1, 4: 0.1}
    interval = replicate_mean(values, ends=(0.0, np.inf))
    mean, half = interval.value, quantile(5, ANY) * stats.sem(list(values.values()))
    # The bounds mu of the score equation (mean - mu)^2 = half^2 mu / mean.
    roots = np.roots([1, -2 * mean - half**2 / mean, mean**2])
    assert interval.high - mean == pytest.approx(((max(roots) - mean) / half) ** 2.5 * half)
    assert interval.low == pytest.approx(max(mean - half, 0.0))
    mirrored = replicate_mean({k: -v for k, v in values.items()}, ends=(-np.inf, 0.0))
    assert [-mirrored.high, -mirrored.low] == pytest.approx([interval.low, interval.high])


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 10])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_the_quantile_of_a_sum_holds_for_uniform_values(n, ratio):
    arms = np.random.default_rng(n).uniform(-1, 1, size=(2, 200_000, n)) * [[[1]], [[ratio]]]
    values, spread = arms.sum(axis=0), arms.var(axis=2)
    quantiles = np.array(quantile_factor(False, n, spread.max(axis=0) / spread.sum(axis=0)))
    beyond = np.abs(values.mean(axis=1)) > quantiles * stats.t.ppf(0.975, n - 1) * stats.sem(
        values, axis=1
    )
    assert 0.017 < beyond.mean() / 2 < 0.0273


def test_many_replicates_and_a_mean_of_two_arms_keep_student_t():
    values = dict(enumerate([*np.linspace(0.1, 0.5, 12)]))
    expected = stats.t.interval(
        0.95, 11, np.mean(list(values.values())), stats.sem([*values.values()])
    )
    assert replicate_mean(values, ends=ANY)[1:3] == pytest.approx(expected)
    other = {k: NEAR[(k + 1) % 5] for k in NEAR}
    arms = [Summand(0.5, mean_of_replicates(arm), ANY) for arm in (NEAR, other)]
    both = [(NEAR[k] + other[k]) / 2 for k in NEAR]
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
