"""Partition, building, state dicts, learning rate groups and features of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from transferbench.errors import DataError, PluginError
from transferbench.networks.modules import (
    FeatureRecorder,
    body_in_eval,
    body_names,
    body_state,
    build_network,
    clone_state,
    features_and_logits,
    freeze_body,
    load_state,
    normalises_by_batch,
    optimizer_groups,
    partition,
)
from transferbench.specs import BackboneSpec, RateFactor

MODULES = {"stem": ("conv", "norm"), "block": ("inner.0",), "head": ("inner.1", "fc")}


class TwoLayers(nn.Module):
    """A body with batch statistics; a list whose second layer belongs to the head."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.inner = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 5)])
        self.fc = nn.Linear(5, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.fc(torch.relu(self.inner[1](self.drop(self.inner[0](x)))))


def build(_: Any, num_classes: int, in_chans: int, __: int) -> nn.Module:
    return TwoLayers(num_classes, in_chans)


def spec(
    modules: Mapping[str, Sequence[str]] = MODULES, build: Callable[..., nn.Module] = build
) -> BackboneSpec:
    return BackboneSpec(
        name="small-net",
        version=1,
        summary="for tests",
        source="here",
        license="Apache-2.0",
        build=build,
        modules=lambda net: modules,
        head=lambda net: net.get_submodule("fc"),
    )


def network(of: BackboneSpec | None = None, **changes: int) -> nn.Module:
    shape = {"num_classes": 3, "in_chans": 1, "image_size": 8, "init_seed": 1, "head_seed": 2}
    chosen = of or spec()
    return build_network(chosen, chosen.parse({}), **(shape | changes))


# --- partition --------------------------------------------------------------------------------


def test_the_partition_names_parameters_and_buffers_in_order() -> None:
    modules = partition(spec(), TwoLayers(3, 1))
    assert list(modules) == ["stem", "block", "head"]
    assert modules["stem"] == (
        "conv.weight",
        "conv.bias",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    )
    assert modules["block"] == ("inner.0.weight", "inner.0.bias")
    assert body_names(modules) == [*modules["stem"], *modules["block"]]


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            {"stem": ("conv",), "head": ("inner", "fc")},
            "no module owns norm.weight, norm.bias, norm.running_mean",
        ),
        (
            {"stem": ("conv", "norm"), "block": ("inner",), "head": ("inner.1", "fc")},
            "several modules own inner.1.weight, inner.1.bias",
        ),
        (
            {"stem": ("conv", "norm", "conv1"), "block": ("inner",), "head": ("fc",)},
            "nothing in the network matches conv1",
        ),
        (
            {"stem": ("conv", "norm", "inner"), "neck": (), "head": ("fc",)},
            "no parameter or buffer belongs to neck",
        ),
        (
            {"head": ("fc",), "stem": ("conv", "norm", "inner")},
            "the last module must be 'head', the layer that a new target replaces, but modules() g",
        ),
    ],
)
def test_a_wrong_partition_names_backbone_and_fault(
    modules: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(PluginError) as caught:
        partition(spec(modules), TwoLayers(3, 1))
    assert str(caught.value).startswith("backbone 'small-net': ")
    assert message in str(caught.value)


def test_two_prefixes_of_one_module_must_not_overlap() -> None:
    modules = {"stem": ("conv", "norm"), "block": ("inner", "inner.0"), "head": ("fc",)}
    with pytest.raises(PluginError, match=r"several modules own inner\.0\.weight"):
        partition(spec(modules), TwoLayers(3, 1))


def test_long_lists_of_names_are_shortened() -> None:
    with pytest.raises(PluginError, match="and 5 more; modules\\(\\) must name every parameter"):
        partition(spec({"head": ("fc",)}), TwoLayers(3, 1))


# --- building ---------------------------------------------------------------------------------


def test_equal_seeds_give_equal_weights() -> None:
    assert_equal(network().state_dict(), network().state_dict())


def test_body_and_head_have_separate_seeds() -> None:
    names = partition(spec(), TwoLayers(3, 1))
    base, other_head, other_body = network(), network(head_seed=3), network(init_seed=3)
    body = body_state(base.state_dict(), names)
    head, same_head = (
        {name: net.state_dict()[name] for name in names["head"]} for net in (base, other_body)
    )
    assert_equal(body, body_state(other_head.state_dict(), names))
    assert_equal(head, same_head)
    assert not torch.equal(head["fc.weight"], other_head.get_parameter("fc.weight"))
    assert not torch.equal(head["inner.1.bias"], other_head.get_parameter("inner.1.bias"))
    assert not torch.equal(body["conv.weight"], other_body.get_parameter("conv.weight"))


def test_the_body_does_not_depend_on_the_number_of_classes() -> None:
    names = partition(spec(), TwoLayers(3, 1))
    few, many = network().state_dict(), network(num_classes=9).state_dict()
    assert_equal(body_state(few, names), body_state(many, names))


def test_building_does_not_change_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    network()
    assert torch.equal(before, torch.get_rng_state())


def test_a_new_network_is_in_training_mode_with_initial_statistics() -> None:
    net = network()
    assert net.training
    assert all(module.training for module in net.modules())
    assert torch.equal(net.get_buffer("norm.running_mean"), torch.zeros(4))


def test_a_builder_that_fails_is_named_with_the_reason() -> None:
    def broken(*_: Any) -> nn.Module:
        raise ValueError("width must be even")

    expected = (
        r"backbone 'small-net' cannot be built for 3 classes, 1 channel\(s\), 8 px:"
        r" ValueError: width must be even; choose another image size"
    )
    with pytest.raises(PluginError, match=expected):
        network(spec(build=broken))


def test_a_network_that_fails_on_its_images_is_named_with_the_size() -> None:
    expected = (
        r"'small-net' fails on its first images \(3 .* 2 px\): RuntimeError: .*; the next larger "
        r"image size that fits is 3 px: set image.size to it, or choose another backbone"
    )
    with pytest.raises(PluginError, match=expected):
        network(image_size=2)


def test_a_network_without_grey_images_is_refused_with_its_channels() -> None:
    of = spec(build=lambda _, num_classes, in_chans, size: TwoLayers(num_classes, 3))
    with pytest.raises(PluginError, match=r"; it takes images of 3 channel\(s\): set image.ch"):
        network(of)


def test_weights_that_the_first_pass_registers_are_refused() -> None:
    class Late(TwoLayers):
        def forward(self, x: Tensor) -> Tensor:
            self.norm.register_buffer("seen", torch.ones(1))
            return super().forward(x)

    of = spec(build=lambda _, num_classes, in_chans, size: Late(num_classes, in_chans))
    expected = "'small-net': its first forward pass adds or removes norm.seen; register every"
    with pytest.raises(PluginError, match=expected):
        network(of)


def test_weights_that_cannot_be_trained_are_refused() -> None:
    def complex_net(_: Any, num_classes: int, in_chans: int, __: int) -> nn.Module:
        net = TwoLayers(num_classes, in_chans)
        net.norm.register_parameter("phase", nn.Parameter(torch.ones(4, dtype=torch.complex64)))
        return net

    expected = r"'small-net': norm.phase \(torch.complex64\) are parameters that cannot be trained"
    with pytest.raises(PluginError, match=expected):
        network(spec(build=complex_net))


def test_a_builder_that_ignores_the_classes_is_refused() -> None:
    def thousand(_: Any, __: int, in_chans: int, ___: int) -> nn.Module:
        return TwoLayers(1000, in_chans)

    expected = r"must give logits of shape \(2, 3\), not \(2, 1000\); its builder must honour"
    with pytest.raises(PluginError, match=expected):
        network(spec(build=thousand))


# --- states -----------------------------------------------------------------------------------


def test_a_cloned_state_shares_no_memory() -> None:
    net = network().to(memory_format=torch.channels_last)
    state = clone_state(net)
    before = state["conv.weight"].clone()
    with torch.no_grad():
        net.get_parameter("conv.weight").add_(1)
    assert torch.equal(state["conv.weight"], before)
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in state.values())
    assert list(state) == list(net.state_dict())


def test_loading_restores_every_tensor_in_place() -> None:
    source, target = network(), network(init_seed=8, head_seed=9)
    parameter = target.get_parameter("conv.weight")
    load_state(target, clone_state(source))
    assert_equal(source.state_dict(), target.state_dict())
    assert target.get_parameter("conv.weight") is parameter


def test_loading_names_copies_only_those() -> None:
    source, target = network(), network(init_seed=8, head_seed=9)
    before = clone_state(target)
    load_state(target, clone_state(source), ["fc.weight"])
    assert torch.equal(target.get_parameter("fc.weight"), source.get_parameter("fc.weight"))
    del before["fc.weight"]
    assert_equal(before, {name: target.state_dict()[name] for name in before})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.weight": None}, "(missing: fc.weight)"),
        ({"fc.scale": torch.ones(1)}, "(unexpected: fc.scale)"),
        (
            {"fc.weight": torch.ones(1000, 5)},
            "(of another shape: fc.weight is (1000, 5) where the network has (3, 5))",
        ),
        ({"fc.weight": None, "fc.scale": torch.ones(1)}, "(missing: fc.weight; unexpected: fc.s"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: dict[str, Tensor | None], message: str) -> None:
    net = network()
    state = {k: v for k, v in (clone_state(net) | change).items() if v is not None}
    before = clone_state(net)
    with pytest.raises(DataError) as caught:
        load_state(net, state)
    assert message in str(caught.value)
    assert "give weights of the same backbone" in str(caught.value)
    assert_equal(before, net.state_dict())


# --- training a part --------------------------------------------------------------------------


def test_the_first_matching_factor_sets_the_rate() -> None:
    net = network()
    factors = [RateFactor(pattern="fc", factor=2.0), RateFactor(pattern="bias", factor=0.1)]
    groups = optimizer_groups(net, factors, 0.5)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    by_name = {name: rates[id(p)] for name, p in net.named_parameters()}
    assert by_name["fc.bias"] == 1.0
    assert by_name["fc.weight"] == 1.0
    assert by_name["conv.bias"] == pytest.approx(0.05)
    assert by_name["conv.weight"] == 0.5
    assert len(rates) == len(list(net.parameters()))
    assert len(groups) == 3


def test_frozen_parameters_are_in_no_group() -> None:
    net = network()
    freeze_body(net, partition(spec(), net))
    (group,) = optimizer_groups(net, [], 0.5)
    named = dict(net.named_parameters())
    head = [named[name] for name in ("inner.1.weight", "inner.1.bias", "fc.weight", "fc.bias")]
    assert [id(p) for p in group["params"]] == [id(p) for p in head]
    assert not named["conv.weight"].requires_grad


def test_a_frozen_body_gives_fixed_features() -> None:
    net = network()
    body_in_eval(net, net.get_submodule("fc"))
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with FeatureRecorder(net.get_submodule("fc")) as recorder:
        net(x)
        first = recorder.features
        net(x)
        assert torch.equal(first, recorder.features)
    assert torch.equal(net.get_buffer("norm.running_mean"), torch.zeros(4))
    assert net.get_submodule("fc").training
    assert not net.get_submodule("norm").training


# --- features ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.BatchNorm1d(3), True),
        (nn.BatchNorm2d(3, track_running_stats=False), True),
        (nn.SyncBatchNorm(3), True),
        (nn.GroupNorm(1, 3), False),
        (nn.LayerNorm(3), False),
        (nn.InstanceNorm2d(3, track_running_stats=True), False),
    ],
    ids=repr,
)
def test_batch_norm_layers_normalise_by_the_batch(layer: nn.Module, expected: bool) -> None:
    assert normalises_by_batch(nn.Sequential(nn.Conv2d(1, 3, 1), layer)) is expected


def test_features_are_the_input_of_the_head() -> None:
    net = network().eval()
    head = net.get_submodule("fc")
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    features, logits = features_and_logits(net, head, x)
    assert features.shape == (5, 5)
    torch.testing.assert_close(head(features), logits)
    torch.testing.assert_close(logits, net(x))
    assert not head._forward_pre_hooks


def test_features_are_flattened_from_dimension_1() -> None:
    head = nn.Conv2d(4, 3, 1)
    with FeatureRecorder(head) as recorder:
        head(torch.ones(2, 4, 1, 1))
        assert recorder.features.shape == (2, 4)


def test_the_features_of_several_layers_are_side_by_side_and_shared_ones_once() -> None:
    first, second, third = (nn.Linear(3, 2) for _ in range(3))
    a, b = torch.ones(4, 3), torch.zeros(4, 3)
    with FeatureRecorder(nn.ModuleList([first, nn.ModuleList([second]), third])) as recorder:
        third(a)
        second(b)
        first(a)
        assert torch.equal(recorder.features, torch.cat([a, b], dim=1))
    assert not any(layer._forward_pre_hooks for layer in (first, second, third))


def test_a_layer_of_the_head_that_is_never_called_is_an_error() -> None:
    head = nn.ModuleList([nn.Linear(3, 2), nn.Conv2d(3, 2, 1)])
    with FeatureRecorder(head) as recorder:
        head[0](torch.ones(4, 3))
    with pytest.raises(PluginError, match="the head, Conv2d, was not called in a forward pass"):
        _ = recorder.features


def test_a_head_that_is_never_called_is_an_error() -> None:
    with (
        FeatureRecorder(nn.Linear(2, 2)) as recorder,
        pytest.raises(PluginError, match=r"the head, Linear, was not called .* head\(net\) must"),
    ):
        _ = recorder.features


def assert_equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert list(a) == list(b)
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name
