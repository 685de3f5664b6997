"""The random and the pre-trained initializations: the tensors that they set, and the values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from transferbench.errors import DataError, PluginError
from transferbench.networks.modules import body_state, build_network, clone_state, partition
from transferbench.specs import BackboneSpec, InitializationContext
from transferbench_plugins.initializations import transferbench_initializations

SPECS = {spec.name: spec for spec in transferbench_initializations()}

BACKBONE = BackboneSpec(
    name="two-layers",
    version=1,
    summary="for tests",
    source="here",
    license="Apache-2.0",
    build=lambda params, num_classes, in_chans, image_size: nn.Sequential(
        nn.Conv2d(in_chans, 4, image_size),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(4, num_classes),
    ),
    modules=lambda net: {"stem": ("0", "1"), "head": ("3",)},
    head=lambda net: net.get_submodule("3"),
)


def network(seed: int, classes: int = 3) -> nn.Module:
    return build_network(
        BACKBONE,
        BACKBONE.parse({}),
        num_classes=classes,
        in_chans=1,
        image_size=5,
        init_seed=seed,
        head_seed=seed,
    )


def initialized(
    name: str, net: nn.Module, source: Mapping[str, Tensor] | None, **params: Any
) -> dict[str, Tensor]:
    """The state after the initialization ``name``."""
    spec = SPECS[name]
    names = partition(BACKBONE, net)
    context = InitializationContext(source, names, torch.Generator().manual_seed(0), None)
    spec.initialize(spec.parse(params), net, context)
    return clone_state(net)


@pytest.mark.parametrize("name", ["random", "same-random", "second-random"])
def test_random_keeps_the_backbones_initialization(name: str) -> None:
    net = network(1)
    before = clone_state(net)
    source = body_state(clone_state(network(2)), partition(BACKBONE, net))
    after = initialized(name, net, source)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert SPECS[name].touches == "nothing"
    assert not SPECS[name].needs


def test_the_random_initializations_declare_their_draw() -> None:
    draws = {name: spec.draw for name, spec in SPECS.items() if spec.draw != "replicate"}
    assert draws == {"same-random": "shared", "second-random": "second"}


def test_pretrained_copies_the_body_and_not_the_head() -> None:
    net, pretrained = network(1), network(2, classes=8)
    pretrained(torch.randn(6, 1, 5, 5, generator=torch.Generator().manual_seed(0)))
    before = clone_state(net)
    source = body_state(clone_state(pretrained), partition(BACKBONE, pretrained))
    after = initialized("pretrained", net, source)
    assert {"1.running_mean", "1.num_batches_tracked"} <= set(source)
    assert all(torch.equal(after[key], source[key]) for key in source)
    assert all(torch.equal(after[key], before[key]) for key in ("3.weight", "3.bias"))
    assert set(after) == set(source) | {"3.weight", "3.bias"}


def test_pretrained_shares_no_memory_with_the_source() -> None:
    net = network(1)
    source = body_state(clone_state(network(2)), partition(BACKBONE, net))
    original = source["0.weight"].clone()
    initialized("pretrained", net, source)
    with torch.no_grad():
        net.get_parameter("0.weight").zero_()
    assert torch.equal(source["0.weight"], original)


def test_pretrained_declares_its_checkpoint() -> None:
    spec = SPECS["pretrained"]
    assert spec.needs == {"source_weights"}
    assert spec.checkpoint(spec.parse({})) is None
    assert spec.checkpoint(spec.parse({"checkpoint": 0})) == 0
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        spec.parse({"checkpoint": -1})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "needs the source network's weights, and the context has none; name a source in the"),
        ({"checkpoint": 4}, "needs the source network's weights of epoch 4, and the context has "),
    ],
)
def test_pretrained_without_weights_is_an_error(params: dict[str, int], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        initialized("pretrained", network(1), None, **params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"0.weight": torch.ones(4, 3, 5, 5)},
            r"0\.weight is \(4, 3, 5, 5\) where the network has",
        ),
        ({"9.weight": torch.ones(1)}, r"unexpected: 9\.weight"),
    ],
)
def test_pretrained_weights_of_another_network_are_an_error(
    change: dict[str, Tensor], message: str
) -> None:
    net = network(1)
    source = body_state(clone_state(network(2)), partition(BACKBONE, net))
    with pytest.raises(DataError, match=message):
        initialized("pretrained", net, source | change)
