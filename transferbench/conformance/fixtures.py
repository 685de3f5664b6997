"""The kit's own small plugins, with which the plugin under check is called.

Three networks: with batch statistics, without any normalisation, and a vision transformer. Two
tasks on synthetic images. Two initializations.

Shape letters: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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

__all__ = [
    "CLASSES",
    "COPIED",
    "DATASET",
    "DRAWN",
    "NETWORKS",
    "SEVERAL",
    "SIZE",
    "UNPERTURBED",
]

SIZE = 16
CLASSES = ("even", "row", "column", "checks")
TRAIN, TEST = 48, 40
WIDTH = 8
ABOUT: Mapping[str, Any] = {
    "version": 1,
    "source": "transferbench's conformance kit",
    "license": "Apache-2.0",
}


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


def _residual(name: str, *, norm: bool) -> BackboneSpec:
    return BackboneSpec(
        **ABOUT,
        name=name,
        summary=f"a residual network of two blocks, {'with' if norm else 'without'} normalisation",
        build=lambda params, num_classes, in_chans, image_size: _Residual(
            num_classes, in_chans, norm=norm
        ),
        modules=lambda net: {
            "stem": ["conv1", "bn1"] if norm else ["conv1"],
            "layer1.0": ["layer1.0"],
            "layer2.0": ["layer2.0"],
            HEAD: ["fc"],
        },
        head=lambda net: net.get_submodule("fc"),
        batch_statistics=lambda params: norm,
    )


def _build_transformer(params: Any, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    del params  # none
    net: nn.Module = VisionTransformer(
        img_size=image_size, patch_size=image_size // 4, in_chans=in_chans,
        num_classes=num_classes, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2,
    )  # fmt: skip
    return net


NETWORKS: Mapping[str, BackboneSpec] = {
    "a network with batch statistics": _residual("conformance-batch-norm", norm=True),
    "a network without norms": _residual("conformance-norm-free", norm=False),
    "a vision transformer": BackboneSpec(
        **ABOUT,
        name="conformance-transformer",
        summary="a vision transformer of two blocks",
        build=_build_transformer,
        modules=lambda net: {
            "stem": ["patch_embed", "cls_token", "pos_embed"],
            "blocks.0": ["blocks.0"],
            "blocks.1": ["blocks.1"],
            "norm": ["norm"],
            HEAD: ["head"],
        },
        head=lambda net: net.get_submodule("head"),
    ),
}


# --- data -------------------------------------------------------------------------------------


class DrawnParams(Params):
    """One of two tasks, with coarse or fine patterns."""

    period: Literal[4, 8] = 4


def _load(params: DrawnParams, split: str, root: Path | None, image_size: int) -> DatasetSplit:
    """Stripes and checks of a period, at random offsets, under noise."""
    del root  # none
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
    **ABOUT,
    name="conformance-patterns",
    summary="stripes and checks under noise",
    params=DrawnParams,
    load=_load,
    classes=lambda params, root: CLASSES,
    channels=1,
    grouping="image",
)
SEVERAL = DATASET.model_copy(
    update={
        "name": "conformance-several-patterns",
        "summary": "stripes and checks under noise, several labels an image",
        "load": _load_several,
        "task": "multi-label",
        "metric": "auc",
    }
)


# --- perturbation and initializations ---------------------------------------------------------

UNPERTURBED = PerturbationSpec(
    **ABOUT,
    name="conformance-unperturbed",
    summary="the images as they are",
    build=lambda params, image_shape, seed: lambda images, image_ids: images.clone(),
    severity=lambda params, image_shape: 0.0,
)


def _copy(params: Any, net: nn.Module, context: InitializationContext) -> None:
    del params  # none
    if context.source_state is None:
        raise AssertionError("the engine provides what needs declares")
    load_state(net, context.source_state, context.source_state)


COPIED = InitializationSpec(
    **ABOUT,
    name="conformance-copied",
    summary="the source's weights",
    initialize=_copy,
    needs=frozenset({"source_weights"}),
)
DRAWN = InitializationSpec(
    **ABOUT,
    name="conformance-drawn",
    summary="the builder's own draw",
    initialize=lambda params, net, context: None,
    touches="nothing",
)
