"""What happened to each test item in a pair of networks, and the statistics of it.

Shape letters: B resamples, K classes, L labels (1 where the task is multi-class), N items,
S statistics, T outcomes.
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
    "outcomes_of",
    "statistics_of",
    "tables_of",
]

BOTH_RIGHT, ONLY_A_WRONG, ONLY_B_WRONG, SAME_WRONG, OTHER_WRONG = range(5)
"""The outcomes: in the last two both are wrong, with the same or with another prediction."""


class Statistic(NamedTuple):
    """A number out of a table of outcomes.

    ``among``: the outcomes that it is a share of; ``why`` it may be without a value.
    """

    metric: str
    unit: str
    among: tuple[int, ...] = tuple(range(5))
    why: str = ""


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
    Statistic("kappa", "kappa", why="both are right everywhere, or wrong everywhere"),
)


def outcomes_of(logits_a: np.ndarray, logits_b: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The outcome of each label of each item.

    Shapes: logits (N, K) with labels (N,), or all (N, L); returns int64 (N, L).
    """
    a, b = _predictions(logits_a, labels), _predictions(logits_b, labels)
    truth = labels[:, None] if labels.ndim == 1 else labels > 0.5
    wrong_a, wrong_b = a != truth, b != truth
    both_wrong = np.where(a == b, SAME_WRONG, OTHER_WRONG)
    outcomes_NL: np.ndarray = np.select(
        [wrong_a & wrong_b, wrong_a, wrong_b], [both_wrong, ONLY_A_WRONG, ONLY_B_WRONG], BOTH_RIGHT
    )
    return outcomes_NL


def _predictions(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Classes (N, 1), or labels (N, L) at a probability of one half."""
    predicted: np.ndarray = logits.argmax(axis=1)[:, None] if labels.ndim == 1 else logits > 0
    return predicted


def tables_of(counts_BC: np.ndarray, kinds_CL: np.ndarray) -> np.ndarray:
    """How often each outcome occurs. Shapes: returns (B, L, T)."""
    return np.stack([counts_BC @ (kinds_CL == outcome) for outcome in range(5)], axis=-1)


def statistics_of(tables_BLT: np.ndarray) -> np.ndarray:
    """The values in the order of ``STATISTICS``, NaN where not defined.

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
    """Error consistency (c_obs - c_exp) / (1 - c_exp) from shares of errors.

    Source: Geirhos, Meding, Wichmann 2020, arXiv 2006.16736.
    """
    expected = error_a * error_b + (1 - error_a) * (1 - error_b)
    return ratio(observed - expected, 1 - expected)
