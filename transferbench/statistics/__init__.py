"""Confidence intervals, ranks with intervals, and the order of effects."""

from __future__ import annotations

from transferbench.statistics.concordance import concordance
from transferbench.statistics.intervals import (
    Estimator,
    Interval,
    bootstrap,
    bootstrap_mean,
    covered,
    jackknife,
    jackknife_ratio,
    paired_difference,
    point_estimates,
    replicate_mean,
    share_of_gain,
    student_t,
    wilson,
)
from transferbench.statistics.p_values import holm, least_error
from transferbench.statistics.ranks import Rank, rank_intervals
from transferbench.statistics.shares import effective_wilson, mean_of_shares

__all__ = [
    "Estimator",
    "Interval",
    "Rank",
    "bootstrap",
    "bootstrap_mean",
    "concordance",
    "covered",
    "effective_wilson",
    "holm",
    "jackknife",
    "jackknife_ratio",
    "least_error",
    "mean_of_shares",
    "paired_difference",
    "point_estimates",
    "rank_intervals",
    "replicate_mean",
    "share_of_gain",
    "student_t",
    "wilson",
]
