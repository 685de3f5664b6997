"""The checkpoint of the source network that a trial started from, identified by its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from transferbench.specs import Subject
from transferbench_plugins.diagnostics._history import last_epoch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transferbench.networks.modules import StateDict

__all__ = ["SourceCheckpoint", "final_checkpoint", "initial_checkpoint"]


class SourceCheckpoint(NamedTuple):
    """A state of the source network, as ``Subject.state`` names it, and its pre-training epoch.

    ``epoch``: None for external weights, which have no history.
    """

    which: str | int
    epoch: int | None


def final_checkpoint(source: Subject) -> SourceCheckpoint:
    """The state at the end of pre-training."""
    return SourceCheckpoint("final", last_epoch(source.history) if source.history else None)


def initial_checkpoint(trial: Subject, source: Subject) -> SourceCheckpoint | None:
    """The stored state of ``source`` whose body ``trial`` was initialized with, or None.

    Weights are compared bit by bit, so that no parameter has to repeat the suite's choice.
    """
    from transferbench.networks.modules import body_names

    names, init = body_names(trial.modules), trial.state("init")
    stored = (SourceCheckpoint(epoch, epoch) for epoch in source.epochs)
    candidates = (final_checkpoint(source), *stored)
    return next((c for c in candidates if _equal(names, init, source.state(c.which))), None)


def _equal(names: Iterable[str], a: StateDict, b: StateDict) -> bool:
    import torch

    return all(name in b and torch.equal(a[name], b[name]) for name in names)
