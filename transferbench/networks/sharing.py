"""Weights that a network holds under several names, or computes from those of another layer.

Where they belong to two modules no diagnostic could tell whose they are, and they are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn.utils import parametrize

from transferbench.errors import PluginError, listing
from transferbench.specs import BackboneSpec

__all__ = ["refuse_computed_weights", "refuse_shared_weights", "shared_names"]

Modules = Mapping[str, Sequence[str]]
LISTED = 6
"""Names in an error message."""


def refuse_shared_weights(spec: BackboneSpec, net: nn.Module, modules: Modules) -> None:
    """Refuse tensors that two modules share, and such as torch would separate.

    Raises: ``PluginError`` with the modules and the names.
    """
    for names in shared_names(net):
        _refuse_several(spec, names, modules)
        if not _survives_moving(net, names):
            raise PluginError(
                f"backbone {spec.name!r}: {listing(names, LISTED)} share memory, which torch"
                " separates on another device or in another memory format; register one"
                " nn.Parameter under these names, or give each a tensor of its own (clone it)"
            )


def refuse_computed_weights(spec: BackboneSpec, net: nn.Module, modules: Modules) -> None:
    """Refuse parametrized weights that are computed from weights of another module.

    ``net`` is in eval mode. Raises: ``PluginError`` with the modules and the names.
    """
    for weight, used in _computed_weights(net):
        prefix = f"{weight.rpartition('.')[0]}.parametrizations."
        own = [name for names in modules.values() for name in names if name.startswith(prefix)]
        _refuse_several(spec, [*used, *own], modules)


def _refuse_several(spec: BackboneSpec, names: Iterable[str], modules: Modules) -> None:
    """Raise an error where weights that belong together are of more than one module."""
    owners = {name: module for module, own in modules.items() for name in own}
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(owners[name], name)
    if len(first) > 1:
        raise PluginError(
            f"backbone {spec.name!r}: the modules {', '.join(map(repr, first))} share weights"
            f" ({', '.join(first.values())}), so that none of them can be measured alone; declare"
            " them as one module in modules(), or give each a tensor of its own (clone it)"
        )


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


def _survives_moving(net: nn.Module, names: tuple[str, ...]) -> bool:
    """Whether ``names`` still share a storage on another device or in another memory format.

    torch moves each layer and each parameter once, but buffers and views of each layer alone.
    """
    tensors = net.state_dict(keep_vars=True)
    first = tensors[names[0]]
    if isinstance(first, nn.Parameter) and all(tensors[name] is first for name in names):
        return True
    paths = (name.rpartition(".") for name in names)
    return len({(id(net.get_submodule(path)), own) for path, _, own in paths}) == 1


def _computed_weights(net: nn.Module) -> Iterator[tuple[str, list[str]]]:
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
