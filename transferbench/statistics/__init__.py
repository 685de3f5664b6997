"""Confidence intervals, ranks with intervals, and the order of effects."""

from __future__ import annotations

from transferbench.statistics.concordance import concordance, concordance_at, pair_signs
from transferbench.statistics.intervals import (
    Estimator,
    Interval,
    bootstrap,
    bootstrap_mean,
    covered,
    deviation,
    jackknife,
    jackknife_ratio,
    jackknifed,
    paired_difference,
    point_estimates,
    student_t,
)
from transferbench.statistics.items import difference_of_items, mean_of_items, ratio_of_items
from transferbench.statistics.p_values import holm, least_error
from transferbench.statistics.planned_sums import PlannedArm, simulated_bounds
from transferbench.statistics.power import (
    GOAL,
    MOST,
    Levels,
    expected_half_width,
    needed,
    order_power,
    power_above,
    power_within,
)
from transferbench.statistics.ranks import Rank, rank_intervals
from transferbench.statistics.reaches import Range, quantile_factor, range_of_sum
from transferbench.statistics.shares import effective_wilson, exact_share, mean_of_shares
from transferbench.statistics.sums import (
    Summand,
    mean_of_replicates,
    range_of,
    replicate_difference,
    replicate_mean,
    share_of_gain,
    weighted_ratio,
    weighted_sum,
)

__all__ = [
    "GOAL",
    "MOST",
    "Estimator",
    "Interval",
    "Levels",
    "PlannedArm",
    "Range",
    "Rank",
    "Summand",
    "bootstrap",
    "bootstrap_mean",
    "concordance",
    "concordance_at",
    "covered",
    "deviation",
    "difference_of_items",
    "effective_wilson",
    "exact_share",
    "expected_half_width",
    "holm",
    "jackknife",
    "jackknife_ratio",
    "jackknifed",
    "least_error",
    "mean_of_items",
    "mean_of_replicates",
    "mean_of_shares",
    "needed",
    "order_power",
    "pair_signs",
    "paired_difference",
    "point_estimates",
    "power_above",
    "power_within",
    "quantile_factor",
    "range_of",
    "range_of_sum",
    "rank_intervals",
    "ratio_of_items",
    "replicate_difference",
    "replicate_mean",
    "share_of_gain",
    "simulated_bounds",
    "student_t",
    "weighted_ratio",
    "weighted_sum",
]
