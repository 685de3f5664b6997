"""What each declared module of a network puts out: its features, caught in the forward pass.

Shape letters: N images, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from transferbench.networks.modules import Partition
from transferbench.specs import HEAD

__all__ = ["OutputLayers", "module_features", "output_layers"]

DIMENSIONS = range(2, 5)
"""Of an output whose features are known how to be read: vectors, tokens, maps."""


class OutputLayers(NamedTuple):
    """Body module -> the path of the submodule whose output is the module's, in order.

    ``missing``: body module -> why it has no output that could be read.
    """

    paths: dict[str, str]
    missing: dict[str, str]


def output_layers(net: nn.Module, modules: Partition, images: Tensor) -> OutputLayers:
    """Where the output of each module but the head is found, by one forward pass of two images.

    It is the output of the submodule that finishes last of all that hold weights of this module
    alone: a block itself, the normalisation of a stem of two layers. What a network computes
    outside of its submodules (the bias behind a Fixup stem, an activation) is not part of it.
    """
    last: dict[str, tuple[str, object]] = {}

    def note(module: str, path: str, _: nn.Module, __: object, output: object) -> None:
        last[module] = path, output

    few, owners = images[:2], _owners(net, modules)
    hooks = {path: partial(note, module, path) for path, module in owners.items()}
    with torch.no_grad(), _hooked(net, hooks):
        net(few)
    body = [module for module in modules if module != HEAD]
    wrong = {module: _unreadable(module, last, len(few)) for module in body}
    return OutputLayers(
        paths={module: last[module][0] for module in body if wrong[module] is None},
        missing={module: reason for module, reason in wrong.items() if reason is not None},
    )


def _owners(net: nn.Module, modules: Partition) -> dict[str, str]:
    """Submodule path -> the one module that all of its parameters and buffers belong to."""
    owners: dict[str, set[str]] = {}
    for module, names in modules.items():
        for name in names:
            parts = name.split(".")
            for level in range(1, len(parts)):
                owners.setdefault(".".join(parts[:level]), set()).add(module)
    paths = {path for path, _ in net.named_modules()}
    return {path: min(found) for path, found in owners.items() if path in paths and len(found) == 1}


def _unreadable(module: str, last: Mapping[str, tuple[str, object]], n: int) -> str | None:
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
def _hooked(net: nn.Module, hooks: Mapping[str, object]) -> Iterator[None]:
    handles: list[RemovableHandle] = []
    try:
        for path, hook in hooks.items():
            handles.append(net.get_submodule(path).register_forward_hook(hook))  # type: ignore[arg-type]  # any callable of three arguments
        yield
    finally:
        for handle in handles:
            handle.remove()


def module_features(
    net: nn.Module,
    paths: Mapping[str, str],
    batches: Iterable[Tensor],
    *,
    pooled: bool,
    precision: torch.dtype = torch.float32,
) -> Iterator[list[Tensor]]:
    """For each batch the features of each module of ``paths``, in order, sharing nothing.

    ``pooled``: averaged over places or tokens, in float32; else every value is a feature, in the
    type that the layer puts out, in an order of its own.
    ``precision``: of the forward pass; bfloat16 is autocast.
    The network runs in the mode that it is in and is left without hooks.

    Shapes: batches (N, C, H, W); features (N, D).
    """
    read = _pooled if pooled else _flattened
    found: dict[str, Tensor] = {}

    def keep(module: str, _: nn.Module, __: object, output: Tensor) -> None:
        found[module] = read(output)

    hooks = {path: partial(keep, module) for module, path in paths.items()}
    for images in batches:
        autocast = torch.autocast(
            images.device.type, torch.bfloat16, enabled=precision == torch.bfloat16
        )
        # The hooks are gone whenever the caller has the turn, who may never come back.
        with torch.no_grad(), autocast, _hooked(net, hooks):
            net(images)
        yield [found.pop(module) for module in paths]


def _pooled(output: Tensor) -> Tensor:
    """The mean over places or tokens, float32 (N, D).

    Images are square: of maps, the two equal sides are the places, the last two where all three
    are equal.
    """
    if output.ndim == 2:
        return output.to(torch.float32, copy=True)
    if output.ndim == 3:
        return output.mean(1, dtype=torch.float32)
    _, first, second, third = output.shape
    channels_last = first == second != third
    return output.mean((1, 2) if channels_last else (2, 3), dtype=torch.float32)


def _flattened(output: Tensor) -> Tensor:
    """Every value as a feature, (N, D), in the order in which they lie, in memory of its own.

    An activation that works in place behind the layer would change what is only viewed.
    """
    if output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last):
        # Reordered, a copy takes several times as long.
        output = output.permute(0, 2, 3, 1)
    flat = output.flatten(1)
    return flat.clone() if flat.data_ptr() == output.data_ptr() else flat
