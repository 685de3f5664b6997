"""Weights that two modules share are refused, whichever way they are shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conforming import ABOUT
from torch import Tensor, nn
from torch.nn.utils import parametrize

from transferbench.conformance import check_plugin
from transferbench.errors import PluginError
from transferbench.networks.modules import (
    build_network,
    clone_state,
    load_state,
    optimizer_groups,
    partition,
)
from transferbench.networks.sharing import shared_names
from transferbench.specs import BackboneSpec

TWO = {"a": ["a"], "b": ["b"], "head": ["head"]}
ONE = {"both": ["a", "b"], "head": ["head"]}


class Net(nn.Module):
    """Two convolutions of equal shape, each with statistics, and a head."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_chans, 4, 1)
        self.a = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.b = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(torch.relu(self.a(self.first(x))))).mean((2, 3)))


class Computed(nn.Module):
    """A weight that is computed from another layer's, which it does not register."""

    def __init__(self, layer: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.layers = [layer]
        self.scale = scale

    def forward(self, own: Tensor) -> Tensor:
        del own
        weight = self.layers[0].get_parameter("weight")
        return weight if self.scale == 1 else weight * self.scale


class Registered(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, own: Tensor) -> Tensor:
        return own + self.layer.get_parameter("weight")


def same_parameter(net: Net) -> None:
    net.b[0].weight = net.a[0].weight


def same_layer(net: Net) -> None:
    net.b[0] = net.a[0]


def same_module(net: Net) -> None:
    net.b = net.a


def same_data(net: Net) -> None:
    net.b[0].weight = nn.Parameter(net.a[0].weight.detach())


def same_array(net: Net) -> None:
    net.b[0].weight = nn.Parameter(torch.from_numpy(net.a[0].weight.detach().numpy()))


def overlapping_slices(net: Net) -> None:
    """Two storages with addresses of their own, of which the last half of one is in the other."""
    values = np.random.default_rng(0).normal(size=24).astype(np.float32)
    for layer, first in ((net.a[0], 0), (net.b[0], 8)):
        part = values[first : first + 16].reshape(4, 4, 1, 1)
        layer.weight = nn.Parameter(torch.from_numpy(part))


def part_of(net: Net) -> None:
    net.b[0].bias = nn.Parameter(net.a[0].weight.detach()[:, 0, 0, 0])


def halves(net: Net) -> None:
    both = torch.randn(2, 4, 4, 1, 1)
    net.a[0].weight, net.b[0].weight = nn.Parameter(both[0]), nn.Parameter(both[1])


def same_buffer(net: Net) -> None:
    net.b[1].running_mean = net.a[1].running_mean


def part_of_a_buffer(net: Net) -> None:
    both = torch.zeros(8)
    net.a[1].running_mean, net.b[1].running_mean = both[:4], both[4:]


def a_parameter_as_a_buffer(net: Net) -> None:
    net.b.register_buffer("mask", net.a[0].weight.detach())


def registered_parametrization(net: Net) -> None:
    parametrize.register_parametrization(net.b[0], "weight", Registered(net.a[0]))


def parametrization(net: Net) -> None:
    parametrize.register_parametrization(net.b[0], "weight", Computed(net.a[0]))


def scaled_parametrization(net: Net) -> None:
    parametrize.register_parametrization(net.b[0], "weight", Computed(net.a[0], scale=2))


def tied_in_forward(net: Net) -> None:
    net.register_forward_pre_hook(lambda net, _: same_parameter(net))


def unsaved_buffer(net: Net) -> None:
    weight = net.a[0].weight.detach()
    del net.b[0]._parameters["weight"]
    net.b[0].register_buffer("weight", weight, persistent=False)


def attribute(net: Net) -> None:
    weight = net.a[0].weight.detach()
    del net.b[0]._parameters["weight"]
    net.b[0].weight = weight


def in_a_list(net: Net) -> None:
    net.b.weights = [{"first": (net.a[0].weight[:2],)}]


def in_an_object(net: Net) -> None:
    net.b.cache = SimpleNamespace(weight=net.a[0].weight.data)


def in_a_closure(net: Net) -> None:
    weight = net.a[0].weight
    net.b[0].register_forward_hook(lambda layer, inputs, output: output + weight.sum())


def in_a_partial_function(net: Net) -> None:
    net.b[0].forward = partial(nn.functional.conv2d, weight=net.a[0].weight.detach())


def in_a_layer_without_weights(net: Net) -> None:
    net.b.append(nn.Identity())
    net.b[2].weight = net.a[0].weight.detach()


UNREGISTERED = (
    unsaved_buffer, attribute, in_a_list, in_an_object, in_a_closure, in_a_partial_function,
    in_a_layer_without_weights,
)  # fmt: skip
WAYS = (
    same_parameter, same_layer, same_module, same_data, same_array, overlapping_slices,
    part_of, halves, same_buffer,
    part_of_a_buffer, a_parameter_as_a_buffer, registered_parametrization, parametrization,
    scaled_parametrization, tied_in_forward, *UNREGISTERED,
)  # fmt: skip
KEPT_BY_TORCH = (
    same_parameter, same_layer, same_module, registered_parametrization, parametrization,
    scaled_parametrization, tied_in_forward,
)  # fmt: skip


def spec(share: Callable[[Net], None], modules: dict[str, list[str]] = TWO) -> BackboneSpec:
    def build(_: Any, num_classes: int, in_chans: int, __: int) -> nn.Module:
        net = Net(num_classes, in_chans)
        share(net)
        return net

    first, *rest = modules
    declared = {first: ["first", *modules[first]], **{name: modules[name] for name in rest}}
    return BackboneSpec(
        name="tied", **ABOUT, build=build, modules=lambda net: declared,
        head=lambda net: net.get_submodule("head"), batch_statistics=lambda params: True,
    )  # fmt: skip


def built(of: BackboneSpec) -> nn.Module:
    return build_network(
        of, of.parse({}), num_classes=3, in_chans=1, image_size=8, init_seed=1, head_seed=2
    )


@pytest.mark.parametrize("share", WAYS)
def test_weights_of_two_modules_are_refused_by_the_engine_and_by_the_check(share) -> None:
    with pytest.raises(PluginError) as caught:
        built(spec(share))
    message = str(caught.value)
    assert message.startswith("backbone 'tied': the modules 'a', 'b' share weights (a.")
    assert message.endswith(
        "declare them as one module in modules(), or give each a tensor of its own (clone it)"
    )
    failed = {result.check for result in check_plugin(spec(share)) if result.status == "failed"}
    assert "modules-share-no-weights" in failed


@pytest.mark.parametrize("share", KEPT_BY_TORCH)
def test_weights_shared_inside_one_module_are_allowed(share) -> None:
    built(spec(share, ONE))


@pytest.mark.parametrize(
    "share", [way for way in WAYS if way not in (*KEPT_BY_TORCH, *UNREGISTERED)]
)
def test_sharing_that_torch_ends_when_it_moves_a_network_is_refused_in_one_module(share) -> None:
    expected = (
        r"backbone 'tied': a\..*, b\..* share memory, which torch separates on another device or "
        r"in another memory format; register one nn.Parameter under these names, or give each a"
    )
    with pytest.raises(PluginError, match=expected):
        built(spec(share, ONE))


@pytest.mark.parametrize("share", UNREGISTERED)
def test_a_second_way_to_a_weight_of_the_same_module_is_allowed(share) -> None:
    """As an LSTM keeps a list of its weights."""
    of = spec(share, ONE)
    partition(of, of.build(of.parse({}), 3, 1, 8))


def test_what_holds_the_whole_network_is_allowed() -> None:
    """A reference is no use: of a parent, or of another layer."""

    def share(net: Net) -> None:
        net.b.parent = [net]
        net.b[0].register_forward_hook(lambda *_: net and None)
        net.constants = [net.a[0].weight]

    of = spec(share)
    partition(of, of.build(of.parse({}), 3, 1, 8))


@pytest.mark.parametrize("share", KEPT_BY_TORCH)
def test_what_is_allowed_stays_shared_on_the_way_to_the_engine(share) -> None:
    net = built(spec(share, ONE))
    before = shared_names(net)
    net.to(torch.device("cpu"), memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
    assert shared_names(net) == before


def test_sharing_is_seen_without_memory() -> None:
    with torch.device("meta"):
        of = spec(part_of)
        net = of.build(of.parse({}), 3, 1, 8)
        with pytest.raises(PluginError, match="'a', 'b' share weights"):
            partition(of, net)


def test_a_tied_weight_is_trained_and_stored_once_under_both_names() -> None:
    of = spec(same_parameter, ONE)
    net = built(of)
    (group,) = optimizer_groups(net, [], 0.1)
    assert len(group["params"]) == len(list(net.parameters())) == len(dict(net.named_parameters()))
    state = clone_state(net)
    assert torch.equal(state["a.0.weight"], state["b.0.weight"])
    other = built(of)
    load_state(other, state)
    assert other.get_parameter("a.0.weight") is other.get_parameter("b.0.weight")
    assert torch.equal(other.get_parameter("a.0.weight"), state["a.0.weight"])


def test_neighbours_in_memory_are_not_shared() -> None:
    net = Net(3, 1)
    values = np.random.default_rng(0).normal(size=32).astype(np.float32)
    for layer, first in ((net.a[0], 0), (net.b[0], 16)):
        part = values[first : first + 16].reshape(4, 4, 1, 1)
        layer.weight = nn.Parameter(torch.from_numpy(part))
    assert shared_names(net) == []


def test_a_chain_of_overlaps_is_one_memory() -> None:
    net = Net(3, 1)
    values = np.random.default_rng(0).normal(size=32).astype(np.float32)
    for layer, first in ((net.b[0], 16), (net.a[0], 8), (net.first, 0)):
        part = torch.from_numpy(values[first : first + 12])
        layer.weight = nn.Parameter(part)
    assert shared_names(net) == [("first.weight", "a.0.weight", "b.0.weight")]


def test_weights_without_memory_are_told_apart() -> None:
    with torch.device("meta"):
        net = Net(3, 1)
    assert shared_names(net) == []
    same_parameter(net)
    assert shared_names(net) == [("a.0.weight", "b.0.weight")]
