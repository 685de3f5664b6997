"""The backbone ``example-convnet``: two convolutions, average pooling and a linear head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.hookspecs import hookimpl
from transferbench.specs import BackboneSpec, Params

if TYPE_CHECKING:
    from torch.nn import Module


class ConvnetParams(Params):
    """``width``: channels of the first convolution; the second has twice as many."""

    width: Annotated[int, Field(ge=1, le=512)] = 16


def build(params: ConvnetParams, num_classes: int, in_chans: int, image_size: int) -> Module:  # noqa: ARG001  # any image size will do
    """A new network.

    Shapes: (N, in_chans, H, W) -> (N, num_classes).
    """
    from torch import nn  # listing plugins must not import torch

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
    """Each part of the network, from input to output, holds the parameters below its own name."""
    return {name: [name] for name, _ in net.named_children()}


@hookimpl
def transferbench_backbones() -> Iterable[BackboneSpec]:
    """What this distribution offers."""
    return [
        BackboneSpec(
            name="example-convnet",
            version=1,
            summary="two convolutions and a linear head",
            source="an example, not a model from the literature",
            license="Apache-2.0",
            params=ConvnetParams,
            tiny={"width": 4},
            build=build,
            modules=modules,
            head=lambda net: net.get_submodule("head"),
        )
    ]
