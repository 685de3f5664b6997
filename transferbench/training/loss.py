"""The loss of a task.

Shape letters: N images, K classes or labels.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812  # the usual name

from transferbench.networks.losses import label_loss
from transferbench.specs import Task

__all__ = ["task_loss"]


def task_loss(
    task: Task,
    logits: torch.Tensor,
    targets: torch.Tensor,
    smoothing: float = 0.0,
    *,
    partly_known: bool,
) -> torch.Tensor:
    """The mean loss of a batch, in nats.

    Shapes: logits (N, K); targets int64 (N,) classes, or float (N, K) where mixed or of several
    labels; NaN where unknown, if ``partly_known``.
    """
    if task == "multi-class":
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
    smooth = targets * (1 - smoothing) + 0.5 * smoothing
    return label_loss(logits.float(), smooth, partly_known=partly_known)
