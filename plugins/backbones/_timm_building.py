"""Building timm networks and loading their weights, through timm's own paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from textwrap import shorten
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models import PretrainedCfg
from torch import Tensor, nn

from transferbench.errors import DataError, PluginError
from transferbench_plugins.backbones._timm_partition import (
    classifier,
    classifier_name,
    record_calls,
)
from transferbench_plugins.backbones._weight_files import fill, is_file, read_weights, renamed

__all__ = ["batch_statistics", "build", "config", "load", "outline"]

ARGUMENTS = "transferbench_arguments"
LONGEST_LINE = 160
"""Characters of a line of torch's error in ours: it names every tensor of a large network."""


def config(name: str) -> PretrainedCfg:
    """What timm declares about a model, or about its weights where ``name`` carries a tag."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def build(model: str, num_classes: int, in_chans: int, image_size: int) -> nn.Module:
    """A new network, (N, in_chans, image_size, image_size) -> (N, num_classes).

    Raises: ``PluginError`` where the model has several classifiers or would not see the whole
    image.
    """
    shape: dict[str, Any] = {"in_chans": in_chans}
    if config(model).fixed_input_size:
        shape["img_size"] = image_size
    net: nn.Module = timm.create_model(model, num_classes=num_classes, **shape)
    classifier(net)
    _check_patches(model, net)
    record_calls(net, torch.zeros(1, in_chans, image_size, image_size))
    setattr(net, ARGUMENTS, {"num_classes": num_classes, **shape})
    return net


def _check_patches(model: str, net: nn.Module) -> None:
    for layer in net.modules():
        if not isinstance(layer, PatchEmbed) or layer.img_size is None or layer.dynamic_img_pad:
            continue
        size, patch = layer.img_size[0], layer.patch_size[0]
        if size % patch:
            raise PluginError(
                f"timm/{model} cuts images into patches of {patch} px and would ignore the last"
                f" {size % patch} of {size}; choose an image size that {patch} divides, or a model"
                " with other patches"
            )


def batch_statistics(model: str) -> bool:
    """Whether the network normalises by running statistics of batches."""
    net = outline(lambda: timm.create_model(model))
    return any(name.endswith("running_mean") for name, _ in net.named_buffers())


def outline(make: Callable[[], nn.Module]) -> nn.Module:
    """A network for its structure alone, without memory for weights wherever that is possible."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return make()
        except (RuntimeError, ZeroDivisionError):
            # Some models compute with values while they are built, which meta tensors have not.
            return make()


def load(model: str, net: nn.Module, weights: str) -> None:
    """Fill ``net``, built by ``build``, from a file or from what timm knows under a tag.

    timm adapts names, first convolution and position embedding to the network. The classifier
    keeps its own weights where it has other classes.

    Raises: ``DataError`` naming the weights and what does not fit or cannot be had.
    """
    state = _from_file(model, net, weights) if is_file(weights) else _from_tag(model, net, weights)
    fill(net, state, head=classifier_name(net))


def _from_file(model: str, net: nn.Module, file: str) -> Mapping[str, Tensor]:
    head, own, arguments = classifier_name(net), net.state_dict(), dict(getattr(net, ARGUMENTS))
    state = renamed(file, read_weights(file), own)
    if f"{head}.weight" in state:
        arguments["num_classes"] = len(state[f"{head}.weight"])
    else:
        state |= {name: own[name] for name in own if name.startswith(f"{head}.")}
    # timm loads strictly only where the classes agree: it would skip missing tensors in silence.
    source = {
        "state_dict": state,
        "num_classes": arguments["num_classes"],
        "label_offset": 0,
        "custom_load": False,
    }
    try:
        return _pretrained(model, pretrained_cfg_overlay=source, **arguments)
    except (RuntimeError, KeyError, ValueError) as error:
        lines = [shorten(line, LONGEST_LINE) for line in str(error).splitlines()[:4]]
        reason = "; ".join(line.rstrip(":") for line in lines)
        raise DataError(
            f"{file} does not fit timm/{model} ({reason}); give weights of this model"
        ) from error


def _from_tag(model: str, net: nn.Module, tag: str) -> Mapping[str, Tensor]:
    arguments = dict(getattr(net, ARGUMENTS))
    del arguments["num_classes"]
    # The hub's clients raise whatever their transport raises.
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
        donor: nn.Module = timm.create_model(name, pretrained=True, **arguments)
    return donor.state_dict()
