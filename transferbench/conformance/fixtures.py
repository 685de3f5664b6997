"""The kit's own small plugins, with which the plugin under check is called.

Three networks: with batch statistics, without any normalisation, and a vision transformer. Two
tasks on synthetic images. Two initializations.

Shape letters: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from transferbench.networks.modules import load_state
from transferbench.specs import (
    HEAD,
    BackboneSpec,
    DatasetSpec,
    DatasetSplit,
    InitializationContext,
    InitializationSpec,
    Params,
    PerturbationSpec,
)

__all__ = ["CLASSES", "DATASET", "INITIALIZATIONS", "NETWORKS", "SEVERAL", "SIZE", "UNPERTURBED"]

SIZE = 16
CLASSES = ("even", "row", "column", "checks")
TRAIN, TEST = 48, 40
WIDTH = 8
SOURCE = "transferbench's conformance kit"
LICENSE = "Apache-2.0"


# --- networks ---------------------------------------------------------------------------------


class _Block(nn.Module):
    """Two convolutions beside a shortcut: (N, C, H, W) -> (N, C, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not norm)
        self.bn1 = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=not norm)
        self.bn2 = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        projects = stride > 1 or inputs != outputs
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = torch.relu(self.bn1(self.conv1(x)))
        outputs: Tensor = torch.relu(self.bn2(self.conv2(branch)) + self.downsample(x))
        return outputs


class _Residual(nn.Module):
    """A stem, two blocks, global average pooling and a linear head: (N, C, H, W) -> (N, K)."""

    def __init__(self, classes: int, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTH, 3, 1, 1, bias=not norm)
        self.bn1 = nn.BatchNorm2d(WIDTH) if norm else nn.Identity()
        self.layer1 = nn.Sequential(_Block(WIDTH, WIDTH, 1, norm=norm))
        self.layer2 = nn.Sequential(_Block(WIDTH, 2 * WIDTH, 2, norm=norm))
        self.fc = nn.Linear(2 * WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        logits: Tensor = self.fc(self.layer2(self.layer1(x)).mean((2, 3)))
        return logits


def _residual_modules(net: nn.Module) -> Mapping[str, Sequence[str]]:
    stem = [name for name, layer in net.named_children()
            if name in {"conv1", "bn1"} and layer.state_dict()]  # fmt: skip
    return {"stem": stem, "layer1.0": ["layer1.0"], "layer2.0": ["layer2.0"], HEAD: ["fc"]}


def _build_residual(
    params: Any,  # noqa: ARG001  # the seam's signature
    num_classes: int,
    in_chans: int,
    image_size: int,  # noqa: ARG001  # accepts any size
    *,
    norm: bool,
) -> nn.Module:
    return _Residual(num_classes, in_chans, norm=norm)


def _build_transformer(
    params: Any,  # noqa: ARG001  # the seam's signature
    num_classes: int,
    in_chans: int,
    image_size: int,
) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    net: nn.Module = VisionTransformer(
        img_size=image_size, patch_size=image_size // 4, in_chans=in_chans,
        num_classes=num_classes, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2,
    )  # fmt: skip
    return net


def _transformer_modules(net: nn.Module) -> Mapping[str, Sequence[str]]:
    blocks = [f"blocks.{number}" for number, _ in net.get_submodule("blocks").named_children()]
    return {
        "stem": ["patch_embed", "cls_token", "pos_embed"],
        **{block: [block] for block in blocks},
        "norm": ["norm"],
        HEAD: ["head"],
    }


BATCH_NORM = BackboneSpec(
    name="conformance-batch-norm",
    version=1,
    summary="a residual network of two blocks with batch statistics",
    source=SOURCE,
    license=LICENSE,
    build=partial(_build_residual, norm=True),
    modules=_residual_modules,
    head=lambda net: net.get_submodule("fc"),
    batch_statistics=lambda params: True,
)
NORM_FREE = BackboneSpec(
    name="conformance-norm-free",
    version=1,
    summary="a residual network of two blocks without normalisation",
    source=SOURCE,
    license=LICENSE,
    build=partial(_build_residual, norm=False),
    modules=_residual_modules,
    head=lambda net: net.get_submodule("fc"),
)
TRANSFORMER = BackboneSpec(
    name="conformance-transformer",
    version=1,
    summary="a vision transformer of two blocks",
    source=SOURCE,
    license=LICENSE,
    build=_build_transformer,
    modules=_transformer_modules,
    head=lambda net: net.get_submodule("head"),
)
NETWORKS: Mapping[str, BackboneSpec] = OrderedDict(
    (("a network with batch statistics", BATCH_NORM), ("a network without norms", NORM_FREE),
     ("a vision transformer", TRANSFORMER))
)  # fmt: skip


# --- data -------------------------------------------------------------------------------------


class DrawnParams(Params):
    """One of two tasks, with coarse or fine patterns."""

    period: Literal[4, 8] = 4


def _load(params: DrawnParams, split: str, root: Path | None, image_size: int) -> DatasetSplit:
    """Stripes and checks of a period, at random offsets, under noise."""
    del root  # synthetic
    count, seed = {"train": (TRAIN, 1), "test": (TEST, 2)}[split]
    draws = np.random.default_rng([seed, params.period])
    labels = draws.permutation(np.arange(count, dtype=np.int64) % len(CLASSES))
    row, column = np.indices((image_size, image_size))
    waves = [np.sin((axis + draws.integers(0, params.period, (count, 1, 1)))
                    * 2 * math.pi / params.period) for axis in (row, column)]  # fmt: skip
    flat = np.zeros_like(waves[0])
    patterns = np.stack([flat, waves[0], waves[1], waves[0] * waves[1]])
    images = 128 + 60 * patterns[labels, np.arange(count)]
    images = images + draws.normal(0, 25, images.shape)
    pixels = images.round().clip(0, 255).astype(np.uint8)[..., None]
    groups = np.asarray([f"{split}-{number}" for number in range(count)])
    return DatasetSplit(pixels, labels, groups)


def _load_several(
    params: DrawnParams, split: str, root: Path | None, image_size: int
) -> DatasetSplit:
    """The same images; each class is a label, and the last also has the labels of its parts."""
    patterns = _load(params, split, root, image_size)
    labels = np.eye(len(CLASSES), dtype=np.float32)
    labels[3, 1:3] = 1
    return patterns._replace(labels=labels[patterns.labels])


DATASET = DatasetSpec(
    name="conformance-patterns",
    version=1,
    summary="stripes and checks under noise",
    source=SOURCE,
    license=LICENSE,
    params=DrawnParams,
    load=_load,
    classes=lambda params, root: CLASSES,
    channels=1,
    grouping="image",
)

SEVERAL = DatasetSpec(
    name="conformance-several-patterns",
    version=1,
    summary="stripes and checks under noise, several labels an image",
    source=SOURCE,
    license=LICENSE,
    params=DrawnParams,
    load=_load_several,
    classes=lambda params, root: CLASSES,
    task="multi-label",
    metric="auc",
    channels=1,
    grouping="image",
)


# --- perturbation and initializations ---------------------------------------------------------

UNPERTURBED = PerturbationSpec(
    name="conformance-unperturbed",
    version=1,
    summary="the images as they are",
    source=SOURCE,
    license=LICENSE,
    build=lambda params, image_shape, seed: lambda images, image_ids: images.clone(),
    severity=lambda params, image_shape: 0.0,
)


def _copy(params: Any, net: nn.Module, context: InitializationContext) -> None:
    del params  # none
    if context.source_state is None:
        raise AssertionError("the engine provides what needs declares")
    load_state(net, context.source_state, context.source_state)


def _keep(params: Any, net: nn.Module, context: InitializationContext) -> None:
    """Keep the random weights of the builder."""


INITIALIZATIONS: tuple[InitializationSpec, ...] = (
    InitializationSpec(
        name="conformance-copied",
        version=1,
        summary="the source's weights",
        source=SOURCE,
        license=LICENSE,
        initialize=_copy,
        needs=frozenset({"source_weights"}),
    ),
    InitializationSpec(
        name="conformance-drawn",
        version=1,
        summary="the builder's own draw",
        source=SOURCE,
        license=LICENSE,
        initialize=_keep,
        touches="nothing",
    ),
)
