"""A network along the paths of one module from its start to its end, with noise on its weights.

Shape letters: A points of a path, S noise levels of which the first is none, M draws of noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transferbench.analysis.landscape import (
    Criterion,
    Examples,
    evaluate_states,
    has_batch_statistics,
    lerp_state,
)
from transferbench.metrics import Evaluation
from transferbench.networks.prefix_cache import PrefixCache
from transferbench.specs import Subject

__all__ = ["Grid", "ModulePaths", "PathMap", "Point"]

BATCH = 250
"""Images at once."""

State = Mapping[str, Tensor]


class Grid(NamedTuple):
    """Points of the direct path, noise levels without 0, draws for each level, train images."""

    alphas: Sequence[float]
    sigmas: Sequence[float]
    draws: int
    limit: int


class Point(NamedTuple):
    """A module on its path: its state, and how far its parameters are from the start (L2)."""

    alpha: float
    state: State
    distance: float


class PathMap(NamedTuple):
    """What was found along a path: float64 (A, S), NaN where not finite; alphas, distances (A,)."""

    alphas: np.ndarray
    distances: np.ndarray
    losses: np.ndarray
    metrics: np.ndarray


class ModulePaths:
    """One network at one of its ends, and the paths of its modules to there from the start.

    ``end``: ``final`` or ``best``; ``epochs``: when that was, and which kept epochs come before.
    """

    def __init__(self, subject: Subject, end: str, end_epoch: int, grid: Grid) -> None:
        self._net = subject.network(end)
        images = subject.images("train", grid.limit)
        self._examples = Examples(images, subject.targets("train", grid.limit))
        self._criterion = Criterion(subject.task, subject.metric)
        self._grid = grid
        # Statistics are of a pass through the whole network.
        self._recalibrates = has_batch_statistics(self._net)
        self._prefix = None if self._recalibrates else PrefixCache(self._net, images, BATCH)
        self._parameters = {name for name, _ in self._net.named_parameters(remove_duplicate=False)}
        self._start = _on(images.device, subject.state("init"))
        self._end = _on(images.device, subject.state(end))
        self._end_epoch = end_epoch
        self.epochs = [epoch for epoch in subject.epochs if 0 < epoch < end_epoch]
        self._subject = subject

    @cached_property
    def _kept(self) -> dict[int, State]:
        return {epoch: self._subject.state(epoch) for epoch in self.epochs}

    @property
    def images(self) -> int:
        """How many images the network is judged by."""
        return len(self._examples.targets)

    def at_end(self) -> Evaluation:
        """The network as it is at its end."""
        (found,) = self._evaluated(self._examples.images, iter([self._end]))
        return found

    def maps(self, names: Sequence[str], paths: Sequence[str], seed: int) -> Iterator[PathMap]:
        """The map of the module ``names`` along each of ``paths``, on the same draws of noise."""
        noise = self._noise(names, seed)
        images = self._examples.images
        with self._prefix.inputs_of(names) if self._prefix else nullcontext(images) as inputs:
            for path in paths:
                points = self._direct(names) if path == "direct" else self._optimisation(names)
                yield self._map(inputs, points, noise)

    # --- paths --------------------------------------------------------------------------------

    def _direct(self, names: Sequence[str]) -> list[Point]:
        start, end = _part(self._start, names), _part(self._end, names)
        return [
            self._point(alpha, lerp_state(start, end, alpha), start) for alpha in self._grid.alphas
        ]

    def _optimisation(self, names: Sequence[str]) -> list[Point]:
        start, device = _part(self._start, names), self._examples.images.device
        between = [
            (epoch / self._end_epoch, _on(device, _part(state, names)))
            for epoch, state in self._kept.items()
        ]
        places = [(0.0, start), *between, (1.0, _part(self._end, names))]
        return [self._point(alpha, state, start) for alpha, state in places]

    def _point(self, alpha: float, state: State, start: State) -> Point:
        squares = [
            (state[name].double() - start[name].double()).square().sum()
            for name in state
            if name in self._parameters
        ]
        return Point(alpha, state, float(torch.stack(squares).sum().sqrt()) if squares else 0.0)

    def _noise(self, names: Sequence[str], seed: int) -> list[State]:
        """Standard normal, drawn on the CPU so that every device gets the same."""
        generator = torch.Generator().manual_seed(seed)
        drawn = [name for name in names if name in self._parameters]
        device = self._examples.images.device
        return [
            {
                name: torch.randn(self._end[name].shape, generator=generator).to(device)
                for name in drawn
            }
            for _ in range(self._grid.draws)
        ]

    # --- evaluation ---------------------------------------------------------------------------

    def _map(self, inputs: Tensor, points: Sequence[Point], noise: Sequence[State]) -> PathMap:
        found = self._evaluated(inputs, self._cells(points, noise))
        losses, metrics = (
            self._table([getattr(evaluation, what) for evaluation in found], len(points))
            for what in ("loss", "metric")
        )
        alphas = np.array([point.alpha for point in points])
        return PathMap(alphas, np.array([point.distance for point in points]), losses, metrics)

    def _cells(self, points: Sequence[Point], noise: Sequence[State]) -> Iterator[State]:
        """The whole network in each cell: a point as it is, then level by level with each draw."""
        for point in points:
            yield {**self._end, **point.state}
            for sigma in self._grid.sigmas:
                for draw in noise:
                    moved = {name: point.state[name] + sigma * u for name, u in draw.items()}
                    yield {**self._end, **point.state, **moved}

    def _table(self, values: Sequence[float | None], points: int) -> np.ndarray:
        """The values of ``_cells`` as float64 (A, S), means over the draws."""
        known = [np.nan if value is None else value for value in values]
        rows = np.array(known, dtype=np.float64).reshape(points, -1)
        noisy_ASM = rows[:, 1:].reshape(points, len(self._grid.sigmas), self._grid.draws)
        return np.concatenate([rows[:, :1], noisy_ASM.mean(axis=2)], axis=1)

    def _evaluated(self, inputs: Tensor, states: Iterator[State]) -> list[Evaluation]:
        splits = {"train": self._examples._replace(images=inputs)}
        found = evaluate_states(
            self._net,
            states,
            splits,
            self._criterion,
            calibration=self._examples.images if self._recalibrates else None,
            batch_size=BATCH,
        )
        return [evaluation["train"] for evaluation in found]


def _on(device: torch.device, state: State) -> State:
    return {name: tensor.to(device) for name, tensor in state.items()}


def _part(state: State, names: Sequence[str]) -> State:
    return {name: state[name] for name in names}
