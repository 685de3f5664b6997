"""The (epsilon, delta) of a basin around the segment between two points, for any loss.

Nothing here knows networks: a loss is a function from weights to numbers.

Shape letters: A points of the scan, S noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from transferbench.analysis.landscape import lerp_state

__all__ = ["Basin", "Escape", "Losses", "Segment", "escape", "find_basin", "smallest_delta"]

State = Mapping[str, Tensor]
Losses = Callable[[Iterable[State]], Sequence[float]]
"""The loss of each state; infinite where it is not finite."""


class Segment(NamedTuple):
    """The line through the weights ``a`` (at 0) and ``b`` (at 1).

    ``parameters``: names of what is weights; the rest (batch statistics) is no direction to go.
    """

    a: State
    b: State
    parameters: Sequence[str]

    @property
    def size(self) -> int:
        """How many weights there are: n of the definition."""
        return sum(self.a[name].numel() for name in self.parameters)

    @property
    def length(self) -> float:
        """The distance of ``a`` and ``b``."""
        squares = (
            torch.linalg.vector_norm(self.b[name] - self.a[name], dtype=torch.float64) ** 2
            for name in self.parameters
        )
        return math.sqrt(sum(float(square) for square in squares))

    def at(self, place: float) -> dict[str, Tensor]:
        """The weights at this place of the line."""
        return lerp_state(self.a, self.b, place)

    def noisy(self, place: float, sigma: float, seed: int) -> dict[str, Tensor]:
        """The weights at ``place``, each moved by an own draw from N(0, sigma^2)."""
        state, draws = self.at(place), torch.Generator().manual_seed(seed)
        for name in self.parameters:
            noise = torch.randn(state[name].shape, generator=draws)
            state[name] = state[name].add(noise.to(state[name]), alpha=sigma)
        return state


class Basin(NamedTuple):
    """What the scan of a line found: S = [low, high], mu and epsilon of condition 1 on it.

    ``epsilon_segment``: the same between the two points alone, basin or not.
    ``peak``: the highest loss between them, at ``peak_at``; no basin where it is above ``cap``.
    """

    low: float
    high: float
    low_found: bool
    high_found: bool
    mu: float
    epsilon: float
    epsilon_segment: float
    cap: float
    peak: float
    peak_at: float

    @property
    def is_basin(self) -> bool:
        """Whether no barrier stands between the two points."""
        return math.isfinite(self.peak) and self.peak <= self.cap


def find_basin(places: Sequence[float], losses: Sequence[float], tolerance: float) -> Basin:
    """S: the run around [0, 1] where the loss is at most that of the worse point + tolerance.

    mu = E l and epsilon = E |l - mu| under the uniform law on S, by the trapezoid rule over the
    scan. ``places`` ascend, hold 0 and 1; ``low_found`` is false where S reaches their end.
    Source: Neyshabur et al. 2020, Definition 3.1, condition 1.
    """
    at_A, loss_A = np.asarray(places, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    zero, one = int(np.flatnonzero(at_A == 0)[0]), int(np.flatnonzero(at_A == 1)[0])
    cap = max(loss_A[zero], loss_A[one]) + tolerance
    above = np.flatnonzero(~(loss_A <= cap))
    low = max((place + 1 for place in above if place < zero), default=0)
    high = min((place - 1 for place in above if place > one), default=len(at_A) - 1)
    peak = zero + int(loss_A[zero : one + 1].argmax())
    mu, epsilon = _spread(at_A[low : high + 1], loss_A[low : high + 1])
    return Basin(
        low=float(at_A[low]),
        high=float(at_A[high]),
        low_found=bool(low > 0),
        high_found=bool(high < len(at_A) - 1),
        mu=mu,
        epsilon=epsilon,
        epsilon_segment=_spread(at_A[zero : one + 1], loss_A[zero : one + 1])[1],
        cap=float(cap),
        peak=float(loss_A[peak]),
        peak_at=float(at_A[peak]),
    )


def _spread(at_A: np.ndarray, loss_A: np.ndarray) -> tuple[float, float]:
    """Mean, and mean absolute deviation from it, over uniform places."""
    if not np.isfinite(loss_A).all():
        return math.inf, math.inf
    shares = np.diff(at_A) / (at_A[-1] - at_A[0])

    def mean(values_A: np.ndarray) -> float:
        return float(shares @ (values_A[1:] + values_A[:-1])) / 2

    mu = mean(loss_A)
    return mu, mean(np.abs(loss_A - mu))


class Escape(NamedTuple):
    """How much the loss exceeds mu beyond the ends of S, by noise level.

    ``ends``: without noise. Shapes: (S,) each; ``inf`` where a loss was not finite.
    """

    ends: float
    noise: np.ndarray
    extrapolation: np.ndarray


def escape(
    losses: Losses, segment: Segment, basin: Basin, sigmas: Sequence[float], draws: int, seed: int
) -> Escape:
    """Conditions 2 (noise) and 3 (extrapolation) as curves over sigma = delta / sqrt(n).

    f(w1, w2) is always one of the two ends of S, each half of the time. The draws are the same at
    every sigma and end, so that curves are smooth; |nu| of condition 3 is taken at the middles of
    ``draws`` equally likely parts of its law.
    Source: Neyshabur et al. 2020, Definition 3.1, conditions 2 and 3.
    """
    ends = (basin.low, basin.high)
    noisy = (
        segment.noisy(end, sigma, seed + draw)
        for sigma in sigmas
        for end in ends
        for draw in range(draws)
    )
    steps = norm.ppf(0.5 + (np.arange(draws) + 0.5) / (2 * draws))
    reach = math.sqrt(segment.size) / segment.length
    beyond = (
        segment.at(end + sign * sigma * reach * float(step))
        for sigma in sigmas
        for sign, end in zip((-1, 1), ends, strict=True)
        for step in steps
    )
    here = np.mean(losses(segment.at(end) for end in ends))
    return Escape(
        float(here) - basin.mu,
        _means(losses(noisy), len(sigmas)) - basin.mu,
        _means(losses(beyond), len(sigmas)) - basin.mu,
    )


def _means(losses: Sequence[float], parts: int) -> np.ndarray:
    means: np.ndarray = np.asarray(losses, dtype=np.float64).reshape(parts, -1).mean(axis=1)
    return means


def smallest_delta(
    found: Escape, sigmas: Sequence[float], size: int, epsilon: float, *, excess: bool
) -> tuple[float | None, bool]:
    """The sigma * sqrt(n) of the first sigma where both curves reach 2 epsilon.

    ``excess``: of what noise adds to the ends. Stretched to where the loss reaches its cap, S has
    ends that are above mu + 2 epsilon already, and the definition holds for any delta.
    Returns also whether it is the smallest sigma tried.
    """
    base = found.ends if excess else 0.0
    reached = (found.noise - base >= 2 * epsilon) & (found.extrapolation - base >= 2 * epsilon)
    places = np.flatnonzero(reached)
    if not len(places):
        return None, False
    return float(sigmas[places[0]]) * math.sqrt(size), bool(places[0] == 0)
