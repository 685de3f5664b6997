"""Loss and metric along the paths of one module from its initial to its trained weights.

Shape letters: A points of a path, S noise levels of which the first is 0, M noise samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from transferbench.analysis.landscape import Criterion, Examples, lerp_state
from transferbench.metrics import Evaluation
from transferbench.networks.modules import StateDict
from transferbench.specs import Subject
from transferbench_plugins.diagnostics.modules._module_evaluation import Evaluate, ModuleEvaluator

if TYPE_CHECKING:
    from transferbench_plugins.diagnostics.modules.criticality import CriticalityParams

__all__ = ["ModulePaths", "PathMap"]

PathPoints = Sequence[tuple[float, StateDict]]
"""Alpha and the module's state at each point of its path."""


class PathMap(NamedTuple):
    """Evaluations along a path: float64 (A, S), NaN if not finite.

    ``alphas`` (A,); ``distances`` (A,): L2 of the module's parameters from the start.
    """

    alphas: np.ndarray
    distances: np.ndarray
    losses: np.ndarray
    metrics: np.ndarray


class ModulePaths:
    """A trained network, and the paths of its modules from their initial weights.

    ``end``: the trained state, ``final`` or ``best``, reached at ``end_epoch``. ``epochs``: the
    stored epochs before it.
    """

    def __init__(
        self, subject: Subject, end: str, end_epoch: int, params: CriticalityParams
    ) -> None:
        net = subject.network(end)
        images = subject.images("train", params.limit)
        examples = Examples(images, subject.targets("train", params.limit))
        criterion = Criterion(subject.task, subject.metric)
        self._evaluator = ModuleEvaluator(net, examples, criterion, lambda: images)
        self._params = params
        self._device = images.device
        # A weight with several names is one parameter, under the first: load_state reads that one.
        self._parameters = {name for name, _ in net.named_parameters()}
        self._start = _to_device(subject.state("init"), self._device)
        self._end = _to_device(subject.state(end), self._device)
        self._end_epoch = end_epoch
        self.epochs = [epoch for epoch in subject.epochs if 0 < epoch < end_epoch]
        self.images = len(examples.targets)
        self._subject = subject

    @cached_property
    def _checkpoints(self) -> Mapping[int, StateDict]:
        return {epoch: self._subject.state(epoch) for epoch in self.epochs}

    def at_end(self) -> Evaluation:
        """Loss and metric of the trained network."""
        (evaluation,) = self._evaluator.evaluate([self._end])
        return evaluation

    def maps(self, names: Sequence[str], seed: int) -> Iterator[PathMap]:
        """The map of the module ``names`` along each path, with the same noise samples."""
        noise = self._noise(names, seed)
        with self._evaluator.within(names) as evaluate:
            for path in self._params.paths:
                yield self._map(evaluate, self._points(path, names), noise)

    def _points(self, path: str, names: Sequence[str]) -> PathPoints:
        start, end = _select(self._start, names), _select(self._end, names)
        if path == "direct":
            alphas = np.linspace(0, 1, self._params.alphas).tolist()
            return [(alpha, lerp_state(start, end, alpha)) for alpha in alphas]
        between = [
            (epoch / self._end_epoch, _to_device(_select(state, names), self._device))
            for epoch, state in self._checkpoints.items()
        ]
        return [(0.0, start), *between, (1.0, end)]

    def _distances(self, states: Sequence[StateDict]) -> np.ndarray:
        """L2 of the parameters of a module's states from the initial ones."""
        moving = [name for name in states[0] if name in self._parameters]
        if not moving:
            return np.zeros(len(states))
        squares = (
            [(state[name].double() - self._start[name].double()).square().sum() for name in moving]
            for state in states
        )
        lengths = [torch.stack(each).sum().sqrt() for each in squares]
        return np.array(torch.stack(lengths).tolist())

    def _noise(self, names: Sequence[str], seed: int) -> list[StateDict]:
        """Standard normal samples, drawn on the CPU so that they are equal on every device."""
        generator = torch.Generator().manual_seed(seed)
        parameters = [name for name in names if name in self._parameters]
        return [
            {
                name: torch.randn(self._end[name].shape, generator=generator).to(self._device)
                for name in parameters
            }
            for _ in range(self._params.draws)
        ]

    def _map(self, evaluate: Evaluate, points: PathPoints, noise: Sequence[StateDict]) -> PathMap:
        states = [state for _, state in points]
        evaluations = evaluate(self._cells(states, noise))
        return PathMap(
            alphas=np.array([alpha for alpha, _ in points]),
            distances=self._distances(states),
            losses=self._table([evaluation.loss for evaluation in evaluations], len(points)),
            metrics=self._table([evaluation.metric for evaluation in evaluations], len(points)),
        )

    def _cells(
        self, states: Sequence[StateDict], noise: Sequence[StateDict]
    ) -> Iterator[StateDict]:
        """The network in each cell of the map: without noise, then each sample at each level."""
        for state in states:
            yield {**self._end, **state}
            for sigma, sample in product(self._params.sigmas, noise):
                noisy = {name: state[name] + sigma * u for name, u in sample.items()}
                yield {**self._end, **state, **noisy}

    def _table(self, values: Sequence[float | None], points: int) -> np.ndarray:
        """The values of ``_cells`` as float64 (A, S), averaged over noise samples."""
        cells = np.array([np.nan if value is None else value for value in values], np.float64)
        rows = cells.reshape(points, -1)
        noisy_ASM = rows[:, 1:].reshape(points, len(self._params.sigmas), self._params.draws)
        return np.concatenate([rows[:, :1], noisy_ASM.mean(axis=2)], axis=1)


def _to_device(state: StateDict, device: torch.device) -> StateDict:
    return {name: tensor.to(device) for name, tensor in state.items()}


def _select(state: StateDict, names: Sequence[str]) -> StateDict:
    return {name: state[name] for name in names}
