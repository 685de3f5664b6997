"""Which checkpoint of the source network a trial started from, found by comparing weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from transferbench.specs import Subject
from transferbench_plugins.diagnostics._history import last_epoch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

__all__ = ["StartingPoint", "final_point", "starting_point"]


class StartingPoint(NamedTuple):
    """A state of the source network, and the pre-training epoch it is of."""

    which: str | int
    epoch: int


def final_point(source: Subject) -> StartingPoint:
    """The state that pre-training ended with."""
    return StartingPoint("final", last_epoch(source.history))


def starting_point(trial: Subject, source: Subject) -> StartingPoint | None:
    """The kept state of ``source`` whose body ``trial`` had before training, or None.

    Compared bit by bit, so that no parameter has to repeat what the suite says of an arm.
    """
    from transferbench.networks.modules import body_names

    names, start = body_names(trial.modules), trial.state("init")
    points = (final_point(source), *(StartingPoint(epoch, epoch) for epoch in source.epochs))
    return next((p for p in points if _equal(names, start, source.state(p.which))), None)


def _equal(names: Iterable[str], a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    import torch

    return all(name in b and torch.equal(a[name], b[name]) for name in names)
