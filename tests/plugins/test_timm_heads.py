"""timm networks with several classifiers, with shared weights, and encoders without any."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from transferbench.data.pipeline import ImagePipeline
from transferbench.errors import PluginError
from transferbench.networks.modules import (
    build_network,
    clone_state,
    features_and_logits,
    freeze_body,
    head_layers,
    partition,
)
from transferbench.specs import HEAD
from transferbench.suite import Recipe
from transferbench.training import DataSplit, Execution, TaskData, Training
from transferbench_plugins.backbones import transferbench_backbones

(TIMM,) = (spec for spec in transferbench_backbones() if spec.name == "timm")
SEVERAL_HEADS = {
    "deit_tiny_distilled_patch16_224": (32, 2, 2 * 192),
    "levit_128s": (64, 2, 384),
    "pit_ti_distilled_224": (64, 2, 2 * 256),
    "efficientformerv2_s0": (64, 2, 176),
    "swiftformer_xs": (64, 2, 220),
    "crossvit_tiny_240": (72, 2, 96 + 192),
    "efficientvim_m1_dist": (64, 8, 960),
}
"""Model: image size, layers of the head, features."""


def built(model: str, size: int) -> nn.Module:
    params = TIMM.parse({"model": model})
    return build_network(
        TIMM, params, num_classes=5, in_chans=3, image_size=size, init_seed=1, head_seed=2
    )


def noise(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", SEVERAL_HEADS)
def test_several_classifiers_are_one_head(model: str) -> None:
    size, layers, width = SEVERAL_HEADS[model]
    net = built(model, size).eval()
    head, modules = TIMM.head(net), partition(TIMM, net)
    names = {name for name, _ in net.named_parameters() if name.startswith("head")}
    assert len(head_layers(head)) == layers
    assert names <= set(modules[HEAD])
    with torch.no_grad():
        features, logits = features_and_logits(net, head, noise(3, size))
        assert features.shape == (3, width)
        assert torch.equal(logits, net(noise(3, size)))
        assert net.train()(noise(3, size)).shape == (3, 5)


def test_the_features_are_what_the_heads_read_side_by_side() -> None:
    net = built("deit_tiny_distilled_patch16_224", 32).eval()
    with torch.no_grad():
        features, logits = features_and_logits(net, TIMM.head(net), noise(3, 32))
        own, distilled = head_layers(TIMM.head(net))
        expected = (own(features[:, :192]) + distilled(features[:, 192:])) / 2
    torch.testing.assert_close(logits, expected)


def test_parameters_that_weigh_classifiers_belong_to_the_head() -> None:
    net = built("efficientvim_m1_dist", 64)
    assert {"weights", "weights_dist"} <= set(partition(TIMM, net)[HEAD])


@pytest.mark.parametrize("model", ["levit_128s", "efficientvim_m1_dist"])
def test_a_frozen_body_stays_while_all_of_the_head_is_trained(model: str) -> None:
    net = built(model, 64)
    modules = partition(TIMM, net)
    freeze_body(net, modules)
    head = TIMM.head(net)
    before, images = clone_state(net), noise(8, 64)
    with torch.no_grad():
        features, _ = features_and_logits(net.eval(), head, images)
    pixels = torch.randint(0, 256, (8, 64, 64, 3), dtype=torch.uint8)
    split = DataSplit(ImagePipeline(pixels, [0.5] * 3, [0.5] * 3), torch.arange(8) % 5)
    recipe = Recipe(optimizer="adamw", learning_rate=0.1, epochs=2, batch_size=4)
    data = TaskData("multi-class", "accuracy", 5, split, split, None)
    training = Training(net, data, recipe, Execution(torch.device("cpu")), only_head=head)
    training.train(data_seed=0, augmentation_seed=0)
    changed = {name for name, t in net.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == set(modules[HEAD])
    with torch.no_grad():
        again, _ = features_and_logits(net.eval(), head, images)
    assert torch.equal(features, again)


def test_blocks_that_share_weights_are_one_module() -> None:
    modules = partition(TIMM, built("coat_lite_tiny", 32))
    assert list(modules) == [
        "stem", "serial_blocks1.0", "patch_embed2", "serial_blocks2.0", "patch_embed3",
        "serial_blocks3.0", "patch_embed4", "serial_blocks4.0", "neck", HEAD,
    ]  # fmt: skip
    own = {name.partition(".")[0] for name in modules["serial_blocks1.0"]}
    assert own == {"serial_blocks1", "cpe1", "crpe1"}


def test_what_lies_between_blocks_that_share_weights_is_of_their_module() -> None:
    with torch.device("meta"):
        net = TIMM.build(TIMM.parse({"model": "coat_tiny"}), 5, 3, 64)
    modules = partition(TIMM, net)
    joined = modules["serial_blocks2.0"]
    assert {"patch_embed3.proj.weight", "serial_blocks4.1.norm1.weight"} <= set(joined)
    assert list(modules)[-3:] == ["serial_blocks2.0", "neck", HEAD]


def test_an_encoder_is_refused_with_a_model_that_has_a_classifier() -> None:
    expected = (
        r"timm/qwen3_vit_88m_enc has no classifier: it puts out features alone; choose a model "
        r"with one, such as timm/qwen3_vit_88m$"
    )
    with torch.device("meta"), pytest.raises(PluginError, match=expected):
        TIMM.build(TIMM.parse({"model": "qwen3_vit_88m_enc"}), 5, 3, 64)
