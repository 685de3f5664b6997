"""Where a training stands between two steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

__all__ = ["Progress"]


@dataclass
class Progress:
    """After ``epoch`` whole epochs and ``step`` steps of the next, whose order is ``permutation``.

    ``order`` and ``augmentation`` draw what comes; ``best``: the best validation metric so far.
    """

    order: torch.Generator
    augmentation: torch.Generator
    epoch: int = 0
    step: int = 0
    permutation: torch.Tensor | None = None
    history: list[dict[str, float | None]] = field(default_factory=list)
    states: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    best_epoch: int | None = None
    best: float = -math.inf
