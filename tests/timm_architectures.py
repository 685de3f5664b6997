"""A model of each of timm's architectures: pinned with an image size, trained for a step.

Run as a script, it writes the page of the documentation again: in some minutes, and 7 GB of memory.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import timm
import torch

from transferbench.errors import PluginError
from transferbench.networks import fitting
from transferbench.networks.modules import (
    build_network,
    clone_state,
    features_and_logits,
    head_layers,
    partition,
)
from transferbench.suite import Recipe
from transferbench.training import Execution, Training, random_task
from transferbench_plugins.backbones import transferbench_backbones

PAGE = Path(__file__).parent.parent / "docs" / "science" / "timm.md"
(TIMM,) = (spec for spec in transferbench_backbones() if spec.name == "timm")
CLASSES, BATCH = 10, 4
CPU = Execution(torch.device("cpu"))
RECIPE = Recipe(optimizer="sgd", learning_rate=1e-4, epochs=1, batch_size=BATCH, momentum=0)
TORCH = re.compile(r": \w+Error: .*(?=; )")
"""Its part of a message, which another version words differently."""
SEARCH_SECONDS = 600.0
"""Enough to find the smallest size that fits on a busy machine."""


class Pinned(NamedTuple):
    """An architecture (a module of timm), one of its models and an image size."""

    architecture: str
    model: str
    size: int


class ArchitectureRow(NamedTuple):
    """What becomes of a model; numbers do not depend on the machine.

    ``result``: ``trained``, or the error's message.
    """

    pinned: Pinned
    modules: int = 0
    heads: int = 0
    features: int = 0
    parameters: int = 0
    batch_statistics: bool = False
    result: str = "trained"

    @property
    def line(self) -> str:
        """As a row of the page's table."""
        architecture, model, size = self.pinned
        if self.result != "trained":
            return f"| `{architecture}` | `{model}` | {size} | {self.result} |"
        norm = "yes" if self.batch_statistics else "no"
        return (
            f"| `{architecture}` | `{model}` | {size} | {self.modules} | {self.heads} "
            f"| {self.features:,} | {self.parameters:,} | {norm} |"
        )


FITTING = tuple(Pinned(*row) for row in (
    ("beit", "beit_base_patch16_224", 32),
    ("byoanet", "halonet_h1", 256),
    ("byobnet", "test_byobnet", 32),
    ("cait", "cait_xxs24_224", 32),
    ("coat", "coat_tiny", 32),
    ("coat", "coat_lite_tiny", 32),
    ("convit", "convit_tiny", 32),
    ("convmixer", "convmixer_768_32", 32),
    ("convnext", "test_convnext", 32),
    ("cpubone", "cpubone_nano", 32),
    ("crossvit", "crossvit_tiny_240", 72),
    ("csatv2", "csatv2", 64),
    ("cspnet", "cs3darknet_focus_s", 32),
    ("cspnext", "cspnext_tiny", 32),
    ("davit", "davit_tiny", 32),
    ("deepseek_vit", "deepseek_vit_412m", 112),
    ("deit", "deit_tiny_patch16_224", 32),
    ("deit", "deit_tiny_distilled_patch16_224", 32),
    ("densenet", "densenet121", 32),
    ("dla", "dla46x_c", 32),
    ("dpn", "dpn48b", 32),
    ("edgenext", "edgenext_xx_small", 32),
    ("efficientformer", "efficientformer_l1", 224),
    ("efficientformer_v2", "efficientformerv2_s0", 32),
    ("efficientnet", "test_efficientnet", 32),
    ("efficientvim", "efficientvim_m1", 32),
    ("efficientvim", "efficientvim_m1_dist", 32),
    ("efficientvit_mit", "efficientvit_b0", 32),
    ("efficientvit_msra", "efficientvit_m0", 32),
    ("eva", "vit_tiny_patch16_dinov3_qkvb", 32),
    ("fasternet", "fasternet_t0", 32),
    ("fastvit", "fastvit_t8", 32),
    ("focalnet", "focalnet_tiny_srf", 32),
    ("gcvit", "gcvit_xxtiny", 32),
    ("gemma4_vit", "gemma4_vit_167m", 32),
    ("ghostnet", "ghostnet_050", 32),
    ("hardcorenas", "hardcorenas_b", 32),
    ("hgnet", "hgnetv2_b0", 32),
    ("hiera", "hiera_tiny_224", 32),
    ("hieradet_sam2", "sam2_hiera_tiny", 32),
    ("hrnet", "hrnet_w18_small", 32),
    ("iformer", "iformer_t", 32),
    ("inception_next", "inception_next_atto", 32),
    ("inception_resnet_v2", "inception_resnet_v2", 80),
    ("inception_v3", "inception_v3", 80),
    ("inception_v4", "inception_v4", 80),
    ("lcnetv2", "lcnetv2_small", 32),
    ("levit", "levit_128s", 32),
    ("lowformer", "lowformer_b0", 32),
    ("mambaout", "test_mambaout", 32),
    ("maxxvit", "test_coatnet", 32),
    ("metaformer", "poolformerv2_s12", 32),
    ("mlp_mixer", "gmlp_ti16_224", 32),
    ("mobilenetv3", "mobilenetv3_small_050", 32),
    ("mobilenetv5", "mobilenetv5_base", 32),
    ("mobilevit", "mobilevit_xxs", 32),
    ("mvitv2", "mvitv2_tiny", 32),
    ("naflexvit", "naflexvit_base_patch16_parfac_gap", 32),
    ("nasnet", "nasnetalarge", 32),
    ("nest", "jx_nest_tiny", 224),
    ("nextvit", "nextvit_small", 32),
    ("nfnet", "test_nfnet", 32),
    ("pit", "pit_ti_224", 32),
    ("pit", "pit_ti_distilled_224", 32),
    ("pnasnet", "pnasnet5large", 32),
    ("pvt_v2", "pvt_v2_b0", 32),
    ("qwen3_vit", "qwen3_vit_88m", 32),
    ("rdnet", "rdnet_tiny", 32),
    ("regnet", "regnetx_002", 32),
    ("repghost", "repghostnet_050", 32),
    ("repvit", "repvit_m1", 32),
    ("res2net", "res2next50", 32),
    ("resnest", "resnest14d", 32),
    ("resnet", "test_resnet", 32),
    ("resnetv2", "resnetv2_18", 32),
    ("rexnet", "rexnet_100", 32),
    ("selecsls", "selecsls42", 32),
    ("senet", "legacy_seresnet18", 32),
    ("sequencer", "sequencer2d_s", 32),
    ("shvit", "shvit_s1", 32),
    ("sknet", "skresnet18", 32),
    ("starnet", "starnet_s050", 32),
    ("swiftformer", "swiftformer_xs", 32),
    ("swin_transformer", "swin_tiny_patch4_window7_224", 32),
    ("swin_transformer_v2", "swinv2_tiny_window16_256", 32),
    ("swin_transformer_v2_cr", "swinv2_cr_tiny_224", 32),
    ("tiny_vit", "tiny_vit_5m_224", 32),
    ("tnt", "tnt_s_legacy_patch16_224", 32),
    ("tresnet", "tresnet_m", 32),
    ("twins", "twins_svt_small", 32),
    ("vgg", "vgg11", 32),
    ("visformer", "visformer_tiny", 32),
    ("vision_transformer", "test_vit", 32),
    ("vision_transformer_hybrid", "vit_tiny_r_s16_p8_224", 32),
    ("vision_transformer_relpos", "test_vit_relpos", 32),
    ("vision_transformer_sam", "samvit_base_patch16_224", 32),
    ("vitamin", "vitamin_small_224", 32),
    ("volo", "volo_d1_224", 32),
    ("vovnet", "ese_vovnet19b_slim_dw", 32),
    ("xception", "legacy_xception", 32),
    ("xception_aligned", "xception41p", 32),
    ("xcit", "xcit_nano_12_p8_224", 32),
))  # fmt: skip
"""The smallest model of each architecture, and those with several heads or shared weights."""

REFUSED = tuple(Pinned(*row) for row in (
    ("crossvit", "crossvit_tiny_240", 64),
    ("deepseek_vit", "deepseek_vit_412m_enc", 112),
    ("gemma4_vit", "gemma4_vit_167m_enc", 48),
    ("inception_resnet_v2", "inception_resnet_v2", 64),
    ("inception_v3", "inception_v3", 64),
    ("inception_v4", "inception_v4", 64),
    ("mobilenetv5", "mobilenetv5_300m_enc", 64),
    ("qwen3_vit", "qwen3_vit_88m_enc", 32),
    ("vgg", "vgg11", 8),
    ("vision_transformer", "vit_tiny_patch16_224", 28),
))  # fmt: skip
"""Sizes that a model does not take, and encoders without a classifier."""

HEAD = """# timm's architectures

`timm/NAME` is a backbone for every model of
[timm](https://github.com/huggingface/pytorch-image-models). Each of its architectures was built,
divided into modules and trained for one step by the engine, at the smallest size that fits of the
sizes tried: the smallest model of each, and those with several heads. The table is of timm
{version}, {classes} classes and colour images; a test makes it.

- **modules**: parts of the [partition](diagnostics/modules.md): stem, blocks, neck, head. Blocks
  that share weights are one module.
- **heads**: layers of the head. Several are one head, whose outputs the network combines.
- **features**: what the head reads; inputs of several layers side by side.

| architecture | model | px | modules | heads | features | parameters | batch statistics |
| --- | --- | --- | --- | --- | --- | --- | --- |
{fitting}

Other sizes and encoders are refused with what to do:

| architecture | model | px | message |
| --- | --- | --- | --- |
{refused}
"""


def row_of(pinned: Pinned) -> ArchitectureRow:
    """Build the model, divide it and train it for a step.

    Raises: ``AssertionError`` where the step moved nothing or the logits are not finite.
    """
    params = TIMM.parse({"model": pinned.model})
    try:
        net = build_network(
            TIMM, params, num_classes=CLASSES, in_chans=3, image_size=pinned.size,
            init_seed=1, head_seed=2,
        )  # fmt: skip
    except PluginError as error:
        return ArchitectureRow(pinned, result=TORCH.sub("", str(error)))
    modules, head = partition(TIMM, net), TIMM.head(net)
    net.to(memory_format=torch.channels_last)
    data = random_task(BATCH, (pinned.size, pinned.size, 3), CLASSES, CPU.device)
    before = clone_state(net)
    Training(net, data, RECIPE, CPU).step(torch.arange(BATCH), torch.Generator().manual_seed(0))
    moved = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
    assert moved, "the step moved no weight"
    with torch.no_grad():
        images = data.test.pipeline.batch(torch.arange(BATCH))
        features, logits = features_and_logits(net.eval(), head, images)
    assert logits.isfinite().all(), "the logits are not finite"
    return ArchitectureRow(
        pinned, len(modules), len(head_layers(head)), features.shape[1],
        sum(p.numel() for p in net.parameters()), TIMM.batch_statistics(params),
    )  # fmt: skip


def page(fitting_lines: list[str], refused_lines: list[str], version: str) -> str:
    """The page with these rows, of a version of timm."""
    return HEAD.format(
        version=version, classes=CLASSES,
        fitting="\n".join(fitting_lines), refused="\n".join(refused_lines),
    )  # fmt: skip


def version_of(text: str) -> str:
    """The version of timm that a page is of."""
    return re.search(r"of timm\s(\S+),", text)[1]  # type: ignore[index]  # the page says it


def write() -> None:
    """Write the page, a line on the screen for each model."""
    fitting.SECONDS = SEARCH_SECONDS
    warnings.simplefilter("ignore")
    lines = []
    for pinned in (*FITTING, *REFUSED):
        lines.append(row_of(pinned).line)
        print(lines[-1], flush=True)  # noqa: T201  # a script
    PAGE.write_text(
        page(lines[: len(FITTING)], lines[len(FITTING) :], timm.__version__), encoding="utf-8"
    )


if __name__ == "__main__":
    sys.exit(write())
