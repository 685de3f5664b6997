"""Batch normalisations in eval mode, fused into the convolutions before them.

In eval mode a batch normalisation is a fixed affine map of each channel, which the weights and the
bias of the convolution can absorb: the network computes the same function with fewer layers.

Source: Jacob et al. 2018, arXiv 1712.05877, section 3.2.
"""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple, cast

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["FusedNetwork", "fuse_conv_bn"]

TOLERANCE = 1e-4
"""Largest difference of the outputs, relative to the largest output, that is rounding."""


class _ConvNorm(NamedTuple):
    """The paths of a convolution and of the normalisation of its output."""

    convolution: str
    norm: str

    def layers(self, net: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """The two layers in ``net``."""
        return (
            cast("nn.Conv2d", net.get_submodule(self.convolution)),
            cast("nn.BatchNorm2d", net.get_submodule(self.norm)),
        )


class FusedNetwork:
    """A copy ``net`` of ``original`` without the normalisations of ``pairs``."""

    def __init__(self, original: nn.Module, pairs: list[_ConvNorm]) -> None:
        self.net = copy.deepcopy(original).eval()
        self._original = original
        self._pairs = pairs
        for pair in pairs:
            convolution, norm = pair.layers(self.net)
            if convolution.bias is None:
                zeros = convolution.weight.new_zeros(convolution.out_channels)
                convolution.bias = nn.Parameter(zeros)
            # The rest of a normalisation layer that includes dropout and activation.
            rest = (norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else ()
            self.net.set_submodule(pair.norm, nn.Sequential(*rest))
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the current weights and batch statistics of the original."""
        state = dict(self._original.state_dict())
        for pair in self._pairs:
            convolution, norm = pair.layers(self._original)
            mean, variance = cast("tuple[Tensor, Tensor]", (norm.running_mean, norm.running_var))
            weight, bias = fuse_conv_bn_weights(
                convolution.weight,
                convolution.bias,
                mean,
                variance,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            state[f"{pair.convolution}.weight"] = weight
            state[f"{pair.convolution}.bias"] = bias
        for name, tensor in self.net.state_dict().items():
            tensor.copy_(state[name])


def fuse_conv_bn(net: nn.Module, images: Tensor) -> FusedNetwork | None:
    """``net``, in eval mode, with its batch normalisations fused; None where none can be.

    Pairs are read off a forward pass of ``images`` (N, C, H, W). Where the outputs on them then
    differ, nothing is fused: the network also reads the output of a convolution elsewhere.
    """
    pairs = _pairs(net, images)
    if not pairs:
        return None
    fused = FusedNetwork(net, pairs)
    with torch.inference_mode():
        expected, outputs = net(images), fused.net(images)
    error = (outputs - expected).abs().max()
    return fused if error <= TOLERANCE * expected.abs().max() else None


def _pairs(net: nn.Module, images: Tensor) -> list[_ConvNorm]:
    """Each convolution whose output is the input of a batch normalisation, both called once."""
    calls: Counter[str] = Counter()
    # The tensors are stored too, so that no id is reused.
    sources: dict[int, tuple[str, Tensor]] = {}
    pairs: list[_ConvNorm] = []

    def record_output(path: str, _: nn.Module, __: object, output: Tensor) -> None:
        calls[path] += 1
        sources[id(output)] = path, output

    def record_input(path: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[path] += 1
        if id(inputs[0]) in sources:
            pairs.append(_ConvNorm(sources[id(inputs[0])][0], path))

    with ExitStack() as hooks, torch.inference_mode():
        for path, module in net.named_modules():
            if type(module) is nn.Conv2d:
                hook = module.register_forward_hook(partial(record_output, path))
                hooks.enter_context(hook)
            elif _has_running_statistics(module):
                hook = module.register_forward_pre_hook(partial(record_input, path))
                hooks.enter_context(hook)
        net(images)
    return [pair for pair in pairs if calls[pair.convolution] == calls[pair.norm] == 1]


def _has_running_statistics(module: nn.Module) -> bool:
    return type(module) in {nn.BatchNorm2d, BatchNormAct2d} and module.running_mean is not None
