"""The loss of several labels an image, of which some may be unknown.

Shape letters: N images, L labels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # the usual name

__all__ = ["has_unknown", "known_share", "label_loss"]


def has_unknown(targets: Tensor) -> bool:
    """Whether a label is NaN: unknown. Waits for the device."""
    return targets.is_floating_point() and bool(torch.isnan(targets).any())


def label_loss(logits: Tensor, targets: Tensor, *, partly_known: bool) -> Tensor:
    """The binary cross-entropy, the mean over all known labels of all images; 0 where none is.

    ``partly_known``: whether targets may be NaN; without them the plain mean is the same.
    Shapes: logits and targets (N, L). Units: nats.
    """
    if not partly_known:
        return F.binary_cross_entropy_with_logits(logits, targets)
    is_known = ~torch.isnan(targets)
    total = F.binary_cross_entropy_with_logits(
        logits,
        torch.where(is_known, targets, 0.0),
        weight=is_known.to(logits.dtype),
        reduction="sum",
    )
    return total / is_known.sum().clamp(min=1)


def known_share(part: Tensor, batch: Tensor) -> Tensor:
    """The share of the known labels of a batch that are in a part of it, 0 where none is known."""
    return (~torch.isnan(part)).sum() / (~torch.isnan(batch)).sum().clamp(min=1)
