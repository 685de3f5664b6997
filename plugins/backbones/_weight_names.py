"""Which tensors of a file are a network's: wrappers are undone by name, whatever else is there.

A wrapper is undone where the names then are those of the network, and not otherwise. Two networks
in one file are a mistake, unless one is the moving average of the other.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transferbench.errors import DataError, listing
from transferbench.streams import one_line

__all__ = ["MatchedWeights", "match_names"]

TRANSPARENT = frozenset(
    {
        "module",  # DataParallel, DistributedDataParallel, AveragedModel
        "_orig_mod",  # torch.compile
        "_fsdp_wrapped_module",
        "_checkpoint_wrapped_module",
        "_forward_module",  # Lightning Fabric
    }
)
"""What wrappers put into names, also inside them where they wrap a layer."""
AVERAGE = re.compile(r"(?:^|[._])(?:ema|swa|averaged?|shadow)(?:[._]|$)", re.IGNORECASE)
NESTS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
"""Where training scripts put weights; of several, timm takes the first too."""
COUNTERS = ("total_ops", "total_params")
"""Tensors that thop leaves in every layer that it counts."""
UNTRAINED = "num_batches_tracked"
"""A buffer that old files lack, and that torch fills in."""
MAX_DEPTH, MAX_CONTAINERS, MAX_NAME = 8, 1_000_000, 500
LISTED, MAX_PRINTED = 4, 60


class MatchedWeights(NamedTuple):
    """Tensors by the network's names; ``remarks``: what was undone, ignored or matched by order."""

    state: dict[str, Tensor]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Network:
    """The tensors of a network, and the names of the layers of its head."""

    own: Mapping[str, Tensor]
    heads: Sequence[str]

    @cached_property
    def transparent(self) -> frozenset[str]:
        """The wrappers' parts of names that no name of the network has itself."""
        return TRANSPARENT - {part for name in self.own for part in name.split(".")}

    @cached_property
    def body(self) -> set[str]:
        """The names that weights must have: those outside the head."""
        names = {name for name in self.own if not self.is_in_head(name)}
        return {name for name in names if not name.endswith(UNTRAINED)}

    def is_in_head(self, name: str) -> bool:
        """Whether a tensor belongs to the head, or would replace it."""
        return name.startswith(tuple(f"{head}." for head in self.heads))


@dataclass(frozen=True)
class _Candidate:
    """The tensors of one container behind one prefix, by their names without wrappers.

    ``keys``: the way to the container. ``matched``: how many names are of the network's body.
    ``twice``: names of two different tensors, inside a wrapper and without.
    """

    keys: tuple[str, ...]
    prefix: str
    state: Mapping[str, Tensor]
    matched: int
    same_shape: int
    twice: Sequence[str]

    @property
    def label(self) -> str:
        """Where in the file the tensors are."""
        return repr(_printable(".".join([*self.keys, self.prefix]).strip(".")) or "the file")

    @property
    def nest(self) -> int:
        """The position of its container among the usual ones."""
        first = self.keys[0] if self.keys else ""
        return NESTS.index(first) if first in NESTS else len(NESTS)

    @property
    def is_average(self) -> bool:
        """Whether the weights are a moving average over the training."""
        return any(AVERAGE.search(part) for part in (*self.keys, self.prefix))


def match_names(
    file: str, content: Any, own: Mapping[str, Tensor], heads: Sequence[str], *, ordered: bool
) -> MatchedWeights:
    """The tensors of ``content`` that are the network's, ``own`` by name.

    Where no names are the network's, those of a file are taken as they are, or by their order
    where it is ``ordered`` and has the same kinds of tensors.

    Raises: ``DataError`` where there are no named tensors, or those of two networks.
    """
    network = _Network(own, heads)
    candidates = [
        candidate
        for keys, container in _containers(content)
        for candidate in _candidates(keys, container, network)
    ]
    most = max((candidate.matched for candidate in candidates), default=0)
    if 2 * most < len(network.body) or not most:
        return _unmatched(file, content, network, ordered=ordered)
    best = _choose(file, [each for each in candidates if each.matched == most])
    state = dict(best.state)
    if most == len(network.body):
        state = {name: tensor for name, tensor in state.items() if _belongs(name, network)}
    return MatchedWeights(state, tuple(_remarks(content, best, state, network)))


# --- what a file holds ------------------------------------------------------------------------


def _containers(content: Any) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Every mapping in a file once, with the keys that lead to it."""
    queue: list[tuple[tuple[str, ...], Any]] = [((), content)]
    visited: set[int] = set()
    for keys, value in queue:
        if not isinstance(value, (Mapping, list, tuple)) or id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, Mapping):
            yield keys, value
        if len(keys) < MAX_DEPTH and len(queue) < MAX_CONTAINERS:
            members = value.items() if isinstance(value, Mapping) else enumerate(value)
            queue += [((*keys, str(key)), member) for key, member in members]


def _tensors(container: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in container.items()
        if isinstance(value, Tensor) and isinstance(name, str) and len(name) <= MAX_NAME
    }


def _candidates(
    keys: tuple[str, ...], container: Mapping[Any, Any], network: _Network
) -> Iterator[_Candidate]:
    """One candidate for each prefix behind which a name is of the network's body."""
    by_prefix: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    twice: defaultdict[str, list[str]] = defaultdict(list)
    for name, tensor in _tensors(container).items():
        for prefix, rest in _splits(name, network.transparent):
            other = by_prefix[prefix].setdefault(rest, tensor)
            if other is not tensor and not _equal(other, tensor):
                twice[prefix].append(rest)
    for prefix, state in by_prefix.items():
        if matched := network.body & state.keys():
            same = sum(state[name].shape == network.own[name].shape for name in matched)
            yield _Candidate(keys, prefix, state, len(matched), same, twice[prefix])


def _splits(name: str, transparent: frozenset[str]) -> Iterator[tuple[str, str]]:
    """A name as prefix and rest, at each part; the rest without what wrappers put into it."""
    parts = name.split(".")
    for count, part in enumerate(parts):
        if part not in transparent:
            rest = ".".join(part for part in parts[count:] if part not in transparent)
            yield "".join(f"{part}." for part in parts[:count]), rest


# --- the choice -------------------------------------------------------------------------------


def _choose(file: str, candidates: Sequence[_Candidate]) -> _Candidate:
    """The one of the candidates that is the network.

    Of several that fit, the one in the first of the usual nests; of weights and their average, the
    average.
    """
    most = max(candidate.same_shape for candidate in candidates)
    fitting = [candidate for candidate in candidates if candidate.same_shape == most]
    nest = min(candidate.nest for candidate in fitting)
    fitting = [candidate for candidate in fitting if candidate.nest == nest]
    first, *others = [each for each in fitting if each.is_average] or fitting
    labels = [each.label for each in others if not _same_state(first.state, each.state)]
    if labels:
        raise DataError(
            f"{file} holds several networks that fit: {listing([first.label, *labels], LISTED)};"
            " save the one that you mean alone, as torch.save(net.state_dict(), FILE)"
        )
    if first.twice:
        raise DataError(
            f"{file} holds two tensors {first.twice[0]}, one of them behind a wrapper; save the"
            " network alone, as torch.save(net.state_dict(), FILE)"
        )
    return first


def _same_state(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return all(_equal(a[name], b[name]) for name in a.keys() & b.keys())


def _equal(a: Tensor, b: Tensor) -> bool:
    if (a.dtype, a.shape, a.layout) != (b.dtype, b.shape, b.layout) or a.is_meta or b.is_meta:
        return False
    return a.layout == torch.strided and not a.is_quantized and torch.equal(a, b)


def _belongs(name: str, network: _Network) -> bool:
    """Whether a tensor beside a complete body is the network's own, or must be refused.

    Not those of another head, and not those of layers beside the network, such as a projector.
    """
    if name in network.own:
        return True
    part, separator, _ = name.partition(".")
    beside = bool(separator) and part not in {own.partition(".")[0] for own in network.own}
    counts = name.rpartition(".")[2] in COUNTERS
    return not (beside or counts or network.is_in_head(name))


def _remarks(
    content: Any, best: _Candidate, state: Mapping[str, Tensor], network: _Network
) -> Iterator[str]:
    """What was undone and ignored, for a line that the user reads."""
    if best.keys:
        yield f"read from {_printable('.'.join(best.keys))!r}"
    if best.prefix:
        yield f"removed {_printable(best.prefix)!r} from the names"
    ignored: list[str] = []
    container = content
    for key in best.keys:
        pairs = container.items() if isinstance(container, Mapping) else enumerate(container)
        members = {str(name): member for name, member in pairs}
        ignored += [name for name in members if name != key]
        container = members[key]
    inner: set[str] = set()
    for name, value in container.items():
        rest = _rest(name, value, best.prefix, network)
        if rest in state:
            inner |= network.transparent & set(name.removeprefix(best.prefix).split("."))
        else:
            depth = max(best.prefix.count("."), 1)
            ignored.append(rest or ".".join(str(name).split(".")[:depth]))
    if inner:
        yield f"removed {', '.join(sorted(f'{part}.' for part in inner))!r} inside the names"
    if ignored:
        yield f"ignored {listing([_printable(name) for name in dict.fromkeys(ignored)], LISTED)}"


def _rest(name: Any, value: Any, prefix: str, network: _Network) -> str | None:
    """The name of a tensor behind the prefix, without what wrappers put into it."""
    if name not in _tensors({name: value}):
        return None
    return dict(_splits(name, network.transparent)).get(prefix)


def _printable(name: str) -> str:
    """A name of a file, which may be anything, for a line on a terminal."""
    return shorten(one_line(name), MAX_PRINTED)


# --- names that are not the network's ---------------------------------------------------------


def _unmatched(file: str, content: Any, network: _Network, *, ordered: bool) -> MatchedWeights:
    """The tensors in the usual nests, by their own names or by order."""
    keys: list[str] = []
    while isinstance(content, Mapping):
        nest = next((key for key in NESTS if isinstance(content.get(key), Mapping)), None)
        if nest is None or len(keys) == MAX_DEPTH:
            break
        keys.append(nest)
        content = content[nest]
    state = _tensors(content) if isinstance(content, Mapping) else {}
    if not state:
        raise DataError(
            f"{file} holds {type(content).__name__}, not named tensors; give a state dict"
        )
    remarks = [f"read from {'.'.join(keys)!r}"] if keys else []
    removed = ""
    while prefix := _common_wrapper(state, network.transparent):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        removed += prefix
    if removed:
        remarks.append(f"removed {removed!r} from the names")
    if ordered and not state.keys() & network.own.keys() and _kinds(state) == _kinds(network.own):
        remarks.append("matched by order, since no name is the network's")
        state = dict(zip(network.own, state.values(), strict=True))
    return MatchedWeights(state, tuple(remarks))


def _common_wrapper(state: Mapping[str, Tensor], transparent: frozenset[str]) -> str | None:
    """The wrapper that all names begin with."""
    prefixes = (f"{part}." for part in sorted(transparent))
    return next((prefix for prefix in prefixes if all(n.startswith(prefix) for n in state)), None)


def _kinds(state: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    return [(name.rpartition(".")[2], tensor.ndim) for name, tensor in state.items()]
