"""The built-in backbones: Fixup ResNets against a reference implementation, and timm models."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the usual name
from safetensors.torch import save_file
from torch import Tensor, nn

from transferbench.errors import DataError, PluginError, UnknownNameError
from transferbench.networks.modules import (
    body_names,
    build_network,
    clone_state,
    features_and_logits,
    optimizer_groups,
    partition,
)
from transferbench.specs import BackboneSpec
from transferbench_plugins.backbones import transferbench_backbones
from transferbench_plugins.backbones._timm_building import build_on_meta

SPECS = {spec.name: spec for spec in transferbench_backbones()}
BLOCKS = {
    "fixup-resnet8": (1, 1, 1),
    "fixup-resnet14": (2, 2, 2),
    "fixup-resnet20": (3, 3, 3),
    "fixup-resnet50": (3, 4, 6, 3),
}


def built(name: str, params: Mapping[str, Any], shape: tuple[int, int, int]) -> nn.Module:
    """A network for (classes, channels, image size)."""
    spec = SPECS[name]
    classes, channels, size = shape
    return build_network(
        spec,
        spec.parse(params),
        num_classes=classes,
        in_chans=channels,
        image_size=size,
        init_seed=1,
        head_seed=2,
    )


def timm_spec(model: str) -> tuple[BackboneSpec, Any]:
    return SPECS["timm"], SPECS["timm"].parse({"model": model})


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


# --- Fixup ------------------------------------------------------------------------------------


def reference_block(state: Mapping[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    """A Fixup block by the paper's formula, on a state dict."""

    def get(part: str) -> Tensor:
        return state[f"{name}.{part}"]

    convs = [part for part in ("conv1", "conv2", "conv3") if f"{name}.{part}.weight" in state]
    strided = "conv1" if len(convs) == 2 else "conv2"
    branch = x
    for i, conv in enumerate(convs, start=1):
        weight = get(f"{conv}.weight")
        step = stride if conv == strided else 1
        branch = branch + get(f"bias{i}a")
        branch = F.conv2d(branch, weight, stride=step, padding=weight.shape[-1] // 2)
        if i < len(convs):
            branch = F.relu(branch + get(f"bias{i}b"))
    branch = branch * get("scale") + get(f"bias{len(convs)}b")
    shortcut = x
    if f"{name}.downsample.weight" in state:
        shortcut = F.conv2d(x + get("bias1a"), get("downsample.weight"), stride=stride)
    return F.relu(branch + shortcut)


def reference(state: Mapping[str, Tensor], x: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Features before the head's layer: (N, C, H, W) -> (N, D)."""
    large = len(blocks) == 4
    stem = state["conv1.weight"]
    x = F.conv2d(x, stem, stride=2 if large else 1, padding=stem.shape[-1] // 2) + state["bias1"]
    x = F.relu(x)
    if large:
        x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            stride = 2 if stage > 1 and block == 0 else 1
            x = reference_block(state, f"layer{stage}.{block}", x, stride)
    return x.mean(dim=(2, 3)) + state["bias2"]


def scrambled(net: nn.Module) -> nn.Module:
    """All parameters non-zero and of moderate size, in float64."""
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            fan = max(parameter[0].numel(), 1)
            parameter.copy_(torch.randn(parameter.shape, generator=draws) / math.sqrt(fan))
    return net.double()


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_forward_equals_the_formula(name: str) -> None:
    size, params = (64, {"width": 16}) if name == "fixup-resnet50" else (28, {})
    net = scrambled(built(name, params, (5, 3, size)))
    x = noise(2, 3, size, size).double()
    features, logits = features_and_logits(net, SPECS[name].head(net), x)
    expected = reference(net.state_dict(), x, BLOCKS[name])
    torch.testing.assert_close(features, expected, rtol=1e-10, atol=1e-10)
    weight, bias = net.get_parameter("fc.weight"), net.get_parameter("fc.bias")
    torch.testing.assert_close(logits, expected @ weight.T + bias, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["fixup-resnet14", "fixup-resnet50"])
def test_gradients_equal_those_of_the_formula(name: str) -> None:
    size = 32 if name == "fixup-resnet50" else 12
    net = scrambled(built(name, {"width": 4}, (3, 1, size)))
    x = noise(2, 1, size, size).double()
    features, _ = features_and_logits(net, SPECS[name].head(net), x)
    features.square().sum().backward()
    leaves = {k: v.clone().requires_grad_() for k, v in net.state_dict().items()}
    reference(leaves, x, BLOCKS[name]).square().sum().backward()
    for key, parameter in net.named_parameters():
        if not key.startswith("fc"):
            torch.testing.assert_close(parameter.grad, leaves[key].grad, rtol=1e-8, atol=1e-10)


def test_the_papers_network_has_the_published_size() -> None:
    spec = SPECS["fixup-resnet50"]
    with torch.device("meta"):
        net = spec.build(spec.parse({}), 345, 3, 224)
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    assert sum(sizes.values()) == 24_161_931
    head = partition(spec, net)["head"]
    assert head == ("bias2", "fc.weight", "fc.bias")
    # Published for everything but fc; the scalar bias2 is in the head's module.
    assert sum(size for name, size in sizes.items() if not name.startswith("fc.")) == 23_455_026


def test_the_small_networks_have_the_sizes_of_the_formula() -> None:
    counts = {name: parameters(built(name, {}, (10, 1, 28))) for name in sorted(BLOCKS)[:2]}
    # conv weights, 5 scalars a block and 2 outside, the head; widths 16, 32, 64.
    stem, head, projections = 9 * 16, 64 * 10 + 10, 16 * 32 + 32 * 64
    entry = 9 * (2 * 16**2 + 16 * 32 + 32**2 + 32 * 64 + 64**2)
    plain = 9 * 2 * (16**2 + 32**2 + 64**2)
    assert counts["fixup-resnet14"] == stem + head + projections + entry + plain + 6 * 5 + 2
    assert parameters(built("fixup-resnet8", {}, (10, 1, 28))) == (
        stem + head + projections + entry + 3 * 5 + 2
    )


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_all_residual_branches_are_zero_at_initialization(name: str) -> None:
    net = built(name, {"width": 8}, (5, 3, 32))
    blocks = [module for module in partition(SPECS[name], net) if module.startswith("layer")]
    assert len(blocks) == sum(BLOCKS[name])
    for block in map(net.get_submodule, blocks):
        channels = block.get_submodule("conv1").in_channels
        x = noise(2, channels, 8, 8)
        shortcut = x if block.downsample is None else block.downsample(x)
        assert torch.equal(block(x), torch.relu(shortcut))


@pytest.mark.parametrize(
    ("name", "exponent"), [("fixup-resnet50", -0.25), ("fixup-resnet20", -0.5)]
)
def test_weights_have_the_distribution_of_fixup(name: str, exponent: float) -> None:
    net = built(name, {"width": 32}, (400, 3, 32))
    shrink = sum(BLOCKS[name]) ** exponent
    inner = ("conv1", "conv2") if name == "fixup-resnet50" else ("conv1",)
    checked = 0
    for key, weight in net.named_parameters():
        part = key.split(".")[-2] if key.startswith("layer") else ""
        if part in inner or part == "downsample":
            he = math.sqrt(2 / (weight.shape[0] * weight.shape[2] * weight.shape[3]))
            expected = he if part == "downsample" else he * shrink
            assert weight.std().item() == pytest.approx(expected, rel=0.05)
            assert abs(weight.mean().item()) < 0.05 * expected
            checked += 1
    assert checked > sum(BLOCKS[name])
    for key in ("conv1.weight", "fc.weight"):
        weight = net.get_parameter(key)
        bound = 1 / math.sqrt(weight[0].numel())  # PyTorch's default: uniform within the bound
        assert weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_scalars_are_initialized_to_the_identity() -> None:
    net = built("fixup-resnet50", {"width": 4}, (5, 3, 32))
    scalars = {k: p.item() for k, p in net.named_parameters() if p.numel() == 1}
    assert {value for key, value in scalars.items() if "bias" in key} == {0.0}
    assert {value for key, value in scalars.items() if "scale" in key} == {1.0}
    assert len(scalars) == 16 * 7 + 2


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_scalars_and_the_heads_bias_have_a_tenth_of_the_learning_rate(name: str) -> None:
    net = built(name, {"width": 4}, (5, 3, 32))
    groups = optimizer_groups(net, SPECS[name].rate_factors, 1.0)
    slow = {id(p) for group in groups if group["lr"] == 0.1 for p in group["params"]}
    names = {key for key, p in net.named_parameters() if id(p) in slow}
    scalars = {key for key, p in net.named_parameters() if p.numel() == 1}
    assert names == scalars | {"fc.bias"}
    assert {group["lr"] for group in groups} == {0.1, 1.0}


def test_fixup_modules_are_stem_blocks_and_head() -> None:
    net = built("fixup-resnet14", {}, (10, 1, 28))
    modules = partition(SPECS["fixup-resnet14"], net)
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)]
    assert list(modules) == ["stem", *blocks, "head"]
    assert modules["stem"] == ("bias1", "conv1.weight")


def test_bf16_activations_stay_bf16() -> None:
    net = built("fixup-resnet8", {}, (10, 1, 28))
    dtypes: list[torch.dtype] = []
    net.get_submodule("layer2.0").register_forward_pre_hook(
        lambda _, inputs: dtypes.append(inputs[0].dtype)
    )
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        net(noise(2, 1, 28, 28))
    assert dtypes == [torch.bfloat16]


def test_a_fixup_state_is_loaded_from_a_file(tmp_path: Path) -> None:
    spec = SPECS["fixup-resnet8"]
    source, target = (built("fixup-resnet8", {}, (classes, 1, 28)) for classes in (10, 4))
    scrambled(source).float()
    file = tmp_path / "source.safetensors"
    save_file(clone_state(source), file)
    head = target.get_parameter("fc.weight").clone()
    spec.load_weights(spec.parse({}), target, str(file))  # type: ignore[misc]  # Fixup has a loader
    assert torch.equal(target.get_parameter("fc.weight"), head)
    own, theirs = target.state_dict(), source.state_dict()
    assert all(torch.equal(own[k], theirs[k]) for k in own if not k.startswith("fc."))


# --- timm: partition --------------------------------------------------------------------------

PARTITIONS = {
    "resnet10t": (32, 6, "stem layer1.0 layer4.0 head"),
    "resnet18": (28, 10, "stem layer1.0 layer1.1 layer4.1 head"),
    "resnet50": (32, 18, "stem layer1.0 layer3.5 layer4.2 head"),
    "test_resnet": (28, 6, "stem layer1.0 layer4.0 head"),
    "test_vit": (32, 9, "stem blocks.0 blocks.5 neck head"),
    "test_convnext": (32, 15, "stem stages.0.blocks.0 stages.1.downsample neck head"),
    "test_efficientnet": (28, 8, "stem blocks.0.0 blocks.4.0 neck head"),
    "vit_tiny_patch16_224": (64, 15, "stem blocks.0 blocks.11 neck head"),
    "tf_efficientnet_lite0": (32, 19, "stem blocks.0.0 blocks.6.0 neck head"),
    "mobilenetv3_small_050": (28, 15, "stem blocks.0.0 blocks.5.0 neck head"),
    "nf_resnet26": (32, 10, "stem stages.0.0 stages.3.1 head"),
    "test_nfnet": (32, 7, "stem stages.0.0 stages.3.0 neck head"),
    "swin_tiny_patch4_window7_224": (
        28,
        18,
        "stem layers.0.blocks.0 layers.1.downsample neck head",
    ),
    "vgg11": (32, 10, "features.0 features.18 neck head"),
    "regnetx_002": (32, 15, "stem s1.b1 s2.b1 s4.b7 head"),
    "densenet121": (32, 64, "stem features.denseblock1.denselayer1 features.transition1 neck head"),
    "twins_pcpvt_small": (64, 23, "stem blocks.0.0 pos_block.0 blocks.0.1 neck head"),
}


@pytest.mark.parametrize("model", sorted(PARTITIONS))
def test_timm_modules_are_in_the_order_of_the_forward_pass(model: str) -> None:
    size, count, some = PARTITIONS[model]
    spec, params = timm_spec(model)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        net = spec.build(params, 7, 3, size)
        modules = partition(spec, net)
        called = first_calls(net, modules, torch.zeros(2, 3, size, size))
    assert [name for name in modules if name in some.split()] == some.split()
    assert len(modules) == count
    assert called == list(modules)
    head = name_of(spec.head(net), net)
    assert modules["head"] == (f"{head}.weight", f"{head}.bias")


def first_calls(net: nn.Module, modules: Mapping[str, tuple[str, ...]], x: Tensor) -> list[str]:
    """The modules in the order in which a forward pass first calls one of their layers."""
    owners = {
        name.rpartition(".")[0]: module for module, names in modules.items() for name in names
    }
    order: dict[str, None] = {}
    for path, layer in net.named_modules():
        if path in owners and path:
            layer.register_forward_pre_hook(
                lambda *_, module=owners[path]: order.setdefault(module)
            )
    net.eval()(x)
    return list(order)


def name_of(module: nn.Module, net: nn.Module) -> str:
    return next(name for name, other in net.named_modules() if other is module)


def test_token_and_position_embeddings_of_a_vit_are_in_the_stem() -> None:
    spec, params = timm_spec("test_vit")
    with torch.device("meta"):
        modules = partition(spec, spec.build(params, 7, 3, 32))
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight"} <= set(modules["stem"])


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext"])
def test_timm_features_are_the_input_of_the_classifier(model: str) -> None:
    net = built("timm", {"model": model}, (7, 3, 32)).eval()
    head = SPECS["timm"].head(net)
    features, logits = features_and_logits(net, head, noise(2, 3, 32, 32))
    torch.testing.assert_close(
        logits, features @ net_weight(head).T + head.get_parameter("bias"), rtol=1e-5, atol=1e-5
    )


def net_weight(layer: nn.Module) -> Tensor:
    return layer.get_parameter("weight")


def test_an_image_size_that_patches_do_not_divide_is_refused() -> None:
    expected = "timm/vit_tiny_patch16_224 cuts images into patches of 16 px and would ignore"
    with torch.device("meta"), pytest.raises(PluginError, match=expected):
        SPECS["timm"].build(SPECS["timm"].parse({"model": "vit_tiny_patch16_224"}), 7, 3, 28)


def test_an_image_size_too_small_for_the_model_is_refused() -> None:
    expected = (
        r"'timm/vgg11' cannot be built for 7 .* 8 px: .*; the next larger .* fits is 32 px: set"
    )
    with pytest.raises(PluginError, match=expected):
        built("timm", {"model": "vgg11"}, (7, 3, 8))


# --- timm: declarations -----------------------------------------------------------------------


def test_members_are_all_timm_models() -> None:
    members = SPECS["timm"].members()  # type: ignore[misc]  # timm has members
    assert {"resnet18", "test_resnet", "vit_tiny_patch16_224"} <= set(members)
    assert list(members) == sorted(members)


def test_an_unknown_model_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="no timm model named 'resnet19'; did you mean"):
        SPECS["timm"].weights(SPECS["timm"].parse({"model": "resnet19"}))


def test_a_model_with_a_tag_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match=r"give 'a1_in1k' as the weights"):
        SPECS["timm"].weights(SPECS["timm"].parse({"model": "resnet18.a1_in1k"}))


@pytest.mark.parametrize(
    ("model", "expected"),
    [("test_resnet", True), ("test_vit", False), ("test_convnext", False), ("resnet18", True)],
)
def test_batch_statistics_are_declared_without_drawing_weights(model: str, expected: bool) -> None:
    spec, params = timm_spec(model)
    before = torch.get_rng_state()
    assert spec.batch_statistics(params) is expected
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_that_cannot_be_built_on_the_meta_device_is_built_on_the_cpu() -> None:
    def build() -> nn.Module:
        return nn.BatchNorm2d(int(torch.full((), 3).item()))

    before = torch.get_rng_state()
    assert build_on_meta(build).get_buffer("running_mean").shape == (3,)
    assert build_on_meta(lambda: nn.Linear(2, 2)).get_parameter("weight").is_meta
    assert torch.equal(before, torch.get_rng_state())


def test_fixup_networks_have_no_batch_statistics() -> None:
    for name in BLOCKS:
        assert not SPECS[name].batch_statistics(SPECS[name].parse({}))
        assert not list(built(name, {"width": 4}, (5, 3, 32)).buffers())


def test_preprocessing_is_that_of_the_model() -> None:
    spec, params = timm_spec("resnet18")
    assert spec.preprocessing(params).mean == (0.485, 0.456, 0.406)  # type: ignore[union-attr]  # timm declares it
    spec, params = timm_spec("tf_efficientnet_lite0")
    assert spec.preprocessing(params).std == (0.5, 0.5, 0.5)  # type: ignore[union-attr]  # timm declares it


def test_weights_declare_their_pretraining_datasets() -> None:
    spec, params = timm_spec("vit_tiny_patch16_224")
    by_tag = {weights.tag: weights for weights in spec.weights(params)}
    weights = by_tag["augreg_in21k_ft_in1k"]
    assert weights.pretrained_on == "ImageNet-21k, then ImageNet-1k"
    assert weights.license == "apache-2.0"
    assert weights.classes == 1000
    assert weights.origin == "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"


def test_pretraining_datasets_may_be_unknown() -> None:
    spec, params = timm_spec("resnet18")
    datasets = {weights.tag: weights.pretrained_on for weights in spec.weights(params)}
    assert datasets["fb_swsl_ig1b_ft_in1k"] == "Instagram-1B, then ImageNet-1k"
    spec, params = timm_spec("vit_base_patch16_224")
    datasets = {weights.tag: weights.pretrained_on for weights in spec.weights(params)}
    assert datasets["mae"] == "unknown"


# --- timm: weights ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source() -> nn.Module:
    """A test_resnet for 7 classes with updated batch statistics."""
    net = built("timm", {"model": "test_resnet"}, (7, 3, 32))
    net(noise(4, 3, 32, 32))
    return net


def load(net: nn.Module, weights: str, model: str = "test_resnet") -> str | None:
    spec, params = timm_spec(model)
    assert spec.load_weights is not None
    return spec.load_weights(params, net, weights)


def saved(state: dict[str, Tensor], folder: Path, name: str = "w.safetensors") -> str:
    file = folder / name
    if name.endswith(".safetensors"):
        save_file(state, file)
    else:
        torch.save(state, file)
    return str(file)


def test_a_timm_state_is_loaded_from_a_file(source: nn.Module, tmp_path: Path) -> None:
    target = fresh(7)
    before = torch.get_rng_state()
    load(target, saved(clone_state(source), tmp_path))
    assert torch.equal(before, torch.get_rng_state())
    theirs = source.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in target.state_dict().items())


def fresh(classes: int, channels: int = 3, model: str = "test_resnet", size: int = 32) -> nn.Module:
    spec, params = timm_spec(model)
    with torch.random.fork_rng(devices=[]):
        return spec.build(params, classes, channels, size)


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
def test_a_checkpoint_of_a_training_script_is_loaded(
    source: nn.Module, tmp_path: Path, nest: str | None
) -> None:
    state = {f"module.{name}": tensor for name, tensor in clone_state(source).items()}
    target = fresh(7)
    load(target, saved(state if nest is None else {nest: state, "epoch": 3}, tmp_path, "w.pth"))
    assert torch.equal(target.get_parameter("fc.weight"), source.get_parameter("fc.weight"))


def test_a_head_with_other_classes_keeps_its_weights(source: nn.Module, tmp_path: Path) -> None:
    target = fresh(3)
    head = target.get_parameter("fc.weight").clone()
    load(target, saved(clone_state(source), tmp_path))
    assert torch.equal(target.get_parameter("fc.weight"), head)
    body = body_names(partition(SPECS["timm"], target))
    own, theirs = target.state_dict(), source.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in body)


def test_a_state_without_head_is_loaded(source: nn.Module, tmp_path: Path) -> None:
    state = {k: v for k, v in clone_state(source).items() if not k.startswith("fc.")}
    target = fresh(7)
    head = target.get_parameter("fc.weight").clone()
    load(target, saved(state, tmp_path))
    assert torch.equal(target.get_parameter("fc.weight"), head)
    assert torch.equal(target.get_buffer("bn1.running_mean"), source.get_buffer("bn1.running_mean"))


def test_the_first_convolution_is_summed_for_grey_images(source: nn.Module, tmp_path: Path) -> None:
    target = fresh(7, channels=1)
    remark = load(target, saved(clone_state(source), tmp_path))
    assert remark == (
        "converted conv1.0.weight from 3 input channels to 1, its kernels summed over them"
    )
    expected = source.get_parameter("conv1.0.weight").sum(1, keepdim=True)
    torch.testing.assert_close(target.get_parameter("conv1.0.weight"), expected)


def test_a_first_layer_that_timm_leaves_out_is_refused(
    source: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adapt(*_: Any, **__: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("timm.models._builder.adapt_input_conv", adapt)
    expected = "conv1.0.weight reads 3 channel.s., and the images have 1"
    with pytest.raises(DataError, match=expected):
        load(fresh(7, channels=1), saved(clone_state(source), tmp_path))


def test_grey_weights_for_colour_images_are_refused_with_the_channels(tmp_path: Path) -> None:
    file = saved(clone_state(fresh(7, channels=1)), tmp_path)
    with pytest.raises(DataError) as caught:
        load(fresh(7), file)
    assert str(caught.value) == (
        f"{file} does not fit timm/test_resnet (conv1.0.weight reads 1 channel(s), and the images "
        "have 3); give weights of images of 3 channel(s), or set image.channels of the suite to 1, "
        "with as many values of mean and std"
    )


def test_a_position_embedding_is_resized(tmp_path: Path) -> None:
    small, large = (fresh(7, model="test_vit", size=size) for size in (32, 64))
    remark = load(large, saved(clone_state(small), tmp_path), "test_vit")
    assert remark == "resized pos_embed from (1, 5, 64) to (1, 17, 64)"
    assert large.get_parameter("pos_embed").shape != small.get_parameter("pos_embed").shape
    name = "blocks.3.attn.qkv.weight"
    assert torch.equal(large.get_parameter(name), small.get_parameter(name))


def test_a_state_with_other_names_is_loaded(source: nn.Module, tmp_path: Path) -> None:
    state = {f"_{name}": tensor for name, tensor in clone_state(source).items()}
    target = fresh(3)
    load(target, saved(state, tmp_path, "foreign.pth"))
    name = "layer3.0.conv2.weight"
    assert torch.equal(target.get_parameter(name), source.get_parameter(name))


def test_a_missing_tensor_is_an_error(source: nn.Module, tmp_path: Path) -> None:
    state = clone_state(source)
    del state["layer2.0.conv1.weight"]
    with pytest.raises(
        DataError, match=r"does not fit timm/test_resnet .*layer2\.0\.conv1\.weight"
    ):
        load(fresh(3), saved(state, tmp_path))


def test_a_tensor_of_another_shape_is_an_error(source: nn.Module, tmp_path: Path) -> None:
    state = clone_state(source) | {"layer1.0.bn1.weight": torch.ones(99)}
    with pytest.raises(DataError, match=r"layer1\.0\.bn1\.weight.*give weights of this model"):
        load(fresh(7), saved(state, tmp_path))


def test_a_digest_is_checked(source: nn.Module, tmp_path: Path) -> None:
    file = saved(clone_state(source), tmp_path)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    load(fresh(7), f"{file}#sha256={digest}")
    with pytest.raises(DataError, match=f"has sha256 {digest}, not 00; it is truncated or another"):
        load(fresh(7), f"{file}#sha256=00")
    with pytest.raises(DataError, match=r"#md5=00: only sha256=DIGEST may follow"):
        load(fresh(7), f"{file}#md5=00")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no weights file .*gone\.pth; give the path of an existing"
    ):
        load(fresh(7), str(tmp_path / "gone.pth"))


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_a_truncated_file_is_refused(source: nn.Module, tmp_path: Path, name: str) -> None:
    file = Path(saved(clone_state(source), tmp_path, name))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=f"{name} cannot be read as weights"):
        load(fresh(7), str(file))


class FileCreatingPickle:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.folder),))


def test_loading_a_pickle_runs_no_code(tmp_path: Path) -> None:
    torch.save({"weight": FileCreatingPickle(tmp_path / "created")}, tmp_path / "w.pth")
    with pytest.raises(
        DataError, match=r"cannot be read as weights .*give a file of tensors alone"
    ):
        load(fresh(7), str(tmp_path / "w.pth"))
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list, not named tensors; give a state dict"),
        ({}, "holds dict, not named tensors"),
        ({"epoch": 3}, "holds dict, not named tensors; give a state dict"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(fresh(7), saved(content, tmp_path, "w.pth"))


def test_an_unknown_tag_is_an_error_with_a_suggestion() -> None:
    expected = r"no weights of timm/test_resnet named 'r160'; .*r160_in1k.*or give a .safetensors"
    with pytest.raises(UnknownNameError, match=expected):
        load(fresh(7), "r160")


def test_weights_that_cannot_be_downloaded_are_an_error_with_the_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub's client reads its environment variables at import.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    expected = r"'r160_in1k' of timm/test_resnet cannot be downloaded .* pass the \.safetensors"
    with pytest.raises(DataError, match=expected):
        load(fresh(7), "r160_in1k")
