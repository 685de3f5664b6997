"""The forward pass of a network over images, in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["compute_logits"]


def compute_logits(net: Module, images: Tensor, batch_size: int) -> np.ndarray:
    """The logits of ``net``, which is in eval mode.

    Shapes: (N, C, H, W) to float32 (N, K).
    """
    import torch

    with torch.no_grad():
        parts = [net(part).float().cpu() for part in torch.split(images, batch_size)]
    logits_NK: np.ndarray = torch.cat(parts).numpy()
    return logits_NK
