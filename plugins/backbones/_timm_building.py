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

from transferbench.errors import DataError, PluginError, is_out_of_memory
from transferbench_plugins.backbones._timm_adaptations import (
    changed_shapes,
    changes_of_tag,
    channel_fault,
    libraries_silent,
)
from transferbench_plugins.backbones._timm_downloads import without_vain_tries
from transferbench_plugins.backbones._timm_partition import (
    classifier_names,
    has_classifier,
    record_calls,
)
from transferbench_plugins.backbones._weight_loading import (
    head_classes,
    load_weights,
    read_weights,
    with_own_heads,
)

__all__ = [
    "batch_statistics", "build", "build_on_meta", "classes_in", "config", "load_file", "load_tag",
]  # fmt: skip

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


def load_file(model: str, net: nn.Module, file: str) -> str:
    """Load weights from a file into ``net``, which was built by ``build``; returns remarks.

    timm adapts names, first convolution and position embedding to the network. The classifier
    keeps its weights where the number of classes differs.

    Raises: ``DataError`` with the file and the reason where it cannot be loaded or does not fit.
    """
    heads, own = classifier_names(net), net.state_dict()
    weights = read_weights(file, own, heads)
    arguments = dict(getattr(net, ARGUMENTS))
    content = with_own_heads(weights.state, own, heads)
    # timm silently skips missing tensors unless the numbers of classes are equal.
    source = {
        "state_dict": dict(content),
        "num_classes": arguments["num_classes"],
        "label_offset": 0,
        "custom_load": False,
    }
    try:
        state = _pretrained(model, pretrained_cfg_overlay=source, **arguments)
    # timm's adaptations of names and shapes raise anything for weights of another model.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason, advice = channel_fault(config(model), content, own) or (
            _first_lines(error), "give weights of this model",
        )  # fmt: skip
        raise DataError(f"{file} does not fit timm/{model} ({reason}); {advice}") from error
    load_weights(net, state, heads, file)
    return "; ".join((*weights.remarks, *changed_shapes(content, state)))


def classes_in(model: str, file: str) -> int | None:
    """The number of classes of the classifier in a file; None where it holds none of this model.

    Raises: ``DataError`` where the file cannot be read.
    """
    net = build_on_meta(lambda: timm.create_model(model))
    heads = classifier_names(net)
    return head_classes(read_weights(file, net.state_dict(), heads).state, heads)


def _first_lines(error: Exception) -> str:
    lines = [shorten(line, MAX_LINE) for line in str(error).splitlines()[:4]]
    return "; ".join(line.rstrip(":") for line in lines) or type(error).__name__


def load_tag(model: str, net: nn.Module, tag: str) -> str:
    """Load weights by timm's tag into ``net``, as ``load_file`` does; returns remarks.

    Raises: ``DataError`` with the tag and the reason where they cannot be had or loaded.
    """
    arguments = dict(getattr(net, ARGUMENTS))
    del arguments["num_classes"]
    name = f"{model}.{tag}"
    # The hub's client raises any exception of its transport.
    try:
        with without_vain_tries(model, tag, config(name)):
            state = _pretrained(name, **arguments)
    except DataError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the weights {tag!r} of timm/{model} cannot be downloaded or loaded ({reason}); get"
            " them where there is a network and pass the .safetensors or .pth file instead of the"
            " tag"
        ) from error
    load_weights(net, state, classifier_names(net), tag)
    return "; ".join(changes_of_tag(config(name), arguments))


def _pretrained(name: str, **arguments: Any) -> Mapping[str, Tensor]:
    with torch.random.fork_rng(devices=[]), libraries_silent():
        net: nn.Module = timm.create_model(name, pretrained=True, **arguments)
    return net.state_dict()
