"""Intervals over test items, against those over replicates, which jackknife each summand."""

import numpy as np
import pytest

from transferbench.statistics import (
    Summand,
    bootstrap,
    difference_of_items,
    mean_of_items,
    mean_of_replicates,
    ratio_of_items,
    replicate_difference,
    replicate_mean,
    weighted_ratio,
)

SHARE = (0.0, 1.0)
RNG = np.random.default_rng(4)
FIRST = (RNG.random(40) < 0.9).astype(float)
SECOND = np.where(RNG.random(40) < 0.8, FIRST, RNG.random(40) < 0.5)


def by_replicate(values):
    return dict(enumerate(values.tolist()))


def bounds(interval):
    return pytest.approx((interval.value, interval.low, interval.high, interval.n))


def test_items_have_the_intervals_of_as_many_replicates():
    mean, difference = mean_of_items(SECOND, SHARE), difference_of_items(FIRST, SECOND, SHARE)
    assert mean[:4] == bounds(replicate_mean(by_replicate(SECOND), ends=SHARE))
    first, second = by_replicate(FIRST), by_replicate(SECOND)
    assert difference[:4] == bounds(replicate_difference(first, second, ends=SHARE))
    over, under = ([Summand(1.0, mean_of_replicates(v), SHARE)] for v in (second, first))
    ratio = ratio_of_items(SECOND, FIRST, SHARE)
    assert ratio[:4] == bounds(weighted_ratio(over, under, range(40)))
    assert (mean.method, ratio.method) == ("items-t-95", "items-fieller-95")


def test_a_mean_without_one_end_has_a_wider_quantile():
    losses = np.random.default_rng(5).exponential(size=4000)
    interval = mean_of_items(losses, (0.0, np.inf))
    half = 1.96 * losses.std(ddof=1) / 4000**0.5 * (1 + 3.3 / 4000**0.5)
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.03)
    assert interval.high - interval.value > interval.value - interval.low > 0
    assert mean_of_items(losses[:5] ** 4, (0.0, np.inf)).low == 0


def test_items_that_are_alike_and_a_single_one_have_no_interval():
    ones, few = np.ones(20), np.array([0.3])
    reason = "all items give the same value: their spread is not known"
    for interval in (mean_of_items(ones, SHARE), difference_of_items(FIRST, FIRST, SHARE),
                     ratio_of_items(FIRST, FIRST, SHARE)):  # fmt: skip
        assert (interval.low, interval.reason) == (None, reason)
    single = mean_of_items(few, SHARE)
    assert (single.value, single.low) == (0.3, None)
    assert "two or more" in single.reason
    assert ratio_of_items(few, few, SHARE).low is None
    assert mean_of_items(np.empty(0), SHARE).value is None


def test_a_ratio_whose_divisor_may_be_0_has_no_bounds():
    rare = np.zeros(40)
    rare[0] = 1
    ratio = ratio_of_items(FIRST - 0.5, rare - 0.02, (-0.5, 1))
    assert ratio.value == pytest.approx((FIRST.mean() - 0.5) / 0.005)
    assert (ratio.low, ratio.reason) == (None, "the denominator's 95% interval includes 0")
    assert ratio_of_items(FIRST, rare - 0.5, (-0.5, 1)).reason == "the denominator is not above 0"


def test_a_bootstrap_without_spread_has_no_interval():
    (interval,) = bootstrap(lambda c: c[:, :1] * 0 + 1, np.array([4, 4]), 0)
    assert (interval.value, interval.low) == (1, None)
    assert "spread is not known" in interval.reason
