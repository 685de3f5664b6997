"""Intervals against scipy, formulas in float64 and simulations of their coverage."""

from __future__ import annotations

import itertools
import math
import re
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from t_intervals import quantile

from transferbench.statistics import (
    Interval,
    bootstrap,
    bootstrap_mean,
    covered,
    exact_share,
    holm,
    jackknife,
    jackknife_ratio,
    least_error,
    paired_difference,
    rank_intervals,
    replicate_difference,
    replicate_mean,
    student_t,
)

ANY = (-math.inf, math.inf)
VALUES = [0.91, 0.87, 0.94, 0.9, 0.88]
OTHERS = [0.81, 0.79, 0.83, 0.85, 0.7]
moderate = st.floats(-10, 10).map(lambda value: round(value, 3))


def mean_over(values):
    return lambda replicates: statistics.fmean(values[r] for r in replicates)


def test_student_t_equals_scipy():
    interval = student_t(VALUES)
    low, high = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    assert interval.value == pytest.approx(np.mean(VALUES))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)
    assert (interval.n, interval.method, interval.reason) == (5, "student-t-95", None)


def test_a_level_changes_the_width_and_the_label():
    assert student_t(VALUES, 0.9).method == "student-t-90"
    low, high = stats.ttest_1samp(VALUES, 0).confidence_interval(0.9)
    assert student_t(VALUES, 0.9)[1:3] == pytest.approx((low, high), rel=1e-12)


def test_a_single_replicate_has_a_value_and_no_bounds():
    assert student_t([0.5]) == Interval(
        0.5, None, None, 1, "student-t-95", "an interval needs two or more, found 1"
    )
    assert student_t([]).value is None
    assert student_t([0.5]).fields() == {}


def test_fields_are_those_of_a_measurement():
    interval = student_t(VALUES)
    assert interval.fields() == {
        "low": interval.low,
        "high": interval.high,
        "interval": "student-t-95",
    }


def test_paired_difference_equals_scipys_paired_test():
    interval = paired_difference(VALUES, OTHERS)
    low, high = stats.ttest_rel(VALUES, OTHERS).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)
    assert interval.method == "paired-student-t-95"


def test_paired_values_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        paired_difference(VALUES, OTHERS[:3])


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (1, 3), (463, 1000), (999, 1000)])
def test_an_exact_interval_equals_scipy(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="exact")
    interval = exact_share(successes, n)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert interval.low <= interval.value <= interval.high


def test_an_exact_interval_of_no_items_has_a_reason():
    assert exact_share(0, 0) == Interval(None, None, None, 0, "exact-95", "no items")


# --- bootstrap --------------------------------------------------------------------------------


def test_bootstrap_of_a_mean_equals_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=400)
    expected = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    interval = bootstrap_mean(values, seed=2, resamples=4000)
    width = expected.high - expected.low
    assert interval.value == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=0.05 * width)
    assert (interval.n, interval.method) == (400, "bootstrap-95")


def test_bootstrap_has_its_nominal_coverage_for_a_proportion():
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(400):
        wins = rng.binomial(300, 0.7)
        (interval,) = bootstrap(
            lambda counts: counts[:, :1] / 300, np.array([wins, 300 - wins]), seed, resamples=400
        )
        covered += interval.low <= 0.7 <= interval.high
    assert 0.91 <= covered / 400 <= 0.98


def test_resampling_kinds_equals_resampling_items():
    values = np.repeat([0.0, 1.0], [70, 30])
    (by_kind,) = bootstrap(lambda c: c[:, 1:] / 100, np.array([70, 30]), 0, resamples=5000)
    by_item = bootstrap_mean(values, seed=0, resamples=5000)
    assert by_kind[:3] == pytest.approx(by_item[:3], abs=0.011)
    assert by_kind != by_item[:3]


def test_a_bootstrap_is_reproduced_by_its_seed():
    values = np.arange(100.0)
    assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5)
    assert bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)


def test_blocks_limit_the_memory_and_contain_all_resamples(monkeypatch):
    monkeypatch.setattr("transferbench.statistics.intervals.BLOCK", 1000)
    sizes = []

    def statistic(counts):
        sizes.append(len(counts))
        assert (counts.sum(axis=1) == 100).all()
        return counts[:, :1]

    bootstrap(statistic, np.ones(100, dtype=np.int64), 0, resamples=25)
    assert sizes == [1, 10, 10, 5]


def test_bootstrap_returns_an_interval_for_each_statistic():
    both = bootstrap(lambda c: np.stack([c[:, 0], c[:, 1]], axis=1), np.array([10, 30]), 0)
    assert [interval.value for interval in both] == [10, 30]
    assert both[0].high + both[1].low == pytest.approx(40)


def test_an_undefined_statistic_has_no_interval_and_a_reason():
    (interval,) = bootstrap(lambda c: np.full((len(c), 1), np.nan), np.array([4, 4]), 0)
    assert interval == Interval(None, None, None, 8, "bootstrap-95", "not defined for these items")


def test_a_statistic_that_is_undefined_for_many_resamples_has_no_interval():
    def inverse(counts):
        return np.where(counts > 0, 1 / np.maximum(counts, 1), np.nan)[:, :1]

    (rare,) = bootstrap(inverse, np.array([1, 99]), 0)
    (common,) = bootstrap(inverse, np.array([20, 80]), 0)
    assert (rare.value, rare.low, rare.reason) == (1.0, None, "not defined for these items")
    assert common.low is not None


def test_bootstrap_of_too_few_items_has_a_reason():
    assert bootstrap_mean(np.array([]), 0).reason == "no items"
    single = bootstrap_mean(np.array([2.0]), 0)
    assert (single.value, single.low) == (2.0, None)
    assert single.reason == "an interval needs two or more, found 1"


# --- jackknife --------------------------------------------------------------------------------


@given(st.lists(st.tuples(moderate, moderate), min_size=2, max_size=8))
@settings(deadline=None)
def test_the_jackknife_of_paired_means_equals_paired_student_t(pairs):
    a, b = zip(*pairs, strict=True)

    def estimate(replicates):
        return mean_over(a)(replicates) - mean_over(b)(replicates)

    interval, expected = jackknife(estimate, range(len(pairs))), paired_difference(a, b)
    assert interval[:3] == pytest.approx(expected[:3], abs=1e-9)


@given(st.permutations(range(5)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_replicates_does_not_matter(order):
    expected = jackknife(mean_over(VALUES), range(5))
    assert jackknife(mean_over(VALUES), order)[:3] == pytest.approx(expected[:3], abs=1e-12)


def pair_mean(values):
    return lambda replicates: statistics.fmean(
        values[i, j] for i, j in itertools.combinations(sorted(replicates), 2)
    )


def coverage(shared, draws=1500, size=5):
    """How often the jackknife covers 0, the mean of pair values x_i + x_j + e_ij."""
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(draws):
        x = shared * rng.normal(size=size)
        values = np.add.outer(x, x) + (1 - shared) * rng.normal(size=(size, size))
        interval = jackknife(pair_mean(values), range(size))
        covered += interval.low <= 0 <= interval.high
    return covered / draws


def test_the_jackknife_has_its_nominal_coverage_for_pairs_that_share_networks():
    # The standard error of 1,500 draws is 0.6%.
    assert 0.935 <= coverage(shared=1.0) <= 0.97
    assert 0.95 <= coverage(shared=0.5) <= 0.985


def test_student_t_over_pairs_that_share_networks_is_too_narrow():
    rng = np.random.default_rng(12)
    covered = 0
    for _ in range(500):
        x = rng.normal(size=5)
        pairs = [x[i] + x[j] for i, j in itertools.combinations(range(5), 2)]
        interval = student_t(pairs)
        covered += interval.low <= 0 <= interval.high
    assert covered / 500 < 0.85


def test_an_estimate_that_needs_all_replicates_has_no_interval():
    interval = jackknife(lambda r: 0.3 if len(r) > 1 else None, [0, 1])
    assert (interval.value, interval.low) == (0.3, None)
    assert interval.reason == "2 replicates are too few: one fewer does not determine the estimate"


def test_an_undefined_jackknife_has_a_reason():
    assert jackknife(lambda _: 0.3, [4]).reason == "an interval needs two or more, found 1"
    assert jackknife(lambda _: None, [0, 1]).reason == "not defined by these replicates"


# --- ratios -----------------------------------------------------------------------------------


def fieller(over, under, level=0.95):
    """The roots of Fieller's quadratic for two means of paired values, over the last axis.

    NaN unless the second mean is significantly above 0.
    """
    over, under = np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64)
    n = over.shape[-1]
    u, v = over.mean(-1), under.mean(-1)
    g = stats.t.ppf((1 + level) / 2, n - 1) ** 2 / n
    covariance = ((over - u[..., None]) * (under - v[..., None])).sum(-1) / (n - 1)
    a = v**2 - g * under.var(-1, ddof=1)
    b = u * v - g * covariance
    c = u**2 - g * over.var(-1, ddof=1)
    bounded = (a > 0) & (v > 0)
    root = np.sqrt(np.where(bounded, b**2 - a * c, np.nan))
    a = np.where(bounded, a, np.nan)
    return np.stack([(b - root) / a, (b + root) / a])


def share_of(over, under, level=0.95):
    return jackknife_ratio(mean_over(over), mean_over(under), range(len(over)), level)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_the_interval_of_a_ratio_is_fiellers(n, level):
    rng = np.random.default_rng(n)
    for _ in range(20):
        under = rng.normal(100, 1, n)
        over = 0.4 * under + rng.normal(0, 2, n)
        interval = share_of(over, under, level)
        assert interval.value == pytest.approx(over.mean() / under.mean(), rel=1e-12)
        assert interval[1:3] == pytest.approx(fieller(over, under, level), rel=1e-9, abs=1e-9)
        assert (interval.n, interval.method) == (n, f"fieller-{100 * level:g}")


# The lower bound of the mean is 0.0001 above 0.
BARELY_FASTER = np.array([0.318, 0.133, 0.110, 0.060, 0.051])


@pytest.mark.parametrize(
    ("over", "bounds"),
    [
        ([0.222, 0.087, 0.072, 0.037, 0.040], (-25.77, 0.733)),
        ([0.211, 0.094, 0.078, 0.045, 0.029], (0.624, 26.82)),
    ],
)
def test_a_denominator_barely_above_zero_gives_a_wide_interval(over, bounds):
    interval = share_of(over, BARELY_FASTER)
    assert interval.value == pytest.approx(0.68, abs=0.002)
    assert interval[1:3] == pytest.approx(bounds, rel=1e-3)
    assert interval[1:3] == pytest.approx(fieller(over, BARELY_FASTER), rel=1e-6)
    # A jackknife of the ratio gives a far too narrow interval.
    ratio = jackknife(lambda r: mean_over(over)(r) / mean_over(BARELY_FASTER)(r), range(5))
    assert ratio.high - ratio.low < 0.11


def test_a_constant_denominator_gives_the_jackknifes_interval():
    interval = share_of(VALUES, [0.4] * 5)
    expected = jackknife(lambda r: mean_over(VALUES)(r) / 0.4, range(5))
    assert interval[:3] == pytest.approx(expected[:3], rel=1e-12)


def test_all_of_a_gain_is_exactly_one_and_has_no_interval():
    share = share_of(BARELY_FASTER, BARELY_FASTER)
    assert share[:3] == (1.0, None, None)
    assert share.reason == "every replicate gives the same value: their spread is not known"
    assert share_of(BARELY_FASTER * 0, BARELY_FASTER)[:3] == (0.0, None, None)


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3))
@settings(deadline=None)
def test_a_share_scales_with_its_parts(under_scale, over_scale):
    value, low, high = share_of(VALUES, OTHERS)[:3]
    scaled = share_of(np.array(VALUES) * over_scale, np.array(OTHERS) * under_scale)
    scale = over_scale / under_scale
    expected = value * scale, *sorted([low * scale, high * scale])
    assert scaled[:3] == pytest.approx(expected, rel=1e-9)


def test_a_share_of_pair_means_is_where_the_difference_may_be_zero():
    rng = np.random.default_rng(8)
    pairs = rng.normal([[[0.6]], [[1.0]]], 0.2, size=(2, 5, 5))
    over, under = map(pair_mean, pairs)
    share = jackknife_ratio(over, under, range(5))
    for bound in share[1:3]:
        difference = jackknife(lambda r, rho=bound: over(r) - rho * under(r), range(5))
        assert min(abs(difference.low), abs(difference.high)) == pytest.approx(0, abs=1e-12)
    assert share.low < share.value < share.high


def test_fiellers_interval_covers_where_a_jackknife_of_the_ratio_does_not():
    rng = np.random.default_rng(21)
    # The mean of the denominator lies two standard errors above 0; the true ratio is 0.5.
    z = rng.normal(size=(2, 40_000, 5))
    under = 1 + np.sqrt(5) / 2 * z[0]
    over = 0.5 + np.sqrt(5) / 2 * (0.9 * z[0] + np.sqrt(1 - 0.9**2) * z[1]) / 4
    low, high = fieller(over, under)
    bounded = ~np.isnan(low)
    missed = (low > 0.5) | (high < 0.5)
    assert 0.3 < bounded.mean() < 0.37
    assert missed.mean() < 0.05
    assert 0.90 < 1 - missed.sum() / bounded.sum() < 0.93
    ratios = []
    for k in range(300):
        interval = share_of(over[k], under[k])
        assert (interval.low is None) == bool(np.isnan(low[k]))
        if interval.low is not None:
            assert interval[1:3] == pytest.approx((low[k], high[k]), rel=1e-6)
            ratios.append(
                jackknife(lambda r, k=k: over[k][r].mean() / under[k][r].mean(), range(5))
            )
    assert np.mean([ratio.low <= 0.5 <= ratio.high for ratio in ratios]) < 0.87


@pytest.mark.parametrize(
    ("under", "reason"),
    [
        ([0.1, -0.1, 0.05], "the denominator's 95% interval includes 0"),
        ([-0.1, 0.1, -0.05], "the denominator's 95% interval includes 0"),
        ([0.0, 0.0, 0.0], "the denominator's 95% interval includes 0"),
        ([-0.1, -0.11, -0.09], "the denominator is not above 0"),
        ([-0.1], "the denominator is not above 0"),
    ],
)
def test_a_ratio_is_undefined_unless_the_denominator_is_significantly_above_zero(under, reason):
    interval = share_of([-0.2, -0.19, -0.21][: len(under)], under)
    assert interval == Interval(None, None, None, len(under), "fieller-95", reason)


def test_a_ratio_of_too_few_replicates_has_a_value_and_no_bounds():
    assert share_of([0.1], [0.2]) == Interval(
        0.5, None, None, 1, "fieller-95", "an interval needs two or more, found 1"
    )
    few = jackknife_ratio(lambda r: 0.3 if len(r) > 1 else None, lambda _: 0.6, [0, 1])
    assert (few.value, few.low) == (0.5, None)
    assert few.reason == "2 replicates are too few: one fewer does not determine the estimate"
    undefined = jackknife_ratio(lambda _: None, lambda _: 0.6, [0, 1])
    assert (undefined.value, undefined.reason) == (None, "not defined by these replicates")


# --- ranks ------------------------------------------------------------------------------------


def letters(group):
    return set(re.findall(r"[a-zA-Z]\d*", group))


def test_clearly_different_entries_have_different_ranks():
    ranks = rank_intervals(
        {"low": [1.0, 1.1, 1.3], "high": [9.0, 9.2, 9.1], "mid": [5.1, 5.0, 5.2]}
    )
    assert list(ranks) == ["high", "mid", "low"]
    assert [(r.rank, r.rank_low, r.rank_high, r.tie_group) for r in ranks.values()] == [
        (1, 1, 1, "a"),
        (2, 2, 2, "b"),
        (3, 3, 3, "c"),
    ]
    assert ranks["mid"].interval == replicate_mean({0: 5.1, 1: 5.0, 2: 5.2})
    assert ranks["mid"].mean == pytest.approx(5.1)


def test_an_entry_between_two_separated_ones_shares_a_letter_with_each():
    scores = {"a": [2.0, 2.2, 2.1], "b": [0.0, 3.0, 1.0], "c": [0.1, 0.0, 0.2]}
    ranks = rank_intervals(scores, ends=ANY)
    assert {name: rank.tie_group for name, rank in ranks.items()} == {"a": "a", "b": "ab", "c": "b"}
    assert (ranks["b"].rank_low, ranks["b"].rank_high) == (1, 3)
    assert (ranks["a"].rank_low, ranks["a"].rank_high) == (1, 2)
    assert (ranks["c"].rank_low, ranks["c"].rank_high) == (2, 3)


@pytest.mark.parametrize("ends", [None, ANY, (-8.0, 4.0)])
def test_two_entries_are_separated_where_the_interval_of_their_difference_excludes_zero(ends):
    noise = np.random.default_rng(0).normal(size=(100, 2, 4))
    verdicts = set()
    for a, b in noise + np.array([[3.0], [0.0]]):
        # Only what both have is compared.
        first, second = dict(enumerate(a)), dict(zip((1, 2, 3, 7), b, strict=True))
        interval = replicate_difference(first, second, ends=ends)
        excludes = interval.low > 0 or interval.high < 0
        ranks = rank_intervals({"a": first, "b": second}, ends=ends)
        assert (ranks["a"].tie_group != ranks["b"].tie_group) == excludes
        verdicts.add(excludes)
    assert verdicts == {True, False}


def test_holms_correction_depends_on_the_number_of_pairs():
    a, b = [1.0, 2.0, 3.0, 4.0], [0.8, 1.6, 2.9, 3.7]
    p = stats.ttest_rel(a, b).pvalue
    assert 0.05 / 3 < p < 0.05
    assert rank_intervals({"a": a, "b": b}, ends=ANY)["b"].rank_low == 2
    three = {"a": a, "b": b, "c": [3.0, 2.0, 1.0, 4.0]}
    assert rank_intervals(three, ends=ANY)["b"].rank_low == 1


def p_of(first, second, networks=1):
    """The p-value of a difference, by the inversion of its interval."""

    def decides(level):
        interval = replicate_difference(first, second, networks, level, ANY)
        return interval.low > 0 or interval.high < 0

    return least_error(decides)


def holm_pairs(scores, networks=1):
    """The pairs that Holm's procedure separates, from its definition by adjusted p-values."""
    pairs = list(itertools.combinations(scores, 2))
    by_replicate = {name: dict(enumerate(values)) for name, values in scores.items()}
    p = [p_of(by_replicate[a], by_replicate[b], networks) for a, b in pairs]
    return {frozenset(pair) for pair, q in zip(pairs, holm(p), strict=True) if q < 0.05}


def test_letters_show_the_pairs_that_holm_separates():
    rng = np.random.default_rng(6)
    counts = set()
    for _ in range(12):
        scores = {name: rng.normal(3 * k, 1, 5).tolist() for k, name in enumerate("abcd")}
        ranks = rank_intervals(scores, ends=ANY)
        apart = {
            frozenset((a, b))
            for a, b in itertools.combinations(ranks, 2)
            if not letters(ranks[a].tie_group) & letters(ranks[b].tie_group)
        }
        assert apart == holm_pairs(scores)
        counts.add(len(apart))
    assert len(counts) > 2


def test_equal_entries_are_rarely_separated():
    rng = np.random.default_rng(7)
    boards = 300
    wrong = 0
    for _ in range(boards):
        scores = {str(k): list(rng.normal(size=3)) for k in range(8)}
        wrong += any(rank.rank_low > 1 for rank in rank_intervals(scores, ends=ANY).values())
    assert wrong / boards <= 0.08


def test_a_single_replicate_has_no_interval_and_all_ranks():
    ranks = rank_intervals({"a": [9.0], "b": [1.0, 1.1, 1.3], "c": [4.0, 4.1, 4.2]})
    assert ranks["a"].interval is None
    assert [(r.rank_low, r.rank_high) for r in ranks.values()] == [(1, 3), (1, 2), (2, 3)]


def test_equal_scores_share_rank_and_letter():
    ranks = rank_intervals({"b": VALUES, "a": VALUES})
    assert list(ranks) == ["a", "b"]
    assert {(r.rank, r.rank_low, r.rank_high, r.tie_group) for r in ranks.values()} == {
        (1, 1, 2, "a")
    }


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_constant_difference_separates_nothing(n):
    scores = {"a": [0.1 * k + 0.02 for k in range(n)], "b": [0.1 * k for k in range(n)]}
    ranks = rank_intervals(scores, ends=(0.0, 1.0))
    assert ranks["b"].rank_low == 1
    assert {rank.tie_group for rank in ranks.values()} == {"a"}


def test_two_replicates_separate_nothing():
    ranks = rank_intervals({"a": [2.0, 3.0], "b": [1.0, 2.0001]}, ends=ANY)
    assert ranks["b"].rank_low == 1


def test_a_letter_cannot_be_read_as_two():
    scores = {f"{k:03}": [100.0 * k, 100.0 * k + 1, 100.0 * k + 3 + k * 0.01] for k in range(60)}
    groups = [rank.tie_group for rank in rank_intervals(scores).values()]
    assert len(set(groups)) == 60
    assert groups[51:53] == ["Z", "a2"]


@pytest.mark.parametrize("scores", [[], [math.nan, 1.0]])
def test_an_entry_without_a_finite_score_is_refused(scores):
    with pytest.raises(ValueError, match="entry 'x' needs at least one finite score"):
        rank_intervals({"x": scores})


tables = st.integers(2, 4).flatmap(
    lambda size: st.dictionaries(
        st.sampled_from("abcdefgh"), st.lists(moderate, min_size=size, max_size=size), min_size=1
    )
)


@given(tables)
@settings(max_examples=60, deadline=None)
def test_a_rank_lies_in_its_interval_and_letters_show_the_ties(scores):
    ranks = rank_intervals(scores)
    assert set(ranks) == set(scores)
    for entry, rank in ranks.items():
        assert 1 <= rank.rank_low <= rank.rank <= rank.rank_high <= len(scores)
        apart = [o for o in ranks if not letters(rank.tie_group) & letters(ranks[o].tie_group)]
        room = len(scores) - (rank.rank_high - rank.rank_low) - 1
        assert len(apart) == room
        assert entry not in apart


@given(tables, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_entries_and_replicates_does_not_matter(scores, random):
    size = len(next(iter(scores.values())))
    order = random.sample(range(size), size)
    shuffled = dict(random.sample(sorted(scores.items()), len(scores)))
    again = rank_intervals({k: {r: v[r] for r in order} for k, v in shuffled.items()})
    expected = rank_intervals(scores)
    assert list(again) == list(expected)
    for entry, rank in expected.items():
        assert again[entry][2:] == rank[2:]


# --- several source networks ------------------------------------------------------------------


def test_a_mean_over_networks_is_the_student_t_of_their_means():
    values = dict(enumerate(np.random.default_rng(1).normal(size=15).tolist()))
    means = np.reshape(list(values.values()), (3, 5)).mean(axis=0)
    interval = replicate_mean(values, networks=5)
    half = quantile(5, None) * stats.sem(means)
    expected = means.mean(), means.mean() - half, means.mean() + half
    assert interval[:3] == pytest.approx(expected)
    assert (interval.n, interval.method, interval.over_networks) == (
        5, "wide-t-networks-95", True
    )  # fmt: skip


def test_networks_with_unequally_many_replicates_are_left_out_as_a_whole():
    values = dict(enumerate([1.0, 4.0, 2.0, 3.0, 7.0]))
    groups = [[1.0, 3.0], [4.0, 7.0], [2.0]]
    interval = replicate_mean(values, networks=3)
    total = np.mean(list(values.values()))
    without = [np.mean(np.concatenate(groups[:m] + groups[m + 1 :])) for m in range(3)]
    half = quantile(3, None) * stats.sem(3 * total - 2 * np.array(without))
    assert interval[:3] == pytest.approx((total, total - half, total + half))


def test_one_network_with_replicates_gives_no_interval():
    interval = replicate_mean({0: 1.0, 3: 2.0}, networks=3)
    assert (interval.value, interval.low, interval.n) == (1.5, None, 1)
    assert interval.reason == "an interval needs two or more, found 1"


@pytest.mark.parametrize(
    ("replicates", "networks", "expected"),
    [
        (range(4), 1, "replicates"),
        (range(10), 5, "5 source networks x 2 replicates"),
        (range(3), 3, "3 source networks x 1 replicate"),
        ([0, 1, 2, 4], 3, "3 source networks, 4 replicates"),
    ],
)
def test_what_an_interval_covers_is_said_in_words(replicates, networks, expected):
    assert covered(replicates, networks) == expected


def test_ranks_of_entries_with_several_networks_are_of_their_means():
    rng = np.random.default_rng(4)
    start = rng.normal(size=5)
    scores = {
        "replicated": np.tile(start, 2) + 0.3 * rng.normal(size=10) + 1,
        "twin": np.tile(start, 2) + 0.3 * rng.normal(size=10),
        "given": 0.3 * rng.normal(size=10) - 1,
    }  # fmt: skip
    means = {entry: values.reshape(2, 5).mean(axis=0) for entry, values in scores.items()}
    networks = {"replicated": 5, "twin": 5, "given": 1}
    ranks = rank_intervals(scores, networks=networks, ends=ANY)
    pairs = list(itertools.combinations(scores, 2))
    apart = holm_pairs({entry: scores[entry].tolist() for entry in scores}, networks=5)
    assert 0 < len(apart) < len(pairs)
    for a, b in pairs:
        shared = set(ranks[a].tie_group) & set(ranks[b].tie_group)
        assert bool(shared) == ({a, b} not in apart)
    by_replicate = dict(enumerate(scores["given"].tolist()))
    assert ranks["given"].interval == replicate_mean(by_replicate, ends=ANY)
    expected = replicate_mean(dict(enumerate(means["twin"].tolist())), ends=ANY)
    assert ranks["twin"].interval[:3] == pytest.approx(expected[:3])


def test_entries_of_other_replicates_are_compared_over_the_networks_of_those_that_both_have():
    first, second = {k: 1 + 0.1 * (k % 3) + 0.01 * k for k in range(6)}, {}
    for k in range(5):
        second[k] = 5 + 0.2 * (k % 3)
    ranks = rank_intervals({"a": first, "b": second}, networks={"a": 3}, ends=ANY)
    p = p_of(first, second, networks=3)
    assert (ranks["a"].tie_group != ranks["b"].tie_group) == (p < 0.05)
    two = rank_intervals({"a": first, "b": second}, networks={"a": 2}, ends=ANY)
    assert {rank.tie_group for rank in two.values()} == {"a"}


def test_an_interval_stays_in_the_range_of_its_quantity_around_its_value():
    interval = student_t([0.99, 0.9, 1.0])
    assert interval.high > 1
    inside = interval.within(0.0, 1.0)
    assert (inside.low, inside.high, inside.value) == (interval.low, 1.0, interval.value)
    assert interval.within(-5, 5) == interval
    # An estimate beyond the range, as a debiased one may be, stays in its interval.
    assert student_t([-0.1, -0.12, -0.11]).within(0.0, 1.0).low == pytest.approx(-0.11)
    assert student_t([0.5]).within(0.0, 1.0) == student_t([0.5])
