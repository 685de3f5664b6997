"""The backbone ``example-convnet``: two convolutions, average pooling and a linear head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from transferbench.hookspecs import hookimpl
from transferbench.specs import BackboneSpec, Params

if TYPE_CHECKING:
    from torch.nn import Module


class NetParams(Params):
    """``width``: channels of the first convolution; the second has twice as many."""

    width: Annotated[int, Field(ge=1, le=512)] = 16


def build(
    params: NetParams,
    num_classes: int,
    in_chans: int,
    image_size: int,
) -> Module:
    """A new network with torch's default random weights; the framework sets the seed.

    Shapes: (N, in_chans, image_size, image_size) -> (N, num_classes).
    """
    from torch import nn  # listing plugins must not import torch

    # EDIT HERE: your network in named parts, from input to output; the head comes last.
    # If it has BatchNorm, declare it in SPEC: batch_statistics=lambda params: True.
    width = params.width
    stem = nn.Sequential(nn.Conv2d(in_chans, width, 3, padding=1), nn.ReLU())
    block = nn.Sequential(
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    head = nn.Linear(2 * width, num_classes)
    return nn.Sequential(OrderedDict(stem=stem, block=block, head=head))


def modules(net: Module) -> Mapping[str, Sequence[str]]:
    """Each part with the prefixes of its parameters and buffers."""
    return {part: [part] for part, _ in net.named_children()}


SPEC = BackboneSpec(
    name="example-convnet",
    version=1,  # bump it when the numbers change: old and new ones never mix
    summary="two convolutions and a linear head",
    source="an example, not a model from the literature",
    license="Apache-2.0",
    params=NetParams,
    tiny={"width": 4},
    build=build,
    modules=modules,
    head=lambda net: net.get_submodule("head"),
)


@hookimpl
def transferbench_backbones() -> list[BackboneSpec]:
    """The specs that this plugin offers."""
    return [SPEC]
