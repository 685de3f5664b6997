"""Initializations from target images: layer outputs and filters, computed independently."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the usual name
from initialized_networks import (
    IMAGES,
    KINDS,
    TWO_LAYERS,
    InitializedNetwork,
    flat,
    initialize,
    network,
    norm_names,
    rows,
    same,
)
from torch import Tensor, nn

from transferbench.errors import PluginError
from transferbench.specs import BackboneSpec

Z = 4.5


def hooked_outputs(net: nn.Module) -> dict[str, Tensor]:
    """Outputs of the layers of an ordinary network, by forward hooks."""
    outputs: dict[str, Tensor] = {}

    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda *call, name=name: outputs.update({name: call[2]}))
    with torch.no_grad():
        net.eval()(IMAGES)
    return outputs


def fixup_outputs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs of the convolutions of fixup-resnet8, by the paper's formula."""
    x = F.conv2d(IMAGES, state["conv1.weight"], padding=1)
    outputs = {"conv1": x}
    x = F.relu(x + state["bias1"])
    for stage in (1, 2, 3):
        block = {
            key.removeprefix(f"layer{stage}.0."): values
            for key, values in state.items() if key.startswith(f"layer{stage}.")
        }  # fmt: skip
        stride = 1 if stage == 1 else 2
        branch = F.conv2d(x + block["bias1a"], block["conv1.weight"], None, stride, 1)
        outputs[f"layer{stage}.0.conv1"] = branch
        branch = F.relu(branch + block["bias1b"]) + block["bias2a"]
        branch = block["scale"] * F.conv2d(branch, block["conv2.weight"], padding=1)
        outputs[f"layer{stage}.0.conv2"] = branch
        shortcut = x
        if stage > 1:
            shortcut = F.conv2d(x + block["bias1a"], block["downsample.weight"], stride=stride)
            outputs[f"layer{stage}.0.downsample"] = shortcut
        x = F.relu(branch + block["bias2b"] + shortcut)
    return outputs


def layer_outputs(result: InitializedNetwork, kind: str) -> dict[str, np.ndarray]:
    """The outputs of all layers of the body by filters, (F, values), float64."""
    fixup = kind == "fixup-resnet8"
    outputs = fixup_outputs(result.after) if fixup else hooked_outputs(result.net)
    weights = {
        name.removesuffix(".weight")
        for name, values in result.source.items()
        if name.endswith(".weight") and values.ndim > 1
    }
    assert weights == {name for name in outputs if f"{name}.weight" not in result.modules["head"]}
    return {
        name: np.moveaxis(output.double().numpy(), 1 if output.ndim == 4 else -1, 0).reshape(
            output.shape[1] if output.ndim == 4 else output.shape[-1], -1
        )
        for name, output in outputs.items()
        if name in weights
    }


def scaled_fixup() -> nn.Module:
    """A Fixup network whose scalars differ from their initial values."""
    net = network("fixup-resnet8", 1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.numel() == 1:
                parameter.fill_(3.0 if "scale" in name else 0.2)
    return net


# --- lsuv -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_lsuv_gives_all_layers_unit_deviation(kind: str) -> None:
    for name, output in layer_outputs(initialize("lsuv", kind), kind).items():
        assert abs(output.std() - 1) < 0.1, name


def test_lsuv_includes_the_scale_of_a_fixup_block() -> None:
    result = initialize("lsuv", net=scaled_fixup())
    outputs = layer_outputs(result, "fixup-resnet8")
    assert all(abs(output.std() - 1) < 0.1 for output in outputs.values())
    scalars = [name for name, values in result.source.items() if values.numel() == 1]
    assert scalars
    assert same(result.before, result.after, scalars)


@pytest.mark.parametrize("kind", KINDS)
def test_lsuv_weights_are_orthonormal_up_to_a_factor(kind: str) -> None:
    result = initialize("lsuv", kind)
    for name, values in result.after.items():
        if name in result.source and values.ndim > 1 and name.endswith(".weight"):
            weight = rows(values)
            weight = weight if weight.shape[0] <= weight.shape[1] else weight.T
            gram = weight @ weight.T
            assert np.abs(gram / gram[0, 0] - np.eye(len(gram))).max() < 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lsuv", "data-dependent"])
def test_norms_statistics_scalars_and_embeddings_are_unchanged(name: str, kind: str) -> None:
    result = initialize(name, kind)
    layers = {
        f"{path}.{leaf}" for path, layer in result.net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) for leaf in layer.state_dict()
    }  # fmt: skip
    rest = set(result.before) - layers
    assert norm_names(result.net) <= rest
    assert same(result.before, result.after, rest)


def test_lsuv_biases_are_zero() -> None:
    result = initialize("lsuv", TWO_LAYERS)
    assert result.before["0.bias"].any()
    assert not result.after["0.bias"].any()


def test_lsuv_needs_different_images() -> None:
    with pytest.raises(PluginError) as raised:
        initialize("lsuv", images=torch.zeros(4, 1, 16, 16))
    assert str(raised.value) == (
        "initialization 'lsuv' could not bring the output of conv1 to a standard deviation of 1 in"
        " 10 tries (it is nan); use different images, or another initialization"
    )


def single_layer(stem: type[nn.Module], features: int) -> BackboneSpec:
    return TWO_LAYERS.model_copy(
        update={
            "name": stem.__name__.lower(),
            "build": lambda params, num_classes, in_chans, image_size: nn.Sequential(
                stem(), nn.Flatten(), nn.Linear(features, num_classes)
            ),
            "modules": lambda net: {"stem": ("0",), "head": ("2",)},
            "head": lambda net: net.get_submodule("2"),
        }
    )


class Standardised(nn.Module):
    """A convolution with a standardised weight, and a linear layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.idle = nn.Conv2d(1, 2, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        return F.conv2d(x, (weight - weight.mean()) / weight.std())


class Shifted(nn.Module):
    """A convolution with large fixed offsets of its channels, independent of its scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, bias=False)
        self.shift = nn.Parameter(torch.tensor([-5.0, 5.0]))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight, self.shift)


@pytest.mark.parametrize("name", ["lsuv", "data-dependent"])
def test_layers_without_an_intercepted_call_are_an_error(name: str) -> None:
    with pytest.raises(PluginError) as raised:
        initialize(name, single_layer(Standardised, 392))
    assert str(raised.value) == (
        f"initialization '{name}' finds no output of 0.conv, 0.idle: in a forward pass no"
        " convolution or linear map uses their weights, directly or times a factor; choose another"
        " backbone, or an initialization without target images"
    )


def test_a_layer_that_lsuv_cannot_bring_to_unit_deviation_is_an_error() -> None:
    with pytest.raises(PluginError, match=r"the output of 0\.conv to a .* in 3 tries \(it is 5\."):
        initialize("lsuv", single_layer(Shifted, 392), tries=3)


# --- data-dependent ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_all_channels_have_unit_variance_and_with_a_bias_zero_mean(kind: str) -> None:
    result = initialize("data-dependent", kind)
    for name, output in layer_outputs(result, kind).items():
        assert np.abs(output.std(axis=1) - 1).max() < 1e-4, name
        if f"{name}.bias" in result.after:
            assert np.abs(output.mean(axis=1)).max() < 1e-4, name


def test_unit_variance_includes_the_scale_of_a_fixup_block() -> None:
    outputs = layer_outputs(initialize("data-dependent", net=scaled_fixup()), "fixup-resnet8")
    assert max(np.abs(output.std(axis=1) - 1).max() for output in outputs.values()) < 1e-4


def test_constant_channels_are_an_error() -> None:
    with pytest.raises(PluginError) as raised:
        initialize("data-dependent", images=torch.zeros(4, 1, 16, 16))
    assert str(raised.value) == (
        "initialization 'data-dependent': 8 of 8 channels of conv1 are constant on all images, so"
        " that no factor gives them variance 1; use more, different images, or another"
        " initialization"
    )


# --- data-aligned -----------------------------------------------------------------------------


BRIGHT = IMAGES + 2
"""With a mean, so that the uncentred covariance differs."""


def patches_of(padding: int, stride: int) -> np.ndarray:
    """All 3x3 patches of the images, (patches, 9), float64."""
    pixels = np.pad(BRIGHT[:, 0].double().numpy(), ((0, 0), (padding,) * 2, (padding,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3), axis=(1, 2))
    return windows[:, ::stride, ::stride].reshape(-1, 9)


def aligned_variances(weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Second moments of the filters in the data's eigenbasis, and the data's variances."""
    variance, basis = np.linalg.eigh(np.cov(patches_of(1, 2).T, bias=True))
    along = rows(weight) @ basis
    return along.T @ along / len(along), variance


def test_first_filters_are_gaussian_along_the_datas_eigenvectors() -> None:
    result = initialize("data-aligned", TWO_LAYERS, images=BRIGHT)
    new, _ = aligned_variances(result.after["0.weight"])
    old, _ = aligned_variances(result.source["0.weight"])
    error = math.sqrt(2 / 600)
    assert np.abs(new.diagonal() / old.diagonal() - 1).max() < Z * error
    correlation = new / np.sqrt(np.outer(new.diagonal(), new.diagonal()))
    assert np.abs(correlation - np.eye(9)).max() < Z / math.sqrt(600)


def test_correlations_of_the_source_are_removed() -> None:
    source = initialize("pretrained", TWO_LAYERS).source
    factors = torch.linspace(0.1, 2, 9).reshape(1, 1, 3, 3)
    mixed = source["0.weight"] * factors
    mixed_source = source | {"0.weight": mixed}
    result = initialize("data-aligned", TWO_LAYERS, source=mixed_source, images=BRIGHT)
    (new, _), (old, _) = (aligned_variances(w) for w in (result.after["0.weight"], mixed))
    assert np.abs(new.diagonal() / old.diagonal() - 1).max() < Z * math.sqrt(2 / 600)

    def largest_correlation(squares: np.ndarray) -> float:
        scale = np.sqrt(np.outer(squares.diagonal(), squares.diagonal()))
        return float(np.abs(squares / scale - np.eye(9)).max())

    assert largest_correlation(old) > 0.3 > Z / math.sqrt(600) > largest_correlation(new)


def test_images_of_one_value_have_no_variances() -> None:
    with pytest.raises(PluginError, match=r"^initialization 'data-aligned': .* of one value, .*"):
        initialize("data-aligned", TWO_LAYERS, images=torch.zeros_like(IMAGES), variances="data")


def test_variances_of_the_data_need_no_source() -> None:
    result = initialize(
        "data-aligned", TWO_LAYERS, images=BRIGHT, without="source", variances="data"
    )
    new, variance = aligned_variances(result.after["0.weight"])
    length = (rows(result.before["0.weight"]) ** 2).sum(axis=1).mean()
    expected = variance / variance.sum() * length
    assert np.abs(new.diagonal() / expected - 1).max() < Z * math.sqrt(2 / 600)


@pytest.mark.parametrize("kind", KINDS)
def test_alignment_changes_only_the_first_layer(kind: str) -> None:
    result = initialize("data-aligned", kind)
    changed = [name for name in result.before
               if not torch.equal(result.before[name], result.after[name])]  # fmt: skip
    first = {
        "fixup-resnet8": "conv1.weight", "timm/test_resnet": "conv1.0.weight",
        "timm/test_vit": "patch_embed.proj.weight",
    }  # fmt: skip
    assert changed == [first[kind]]
    lengths = [flat(state[first[kind]]) @ flat(state[first[kind]])
               for state in (result.after, result.source)]  # fmt: skip
    assert 0.5 < lengths[0] / lengths[1] < 2


class Mixing(nn.Module):
    """A linear map of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x)


def test_a_first_layer_that_is_no_convolution_is_an_error() -> None:
    with pytest.raises(PluginError) as raised:
        initialize("data-aligned", single_layer(Mixing, 256))
    assert str(raised.value) == (
        "initialization 'data-aligned' aligns a first convolution with the patches it reads, and"
        " this backbone begins with 0.mix (Linear); choose a backbone whose first layer is an"
        " ungrouped Conv2d with numeric padding"
    )
