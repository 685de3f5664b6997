"""Whether the outputs of a network are finite numbers, and in which module they cease to be.

Finite weights do not say it: the variance of a batch normalisation may be negative, and a few large
weights one after another leave what 32-bit floats hold.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from transferbench.networks.modules import eval_mode, seeded

__all__ = ["not_finite_output"]


def not_finite_output(net: nn.Module, channels: int, image_size: int) -> str | None:
    """What of ``net`` is not finite in eval mode, for three images of noise and one of the mean.

    Shapes: images (4, channels, image_size, image_size), normalised.
    """
    with eval_mode(net), seeded(0), torch.no_grad():
        images = torch.randn(4, channels, image_size, image_size)
        images[3] = 0
        if _is_finite(net(images)):
            return None
        first: list[str] = []
        with ExitStack() as stack:
            for name, module in net.named_modules():
                hook = module.register_forward_hook(partial(_note, first, name))
                stack.callback(hook.remove)
            net(images)
    name = first[0] if first and first[0] else "the whole network"
    return f"the outputs of {name}{_negative_variances(net, name)}"


def _note(first: list[str], name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
    if not first and not _is_finite(output):
        first.append(name)


def _is_finite(output: Any) -> bool:
    if isinstance(output, Tensor):
        return bool(output.isfinite().all())
    if isinstance(output, dict):
        output = output.values()
    return all(map(_is_finite, output)) if isinstance(output, (list, tuple)) else True


def _negative_variances(net: nn.Module, name: str) -> str:
    variance = dict(net.named_buffers()).get(f"{name}.running_var")
    if variance is None or (lowest := float(variance.min())) >= 0:
        return ""
    return f", whose running_var has negative variances such as {lowest:g},"
