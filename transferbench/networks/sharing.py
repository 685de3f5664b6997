"""Weights that a network holds under several names, or computes from those of another layer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

__all__ = ["computed_weights", "shared_names", "survives_moving"]


def shared_names(net: nn.Module) -> list[tuple[str, ...]]:
    """The names of parameters and buffers in one storage, in groups of at least two.

    Tensors that overlap, or are views of different parts of one, count as well as equal ones.
    """
    groups: dict[int, list[str]] = {}
    for name, tensor in net.state_dict(keep_vars=True).items():
        # Not the address of its data: tensors on the meta device have none.
        storage = tensor.untyped_storage()._cdata  # noqa: SLF001  # torch has no other identity
        groups.setdefault(storage, []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def survives_moving(net: nn.Module, names: tuple[str, ...]) -> bool:
    """Whether ``names`` still share a storage on another device or in another memory format.

    torch moves each layer and each parameter once, but buffers and views of each layer alone.
    """
    tensors = net.state_dict(keep_vars=True)
    first = tensors[names[0]]
    if isinstance(first, nn.Parameter) and all(tensors[name] is first for name in names):
        return True
    paths = (name.rpartition(".") for name in names)
    return len({(id(net.get_submodule(path)), own) for path, _, own in paths}) == 1


def computed_weights(net: nn.Module) -> Iterator[tuple[str, list[str]]]:
    """Each parametrized weight, with the names of the parameters that it is computed from.

    In eval mode, where parametrizations such as a spectral norm change no buffer.
    """
    parameters = {n: p for n, p in net.named_parameters() if p.requires_grad}
    for path, layer in net.named_modules():
        for name in layer.parametrizations if parametrize.is_parametrized(layer) else ():
            with torch.enable_grad():
                weight = getattr(layer, name)
            if weight.requires_grad:
                gradients = torch.autograd.grad(
                    weight.sum(), tuple(parameters.values()), allow_unused=True
                )
                used = zip(parameters, gradients, strict=True)
                yield f"{path}.{name}", [n for n, gradient in used if gradient is not None]
