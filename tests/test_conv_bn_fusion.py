"""Fused networks against their originals."""

import copy

import pytest
import timm
import torch
from torch import nn

from transferbench.analysis.landscape import Criterion, Examples, evaluate_states
from transferbench.networks.conv_bn_fusion import fuse_conv_bn


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def moved(net, seed=0, scale=0.1):
    """``net`` with all weights and batch statistics changed from their initial values."""
    generator = drawn(seed)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1 + 2 * scale * torch.rand(tensor.shape, generator=generator))
            tensor.add_(scale / 2 * torch.rand(tensor.shape, generator=generator))
    return net.eval()


def images(count=4, side=32, channels=3):
    return torch.randn(count, channels, side, side, generator=drawn(7))


def norms(net):
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


def same(outputs, expected):
    return (outputs - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "remaining"),
    # In a pre-activation network half of the normalisations follow no convolution.
    [("test_resnet", 0), ("test_efficientnet", 0), ("mobilenetv3_small_050", 0),
     ("regnetx_002", 0), ("densenet121", 62)],
)  # fmt: skip
def test_a_fused_network_computes_the_same(name, remaining):
    # A small change, or rounding grows too large over 121 layers.
    net, x = moved(timm.create_model(name, num_classes=5), scale=0.02), images()
    fused = fuse_conv_bn(net, x[:2])
    assert len(norms(fused.net)) == remaining < len(norms(net))
    with torch.inference_mode():
        assert same(fused.net(x), net(x))


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"eps": 0.1}])
@pytest.mark.parametrize("bias", [True, False])
def test_refresh_copies_the_weights_and_statistics_of_the_original(options, bias):
    layers = [nn.Conv2d(3, 6, 3, bias=bias), nn.BatchNorm2d(6, **options), nn.ReLU()]
    layers += [nn.Conv2d(6, 2, 3, groups=2), nn.BatchNorm2d(2)]
    net, x = moved(nn.Sequential(*layers)), images()
    fused = fuse_conv_bn(net, x[:2])
    before = fused.net(x)
    moved(net, seed=3)
    assert torch.equal(fused.net(x), before)
    fused.refresh()
    assert not same(fused.net(x), before)
    assert same(fused.net(x), net(x))


def test_the_original_is_unchanged():
    net, x = moved(timm.create_model("test_resnet")), images()
    before, hooks = copy.deepcopy(net.state_dict()), [len(m._forward_hooks) for m in net.modules()]
    fused = fuse_conv_bn(net, x[:2])
    fused.net(x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [len(m._forward_hooks) for m in net.modules()] == hooks == [0] * len(hooks)


class ReadTwice(nn.Module):
    """The output of its convolution also skips the normalisation."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.convolution(x)
        return self.norm(x) + x


class CalledTwice(nn.Module):
    """One convolution in two places, with a normalisation after one of them."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.convolution(self.norm(self.convolution(x)))


class Scaled(nn.Conv2d):
    """A convolution that computes with twice the weights it holds."""

    def forward(self, x):
        return self._conv_forward(x, 2 * self.weight, self.bias)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(Scaled(3, 4, 3), nn.BatchNorm2d(4)),
        ReadTwice(),
        CalledTwice(),
    ],
    ids=[
        "no norm",
        "no statistics",
        "a layer between",
        "another kind",
        "read twice",
        "called twice",
    ],
)
def test_networks_that_cannot_be_fused_are_left_alone(net):
    assert fuse_conv_bn(moved(net), images(2)) is None


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_fast_precision_equals_f32_within_the_rounding_of_bfloat16(name, calibrated):
    side = 160 if name == "test_vit" else 32
    torch.manual_seed(0)  # timm draws from the global generator, and the error depends on the draw
    nets = [moved(timm.create_model(name, num_classes=4), seed) for seed in range(3)]
    states = [net.state_dict() for net in nets]
    labels = torch.randint(0, 4, (40,), generator=drawn(1))
    splits = {"test": Examples(images(40, side), labels)}
    net, criterion = timm.create_model(name, num_classes=4), Criterion("multi-class", "accuracy")
    before = copy.deepcopy(net.state_dict())

    def losses(precision):
        evaluations = evaluate_states(
            net,
            iter(states),
            splits,
            criterion,
            calibration=splits["test"].images if calibrated else None,
            precision=precision,
        )
        return [splits["test"].loss for splits in evaluations]

    exact, fast = losses("f32"), losses("fast")
    assert len(set(exact)) == 3
    assert fast == pytest.approx(exact, rel=1e-2)
    assert fast != exact
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
