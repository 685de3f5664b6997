"""The modules of any timm network: stem, blocks, neck and head, read off its own structure.

timm has no common notion of a block with a name, so the tree of submodules is walked: lists of
composite modules are stages, and what such a list holds is a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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
    head = classifier_name(net)
    units = _called(net, list(_units(net, "", head)))
    if not any(unit.block for unit in units):
        units = list(chain.from_iterable(_opened(net, unit) for unit in units))
    blocks = [place for place, unit in enumerate(units) if unit.block]
    first, last = (blocks[0], blocks[-1] + 1) if blocks else (len(units), len(units))
    found: dict[str, Sequence[str]] = {
        STEM: tuple(unit.path for unit in units[:first]),
        **{unit.path: (unit.path,) for unit in units[first:last]},
        NECK: tuple(unit.path for unit in units[last:]),
        HEAD: (head,),
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


def _units(module: nn.Module, path: str, head: str) -> Iterator[Unit]:
    """``module``'s parts in the order of registration, stages opened and the head left out."""
    yield from (Unit(path + name, block=False) for name in _own_tensors(module))
    for name, child in module.named_children():
        inner = path + name
        if inner == head or not child.state_dict():
            continue
        if f"{head}.".startswith(f"{inner}."):
            yield from (unit._replace(block=False) for unit in _units(child, f"{inner}.", head))
        elif not path and STEMS.search(name):
            yield Unit(inner, block=False)
        elif _is_stage(child, inner=bool(path)):
            yield from _units(child, f"{inner}.", head)
        else:
            yield Unit(inner, block=_depth(child) >= (2 if path else 3))


def _own_tensors(module: nn.Module) -> list[str]:
    return [name for name in module.state_dict() if "." not in name]


def _is_stage(module: nn.Module, *, inner: bool) -> bool:
    children = {name: child for name, child in module.named_children() if child.state_dict()}
    depths = [_depth(child) for child in children.values()]
    if isinstance(module, LISTS):
        # A list inside a stage that mixes layers with composites is a block written as a list.
        return max(depths) >= 2 and not (inner and min(depths) == 1)
    if any(isinstance(children.get(name), LISTS) for name in BLOCK_LISTS):
        return True
    alike = {type(child) for child in children.values()}
    numbered = all(NUMBERED.match(name) for name in children)
    return len(alike) == 1 and numbered and min(depths) >= 3 and not alike & set(LISTS)


def _depth(module: nn.Module) -> int:
    """How many levels of modules with parameters or buffers there are: 1 for a layer."""
    if not module.state_dict():
        return 0
    return 1 + max((_depth(child) for child in module.children()), default=0)


def _opened(net: nn.Module, unit: Unit) -> list[Unit]:
    """The layers of a plain list, as blocks: for networks without any composite module."""
    module = net.get_submodule(unit.path) if unit.path in dict(net.named_modules()) else None
    if not isinstance(module, LISTS):
        return [unit]
    layers = [name for name, layer in module.named_children() if layer.state_dict()]
    return [Unit(f"{unit.path}.{name}", block=True) for name in layers]
