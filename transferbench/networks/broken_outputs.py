"""Whether a network is broken: outputs that are not finite, or features that no image changes.

Its weights do not say it. The variance of a batch normalisation may be negative, a few large
weights one after another leave what 32-bit floats hold, and behind a layer whose small weights were
rounded to 0 every image looks the same.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from transferbench.networks.modules import eval_mode, features_and_logits, seeded

__all__ = ["broken_outputs"]


def broken_outputs(net: nn.Module, head: nn.Module, channels: int, image_size: int) -> str | None:
    """What is broken in ``net`` in eval mode, for three images of noise and one of the mean.

    Shapes: images (4, channels, image_size, image_size), normalised.
    """
    with eval_mode(net), seeded(0), torch.no_grad():
        images = torch.randn(4, channels, image_size, image_size)
        images[3] = 0
        features, outputs = features_and_logits(net, head, images)
        if not _is_finite(outputs):
            return f"{_first_not_finite(net, images)} are not finite"
    if features.equal(features[:1].expand_as(features)):
        return "the features before the head are equal"
    return None


def _first_not_finite(net: nn.Module, images: Tensor) -> str:
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
