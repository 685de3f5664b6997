"""Outcomes of test items for a pair of networks, and statistics of their counts.

Shape letters: B resamples, C distinct rows of outcomes, L labels (1 for multi-class tasks),
N items, S statistics, T outcomes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from transferbench.metrics import ratio

__all__ = [
    "BOTH_RIGHT",
    "ONLY_A_WRONG",
    "ONLY_B_WRONG",
    "OTHER_WRONG",
    "SAME_WRONG",
    "STATISTICS",
    "Statistic",
    "outcome_statistics",
    "outcome_tables",
    "pair_outcomes",
]

BOTH_RIGHT, ONLY_A_WRONG, ONLY_B_WRONG, SAME_WRONG, OTHER_WRONG = range(5)
"""The outcomes; in the last two both networks are wrong, with equal or different predictions."""


class Statistic(NamedTuple):
    """A statistic of a table of outcomes.

    ``among``: the outcomes counted in its denominator. ``undefined``: the flag of a missing value.
    """

    metric: str
    unit: str
    among: tuple[int, ...] = tuple(range(5))
    undefined: str = ""


BOTH_WRONG = (SAME_WRONG, OTHER_WRONG)
STATISTICS = (
    Statistic("n_common", "items"),
    Statistic("uncommon_a", "items"),
    Statistic("uncommon_b", "items"),
    Statistic(
        "error_jaccard", "fraction", (ONLY_A_WRONG, ONLY_B_WRONG, *BOTH_WRONG), "neither errs"
    ),
    Statistic("agreement", "fraction"),
    Statistic("agreement_given_both_wrong", "fraction", BOTH_WRONG, "no common errors"),
    Statistic("kappa", "kappa", undefined="both are right everywhere, or wrong everywhere"),
)


def pair_outcomes(
    predicted_a: np.ndarray, predicted_b: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The outcome of each label of each item.

    Shapes: all (N,), or all (N, L); returns int64 (N, L).
    """
    truth = labels if labels.ndim == 1 else labels > 0.5
    # A class is the one label of an item.
    a, b, truth = (x.reshape(len(labels), -1) for x in (predicted_a, predicted_b, truth))
    wrong_a, wrong_b = a != truth, b != truth
    both_wrong = np.where(a == b, SAME_WRONG, OTHER_WRONG)
    outcomes_NL: np.ndarray = np.select(
        [wrong_a & wrong_b, wrong_a, wrong_b], [both_wrong, ONLY_A_WRONG, ONLY_B_WRONG], BOTH_RIGHT
    )
    return outcomes_NL


def outcome_tables(counts_BC: np.ndarray, outcomes_CL: np.ndarray) -> np.ndarray:
    """Counts of each outcome, from the counts of distinct rows. Shapes: returns (B, L, T)."""
    return np.stack([counts_BC @ (outcomes_CL == outcome) for outcome in range(5)], axis=-1)


def outcome_statistics(tables_BLT: np.ndarray) -> np.ndarray:
    """The values in the order of ``STATISTICS``, NaN where undefined.

    Shapes: (B, L, T) to (B, L, S).
    """
    n = tables_BLT.sum(axis=-1)
    right, only_a, only_b, same, other = np.moveaxis(tables_BLT, -1, 0)
    common = same + other
    columns = [
        common,
        only_a,
        only_b,
        ratio(common, common + only_a + only_b),
        (right + same) / n,
        ratio(same, common),
        _kappa((right + common) / n, (only_a + common) / n, (only_b + common) / n),
    ]
    return np.stack(columns, axis=-1)


def _kappa(observed: np.ndarray, error_a: np.ndarray, error_b: np.ndarray) -> np.ndarray:
    """Error consistency (c_obs - c_exp) / (1 - c_exp) from error rates.

    Source: Geirhos, Meding, Wichmann 2020, arXiv 2006.16736.
    """
    expected = error_a * error_b + (1 - error_a) * (1 - error_b)
    return ratio(observed - expected, 1 - expected)
