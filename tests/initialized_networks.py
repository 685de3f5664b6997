"""Networks before and after an initialization, for the three kinds of backbones."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from transferbench.networks.modules import body_state, build_network, clone_state, partition
from transferbench.specs import BackboneSpec, InitializationContext
from transferbench_plugins.backbones import transferbench_backbones
from transferbench_plugins.initializations import transferbench_initializations

SPECS = {spec.name: spec for spec in transferbench_initializations()}
BACKBONES = {spec.name: spec for spec in transferbench_backbones()}
KINDS = ("fixup-resnet8", "timm/test_resnet", "timm/test_vit")
SIZE = 16
IMAGES = torch.randn(24, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(4)).cumsum(3) / 3
"""Neighbouring pixels are correlated, as in natural images."""

BUILT: dict[tuple[str, int], nn.Module] = {}

TWO_LAYERS = BackboneSpec(
    name="two-layers",
    version=1,
    summary="for tests",
    source="here",
    license="Apache-2.0",
    build=lambda params, num_classes, in_chans, image_size: nn.Sequential(
        nn.Conv2d(in_chans, 600, 3, padding=1, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(600, num_classes),
    ),
    modules=lambda net: {"stem": ("0",), "head": ("3",)},
    head=lambda net: net.get_submodule("3"),
)


class InitializedNetwork(NamedTuple):
    """A network before and after an initialization, and the arguments of the initialization."""

    before: dict[str, Tensor]
    after: dict[str, Tensor]
    source: dict[str, Tensor]
    modules: dict[str, tuple[str, ...]]
    net: nn.Module

    def body_weights(self) -> list[str]:
        """Parameters of the body outside norm layers, without scalars."""
        norms = norm_names(self.net)
        parameters = dict(self.net.named_parameters())
        return [
            name for name in self.source
            if name in parameters and name not in norms and parameters[name].numel() > 1
        ]  # fmt: skip


def norm_names(net: nn.Module) -> set[str]:
    kinds = (nn.BatchNorm2d, nn.LayerNorm)
    layers = [(path, layer) for path, layer in net.named_modules() if isinstance(layer, kinds)]
    return {f"{path}.{leaf}" for path, layer in layers for leaf in layer.state_dict()}


def backbone(kind: str | BackboneSpec) -> tuple[BackboneSpec, Any]:
    if isinstance(kind, BackboneSpec):
        return kind, kind.parse({})
    name, _, model = kind.partition("/")
    return BACKBONES[name], BACKBONES[name].parse({"model": model} if model else {"width": 8})


def network(kind: str | BackboneSpec, seed: int) -> nn.Module:
    """A copy of a cached network, as building one is slower than most initializations."""
    key = (kind if isinstance(kind, str) else kind.name, seed)
    if key not in BUILT:
        BUILT[key] = built(kind, seed)
    return copy.deepcopy(BUILT[key])


def built(kind: str | BackboneSpec, seed: int) -> nn.Module:
    spec, params = backbone(kind)
    return build_network(
        spec, params, num_classes=5, in_chans=1, image_size=SIZE, init_seed=seed, head_seed=seed
    )


def with_trained_values(net: nn.Module) -> nn.Module:
    """Replace all tensors by values as after training: non-zero, norms not the identity."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, values in net.state_dict().items():
            if values.is_floating_point():
                values.copy_(0.3 * torch.randn(values.shape, generator=generator) + 0.05)
            if name.endswith("running_var"):
                values.abs_().add_(0.5)
            if name.endswith("num_batches_tracked"):
                values.fill_(7)
    return net


def initialize(
    name: str,
    kind: str | BackboneSpec = "fixup-resnet8",
    *,
    seed: int = 0,
    net: nn.Module | None = None,
    source: Mapping[str, Tensor] | None = None,
    without: str = "",
    images: Tensor = IMAGES,
    **params: Any,
) -> InitializedNetwork:
    """``kind`` after the initialization ``name``; ``without``: source or images."""
    spec, _ = backbone(kind)
    net = network(kind, 1) if net is None else net
    modules = partition(spec, net)
    if source is None:
        source = body_state(clone_state(with_trained_values(network(kind, 2))), modules)
    before = clone_state(net)
    context = InitializationContext(
        None if without == "source" else source,
        modules,
        torch.Generator().manual_seed(seed),
        None if without == "images" else images,
    )
    SPECS[name].initialize(SPECS[name].parse(params), net, context)
    return InitializedNetwork(before, clone_state(net), dict(source), modules, net)


def flat(values: Tensor) -> np.ndarray:
    return values.double().numpy().ravel()


def rows(values: Tensor) -> np.ndarray:
    """The weight as a matrix with one row per filter."""
    return values.double().numpy().reshape(len(values), -1)


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: Any = None) -> bool:
    return all(torch.equal(a[name], b[name]) for name in (a if names is None else names))
