"""Weights that a network holds under several names, or computes from those of another layer.

Where they belong to two modules no diagnostic could tell whose they are, and they are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from inspect import isfunction
from types import CellType, ModuleType
from typing import Any, NamedTuple, NoReturn

import torch
from torch import nn
from torch.nn.utils import parametrize

from transferbench.errors import PluginError, listing
from transferbench.specs import BackboneSpec

__all__ = ["refuse_computed_weights", "refuse_shared_weights", "shared_names"]

Modules = Mapping[str, Sequence[str]]
LISTED = 6
"""Names in an error message."""
DEPTH = 5
"""Of containers, objects and closures in each other that are looked into."""
NOT_LOOKED_INTO = (nn.Module, type, ModuleType)
"""A layer has its own names; classes and Python modules hold what is everybody's."""


def refuse_shared_weights(spec: BackboneSpec, net: nn.Module, modules: Modules) -> None:
    """Refuse tensors shared by two modules, and sharing that ``net.to(...)`` would undo.

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
    for layer, hidden, name in _unregistered_names(net):
        owner = _owner_of_layer(layer, modules)
        if owner is not None and name not in modules[owner]:
            first = {module: name for module, own in modules.items() if name in own}
            _refuse(spec, first | {owner: f"{layer}.{hidden}"})


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
        _refuse(spec, first)


def _refuse(spec: BackboneSpec, shared: Mapping[str, str]) -> NoReturn:
    """Raise an error on modules that share weights; ``shared``: a name of each."""
    raise PluginError(
        f"backbone {spec.name!r}: the modules {', '.join(map(repr, shared))} share weights"
        f" ({', '.join(shared.values())}), so that none of them can be measured alone; declare"
        " them as one module in modules(), or give each a tensor of its own (clone it)"
    )


class _Memory(NamedTuple):
    """Addresses from ``start`` up to ``end``, and the names of the weights in them."""

    start: int
    end: int
    names: tuple[str, ...]


def shared_names(net: nn.Module) -> list[tuple[str, ...]]:
    """The names of parameters and buffers in one memory, in groups of at least two.

    Tensors that overlap, or are views of different parts of one, count as well as equal ones.
    """
    return [memory.names for memory in _memories(net) if len(memory.names) > 1]


def _memories(net: nn.Module) -> list[_Memory]:
    """The memory of the weights: storages that overlap, as those made of slices of numpy, are one.

    In the order of the names.
    """
    order = {name: i for i, name in enumerate(net.state_dict(keep_vars=True))}
    weights = net.state_dict(keep_vars=True).items()
    memories: list[_Memory] = []
    for own in sorted(_Memory(*_range(tensor), (name,)) for name, tensor in weights):
        if memories and own.start < memories[-1].end:
            last = memories.pop()
            names = tuple(sorted(last.names + own.names, key=order.__getitem__))
            own = _Memory(last.start, max(last.end, own.end), names)  # noqa: PLW2901  # it grew
        memories.append(own)
    return sorted(memories, key=lambda memory: order[memory.names[0]])


def _range(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses of the storage of ``tensor``."""
    storage = tensor.untyped_storage()
    if start := storage.data_ptr():
        return start, start + storage.nbytes()
    # On the meta device there is no address; no other one is below zero.
    identity: int = storage._cdata  # noqa: SLF001  # torch has no other
    return -identity, 1 - identity


# --- tensors that have no name ----------------------------------------------------------------


def _unregistered_names(net: nn.Module) -> Iterator[tuple[str, str, str]]:
    """Tensors that a layer holds beside its parameters and buffers, in a storage of one of these.

    The layer, the attribute that leads to the tensor, and the name of what it shares.
    """
    memories = _memories(net)
    for path, layer in net.named_modules():
        unsaved = layer._non_persistent_buffers_set  # noqa: SLF001  # torch has no public list
        attributes = {**vars(layer), **{name: layer.get_buffer(name) for name in unsaved}}
        for registry in ("_parameters", "_buffers", "_modules"):
            del attributes[registry]
        for attribute, value in attributes.items():
            for tensor in _tensors_in(value, DEPTH, set()):
                start, end = _range(tensor)
                for memory in memories:
                    for name in memory.names if memory.start < end and start < memory.end else ():
                        yield path, attribute, name


def _tensors_in(value: Any, depth: int, visited: set[int]) -> Iterator[torch.Tensor]:
    """The tensors that ``value`` leads to without a layer between."""
    if isinstance(value, torch.Tensor):
        if value.layout is torch.strided:
            yield value
    elif depth and id(value) not in visited and not isinstance(value, NOT_LOOKED_INTO):
        visited.add(id(value))
        for part in _parts(value):
            yield from _tensors_in(part, depth - 1, visited)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if isinstance(value, partial):
        return (*value.args, *value.keywords.values(), value.func)
    if isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        return (*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
    return getattr(value, "__dict__", {}).values()


def _owner_of_layer(path: str, modules: Modules) -> str | None:
    """The module that a layer belongs to: that of its own weights, or else of those around it."""
    while path:
        owners = {module for module, names in modules.items()
                  if any(name.startswith(f"{path}.") for name in names)}  # fmt: skip
        if owners:
            return owners.pop() if len(owners) == 1 else None
        path = path.rpartition(".")[0]
    return None


# --- ways to share that torch keeps or ends ---------------------------------------------------


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
