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

from transferbench.networks.modules import eval_mode, head_layers
from transferbench.networks.sharing import shared_names
from transferbench.specs import HEAD

__all__ = ["classifier", "classifier_names", "has_classifier", "modules", "record_calls"]

CALLS, WEIGHTING = "transferbench_calls", "transferbench_weighting"
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
    ``heads``: the layers of the classifier, and parameters that weigh their outputs.
    """

    names: tuple[str, ...]
    depths: Mapping[str, int]
    heads: tuple[str, ...]

    def holds_head(self, path: str) -> bool:
        """Whether a layer of the classifier is inside ``path``."""
        return any(head.startswith(f"{path}.") for head in self.heads)


class PartitionUnit(NamedTuple):
    """A submodule, parameter or buffer that is not divided further.

    ``others``: paths whose weights it shares.
    """

    path: str
    block: bool
    others: tuple[str, ...] = ()


def has_classifier(net: nn.Module) -> bool:
    """Whether the network makes logits; encoders put out features alone."""
    layers = head_layers(classifier(net))
    return any(list(layer.parameters()) for layer in layers)


def classifier(net: nn.Module) -> nn.Module:
    """The final layer, or a list of those whose outputs are combined (distilled ones)."""
    layer = getattr(net, "get_classifier", nn.Identity)()
    # A tuple of layers, and None in an encoder.
    return nn.ModuleList(layer or ()) if isinstance(layer, tuple | None) else layer


def classifier_names(net: nn.Module) -> tuple[str, ...]:
    """The dotted names of the classifier's layers inside ``net``."""
    layer = classifier(net)
    names: dict[nn.Module, str] = {module: name for name, module in net.named_modules()}
    # A list that the network itself holds has a name; one of separate layers has none.
    return (names[layer],) if layer in names else tuple(names[part] for part in layer.children())


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
    setattr(net, WEIGHTING, _weighting(net, images))


def _weighting(net: nn.Module, images: Tensor) -> list[str]:
    """The parameters of ``net`` itself that weigh the outputs of several classifiers."""
    heads = head_layers(classifier(net))
    own = dict(net.named_parameters(recurse=False))
    if len(heads) == 1 or not own:
        return []
    with ExitStack() as hooks, torch.enable_grad(), eval_mode(net):
        for layer in heads:
            hooks.enter_context(layer.register_forward_pre_hook(_detached))
        gradients = torch.autograd.grad(net(images).sum(), tuple(own.values()), allow_unused=True)
    return [name for name, gradient in zip(own, gradients, strict=True) if gradient is not None]


def _detached(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.detach() for tensor in inputs)


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
    units = _joined(units, shared_names(net))
    blocks = [i for i, unit in enumerate(units) if unit.block]
    first, last = (blocks[0], blocks[-1] + 1) if blocks else (len(units), len(units))
    partition: dict[str, Sequence[str]] = {
        STEM: _paths(units[:first]),
        **{unit.path: _paths([unit]) for unit in units[first:last]},
        NECK: _paths(units[last:]),
        HEAD: tree.heads,
    }
    return {name: prefixes for name, prefixes in partition.items() if prefixes}


def _paths(units: Sequence[PartitionUnit]) -> tuple[str, ...]:
    return tuple(path for unit in units for path in (unit.path, *unit.others))


def _joined(units: list[PartitionUnit], shared: Sequence[Sequence[str]]) -> list[PartitionUnit]:
    """``units`` in which those that share weights, and those between them, are one.

    It has the name of its first block.
    """
    for names in shared:
        sharing = [
            position
            for position, unit in enumerate(units)
            if any(_is_below(name, path) for name in names for path in _paths([unit]))
        ]
        if len(sharing) > 1:
            joined = units[sharing[0] : sharing[-1] + 1]
            first = next((unit for unit in joined if unit.block), joined[0])
            others = _paths([unit for unit in joined if unit is not first])
            one_unit = first._replace(others=(*first.others, *others))
            units = [*units[: sharing[0]], one_unit, *units[sharing[-1] + 1 :]]
    return units


def _is_below(name: str, path: str) -> bool:
    return f"{name}.".startswith(f"{path}.")


def _in_call_order(net: nn.Module, units: list[PartitionUnit]) -> list[PartitionUnit]:
    """``units`` in the order of their first call; a unit without calls follows its predecessor."""
    calls: dict[str, int] = getattr(net, CALLS)
    positions, position = [], -1
    for unit in units:
        inside = (n for name, n in calls.items() if _is_below(name, unit.path))
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
    weighting: list[str] = getattr(net, WEIGHTING)
    return NetworkTree(names, depths, (*classifier_names(net), *weighting))


def _units(tree: NetworkTree, module: nn.Module, path: str) -> Iterator[PartitionUnit]:
    """The units of the module at ``path`` in order of registration, without the head."""
    own = (name for name in tree.names if name.rpartition(".")[0] == path)
    yield from (PartitionUnit(name, block=False) for name in own if name not in tree.heads)
    for inner, child in _children(tree, module, path).items():
        if inner in tree.heads:
            continue
        if tree.holds_head(inner):
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
