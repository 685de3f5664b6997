"""Any timm model as a backbone: ``timm/resnet18`` and some 1,300 others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.errors import UnknownNameError
from transferbench.specs import BackboneSpec, Params, Preprocessing, Weights

if TYPE_CHECKING:
    from timm.models import PretrainedCfg
    from torch.nn import Module

__all__ = ["TIMM"]

DATA = {
    "cc12m": "CC12M",
    "ig1b": "Instagram-1B",
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-22k",
    "inat21": "iNaturalist 2021",
    "jft": "JFT-300M",
    "laion2b": "LAION-2B",
    "laion400m": "LAION-400M",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "webli": "WebLI",
    "yfcc100m": "YFCC100M",
}
"""Pre-training datasets by their token in timm's tags."""


class TimmParams(Params):
    """``model``: a name of ``timm.list_models()``, without a tag."""

    model: Annotated[str, Field(min_length=1)]


def _build(params: TimmParams, num_classes: int, in_chans: int, image_size: int) -> Module:
    from transferbench_plugins.backbones import _timm_building as timm_building

    return timm_building.build(_checked(params.model), num_classes, in_chans, image_size)


def _members() -> list[str]:
    import timm

    return sorted(timm.list_models())


def _checked(model: str) -> str:
    import timm

    architecture, _, tag = model.partition(".")
    if tag:
        advice = f"a tag names weights, not a model: give {tag!r} as the weights"
        raise UnknownNameError("timm model", model, [architecture], advice)
    if not timm.is_model(model):
        raise UnknownNameError("timm model", model, _members())
    return model


def _modules(net: Module) -> dict[str, Sequence[str]]:
    from transferbench_plugins.backbones import _timm_partition as timm_partition

    return timm_partition.modules(net)


def _head(net: Module) -> Module:
    from transferbench_plugins.backbones import _timm_partition as timm_partition

    return timm_partition.classifier(net)


def _preprocessing(params: TimmParams) -> Preprocessing:
    from transferbench_plugins.backbones import _timm_building as timm_building

    return _constants(timm_building.config(_checked(params.model)))


def _constants(config: PretrainedCfg) -> Preprocessing:
    return Preprocessing(mean=tuple(config.mean), std=tuple(config.std))


@cache
def _batch_statistics(params: TimmParams) -> bool:
    from transferbench_plugins.backbones import _timm_building as timm_building

    return timm_building.batch_statistics(_checked(params.model))


def _weights(params: TimmParams) -> list[Weights]:
    import timm

    from transferbench_plugins.backbones import _imagenet_packages as imagenet_packages
    from transferbench_plugins.backbones import _timm_building as timm_building

    names = timm.list_pretrained(f"{_checked(params.model)}.*")
    of_timm = [_weights_of(name.partition(".")[2], timm_building.config(name)) for name in names]
    return [*of_timm, *imagenet_packages.offered(params.model)]


def _weights_of(tag: str, config: PretrainedCfg) -> Weights:
    # Tags list the pre-training datasets in order.
    datasets = [DATA[token] for token in tag.split("_") if token in DATA]
    return Weights(
        tag=tag,
        origin=config.hf_hub_id or config.url or "unknown",
        license=config.license or "unknown",
        pretrained_on=", then ".join(datasets) or "unknown",
        classes=config.num_classes or None,
        # Those of one architecture may expect different ones, as MAE's and AugReg's do.
        preprocessing=_constants(config),
    )


def _load_weights(params: TimmParams, net: Module, weights: str) -> str:
    from transferbench.networks.weight_paths import is_path
    from transferbench_plugins.backbones import _imagenet_packages as imagenet_packages
    from transferbench_plugins.backbones import _timm_building as timm_building

    tags = [available.tag for available in _weights(params)]
    if weights == imagenet_packages.TAG and weights in tags:
        file = imagenet_packages.file_of(params.model)
        return timm_building.load_file(params.model, net, str(file))
    if weights in tags:
        return timm_building.load_tag(params.model, net, weights)
    if is_path(weights):
        return timm_building.load_file(params.model, net, weights)
    raise UnknownNameError(
        f"weights of timm/{params.model}", weights, tags, "or give a .safetensors or .pth file"
    )


def _classes_in(params: TimmParams, file: str) -> int | None:
    from transferbench_plugins.backbones import _timm_building as timm_building

    return timm_building.classes_in(params.model, file)


TIMM = BackboneSpec(
    name="timm",
    version=1,
    summary="Any timm model, as timm/MODEL, with its external weights by tag or file",
    source="Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models",
    license="Apache-2.0",
    params=TimmParams,
    tiny={"model": "test_resnet"},
    build=_build,
    modules=_modules,
    head=_head,
    member="model",
    members=_members,
    preprocessing=_preprocessing,
    batch_statistics=_batch_statistics,
    weights=_weights,
    load_weights=_load_weights,
    classes_in=_classes_in,
)
