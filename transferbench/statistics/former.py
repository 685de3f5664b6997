"""Intervals of an earlier version: published verdicts are judged by the method of their day."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transferbench.statistics.intervals import Interval
from transferbench.statistics.reaches import Range
from transferbench.statistics.sums import Summand, sum_by

__all__ = ["bounded_sum"]

LEVEL_FACTORS = {2: 1.4, 3: 1.27, 4: 1.16, 5: 1.09, 6: 1.05, 7: 1.02}
MOST_OF_A_SUM = 2 / 3
"""A sum in which one summand has a larger share of the weights was the mean of one arm."""


def bounded_sum(
    summands: Sequence[Summand],
    replicates: Sequence[int],
    networks: int = 1,
    level: float = 0.95,
) -> Interval:
    """``weighted_sum`` as it was at first (``bounded-t``, ``level-t``).

    The mean of one arm had a wider quantile, and every difference Student-t's own, also of arms
    with unequal variance. Only ranges with two ends counted.
    """
    summands = [s if s.range and np.isfinite(s.range).all() else s._replace(range=None)
                for s in summands]  # fmt: skip
    sizes = [abs(part.weight) for part in summands]
    of_one_arm = max(sizes) > MOST_OF_A_SUM * sum(sizes)
    name = (
        "bounded-t" if any(s.range for s in summands) else "level-t" if of_one_arm else "jackknife"
    )

    def factor(ranges: Sequence[Range | None], n: int, share: np.ndarray) -> float:
        del ranges, share
        return LEVEL_FACTORS.get(n, 1.0) if of_one_arm else 1.0

    return sum_by(factor, name, summands, replicates, networks, level)
