"""Fixup ResNets: the paper's ResNet-50 and small ones for images of 28 to 64 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from transferbench.specs import HEAD, BackboneSpec, BuildBackbone, Params, RateFactor

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["FIXUP_RESNET8", "FIXUP_RESNET14", "FIXUP_RESNET20", "FIXUP_RESNET50"]

SOURCE = "Zhang, Dauphin, Ma, ICLR 2019, https://arxiv.org/abs/1901.09321"

SCALARS = RateFactor(pattern="bias|scale", factor=0.1)
"""A tenth of the learning rate for scalars; as in the released code, also for ``fc.bias``."""


class SmallWidth(Params):
    """``width``: channels of the first stage; each later stage doubles them."""

    width: Annotated[int, Field(ge=1, le=1024)] = 16


class Width(Params):
    """``width``: channels of the stem; the paper's network has 64."""

    width: Annotated[int, Field(ge=1, le=1024)] = 64


def _modules(net: Module) -> dict[str, Sequence[str]]:
    blocks = [
        f"{stage}.{block}"
        for stage, layer in net.named_children()
        if stage.startswith("layer")
        for block, _ in layer.named_children()
    ]
    return {"stem": ("conv1", "bias1"), **{name: (name,) for name in blocks}, HEAD: ("bias2", "fc")}


def _head(net: Module) -> Module:
    return net.get_submodule("fc")


def _load_weights(params: Any, net: Module, file: str) -> None:  # noqa: ARG001  # protocol
    from transferbench_plugins.backbones._weight_files import load_weights, read_weights

    load_weights(net, read_weights(file), head="fc")


def _build_50(params: Width, num_classes: int, in_chans: int, image_size: int) -> Module:  # noqa: ARG001  # any size
    from transferbench_plugins.backbones._fixup_network import Bottleneck, FixupResNet

    return FixupResNet(
        Bottleneck,
        (3, 4, 6, 3),
        width=params.width,
        stem="7x7",
        num_classes=num_classes,
        in_chans=in_chans,
    )


def _build_small(blocks: int) -> BuildBackbone:
    def build(params: SmallWidth, num_classes: int, in_chans: int, image_size: int) -> Module:  # noqa: ARG001  # any size
        from transferbench_plugins.backbones._fixup_network import Basic, FixupResNet

        return FixupResNet(
            Basic,
            (blocks,) * 3,
            width=params.width,
            stem="3x3",
            num_classes=num_classes,
            in_chans=in_chans,
        )

    return build


def _small(blocks: int) -> BackboneSpec:
    """Three stages of ``blocks`` basic blocks: 6 * blocks + 2 layers."""
    return BackboneSpec(
        name=f"fixup-resnet{6 * blocks + 2}",
        version=1,
        summary=f"Fixup ResNet for small images: 3 stages of {blocks} basic block(s), no norms",
        source=SOURCE,
        license="Apache-2.0",
        params=SmallWidth,
        tiny={"width": 4},
        build=_build_small(blocks),
        modules=_modules,
        head=_head,
        rate_factors=(SCALARS,),
        load_weights=_load_weights,
    )


FIXUP_RESNET8 = _small(1)
FIXUP_RESNET14 = _small(2)
FIXUP_RESNET20 = _small(3)

FIXUP_RESNET50 = BackboneSpec(
    name="fixup-resnet50",
    version=1,
    summary="The paper's Fixup ResNet-50: stride on the 3x3 convolution, no norms",
    source=SOURCE,
    license="Apache-2.0",
    params=Width,
    tiny={"width": 4},
    build=_build_50,
    modules=_modules,
    head=_head,
    rate_factors=(SCALARS,),
    load_weights=_load_weights,
)
