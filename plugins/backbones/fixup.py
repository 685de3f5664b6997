"""Fixup ResNets: the paper's ResNet-50 and small ones for images of 28 to 64 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from transferbench.specs import HEAD, BackboneSpec, BuildBackbone, Params, RateFactor

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["FIXUP_RESNET8", "FIXUP_RESNET14", "FIXUP_RESNET20", "FIXUP_RESNET50"]

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


def _load_weights(params: Any, net: Module, file: str) -> str:  # noqa: ARG001  # protocol
    from transferbench_plugins.backbones._weight_loading import load_weights, read_weights

    weights = read_weights(file, net.state_dict(), heads=["fc"])
    load_weights(net, weights.state, heads=["fc"], source=file)
    return "; ".join(weights.remarks)


def _classes_in(build: BuildBackbone, params: Any, file: str) -> int | None:
    import torch

    from transferbench_plugins.backbones._weight_loading import head_classes, read_weights

    with torch.device("meta"):
        own = build(params, 1000, 3, 224).state_dict()
    return head_classes(read_weights(file, own, heads=["fc"]).state, ["fc"])


def _fixup_spec(
    layers: int,
    summary: str,
    params: type[SmallWidth | Width],
    block: Literal["Basic", "Bottleneck"],
    counts: Sequence[int],
    stem: Literal["3x3", "7x7"],
) -> BackboneSpec:
    def build(params: Any, num_classes: int, in_chans: int, image_size: int) -> Module:  # noqa: ARG001  # any size
        from transferbench_plugins.backbones import _fixup_network as fixup_network

        return fixup_network.FixupResNet(
            getattr(fixup_network, block),
            counts,
            width=params.width,
            stem=stem,
            num_classes=num_classes,
            in_chans=in_chans,
        )

    return BackboneSpec(
        name=f"fixup-resnet{layers}",
        version=1,
        summary=summary,
        source="Zhang, Dauphin, Ma, ICLR 2019, https://arxiv.org/abs/1901.09321",
        license="Apache-2.0",
        params=params,
        tiny={"width": 4},
        build=build,
        modules=_modules,
        head=lambda net: net.get_submodule("fc"),
        rate_factors=(SCALARS,),
        load_weights=_load_weights,
        classes_in=partial(_classes_in, build),
    )


def _small_spec(blocks: int) -> BackboneSpec:
    summary = f"Fixup ResNet for small images: 3 stages of {blocks} basic block(s), no norms"
    return _fixup_spec(6 * blocks + 2, summary, SmallWidth, "Basic", (blocks,) * 3, "3x3")


FIXUP_RESNET8 = _small_spec(1)
FIXUP_RESNET14 = _small_spec(2)
FIXUP_RESNET20 = _small_spec(3)

FIXUP_RESNET50 = _fixup_spec(
    50,
    "The paper's Fixup ResNet-50: stride on the 3x3 convolution, no norms",
    Width,
    "Bottleneck",
    (3, 4, 6, 3),
    "7x7",
)
