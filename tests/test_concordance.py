"""Rank correlations of effects against scipy, intervals of differences, and a plain count."""

from itertools import combinations
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from transferbench.statistics import Summand, concordance, concordance_at, least_error, weighted_sum
from transferbench.statistics.concordance import tau_bounds

ANY, SHARE, COUNT = (-np.inf, np.inf), (0.0, 1.0), (0.0, np.inf)


def levels(values, *ranges):
    """The mean of each column of ``values`` (R, K)."""
    columns = np.asarray(values).T.tolist()
    return [
        [Summand(1.0, lambda replicates, column=column: fmean(column[k] for k in replicates), ends)]
        for column, ends in zip(columns, ranges or [ANY] * len(columns), strict=True)
    ]


def drawn(seed, replicates, step, levels=5):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(replicates, 1))
    return step * np.arange(levels) + shared + rng.normal(size=(replicates, levels))


def rising(values, pair):
    """The one-sided p-value of scipy's paired t-test."""
    first, second = pair
    return stats.ttest_rel(values[:, second], values[:, first], alternative="greater").pvalue


def excluding(first, second, n):
    """The smallest error at which the interval of second - first lies above 0, by bisection."""
    parts = [*second, *(part._replace(weight=-part.weight) for part in first)]

    def above(level):
        return weighted_sum(parts, range(n), 1, level).low > 0

    return least_error(above) / 2 if above(0.0) else 1.0


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
        low, high = tau_bounds(sides, [[ANY] * count] * len(sides))
        assert -1 <= low < high <= 1
        assert end in {low, high}


@pytest.mark.parametrize("replicates", [12, 30])  # fewer have a wider quantile
@pytest.mark.parametrize("step", [0.0, 0.5, 1.0])
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
        a, b = drawn(seed, 12, step, levels=4), drawn(seed + 100, 12, -step, levels=4)
        interval = concordance(levels(a), levels(b), range(12))
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


@pytest.mark.parametrize("ends", [SHARE, COUNT, (-np.inf, 1.0), ANY, None])
@pytest.mark.parametrize("n", [3, 6])
def test_a_pair_is_established_where_the_interval_of_its_difference_excludes_zero(ends, n):
    rng = np.random.default_rng(n)
    for mean in (0.98, 0.9):
        a, b, baseline = rng.beta(50 * mean, 50 * (1 - mean), (3, n)) - [[0], [mean - 0.4], [0.5]]
        (first,), (second,), (base,) = levels(np.transpose([a, b, baseline]), ends, SHARE, ends)
        gain = [base._replace(weight=-0.5)]
        for low, high in ((first, second), (second, first)):
            # A baseline that both have cancels, and one that one of them has does not.
            for sides, alone in (
                (([low, *gain], [high, *gain]), ([low], [high])),
                (([low], [high._replace(weight=1.5), *gain]),) * 2,
            ):
                interval = concordance(sides, (), range(n), level=0.0)
                up, down = excluding(*alone, n), excluding(*alone[::-1], n)
                assert min(up, down) < 0.5
                assert interval.low == pytest.approx(2 * bound([up], 0.5) - 1, abs=1e-6)
                assert interval.high == pytest.approx(1 - 2 * bound([down], 0.5), abs=1e-6)


def test_of_two_equal_levels_the_order_of_all_is_hardly_ever_certain():
    """Tau is .9; above it is wrong: at most 2.5%, with 1,000 samples at most 4.0%."""
    rng = np.random.default_rng(0)
    normal = np.array([0, 5, 10, 15, 15])[:, None] + rng.normal(size=(1000, 5, 5))
    # Accuracies that are equal on average, the last with a long tail.
    shape = np.array([[500, 700, 850, 1960, 49], [500, 300, 150, 40, 1]])[:, :, None]
    skewed = rng.beta(*shape, size=(1000, 5, 5))
    for values, ends in ((normal, ANY), (skewed, SHARE)):
        low, _ = tau_bounds([values], [[ends] * 5])
        assert 0 < np.sum(low > 0.9) <= 40
    # Student-t, which knows no range, would establish more than 5%.
    low, _ = tau_bounds([skewed], [[ANY] * 5])
    assert np.sum(low > 0.9) > 50


def test_a_single_replicate_has_no_interval():
    interval = concordance(levels(drawn(0, 1, 2)), (), [0])
    assert (interval.low, interval.high) == (None, None)
    assert interval.reason == "an interval needs two or more, found 1"


def test_an_effect_that_is_not_determined_says_so():
    effects = [[Summand(1.0, lambda _, value=value: value)] for value in (1.0, None)]
    interval = concordance(effects, (), range(3))
    assert interval == (None, None, None, 3, "pairs-95", "not defined by these replicates")


@pytest.mark.parametrize("ends", [ANY, SHARE, None])
def test_the_bounds_of_values_are_those_of_their_estimators_also_of_many_samples(ends):
    rng = np.random.default_rng(3)
    sides = [rng.beta(0.9 * size, 0.1 * size, (7, 4, 6)) for size in (20, 50)]
    sides = [side - np.array([0.3, 0.2, 0.1, 0])[:, None] for side in sides]
    for chosen in (1, 2):
        low, high = tau_bounds(sides[:chosen], [[ends] * 4] * chosen)
        for d in range(7):
            effects = [levels(side[d].T, *[ends] * 4) for side in sides]
            expected = concordance(effects[0], effects[1] if chosen > 1 else [], range(6))
            assert (low[d], high[d]) == pytest.approx((expected.low, expected.high))


def test_each_level_is_tested_once():
    calls = []

    def counted(replicates):
        calls.append(replicates)
        return fmean(replicates)

    interval_at = concordance_at([[Summand(1.0, counted, ANY)]] * 2, (), range(3))
    before = len(calls)
    assert interval_at(0.95).method == "pairs-95"
    assert interval_at(0.5).method == "pairs-50"
    assert len(calls) == before
