"""Boards of entries that are all equally good: none may be separated from another."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from simulated import Simulation
from sum_simulations import REPLICATES, SHARE

from transferbench.statistics import Interval, rank_intervals

__all__ = ["rank_simulations"]


class Board(NamedTuple):
    """The mean accuracy of the entries, their deviations, and the images of the test set."""

    mean: float
    deviations: tuple[float, ...]
    images: int | None = None


BOARDS = {
    "6 equal entries around 90% +- 1, 50 images": Board(0.9, (0.01,) * 6, 50),
    "6 equal entries around 80% +- 7": Board(0.8, (0.07,) * 6),
    "98% +- 2, twice, and +- 0.3, thrice": Board(0.98, (0.02, 0.02, 0.003, 0.003, 0.003)),
}


def rank_simulations() -> Iterator[Simulation]:
    """The highest lower bound of a rank, which is 1 where no entry is separated."""
    for setting, board in BOARDS.items():
        for n in REPLICATES:

            def draw(rng: np.random.Generator, n: int = n, board: Board = board) -> Interval:
                scores = {str(e): _accuracies(rng, board, d, n).tolist()
                          for e, d in enumerate(board.deviations)}  # fmt: skip
                ranks = rank_intervals(scores, ends=SHARE).values()
                worst = max(rank.rank_low for rank in ranks)
                return Interval(1.0, worst, float(len(scores)), n, "ranks-95")

            yield Simulation("ranks", setting, n, draw, 1.0, fewer=4)


def _accuracies(rng: np.random.Generator, board: Board, deviation: float, n: int) -> np.ndarray:
    size = board.mean * (1 - board.mean) / deviation**2 - 1
    values = rng.beta(board.mean * size, (1 - board.mean) * size, n)
    return values if board.images is None else np.round(values * board.images) / board.images
