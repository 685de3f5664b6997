"""Rank correlations of effects against scipy and against a count of pairs written plainly."""

from itertools import combinations
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from transferbench.statistics import concordance
from transferbench.statistics.concordance import tau_bounds


def levels(values):
    """An estimator of the mean of each column of ``values`` (R, K)."""
    return [
        lambda replicates, column=column: fmean(column[k] for k in replicates)
        for column in np.asarray(values).T.tolist()
    ]


def drawn(seed, replicates, step, levels=5):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(replicates, 1))
    return step * np.arange(levels) + shared + rng.normal(size=(replicates, levels))


def rising(values, pair):
    """The one-sided p-value of scipy's paired t-test."""
    first, second = pair
    return stats.ttest_rel(values[:, second], values[:, first], alternative="greater").pvalue


def implied(values, p_of):
    """The p-value of each pair, or the least that the pairs between them give."""
    count = values.shape[1]
    pairs = {pair: p_of(values, pair) for pair in combinations(range(count), 2)}
    for width in range(2, count):
        for first in range(count - width):
            second = first + width
            through = [max(pairs[first, k], pairs[k, second]) for k in range(first + 1, second)]
            pairs[first, second] = min(pairs[first, second], *through)
    return list(pairs.values())


def bound(p_values, alpha=0.025):
    """The most pairs of which so many are in order, less how near the last is to being none."""
    best = 0.0
    for u, p in enumerate(sorted(p_values), start=1):
        share = (len(p_values) - u + 1) * p / alpha
        if share < 1:
            best = max(best, u - share)
    return best


@pytest.mark.parametrize("replicates", [3, 10, 100])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_levels_that_are_very_far_apart_have_an_interval_with_width(replicates, count):
    values = drawn(0, replicates, 1e5, count).T
    for sides, end in (
        ([values], 1),
        ([-values], -1),
        ([values, values], 1),
        ([values, -values], -1),
    ):
        low, high = tau_bounds(sides)
        assert -1 <= low < high <= 1
        assert end in {low, high}


@pytest.mark.parametrize("replicates", [3, 5, 10])
@pytest.mark.parametrize("step", [0.0, 1.0, 3.0])
def test_the_interval_follows_from_paired_t_tests_of_scipy(replicates, step):
    for seed in range(5):
        values = drawn(seed, replicates, step)
        interval = concordance(levels(values), (), range(replicates))
        up = bound(implied(values, rising))
        down = bound(implied(-values, rising))
        assert interval.value == pytest.approx(
            stats.kendalltau(range(5), values.mean(axis=0)).statistic
        )
        assert interval.low == pytest.approx(2 * up / 10 - 1)
        assert interval.high == pytest.approx(1 - 2 * down / 10)
        assert interval[3:] == (replicates, "pairs-95", None)


@pytest.mark.parametrize("step", [0.0, 2.0, 4.0])
def test_two_orders_agree_where_both_are_established(step):
    for seed in range(5):
        a, b = drawn(seed, 8, step, levels=4), drawn(seed + 100, 8, -step, levels=4)
        interval = concordance(levels(a), levels(b), range(8))
        expected = stats.kendalltau(a.mean(axis=0), b.mean(axis=0)).statistic
        assert interval.value == pytest.approx(expected)
        (a_up, a_down), (b_up, b_down) = ([implied(x, rising), implied(-x, rising)] for x in (a, b))
        alike = 2 * np.minimum(np.maximum(a_up, b_up), np.maximum(a_down, b_down))
        unlike = 2 * np.minimum(np.maximum(a_up, b_down), np.maximum(a_down, b_up))
        assert interval.low == pytest.approx(2 * bound(alike) / 6 - 1)
        assert interval.high == pytest.approx(1 - 2 * bound(unlike) / 6)


def test_more_replicates_bring_the_bound_to_one_and_never_onto_it():
    lows = [concordance(levels(drawn(0, n, 2)), (), range(n)).low for n in (3, 5, 10, 40)]
    assert lows == sorted(lows)
    assert 0.99 < lows[-1] < 1


def test_of_two_equal_levels_the_order_of_all_is_hardly_ever_certain():
    """Tau is .9; above it is wrong: at most 2.5%, with 1,000 samples at most 4.0%."""
    rng = np.random.default_rng(0)
    false_verdicts = 0
    for _ in range(1000):
        values = np.array([0, 5, 10, 15, 15]) + rng.normal(size=(5, 5))
        false_verdicts += concordance(levels(values), (), range(5)).low > 0.9
    assert false_verdicts <= 40


def test_a_single_replicate_has_no_interval():
    interval = concordance(levels(drawn(0, 1, 2)), (), [0])
    assert (interval.low, interval.high) == (None, None)
    assert interval.reason == "an interval needs two or more, found 1"


def test_an_effect_that_is_not_determined_says_so():
    interval = concordance([lambda replicates: 1.0, lambda replicates: None], (), range(3))
    assert interval == (None, None, None, 3, "pairs-95", "not defined by these replicates")


def test_the_bounds_of_values_are_those_of_their_estimators():
    rng = np.random.default_rng(3)
    sides = [rng.normal(np.arange(4)[:, None], 0.5, (4, 6)) for _ in range(2)]
    effects = [
        [lambda rows, row=row: float(np.mean([row[k] for k in rows])) for row in side.tolist()]
        for side in sides
    ]
    for chosen in (1, 2):
        expected = concordance(effects[0], effects[1] if chosen > 1 else [], range(6))
        assert tau_bounds(sides[:chosen]) == pytest.approx((expected.low, expected.high))
