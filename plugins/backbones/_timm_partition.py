"""The modules of any timm network: stem, blocks, neck and head, read off its own structure.

timm has no common notion of a block with a name, so the tree of submodules is walked: lists of
composite modules are stages, and what such a list holds is a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from transferbench.errors import PluginError
from transferbench.specs import HEAD

__all__ = ["classifier", "classifier_name", "modules", "record_calls"]

CALLS = "transferbench_calls"
STEM, NECK = "stem", "neck"
LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
STEMS = re.compile(r"stem|embed")
BLOCK_LISTS = frozenset({"blocks", "stages", "transformer_encoder"})
"""What timm calls the list of blocks inside a stage that is not itself a list."""
NUMBERED = re.compile(r"^[a-z]+\d+$")
"""Children such as b1, b2, b3 make a stage of a module that is no list."""


class Tree(NamedTuple):
    """A network by the names of its parameters and buffers.

    ``depths``: how many levels of modules hold them at and below a path; 1 for a layer.
    """

    names: tuple[str, ...]
    depths: Mapping[str, int]
    head: str


class Unit(NamedTuple):
    """A submodule, parameter or buffer that is not divided further."""

    path: str
    block: bool


def classifier(net: nn.Module) -> nn.Module:
    """The one layer that makes the logits.

    Raises: ``PluginError`` for networks with several (distilled ones) or none.
    """
    found = getattr(net, "get_classifier", lambda: None)()
    if not isinstance(found, nn.Module) or not list(found.parameters()):
        raise PluginError(
            f"{type(net).__name__} has no single classifier (get_classifier gives"
            f" {type(found).__name__}); choose a model with one head, such as the variant without"
            " distillation"
        )
    return found


def classifier_name(net: nn.Module) -> str:
    """The dotted name of the classifier inside ``net``."""
    layer = classifier(net)
    names: dict[nn.Module, str] = {module: name for name, module in net.named_modules()}
    return names[layer]


def record_calls(net: nn.Module, images: Tensor) -> None:
    """Note on ``net`` in which order one forward pass of ``images`` calls its submodules.

    The order of registration is not that of the forward pass in every timm model.
    """
    calls: dict[str, int] = {}
    hooks = [
        module.register_forward_pre_hook(partial(_note, calls, name))
        for name, module in net.named_modules()
    ]
    training = net.training
    with torch.no_grad():
        net.eval()(images)
    net.train(training)
    for hook in hooks:
        hook.remove()
    setattr(net, CALLS, calls)


def _note(calls: dict[str, int], name: str, *_: object) -> None:
    calls.setdefault(name, len(calls))


def modules(net: nn.Module) -> dict[str, Sequence[str]]:
    """Module names, from input to output, with the prefixes of their parameters and buffers.

    What comes before the first block is the stem, what comes after the last one and is not the
    classifier is the neck. ``net`` went through ``record_calls``.
    """
    tree = _tree(net)
    units = _called(net, list(_units(tree, net, "")))
    if not any(unit.block for unit in units):
        units = list(chain.from_iterable(_opened(tree, net, unit) for unit in units))
    blocks = [place for place, unit in enumerate(units) if unit.block]
    first, last = (blocks[0], blocks[-1] + 1) if blocks else (len(units), len(units))
    found: dict[str, Sequence[str]] = {
        STEM: tuple(unit.path for unit in units[:first]),
        **{unit.path: (unit.path,) for unit in units[first:last]},
        NECK: tuple(unit.path for unit in units[last:]),
        HEAD: (tree.head,),
    }
    return {name: prefixes for name, prefixes in found.items() if prefixes}


def _called(net: nn.Module, units: list[Unit]) -> list[Unit]:
    """``units`` in the order of their first call; what is never called follows its predecessor."""
    calls: dict[str, int] = getattr(net, CALLS)
    places, place = [], -1
    for unit in units:
        inside = (n for name, n in calls.items() if f"{name}.".startswith(f"{unit.path}."))
        place = min(inside, default=place)
        places.append(place)
    return [unit for _, unit in sorted(zip(places, units, strict=True), key=lambda pair: pair[0])]


def _tree(net: nn.Module) -> Tree:
    names, depths = tuple(net.state_dict()), dict[str, int]()
    for name in names:
        parts = name.split(".")
        for level in range(1, len(parts)):
            path = ".".join(parts[:level])
            depths[path] = max(depths.get(path, 0), len(parts) - level)
    return Tree(names, depths, classifier_name(net))


def _units(tree: Tree, module: nn.Module, path: str) -> Iterator[Unit]:
    """The parts of the module at ``path`` as registered, stages opened and the head left out."""
    yield from (Unit(name, block=False) for name in tree.names if name.rpartition(".")[0] == path)
    for inner, child in _children(tree, module, path).items():
        if inner == tree.head:
            continue
        if tree.head.startswith(f"{inner}."):
            yield from (unit._replace(block=False) for unit in _units(tree, child, inner))
        elif not path and STEMS.search(inner):
            yield Unit(inner, block=False)
        elif _is_stage(tree, child, inner):
            yield from _units(tree, child, inner)
        else:
            yield Unit(inner, block=tree.depths[inner] >= (2 if path else 3))


def _children(tree: Tree, module: nn.Module, path: str) -> dict[str, nn.Module]:
    """The children that hold parameters or buffers, by their paths."""
    found = {f"{path}.{name}".lstrip("."): child for name, child in module.named_children()}
    return {inner: child for inner, child in found.items() if inner in tree.depths}


def _is_stage(tree: Tree, module: nn.Module, path: str) -> bool:
    children = _children(tree, module, path)
    depths = [tree.depths[inner] for inner in children]
    if not children:
        return False
    if isinstance(module, LISTS):
        # A list inside a stage that mixes layers with composites is a block written as a list.
        return max(depths) >= 2 and ("." not in path or min(depths) >= 2)
    if any(isinstance(children.get(f"{path}.{name}"), LISTS) for name in BLOCK_LISTS):
        return True
    alike = {type(child) for child in children.values()}
    numbered = all(NUMBERED.match(inner.rpartition(".")[2]) for inner in children)
    return len(alike) == 1 and numbered and min(depths) >= 3 and not alike & set(LISTS)


def _opened(tree: Tree, net: nn.Module, unit: Unit) -> list[Unit]:
    """The layers of a plain list, as blocks: for networks without any composite module."""
    module = dict(net.named_modules()).get(unit.path)
    if not isinstance(module, LISTS):
        return [unit]
    return [Unit(layer, block=True) for layer in _children(tree, module, unit.path)]
