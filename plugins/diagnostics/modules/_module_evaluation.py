"""Evaluating a network repeatedly while the weights of one of its modules change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn

from transferbench.analysis.landscape import (
    Criterion,
    Examples,
    evaluate_states,
    has_batch_statistics,
)
from transferbench.metrics import Evaluation
from transferbench.networks.modules import StateDict
from transferbench.networks.prefix_cache import PrefixCache

__all__ = ["BATCH_SIZE", "Evaluate", "ModuleEvaluator"]

BATCH_SIZE = 250

Evaluate = Callable[[Iterable[StateDict]], list[Evaluation]]


class ModuleEvaluator:
    """Loss and metric of states of ``net`` on ``examples``.

    Where states differ from the network's own in one module only, the layers before that module
    run once. Not so in a network with batch statistics: they are recomputed for each state, by
    passes of the images from ``calibration`` through the complete network.
    """

    def __init__(
        self,
        net: nn.Module,
        examples: Examples,
        criterion: Criterion,
        calibration: Callable[[], Tensor],
    ) -> None:
        self._net = net
        self._examples = examples
        self._criterion = criterion
        recalibrates = has_batch_statistics(net)
        self._calibration = calibration() if recalibrates else None
        self._prefix = None if recalibrates else PrefixCache(net, examples.images, BATCH_SIZE)

    def evaluate(self, states: Iterable[StateDict]) -> list[Evaluation]:
        """Evaluate states that may differ in any module."""
        return self._evaluate(self._examples.images, states)

    @contextmanager
    def within(self, names: Iterable[str]) -> Iterator[Evaluate]:
        """Evaluate states that differ in the parameters and buffers ``names`` only."""
        images = self._examples.images
        with self._prefix.inputs_of(names) if self._prefix else nullcontext(images) as inputs:
            yield partial(self._evaluate, inputs)

    def _evaluate(self, inputs: Tensor, states: Iterable[StateDict]) -> list[Evaluation]:
        evaluations = evaluate_states(
            self._net,
            states,
            {"all": self._examples._replace(images=inputs)},
            self._criterion,
            calibration=self._calibration,
            batch_size=BATCH_SIZE,
        )
        return [evaluation["all"] for evaluation in evaluations]
