"""Batch normalisations in eval mode, folded into the convolutions before them.

In eval mode a batch normalisation multiplies and shifts each channel by numbers that no image
moves. A convolution can do that as well: the network computes the same with a layer less.

Source: Jacob et al. 2018, arXiv 1712.05877, section 3.2.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, cast

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["Folded", "fold"]

ROUNDING = 1e-4
"""Of the largest output: what the folded network may differ by, all else being a mistake."""


class _Pair(NamedTuple):
    """A convolution and the normalisation of its output, by their paths."""

    convolution: str
    norm: str

    def of(self, net: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """The two layers themselves."""
        return (
            cast("nn.Conv2d", net.get_submodule(self.convolution)),
            cast("nn.BatchNorm2d", net.get_submodule(self.norm)),
        )


class Folded:
    """A copy of ``original`` without the normalisations of ``pairs``; made by ``fold``."""

    def __init__(self, original: nn.Module, pairs: list[_Pair]) -> None:
        self.net = copy.deepcopy(original).eval()
        self._original = original
        self._pairs = pairs
        for pair in pairs:
            convolution, norm = pair.of(self.net)
            if convolution.bias is None:
                zeros = convolution.weight.new_zeros(convolution.out_channels)
                convolution.bias = nn.Parameter(zeros)
            _replace(self.net, pair.norm, _what_follows(norm))
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the weights and the batch statistics that the original holds now."""
        given = dict(self._original.state_dict())
        for pair in self._pairs:
            given[f"{pair.convolution}.weight"], given[f"{pair.convolution}.bias"] = _fused(
                *pair.of(self._original)
            )
        for name, tensor in self.net.state_dict().items():
            tensor.copy_(given[name])


def _fused(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that does what both do."""
    mean, variance = cast("tuple[Tensor, Tensor]", (norm.running_mean, norm.running_var))
    return fuse_conv_bn_weights(
        convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )


def fold(net: nn.Module, images: Tensor) -> Folded | None:
    """``net``, which is in eval mode, with its batch normalisations folded; None where none can be.

    What follows what is seen in a forward pass of ``images`` (N, C, H, W). A network whose outputs
    then differ is not folded at all: it reads the output of a convolution elsewhere, too.
    """
    pairs = _pairs(net, images)
    if not pairs:
        return None
    folded = Folded(net, pairs)
    with torch.inference_mode():
        expected, found = net(images), folded.net(images)
    off = (found - expected).abs().max()
    return folded if off <= ROUNDING * expected.abs().max() else None


def _pairs(net: nn.Module, images: Tensor) -> list[_Pair]:
    """Each convolution whose output a batch normalisation reads, both called once."""
    calls: Counter[str] = Counter()
    made: dict[int, tuple[str, Tensor]] = {}
    found: list[_Pair] = []

    def note_output(path: str, _: nn.Module, __: object, output: Tensor) -> None:
        calls[path] += 1
        # The tensor is kept: its id must not be given to another.
        made[id(output)] = path, output

    def note_input(path: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[path] += 1
        if id(inputs[0]) in made:
            found.append(_Pair(made[id(inputs[0])][0], path))

    with _hooked(net, note_output, note_input), torch.inference_mode():
        net(images)
    return [pair for pair in found if calls[pair.convolution] == calls[pair.norm] == 1]


@contextmanager
def _hooked(
    net: nn.Module, note_output: Callable[..., None], note_input: Callable[..., None]
) -> Iterator[None]:
    handles = []
    for path, module in net.named_modules():
        if type(module) is nn.Conv2d:
            handles.append(module.register_forward_hook(partial(note_output, path)))
        elif type(module) in {nn.BatchNorm2d, BatchNormAct2d} and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(partial(note_input, path)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _what_follows(norm: nn.BatchNorm2d) -> nn.Module:
    """What a layer does after it has normalised."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _replace(net: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, module)
