"""Features of a network's declared modules: the layer, the values, and the state left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from transferbench.networks.features import module_features, output_layers
from transferbench.networks.modules import build_network, partition
from transferbench_plugins.backbones import transferbench_backbones

SPECS = {spec.name: spec for spec in transferbench_backbones()}
NETS = {
    "fixup": ("fixup-resnet8", {"width": 4}),
    "resnet": ("timm", {"model": "test_resnet"}),
    "vit": ("timm", {"model": "test_vit"}),
    "convnext": ("timm", {"model": "test_convnext"}),
}
IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def built(kind: str) -> tuple[nn.Module, dict[str, tuple[str, ...]]]:
    name, params = NETS[kind]
    spec = SPECS[name]
    net = build_network(
        spec,
        spec.parse(params),
        num_classes=5,
        in_chans=3,
        image_size=32,
        init_seed=1,
        head_seed=2,
    )
    # Batch statistics unlike those of a new network, and branches that are not zero.
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.2 * (torch.rand(tensor.shape, generator=draw) - 0.5))
    return net.eval(), partition(spec, net)


def features(kind: str, **options: Any) -> list[Tensor]:
    net, modules = built(kind)
    paths = output_layers(net, modules, IMAGES).paths
    (batch,) = module_features(net, paths, [IMAGES], **({"pooled": False} | options))
    return batch


# --- which layer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # The output of a stage with a single block is that of the block.
        ("fixup", {"stem": "conv1", "layer1.0": "layer1", "layer3.0": "layer3"}),
        ("resnet", {"stem": "bn1", "layer1.0": "layer1", "layer4.0": "layer4"}),
        ("vit", {"stem": "patch_embed", "blocks.0": "blocks.0", "neck": "norm"}),
        ("convnext", {"stem": "stem", "stages.1.blocks.1": "stages.1.blocks.1"}),
    ],
)
def test_a_modules_output_is_that_of_its_last_layer(kind: str, expected: dict[str, str]) -> None:
    net, modules = built(kind)
    layers = output_layers(net, modules, IMAGES)
    assert layers.paths.items() >= expected.items()
    assert list(layers.paths) == [module for module in modules if module != "head"]
    assert not layers.missing


class Unusual(nn.Module):
    """Modules whose output cannot be read, and one (``twice``) whose output can."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.pair = nn.LSTM(4, 4, batch_first=True)
        self.folded = nn.Linear(4, 4)
        self.twice = nn.Linear(4, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.pair(x * self.scale)
        x = self.folded(x.reshape(-1, 4)).view(x.shape)
        return self.fc(self.twice(self.twice(x.mean(1))))


UNUSUAL = {
    "loose": ("scale",),
    "pair": ("pair.weight_ih_l0", "pair.weight_hh_l0", "pair.bias_ih_l0", "pair.bias_hh_l0"),
    "folded": ("folded.weight", "folded.bias"),
    "twice": ("twice.weight", "twice.bias"),
    "head": ("fc.weight", "fc.bias"),
}


def test_a_module_without_a_usable_output_has_a_reason() -> None:
    layers = output_layers(Unusual(), UNUSUAL, torch.randn(6, 3, 4))
    assert layers.paths == {"twice": "twice"}
    assert layers.missing == {
        "loose": "no layer of module 'loose' is called in a forward pass",
        "pair": "layer 'pair' of module 'pair' puts out no tensor: tuple",
        "folded": "layer 'folded' of module 'folded' puts out shape (6, 4) for 2 images",
    }


def test_of_several_calls_the_last_counts() -> None:
    net, images = Unusual(), torch.randn(6, 3, 4)
    ((output,),) = module_features(net, {"twice": "twice"}, [images], pooled=False)
    torch.testing.assert_close(net.fc(output), net(images))


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pooled", [False, True])
def test_the_output_is_read_before_an_inplace_activation(pooled: bool) -> None:
    net, _ = built("resnet")
    assert net.act1.inplace
    with torch.no_grad():
        expected = net.bn1(net.conv1(IMAGES))
    assert (expected < 0).any()
    expected = expected.mean((2, 3)) if pooled else expected.flatten(1)
    torch.testing.assert_close(features("resnet", pooled=pooled)[0], expected)


def test_vectors_are_read_before_an_inplace_activation() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    images = torch.randn(8, 4)
    for pooled in (False, True):
        ((output,),) = module_features(net, {"a": "0"}, [images], pooled=pooled)
        torch.testing.assert_close(output, net[0](images).detach())


@pytest.mark.parametrize("kind", list(NETS))
def test_the_head_maps_the_last_features_to_the_logits(kind: str) -> None:
    net, _ = built(kind)
    last = features(kind, pooled=kind != "vit")[-1]
    if kind == "vit":
        last = last.view(6, -1, net.num_features)[:, 0]
    with torch.no_grad():
        expected = net(IMAGES)
        head = SPECS[NETS[kind][0]].head(net)
        if kind == "fixup":
            last = last + net.bias2
        torch.testing.assert_close(head(last), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "positions"),
    [
        ((7, 5), ()),
        ((7, 9, 5), (1,)),
        ((7, 5, 3, 3), (2, 3)),
        ((7, 3, 3, 5), (1, 2)),
        ((7, 3, 3, 3), (2, 3)),
        ((7, 5, 1, 1), (2, 3)),
    ],
)
def test_pooling_averages_over_positions(shape: tuple[int, ...], positions: Sequence[int]) -> None:
    images = torch.randn(shape)
    net = nn.Sequential(nn.Identity())
    ((output,),) = module_features(net, {"a": "0"}, [images], pooled=True)
    torch.testing.assert_close(output, images.mean(positions) if positions else images)


def test_batches_are_yielded_separately_and_share_no_memory() -> None:
    net, modules = built("resnet")
    paths = output_layers(net, modules, IMAGES).paths
    parts = list(module_features(net, paths, IMAGES.split(4), pooled=False))
    assert [len(part[0]) for part in parts] == [4, 2]
    for joined, expected in zip(
        [torch.cat(pair) for pair in zip(*parts, strict=True)], features("resnet"), strict=True
    ):
        torch.testing.assert_close(joined, expected)


def test_bfloat16_is_used_in_the_forward_pass_only() -> None:
    exact, low = features("fixup"), features("fixup", precision=torch.bfloat16)
    assert {x.dtype for x in low} == {torch.bfloat16}
    assert all((x - y.float()).norm() < 0.02 * x.norm() for x, y in zip(exact, low, strict=True))
    pooled = features("fixup", precision=torch.bfloat16, pooled=True)
    assert {x.dtype for x in pooled} == {torch.float32}


# --- the network afterwards -------------------------------------------------------------------


def hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules())


def snapshot(net: nn.Module) -> tuple[Mapping[str, Tensor], list[bool]]:
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    return state, [module.training for module in net.modules()]


@pytest.mark.parametrize("kind", list(NETS))
def test_weights_mode_and_hooks_are_restored(kind: str) -> None:
    net, modules = built(kind)
    state, modes = snapshot(net)
    layers = output_layers(net, modules, IMAGES)
    for _ in module_features(net, layers.paths, IMAGES.split(3), pooled=True):
        # A caller that stops here leaves no hook.
        assert not hooks(net)
    after, modes_after = snapshot(net)
    assert modes == modes_after
    assert all(torch.equal(after[name], tensor) for name, tensor in state.items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_hooks_are_removed_after_an_error() -> None:
    net, modules = built("fixup")
    paths = output_layers(net, modules, IMAGES).paths
    wrong = torch.randn(2, 5, 32, 32)
    with pytest.raises(RuntimeError, match="channels"):
        output_layers(net, modules, wrong)
    with pytest.raises(RuntimeError, match="channels"):
        next(module_features(net, paths, [wrong], pooled=True))
    assert not hooks(net)
