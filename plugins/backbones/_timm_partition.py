"""The partition of any timm network into stem, blocks, neck and head, from its tree of submodules.

timm has no common interface for blocks, so the tree is traversed: lists of composite modules are
stages, and their elements are blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from transferbench.errors import PluginError
from transferbench.networks.modules import eval_mode
from transferbench.specs import HEAD

__all__ = ["classifier", "classifier_name", "modules", "record_calls"]

CALLS = "transferbench_calls"
STEM, NECK = "stem", "neck"
LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
STEMS = re.compile(r"stem|embed")
BLOCK_LISTS = frozenset({"blocks", "stages", "transformer_encoder"})
"""timm's names of the list of blocks inside a stage that is not itself a list."""
NUMBERED = re.compile(r"^[a-z]+\d+$")
"""Children such as b1, b2, b3 mark a stage that is no list."""


class NetworkTree(NamedTuple):
    """The names of a network's parameters and buffers.

    ``depths``: path -> the number of module levels at and below it; 1 for a layer.
    """

    names: tuple[str, ...]
    depths: Mapping[str, int]
    head: str


class PartitionUnit(NamedTuple):
    """A submodule, parameter or buffer that is not divided further."""

    path: str
    block: bool


def classifier(net: nn.Module) -> nn.Module:
    """The final layer.

    Raises: ``PluginError`` for networks with several (distilled ones) or none.
    """
    layer = getattr(net, "get_classifier", lambda: None)()
    if not isinstance(layer, nn.Module) or not list(layer.parameters()):
        raise PluginError(
            f"{type(net).__name__} has no single classifier (get_classifier gives"
            f" {type(layer).__name__}); choose a model with one head, such as the variant without"
            " distillation"
        )
    return layer


def classifier_name(net: nn.Module) -> str:
    """The dotted name of the classifier inside ``net``."""
    layer = classifier(net)
    names: dict[nn.Module, str] = {module: name for name, module in net.named_modules()}
    return names[layer]


def record_calls(net: nn.Module, images: Tensor) -> None:
    """Store in ``net`` the order in which a forward pass of ``images`` calls its submodules.

    In some timm models it differs from the order of registration.
    """
    calls: dict[str, int] = {}
    with ExitStack() as hooks, torch.no_grad(), eval_mode(net):
        for name, module in net.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(partial(_record, calls, name)))
        net(images)
    setattr(net, CALLS, calls)


def _record(calls: dict[str, int], name: str, *_: object) -> None:
    calls.setdefault(name, len(calls))


def modules(net: nn.Module) -> dict[str, Sequence[str]]:
    """Module names, from input to output, with the prefixes of their parameters and buffers.

    The layers before the first block are the stem, those between the last block and the classifier
    are the neck. Requires ``record_calls``.
    """
    tree = _tree(net)
    units = _in_call_order(net, list(_units(tree, net, "")))
    if not any(unit.block for unit in units):
        units = list(chain.from_iterable(_split_list(tree, net, unit) for unit in units))
    blocks = [i for i, unit in enumerate(units) if unit.block]
    first, last = (blocks[0], blocks[-1] + 1) if blocks else (len(units), len(units))
    partition: dict[str, Sequence[str]] = {
        STEM: tuple(unit.path for unit in units[:first]),
        **{unit.path: (unit.path,) for unit in units[first:last]},
        NECK: tuple(unit.path for unit in units[last:]),
        HEAD: (tree.head,),
    }
    return {name: prefixes for name, prefixes in partition.items() if prefixes}


def _in_call_order(net: nn.Module, units: list[PartitionUnit]) -> list[PartitionUnit]:
    """``units`` in the order of their first call; a unit without calls follows its predecessor."""
    calls: dict[str, int] = getattr(net, CALLS)
    positions, position = [], -1
    for unit in units:
        inside = (n for name, n in calls.items() if f"{name}.".startswith(f"{unit.path}."))
        position = min(inside, default=position)
        positions.append(position)
    pairs = sorted(zip(positions, units, strict=True), key=lambda pair: pair[0])
    return [unit for _, unit in pairs]


def _tree(net: nn.Module) -> NetworkTree:
    names, depths = tuple(net.state_dict()), dict[str, int]()
    for name in names:
        parts = name.split(".")
        for level in range(1, len(parts)):
            path = ".".join(parts[:level])
            depths[path] = max(depths.get(path, 0), len(parts) - level)
    return NetworkTree(names, depths, classifier_name(net))


def _units(tree: NetworkTree, module: nn.Module, path: str) -> Iterator[PartitionUnit]:
    """The units of the module at ``path`` in order of registration, without the head."""
    own = (name for name in tree.names if name.rpartition(".")[0] == path)
    yield from (PartitionUnit(name, block=False) for name in own)
    for inner, child in _children(tree, module, path).items():
        if inner == tree.head:
            continue
        if tree.head.startswith(f"{inner}."):
            yield from (unit._replace(block=False) for unit in _units(tree, child, inner))
        elif not path and STEMS.search(inner):
            yield PartitionUnit(inner, block=False)
        elif _is_stage(tree, child, inner):
            yield from _units(tree, child, inner)
        else:
            yield PartitionUnit(inner, block=tree.depths[inner] >= (2 if path else 3))


def _children(tree: NetworkTree, module: nn.Module, path: str) -> dict[str, nn.Module]:
    """The children with parameters or buffers, by their paths."""
    children = {f"{path}.{name}".lstrip("."): child for name, child in module.named_children()}
    return {inner: child for inner, child in children.items() if inner in tree.depths}


def _is_stage(tree: NetworkTree, module: nn.Module, path: str) -> bool:
    children = _children(tree, module, path)
    depths = [tree.depths[inner] for inner in children]
    if not children:
        return False
    if isinstance(module, LISTS):
        # A list inside a stage that mixes layers with composite modules is a block.
        return max(depths) >= 2 and ("." not in path or min(depths) >= 2)
    if any(isinstance(children.get(f"{path}.{name}"), LISTS) for name in BLOCK_LISTS):
        return True
    types = {type(child) for child in children.values()}
    numbered = all(NUMBERED.match(inner.rpartition(".")[2]) for inner in children)
    return len(types) == 1 and numbered and min(depths) >= 3 and not types & set(LISTS)


def _split_list(tree: NetworkTree, net: nn.Module, unit: PartitionUnit) -> list[PartitionUnit]:
    """The layers of a list as blocks, for networks without composite modules."""
    module = dict(net.named_modules()).get(unit.path)
    if not isinstance(module, LISTS):
        return [unit]
    return [PartitionUnit(layer, block=True) for layer in _children(tree, module, unit.path)]
