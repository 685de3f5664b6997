"""Intervals of metrics over test items, on the scale of the metric."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from transferbench.analysis.metric_intervals import metric_interval
from transferbench.metrics import score
from transferbench.statistics import effective_wilson, mean_of_shares

METRICS = ("accuracy", "balanced-accuracy", "macro-auc")


@pytest.mark.parametrize("successes", [0, 7, 9])
def test_the_mean_of_one_share_has_the_exact_interval(successes):
    exact = stats.binomtest(successes, 9).proportion_ci(0.95, "exact")
    interval = mean_of_shares(np.array([successes]), np.array([9]))
    assert interval[:3] == pytest.approx((successes / 9, exact.low, exact.high))


def test_the_mean_of_shares_recovers_the_variances_of_the_classes():
    each = [stats.binomtest(k, n).proportion_ci(0.95, "exact") for k, n in ((3, 4), (50, 90))]
    shares = np.array([3 / 4, 50 / 90])
    lows, highs = np.array([(ci.low, ci.high) for ci in each]).T
    interval = mean_of_shares(np.array([3, 50]), np.array([4, 90]))
    below, above = np.hypot(*(shares - lows)) / 2, np.hypot(*(highs - shares)) / 2
    # The other interval: of the items whose share has the smoothed variance of the mean.
    smoothed = (np.array([3, 50]) + shares.mean()) / np.array([5, 91])
    variance = (smoothed * (1 - smoothed) / (4, 90)).sum() / 4
    size = min(2 / np.mean([1 / 4, 1 / 90]), shares.mean() * (1 - shares.mean()) / variance)
    hits = shares.mean() * size
    pooled = (
        stats.beta.ppf(0.025, hits, size - hits + 1),
        stats.beta.ppf(0.975, hits + 1, size - hits),
    )
    expected = min(shares.mean() - below, pooled[0]), max(shares.mean() + above, pooled[1])
    assert (interval.low, interval.high) == pytest.approx(expected)
    assert interval.low == pytest.approx(shares.mean() - below)
    assert interval.high == pytest.approx(pooled[1])
    assert (interval.n, interval.method) == (94, "mean-exact-95")


def test_the_mean_of_many_perfect_shares_reaches_down_like_one_share_of_all_items():
    interval = mean_of_shares(np.full(100, 10), np.full(100, 10))
    assert interval.high == 1
    assert interval.low <= stats.binomtest(1000, 1000).proportion_ci(0.95, "exact").low
    # One error in 1,000: the classes without one reach no further upwards.
    hits = np.array([9, *[10] * 99])
    exact = stats.binomtest(999, 1000).proportion_ci(0.95, "exact")
    assert mean_of_shares(hits, np.full(100, 10)).high >= exact.high - 1e-12


def test_an_effective_size_of_all_items_is_wilsons():
    expected = stats.binomtest(28, 40).proportion_ci(0.95, method="wilson")
    assert effective_wilson(0.7, 40, 40)[1:3] == pytest.approx((expected.low, expected.high))


def delong_variance(scores, positive):
    """By the matrix of all pairs, of DeLong, DeLong and Clarke-Pearson."""
    above, below = scores[positive], scores[~positive]
    order = (above[:, None] > below) + 0.5 * (above[:, None] == below)
    return order.mean(axis=1).var(ddof=1) / len(above) + order.mean(axis=0).var(ddof=1) / len(below)


def test_the_interval_of_an_auc_has_delongs_variance():
    rng = np.random.default_rng(3)
    labels = (rng.random((400, 1)) < 0.4).astype(np.float32)
    # The larger spread of the positives, as their AUC then varies more than without information.
    logits = (rng.normal(size=(400, 1)) * (1 + 9 * labels) + labels).astype(np.float32)
    interval = metric_interval("auc", logits, labels)
    value = score("auc", logits, labels)
    variance = delong_variance(logits[:, 0], labels[:, 0] > 0.5)
    expected = effective_wilson(value, value * (1 - value) / variance, 400)
    assert interval.value == pytest.approx(value, abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert interval.method == "wilson-effective-95"


def test_the_interval_of_a_perfect_auc_is_that_of_uninformative_scores():
    labels = np.repeat([0, 1], [45, 5])
    logits = 9 * np.eye(2)[labels]
    interval = metric_interval("macro-auc", logits, labels)
    assert (interval.value, interval.high) == (1, 1)
    assert interval.low == pytest.approx(effective_wilson(1, 3 * 45 * 5 / 50, 50).low)


def test_labels_that_say_the_same_are_no_more_certain_than_one():
    labels = np.repeat([[1.0], [0.0]], [5, 45], axis=0)
    single = metric_interval("auc", labels, labels)
    assert single.low == pytest.approx(effective_wilson(1, 3 * 45 * 5 / 50, 50).low)
    for count in (2, 14):
        several = np.tile(labels, (1, count))
        assert metric_interval("auc", several, several)[:3] == pytest.approx(single[:3])


@given(st.integers(2, 5), st.integers(1, 30), st.integers(0, 2**31), st.floats(0, 5))
@settings(deadline=None, max_examples=60)
def test_an_interval_includes_its_value_has_width_and_stays_in_range(classes, n, seed, signal):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = (rng.normal(size=(n, classes)) + signal * np.eye(classes)[labels]).round(1)
    for metric in METRICS:
        interval = metric_interval(metric, logits, labels)
        if interval is None:
            assert score(metric, logits, labels) is None
            continue
        assert interval.value == pytest.approx(score(metric, logits, labels), abs=1e-12)
        assert 0 <= interval.low <= interval.value + 1e-12
        assert interval.value - 1e-12 <= interval.high <= 1
        assert interval.low < interval.high


def test_what_has_no_interval_in_closed_form_has_none():
    labels = np.array([[0.0, 1], [1, 0]])
    assert metric_interval("accuracy", labels, labels) is None
    assert metric_interval("macro-auc", np.zeros((3, 2)), np.zeros(3, int)) is None
    assert metric_interval("macro-auc", np.full((2, 2), np.nan), np.array([0, 1])) is None
    assert metric_interval("accuracy", np.zeros((0, 2)), np.zeros(0, int)) is None
