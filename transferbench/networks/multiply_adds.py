"""The multiply-adds of a network on one image: what the cost of a training step grows with."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from transferbench.networks.modules import eval_mode

__all__ = ["forward_multiply_adds"]


def forward_multiply_adds(net: nn.Module, channels: int, image_size: int) -> int:
    """The multiply-adds of convolutions and matrix products in a forward pass of one image.

    Norms, activations and pooling are not counted, as is usual.
    """
    image = torch.zeros(1, channels, image_size, image_size)
    with eval_mode(net), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(image)
    return int(counter.get_total_flops()) // 2
