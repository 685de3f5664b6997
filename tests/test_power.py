"""Power and expected widths against simulated samples and published values."""

import numpy as np
import pytest
from scipy import stats

from transferbench.statistics import (
    Levels,
    expected_half_width,
    needed,
    order_power,
    power_above,
    power_within,
)

SAMPLES = 40_000


def bounds(effect, deviation, n, level=0.95, seed=0):
    """The intervals of many samples. Shapes: (SAMPLES,) each."""
    values = np.random.default_rng(seed).normal(effect, deviation, (SAMPLES, n))
    half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(axis=1, ddof=1) / n**0.5
    return values.mean(axis=1) - half, values.mean(axis=1) + half


def share_error(share):
    return 4 * (share * (1 - share) / SAMPLES) ** 0.5 + 1e-4


@pytest.mark.parametrize("n", [3, 5, 23])
def test_the_expected_half_width_is_the_mean_of_sampled_ones(n):
    low, high = bounds(0.0, 0.2, n)
    half = (high - low) / 2
    error = 4 * half.std() / SAMPLES**0.5
    assert expected_half_width(0.2, n) == pytest.approx(half.mean(), abs=error)


@pytest.mark.parametrize(("margin", "n"), [(0.1, 3), (0.1, 5), (0.3, 5), (-0.1, 5), (0.0, 10)])
def test_the_power_of_a_one_sided_claim_is_the_share_of_samples_that_reproduce_it(margin, n):
    low, _ = bounds(margin, 0.2, n)
    share = np.mean(low > 0)
    assert power_above(margin, 0.2, n) == pytest.approx(share, abs=share_error(share))


def test_the_power_of_a_t_test_is_the_published_one():
    # One sample of 10 or 20, an effect of one or half a deviation: G*Power 3.1.
    assert power_above(1.0, 1.0, 10) == pytest.approx(0.803, abs=0.001)
    assert power_above(0.5, 1.0, 20) == pytest.approx(0.565, abs=0.001)
    assert power_above(50.0, 1e-3, 5) == 1.0


@pytest.mark.parametrize(
    ("effect", "margin", "n"), [(0.0, 0.2, 5), (0.0, 0.2, 23), (0.1, 0.2, 23), (0.0, 0.1, 3)]
)
def test_the_power_of_equivalence_is_the_share_of_intervals_inside_the_margin(effect, margin, n):
    low, high = bounds(effect, 0.2, n)
    share = np.mean((low > -margin) & (high < margin))
    assert power_within(effect, margin, 0.2, n) == pytest.approx(share, abs=share_error(share))


def test_the_power_at_the_margin_is_at_most_half_the_error():
    assert 0.024 < power_within(0.3, 0.3, 0.05, 200) <= 0.025 + 1e-6


def test_the_power_of_an_order_rises_from_the_error_to_one():
    def above(low, _):
        return low > 0

    ranges = [(-np.inf, np.inf)] * 3
    equal, apart = Levels([0.0, 0.0, 0.0], 1.0, ranges), Levels([0.0, 4.0, 8.0], 1.0, ranges)
    assert order_power(equal, None, above, 5, seed=0) <= 0.025 + 3 * (0.025 / 200) ** 0.5
    assert order_power(apart, None, above, 8, seed=0) > 0.95
    assert order_power(apart, apart, above, 8, seed=0) > 0.95
    assert order_power(apart, equal, above, 8, seed=0) < 0.05
    assert order_power(apart, None, above, 5, seed=1) == order_power(apart, None, above, 5, seed=1)


def test_the_fewest_that_suffice():
    assert needed(lambda n: float(n >= 7)) == 7
    assert needed(lambda _: 1.0) == 3
    assert needed(lambda n: float(n >= 1000)) == 1000
    assert needed(lambda _: 0.5) is None


def test_a_control_of_a_margin_of_a_standard_deviation_needs_fourteen():
    n = needed(lambda n: power_within(0.0, 1.0, 1.0, n))
    assert power_within(0.0, 1.0, 1.0, n - 1) < 0.9 <= power_within(0.0, 1.0, 1.0, n)
    # The normal approximation: (1.96 + 1.645)^2 = 13.0, and about two more for Student-t.
    assert 13 <= n <= 16
