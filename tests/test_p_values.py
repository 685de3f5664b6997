"""P-values by inversion against closed forms, and Holm's correction against its definition."""

import numpy as np
import pytest
from scipy import stats

from transferbench.statistics import holm, jackknife_ratio, least_error, student_t

VALUES = [0.12, 0.05, 0.2, 0.11, 0.02]


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.09])
def test_the_least_error_of_a_mean_is_the_two_sided_p_value_of_the_t_test(threshold):
    reached = least_error(lambda level: student_t(VALUES, level).low > threshold)
    expected = stats.ttest_1samp(VALUES, threshold).pvalue
    assert reached == pytest.approx(expected, rel=1e-6)


def test_a_mean_on_the_other_side_has_an_error_of_one():
    assert least_error(lambda level: student_t(VALUES, level).low > 0.15) == 1.0


def test_an_error_below_the_least_is_the_least():
    assert least_error(lambda _: True) == 1e-8


def test_the_least_error_of_a_share_is_that_of_the_contrast_which_it_tests():
    under = np.array([1.0, 1.2, 0.9, 1.1, 1.05])
    over = 0.7 * under + np.array([0.05, -0.03, 0.1, -0.08, 0.02])

    def low(level):
        return jackknife_ratio(
            lambda rows: over[list(rows)].mean(), lambda rows: under[list(rows)].mean(),
            range(5), level,
        ).low  # fmt: skip

    # Fieller: the share is above rho where the mean of U - rho V is above 0.
    expected = stats.ttest_1samp(over - 0.6 * under, 0).pvalue
    reached = least_error(lambda level: (bound := low(level)) is not None and bound > 0.6)
    assert reached == pytest.approx(expected, rel=1e-6)


def test_holm_multiplies_the_smallest_by_their_number_and_keeps_the_order():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_no_true_hypothesis_in_more_than_five_percent():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 6))
    p = 2 * stats.norm.sf(abs(0.5 * shared + 0.75**0.5 * own))
    share = np.mean([min(holm(row)) <= 0.05 for row in p.tolist()])
    assert share <= 0.05 + 2 * (0.05 * 0.95 / 4000) ** 0.5
