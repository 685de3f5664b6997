"""Outputs of a network's declared modules, recorded by forward hooks.

Shape letters: N images, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from transferbench.networks.modules import Partition
from transferbench.specs import HEAD

__all__ = ["OutputLayers", "module_features", "output_layers"]

DIMENSIONS = range(2, 5)
"""Of outputs that can be read as features: vectors, tokens, maps."""


class OutputLayers(NamedTuple):
    """``paths``: body module -> path of the submodule that computes its output, in order.

    ``missing``: body module -> the reason why it has no usable output.
    """

    paths: dict[str, str]
    missing: dict[str, str]


def output_layers(net: nn.Module, modules: Partition, images: Tensor) -> OutputLayers:
    """Find the submodule that computes the output of each module but the head.

    It is the last submodule to return, in a forward pass of two images, among those that only hold
    weights of this module: a block itself, or the normalisation of a two-layer stem. Computation
    outside of submodules (the bias after a Fixup stem, an activation) is not part of the output.
    """
    last: dict[str, tuple[str, object]] = {}

    def record(module: str, path: str, _: nn.Module, __: object, output: object) -> None:
        last[module] = path, output

    few, owners = images[:2], _owners(net, modules)
    hooks = {path: partial(record, module, path) for path, module in owners.items()}
    with torch.no_grad(), _forward_hooks(net, hooks):
        net(few)
    body = [module for module in modules if module != HEAD]
    problems = {module: _problem(module, last, len(few)) for module in body}
    return OutputLayers(
        paths={module: last[module][0] for module in body if problems[module] is None},
        missing={module: reason for module, reason in problems.items() if reason is not None},
    )


def _owners(net: nn.Module, modules: Partition) -> dict[str, str]:
    """Submodule path -> the module that owns all of its parameters and buffers, if a single one."""
    owners: dict[str, set[str]] = {}
    for module, names in modules.items():
        for name in names:
            parts = name.split(".")
            for level in range(1, len(parts)):
                owners.setdefault(".".join(parts[:level]), set()).add(module)
    paths = {path for path, _ in net.named_modules()}
    return {path: min(names) for path, names in owners.items() if path in paths and len(names) == 1}


def _problem(module: str, last: Mapping[str, tuple[str, object]], n: int) -> str | None:
    if module not in last:
        return f"no layer of module {module!r} is called in a forward pass"
    path, output = last[module]
    if not isinstance(output, Tensor):
        return f"layer {path!r} of module {module!r} puts out no tensor: {type(output).__name__}"
    if output.ndim not in DIMENSIONS or len(output) != n:
        shape = tuple(output.shape)
        return f"layer {path!r} of module {module!r} puts out shape {shape} for {n} images"
    return None


@contextmanager
def _forward_hooks(net: nn.Module, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    with ExitStack() as handles:
        for path, hook in hooks.items():
            handles.enter_context(net.get_submodule(path).register_forward_hook(hook))
        yield


def module_features(
    net: nn.Module,
    paths: Mapping[str, str],
    batches: Iterable[Tensor],
    *,
    pooled: bool,
    precision: torch.dtype = torch.float32,
) -> Iterator[list[Tensor]]:
    """For each batch the features of each module of ``paths``, in order, in memory of their own.

    ``pooled``: averaged over positions or tokens, in float32; else all values of the output,
    flattened in memory order, in the layer's dtype.
    ``precision``: of the forward pass; bfloat16 uses autocast.
    The network runs in its current mode. Hooks are removed before each yield.

    Shapes: batches (N, C, H, W); features (N, D).
    """
    read = _pooled if pooled else _flattened
    outputs: dict[str, Tensor] = {}

    def record(module: str, _: nn.Module, __: object, output: Tensor) -> None:
        outputs[module] = read(output)

    hooks = {path: partial(record, module) for module, path in paths.items()}
    for images in batches:
        autocast = torch.autocast(
            images.device.type, torch.bfloat16, enabled=precision == torch.bfloat16
        )
        with torch.no_grad(), autocast, _forward_hooks(net, hooks):
            net(images)
        yield [outputs.pop(module) for module in paths]


def _pooled(output: Tensor) -> Tensor:
    """The mean over positions or tokens, float32 (N, D).

    Maps are taken to be square: the two equal axes are the positions, or the last two axes where
    all three are equal.
    """
    if output.ndim == 2:
        return output.to(torch.float32, copy=True)
    if output.ndim == 3:
        return output.mean(1, dtype=torch.float32)
    _, first, second, third = output.shape
    channels_last = first == second != third
    return output.mean((1, 2) if channels_last else (2, 3), dtype=torch.float32)


def _flattened(output: Tensor) -> Tensor:
    """All values as features, (N, D), in memory order, copied.

    An in-place activation after the layer would overwrite a view.
    """
    if output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last):
        # Copying in another order takes several times as long.
        output = output.permute(0, 2, 3, 1)
    flat = output.flatten(1)
    return flat.clone() if flat.data_ptr() == output.data_ptr() else flat
