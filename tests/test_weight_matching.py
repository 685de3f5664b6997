"""Weight matching recovers permutations; REPAIR restores activation statistics of averages."""

from __future__ import annotations

import itertools

import pytest
import timm
import torch
from torch import nn

from transferbench.analysis.landscape import lerp_state
from transferbench.analysis.weight_matching import (
    UnmatchableError,
    activation_statistics,
    group_lengths,
    keeps_function,
    match_weights,
    permute_state,
    random_permutations,
    repaired,
    residual_axes,
)
from transferbench.networks.modules import eval_mode
from transferbench_plugins.backbones.fixup import FIXUP_RESNET8, FIXUP_RESNET14, FIXUP_RESNET50


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def fixup(spec, width):
    return spec.build(spec.parse({"width": width}), 5, 1, 16)


NETWORKS = {
    "fixup-resnet8": lambda: fixup(FIXUP_RESNET8, 4),
    "fixup-resnet14": lambda: fixup(FIXUP_RESNET14, 8),
    "fixup-resnet50": lambda: fixup(FIXUP_RESNET50, 4),
    "timm/test_resnet": lambda: timm.create_model("test_resnet", num_classes=5, in_chans=1),
}


def trained(name, seed=0):
    """A network with all weights and statistics changed, so that no branch is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = NETWORKS[name]().eval()
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape))
    return net


def state_of(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def head_of(net):
    return [name for name in net.state_dict() if name.startswith("fc.") or name == "bias2"]


def images(count=8):
    return torch.randn(count, 1, 32, 32, generator=drawn(7))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_permuted_network_computes_the_same(name):
    net = trained(name)
    state = state_of(net)
    axes = residual_axes(state, head_of(net))
    assert set(axes) >= {key for key, tensor in state.items() if tensor.numel() > 1}
    permuted = permute_state(state, axes, random_permutations(state, axes, drawn(1)))
    other = trained(name, seed=1)
    other.load_state_dict(permuted)
    assert not torch.equal(permuted["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
    with torch.no_grad():
        torch.testing.assert_close(other(images()), net(images()), rtol=1e-4, atol=1e-4)
    assert keeps_function(net, axes, images(), drawn(2))
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_axes_do_not_depend_on_the_order_of_the_state(name):
    state = state_of(trained(name))
    head = head_of(trained(name))
    expected = residual_axes(state, head)
    for order in (sorted(state), sorted(state, reverse=True)):
        axes = residual_axes({key: state[key] for key in order}, head)
        assert axes == expected
        assert list(group_lengths(state, axes)) == list(group_lengths(state, expected))


def test_more_than_ten_blocks_are_in_numerical_order():
    blocks = {f"layer1.{block}.conv{k}.weight": (4, 4, 3, 3) for block in range(12) for k in (1, 2)}
    shapes = {"conv1.weight": (4, 1, 3, 3), **blocks, "layer1.2.downsample.0.weight": (4, 4, 1, 1)}
    state = {name: torch.zeros(shape) for name, shape in sorted(shapes.items())}
    axes = residual_axes(state, [])
    assert axes["layer1.2.conv1.weight"] == ("layer1.2.conv1", "stem", None, None)
    assert axes["layer1.10.conv1.weight"] == ("layer1.10.conv1", "layer1.2", None, None)
    assert axes["layer1.10.conv2.weight"] == ("layer1.2", "layer1.10.conv1", None, None)


@pytest.mark.parametrize("name", NETWORKS)
def test_matching_recovers_a_random_permutation_exactly(name):
    state = state_of(trained(name))
    axes = residual_axes(state, head_of(trained(name)))
    permuted = permute_state(state, axes, random_permutations(state, axes, drawn(1)))
    recovered = permute_state(permuted, axes, match_weights(state, permuted, axes, drawn(2)))
    assert all(torch.equal(recovered[key], tensor) for key, tensor in state.items())


def inner_product(a, b, axes):
    names = [key for key in axes if "running" not in key and any(axes[key])]
    return sum(float((a[key].double() * b[key].double()).sum()) for key in names)


def test_matching_reaches_the_best_of_all_permutations():
    # 24 orders of the residual stream and 24 inside the block: few enough to try all.
    a, b = state_of(trained("fixup-resnet8", 0)), state_of(trained("fixup-resnet8", 1))
    names = [key for key in a if not key.startswith(("layer2", "layer3"))]
    a, b = {key: a[key] for key in names}, {key: b[key] for key in names}
    a["fc.weight"], b["fc.weight"] = a["fc.weight"][:, :4], b["fc.weight"][:, :4]
    axes = residual_axes(a, ["bias2", "fc.weight", "fc.bias"])
    matched = permute_state(b, axes, match_weights(a, b, axes, drawn(0)))
    orders = [torch.tensor(order) for order in itertools.permutations(range(4))]
    groups = ("stem", "layer1.0.conv1")
    best = max(
        inner_product(a, permute_state(b, axes, dict(zip(groups, pair, strict=True))), axes)
        for pair in itertools.product(orders, orders)
    )
    assert inner_product(a, matched, axes) == pytest.approx(best, rel=1e-6)


def test_matching_increases_the_inner_product_with_another_network():
    a, b = state_of(trained("timm/test_resnet", 0)), state_of(trained("timm/test_resnet", 1))
    axes = residual_axes(a, head_of(trained("timm/test_resnet")))
    matched = permute_state(b, axes, match_weights(a, b, axes, drawn(0)))
    assert inner_product(a, matched, axes) > inner_product(a, b, axes)


def test_matching_is_reproduced_by_its_generator():
    a, b = state_of(trained("fixup-resnet14", 0)), state_of(trained("fixup-resnet14", 1))
    axes = residual_axes(a, head_of(trained("fixup-resnet14")))
    first, second = (match_weights(a, b, axes, drawn(3)) for _ in range(2))
    assert all(torch.equal(first[group], second[group]) for group in first)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("test_vit", "cls_token"),
        ("test_resnext_like", "conv2.weight"),
        ("test_efficientnet", "conv_stem.weight"),
    ],
)
def test_a_network_of_another_form_is_refused(model, name):
    if model == "test_resnext_like":
        net = timm.models.resnet.ResNet(
            timm.models.resnet.Bottleneck, (1, 1, 1, 1), cardinality=2, base_width=8, num_classes=3
        )
    else:
        net = timm.create_model(model, num_classes=3)
    head = [key for key in net.state_dict() if key.startswith(("fc", "head"))]
    message = r"numbers its channels.*without alignment"
    with pytest.raises(UnmatchableError, match=message) as caught:
        residual_axes(net.state_dict(), head)
    assert name in str(caught.value)


class Reversed(nn.Module):
    """Has the names of a residual network, but reverses its channels before the head."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, bias=False)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.conv1(x).relu().mean((2, 3)).flip(1))


def test_axes_that_are_no_symmetry_are_detected():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Reversed()
    axes = residual_axes(net.state_dict(), ["fc.weight", "fc.bias"])
    before = state_of(net)
    assert not keeps_function(net, axes, images(), drawn(0))
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


# --- REPAIR -----------------------------------------------------------------------------------


def outputs_of_convolutions(net, data):
    """By forward hooks, for networks that call their layers."""
    outputs = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, output: outputs.append(output))
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with eval_mode(net), torch.no_grad():
        net(data)
    for hook in hooks:
        hook.remove()
    return outputs


def test_activation_statistics_are_those_of_each_convolution():
    net, data = trained("timm/test_resnet"), images(16)
    statistics = activation_statistics(net, data)
    outputs = outputs_of_convolutions(net, data)
    assert len(statistics) == len(outputs)
    for channels, output in zip(statistics, outputs, strict=True):
        values = output.double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(channels.mean.double(), values.mean(1), rtol=1e-4, atol=1e-4)
        std = (values.var(1, correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(channels.std.double(), std, rtol=1e-4, atol=1e-4)


def test_repair_with_a_networks_own_statistics_is_the_identity():
    net, data = trained("fixup-resnet8"), images()
    with torch.no_grad():
        expected = net(data)
        with repaired(net, activation_statistics(net, data), data):
            for _ in range(2):  # the index of the convolutions restarts
                torch.testing.assert_close(net(data), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(net(data), expected)


def test_a_repaired_average_has_the_statistics_of_its_ends():
    a, b, data = trained("fixup-resnet14", 0), trained("fixup-resnet14", 1), images(16)
    ends = activation_statistics(a, data), activation_statistics(b, data)
    goal = [x.lerp(y, 0.5) for x, y in zip(*ends, strict=True)]
    middle = trained("fixup-resnet14", 2)
    middle.load_state_dict(lerp_state(state_of(a), state_of(b), 0.5))
    before = activation_statistics(middle, data)
    with repaired(middle, goal, data):
        after = activation_statistics(middle, data)
    assert not torch.allclose(before[-1].std, goal[-1].std, rtol=0.05)
    for channels, expected in zip(after, goal, strict=True):
        torch.testing.assert_close(channels.mean, expected.mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(channels.std, expected.std, rtol=1e-3, atol=1e-3)
