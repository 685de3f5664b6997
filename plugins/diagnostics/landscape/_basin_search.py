"""(epsilon, delta) of the basin around the segment between two points, for any loss function.

Shape letters: A positions of the scan, S noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from transferbench.analysis.landscape import lerp_state
from transferbench.networks.modules import StateDict

__all__ = ["Basin", "Escape", "Losses", "Segment", "escape", "find_basin", "smallest_delta"]

Losses = Callable[[Iterable[StateDict]], Sequence[float]]
"""The loss of each state; infinite if it is not finite."""


class Segment(NamedTuple):
    """The line through the weights ``a`` (position 0) and ``b`` (position 1).

    ``parameters``: the names that count as weights; batch statistics do not.
    """

    a: StateDict
    b: StateDict
    parameters: Sequence[str]

    @property
    def size(self) -> int:
        """The number of weights: n of the definition."""
        return sum(self.a[name].numel() for name in self.parameters)

    @property
    def length(self) -> float:
        """The L2 distance of ``a`` and ``b``."""
        squares = [
            torch.linalg.vector_norm(self.b[name] - self.a[name], dtype=torch.float64) ** 2
            for name in self.parameters
        ]
        return math.sqrt(sum(torch.stack(squares).tolist()))

    def at(self, position: float) -> dict[str, Tensor]:
        """The weights at ``position``."""
        return lerp_state(self.a, self.b, position)

    def noisy(self, position: float, sigma: float, seed: int) -> dict[str, Tensor]:
        """The weights at ``position`` with noise from N(0, sigma^2)."""
        state, generator = self.at(position), torch.Generator().manual_seed(seed)
        for name in self.parameters:
            noise = torch.randn(state[name].shape, generator=generator)
            state[name] = state[name].add(noise.to(state[name]), alpha=sigma)
        return state


class Basin(NamedTuple):
    """The result of a scan: S = [low, high], and mu and epsilon of condition 1 on it.

    ``low_inside`` and ``high_inside``: the boundary lies inside the scan. ``epsilon_segment``:
    epsilon on [0, 1]. ``peak``: the largest loss on [0, 1], at ``peak_at``; it is not a basin if
    the peak exceeds ``cap``.
    """

    low: float
    high: float
    low_inside: bool
    high_inside: bool
    mu: float
    epsilon: float
    epsilon_segment: float
    cap: float
    peak: float
    peak_at: float

    @property
    def is_basin(self) -> bool:
        """Whether there is no barrier between the two points."""
        return math.isfinite(self.peak) and self.peak <= self.cap


def find_basin(positions: Sequence[float], losses: Sequence[float], tolerance: float) -> Basin:
    """S: the interval around [0, 1] where the loss is at most the larger endpoint's + tolerance.

    mu = E l and epsilon = E |l - mu| for the uniform distribution on S, by the trapezoidal rule
    over the scan. ``positions`` are ascending and include 0 and 1.
    Source: Neyshabur et al. 2020, Definition 3.1, condition 1.
    """
    position_A, loss_A = np.asarray(positions, np.float64), np.asarray(losses, np.float64)
    start, end = (int(np.flatnonzero(position_A == point)[0]) for point in (0, 1))
    cap = max(loss_A[start], loss_A[end]) + tolerance
    above = np.flatnonzero(~(loss_A <= cap))
    low = max((index + 1 for index in above if index < start), default=0)
    high = min((index - 1 for index in above if index > end), default=len(position_A) - 1)
    peak = start + int(loss_A[start : end + 1].argmax())
    mu, epsilon = _mean_and_deviation(position_A[low : high + 1], loss_A[low : high + 1])
    segment = slice(start, end + 1)
    return Basin(
        low=float(position_A[low]),
        high=float(position_A[high]),
        low_inside=bool(low > 0),
        high_inside=bool(high < len(position_A) - 1),
        mu=mu,
        epsilon=epsilon,
        epsilon_segment=_mean_and_deviation(position_A[segment], loss_A[segment])[1],
        cap=float(cap),
        peak=float(loss_A[peak]),
        peak_at=float(position_A[peak]),
    )


def _mean_and_deviation(position_A: np.ndarray, loss_A: np.ndarray) -> tuple[float, float]:
    """Mean and mean absolute deviation over uniform positions."""
    if not np.isfinite(loss_A).all():
        return math.inf, math.inf
    shares = np.diff(position_A) / (position_A[-1] - position_A[0])

    def mean(values_A: np.ndarray) -> float:
        return float(shares @ (values_A[1:] + values_A[:-1])) / 2

    mu = mean(loss_A)
    return mu, mean(np.abs(loss_A - mu))


class Escape(NamedTuple):
    """The excess of the loss over mu beyond the ends of S, by noise level.

    ``ends``: the excess without noise. Shapes: (S,) each; ``inf`` if a loss is not finite.
    """

    ends: float
    noise: np.ndarray
    extrapolation: np.ndarray


def escape(
    losses: Losses, segment: Segment, basin: Basin, sigmas: Sequence[float], draws: int, seed: int
) -> Escape:
    """Conditions 2 (noise) and 3 (extrapolation) as curves over sigma = delta / sqrt(n).

    f(w1, w2) is one of the two ends of S with equal probability. Noise samples are shared by all
    sigmas and ends, so that curves are smooth; |nu| of condition 3 is the median of each of
    ``draws`` equally likely intervals of its distribution.
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
    end_loss = np.mean(losses(segment.at(end) for end in ends))
    return Escape(
        float(end_loss) - basin.mu,
        _means(losses(noisy), len(sigmas)) - basin.mu,
        _means(losses(beyond), len(sigmas)) - basin.mu,
    )


def _means(losses: Sequence[float], parts: int) -> np.ndarray:
    means: np.ndarray = np.asarray(losses, dtype=np.float64).reshape(parts, -1).mean(axis=1)
    return means


def smallest_delta(
    curves: Escape, base: float, sigmas: Sequence[float], size: int, epsilon: float
) -> tuple[float | None, bool]:
    """Sigma * sqrt(n) for the first sigma at which both curves reach ``base`` + 2 epsilon.

    With a ``base`` of 0 the definition is degenerate: S extends to where the loss reaches its cap,
    where it already exceeds mu + 2 epsilon for any delta. ``curves.ends``, the loss at the ends,
    leaves what noise adds to it.
    Also returns whether this is the smallest sigma of the grid.
    """
    reached = (curves.noise - base >= 2 * epsilon) & (curves.extrapolation - base >= 2 * epsilon)
    levels = np.flatnonzero(reached)
    if not len(levels):
        return None, False
    return float(sigmas[levels[0]]) * math.sqrt(size), bool(levels[0] == 0)
