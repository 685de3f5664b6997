"""Building of timm networks, and loading of their weights by timm's own functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from textwrap import shorten
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models import PretrainedCfg, model_entrypoint
from torch import Tensor, nn

from transferbench.errors import DataError, PluginError
from transferbench_plugins.backbones._timm_partition import (
    classifier_names,
    has_classifier,
    record_calls,
)
from transferbench_plugins.backbones._weight_files import (
    is_file,
    load_weights,
    read_weights,
    renamed,
    with_own_heads,
)

__all__ = ["batch_statistics", "build", "build_on_meta", "config", "load"]

ARGUMENTS = "transferbench_arguments"
MAX_LINE = 160
"""Characters of each line of torch's error message, which lists all tensors."""


def config(name: str) -> PretrainedCfg:
    """Timm's configuration of a model, or of its weights where ``name`` has a tag."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def build(model: str, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    """A new network, (N, in_chans, image_size, image_size) -> (N, num_classes).

    Raises: ``PluginError`` where the model has no classifier or would ignore a part of the image.
    """
    shape: dict[str, Any] = {"in_chans": in_chans}
    if config(model).fixed_input_size:
        shape["img_size"] = image_size
    net: nn.Module = timm.create_model(model, num_classes=num_classes, **shape)
    if not has_classifier(net):
        raise PluginError(
            f"timm/{model} has no classifier: it puts out features alone; choose a model with one"
            f"{_like(model)}"
        )
    _check_patches(model, net)
    record_calls(net, torch.zeros(1, in_chans, image_size, image_size))
    setattr(net, ARGUMENTS, {"num_classes": num_classes, **shape})
    return net


def _like(model: str) -> str:
    """The model with a classifier that is named most like ``model``, as an example."""
    module = model_entrypoint(model).__module__.rpartition(".")[2]
    others = get_close_matches(model, timm.list_models(module=module), n=10, cutoff=0)
    for other in others:
        if has_classifier(build_on_meta(partial(timm.create_model, other, num_classes=2))):
            return f", such as timm/{other}"
    return ""


def _check_patches(model: str, net: nn.Module) -> None:
    for layer in net.modules():
        if not isinstance(layer, PatchEmbed) or layer.img_size is None or layer.dynamic_img_pad:
            continue
        size, patch = layer.img_size[0], layer.patch_size[0]
        if rest := size % patch:
            raise PluginError(
                f"timm/{model} cuts images into patches of {patch} px and would ignore the last"
                f" {rest} of {size}; choose an image size that {patch} divides, such as"
                f" {size - rest + patch}, or a model with other patches"
            )


def batch_statistics(model: str) -> bool:
    """Whether the network has buffers of batch statistics."""
    net = build_on_meta(lambda: timm.create_model(model))
    return any(name.endswith("running_mean") for name, _ in net.named_buffers())


def build_on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """A network on the meta device, without memory for its weights, where it can be built there."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build()
        except (RuntimeError, ZeroDivisionError):
            # Some constructors read values of tensors, which meta tensors do not have.
            return build()


def load(model: str, net: nn.Module, weights: str) -> None:
    """Load weights from a file or by timm's tag into ``net``, which was built by ``build``.

    timm adapts names, first convolution and position embedding to the network. The classifier
    keeps its weights where the number of classes differs.

    Raises: ``DataError`` with the weights and the reason where they cannot be loaded or do not fit.
    """
    state = _from_file(model, net, weights) if is_file(weights) else _from_tag(model, net, weights)
    load_weights(net, state, heads=classifier_names(net))


def _from_file(model: str, net: nn.Module, file: str) -> Mapping[str, Tensor]:
    own, arguments = net.state_dict(), dict(getattr(net, ARGUMENTS))
    state = with_own_heads(renamed(file, read_weights(file), own), own, heads=classifier_names(net))
    # timm silently skips missing tensors unless the numbers of classes are equal.
    source = {
        "state_dict": state,
        "num_classes": arguments["num_classes"],
        "label_offset": 0,
        "custom_load": False,
    }
    try:
        return _pretrained(model, pretrained_cfg_overlay=source, **arguments)
    except (RuntimeError, KeyError, ValueError) as error:
        lines = [shorten(line, MAX_LINE) for line in str(error).splitlines()[:4]]
        reason = "; ".join(line.rstrip(":") for line in lines)
        raise DataError(
            f"{file} does not fit timm/{model} ({reason}); give weights of this model"
        ) from error


def _from_tag(model: str, net: nn.Module, tag: str) -> Mapping[str, Tensor]:
    arguments = dict(getattr(net, ARGUMENTS))
    del arguments["num_classes"]
    # The hub's client raises any exception of its transport.
    try:
        return _pretrained(f"{model}.{tag}", **arguments)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the weights {tag!r} of timm/{model} cannot be downloaded or loaded ({reason}); get"
            " them where there is a network and pass the .safetensors or .pth file instead of the"
            " tag"
        ) from error


def _pretrained(name: str, **arguments: Any) -> Mapping[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        net: nn.Module = timm.create_model(name, pretrained=True, **arguments)
    return net.state_dict()
