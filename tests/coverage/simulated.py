"""A kind of sample with a known truth, from which intervals are made and counted."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from transferbench.statistics import Interval

__all__ = ["Draw", "Simulation", "columns_of"]

Draw = Callable[[np.random.Generator], Interval]


class Simulation(NamedTuple):
    """``truth``: of the quantity. ``threshold``: of a claim that it is above; None where there is
    none. Where the truth is not above it, a claim that is reproduced is false. ``bounded``: the
    least probability of bounds. ``used``: whether this is how intervals are made; others are
    rejected methods, and show what they miss. ``assumed``: whether what the interval assumes
    holds; where it does not, the row shows what this costs.
    """

    kind: str
    setting: str
    n: int
    draw: Draw
    truth: float
    threshold: float | None = None
    bounded: float = 1.0
    used: bool = True
    assumed: bool = True


def columns_of(values: np.ndarray) -> list[Callable[[Sequence[int]], float]]:
    """The estimators of the means of each column. Shapes: (R, K)."""
    return [
        lambda replicates, column=column: fmean(column[k] for k in replicates)
        for column in values.T.tolist()
    ]
