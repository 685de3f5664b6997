"""Permuting the channels of one residual network so that its weights come near another's.

Two networks that compute the same function can be far apart only because their channels are
numbered differently. Matching undoes that as far as weights alone can tell; REPAIR then restores
the activation statistics that interpolated weights lose.

Rejected: the authors' code for Git Re-Basin, in JAX, where the permutations of each architecture
are written by hand. The assignment problem is solved by scipy.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor, nn
from torch.overrides import TorchFunctionMode

from transferbench.errors import TransferbenchError
from transferbench.networks.modules import StateDict, clone_state, eval_mode, load_state

__all__ = [
    "ChannelStatistics",
    "UnmatchableError",
    "activation_statistics",
    "group_lengths",
    "keeps_function",
    "match_weights",
    "permute_state",
    "random_permutations",
    "repaired",
    "residual_axes",
]

Axes = Mapping[str, tuple[str | None, ...]]
Permutations = Mapping[str, Tensor]
Change = Callable[[int, Tensor], Tensor]

BLOCK = re.compile(r"^(layer\d+\.\d+)\.(.+)$")
CONVOLUTION = re.compile(r"^conv\d+(\.\d+)?\.weight$")
NUMBERED = re.compile(r"^(conv|bn)(\d+)(?:\.(\d+))?\.")
SHORTCUT = re.compile(r"^downsample(\.\d+)?\.(weight|bias|running_mean|running_var)$")
PER_CHANNEL = re.compile(r"^(conv|bn)\d+(\.\d+)?\.(weight|bias|running_mean|running_var)$")
STATISTICS = ("running_mean", "running_var")
MOST_SWEEPS = 100
GAIN = 1e-6
"""The smallest relative gain worth another assignment: below it is the rounding of float32."""


class UnmatchableError(TransferbenchError):
    """The symmetries of a network are not known, so its channels cannot be matched."""


# --- which axes are numbered alike ------------------------------------------------------------


def residual_axes(state: StateDict, head: Sequence[str]) -> dict[str, tuple[str | None, ...]]:
    """For each tensor of a residual convolutional network, the group that numbers each axis.

    Permuting every axis of a group alike leaves the function as it is. Channels that are added
    to each other share a group: those of the residual stream, from one projection to the next.
    Networks are read by torchvision's names, which timm's and the Fixup ResNets follow:
    ``conv1`` (or a chain ``conv1.0`` ...), ``layerS.B.convJ``, ``bnJ``, ``downsample``. Tensors of
    one element number nothing. ``head``: the names of what follows the global average.

    Source: Ainsworth et al. 2022, arXiv 2209.04836, Section 3.2 and its residual specification.
    Raises: ``UnmatchableError`` naming the first tensor that does not fit this form.
    """
    axes: dict[str, tuple[str | None, ...]] = {}
    flow: str | None = None
    for part, names in _parts(state, head).items():
        flow = _read_part(part, names, flow, state, axes)
    axes |= {name: _head_axes(state[name], flow) for name in head}
    _check_axes(state, axes)
    return axes


def _parts(state: StateDict, head: Sequence[str]) -> dict[str, list[str]]:
    """The names outside the head by block, each without its block's prefix; ``""`` is the stem.

    In the order of the forward pass, whatever the order of ``state``: files sort by name.
    """
    parts: dict[str, list[str]] = {}
    for name in state:
        if name not in head:
            found = BLOCK.match(name)
            part, rest = (found[1], found[2]) if found else ("", name)
            parts.setdefault(part, []).append(rest)
    return {part: sorted(parts[part], key=_place) for part in sorted(parts, key=_block_number)}


def _block_number(part: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", part)]


def _place(name: str) -> tuple[float, float]:
    """``conv1``, or ``conv1.0`` and its followers, then ``bn1``, then ``conv2``; the rest last."""
    found = NUMBERED.match(name)
    if not found:
        return (math.inf, 0)
    kind, number, inner = found.groups()
    return (int(number), math.inf if kind == "bn" else int(inner or 0))


def _read_part(
    part: str,
    names: list[str],
    flow: str | None,
    state: StateDict,
    axes: dict[str, tuple[str | None, ...]],
) -> str | None:
    """Note the axes of one block, or of the stem; returns the group that leaves it."""
    prefix = f"{part}." if part else ""
    convolutions = [
        name for name in names if CONVOLUTION.match(name) and state[prefix + name].ndim == 4
    ]
    projects = not part or any(SHORTCUT.match(name) for name in names)
    leaving = (part or "stem") if projects else flow
    entering, current = flow, flow
    for name in names:
        tensor = state[prefix + name]
        if name in convolutions:
            into, last = current, name == convolutions[-1]
            current = leaving if last else prefix + name.removesuffix(".weight")
            axes[prefix + name] = (current, into, None, None)
        elif tensor.numel() == 1:
            axes[prefix + name] = (None,) * tensor.ndim
        elif SHORTCUT.match(name):
            axes[prefix + name] = (leaving, entering, None, None)[: tensor.ndim]
        elif PER_CHANNEL.match(name) and tensor.ndim == 1:
            axes[prefix + name] = (current,)
        else:
            raise _unmatchable(prefix + name, tensor)
    return leaving


def _head_axes(tensor: Tensor, flow: str | None) -> tuple[str | None, ...]:
    return (None, flow) if tensor.ndim == 2 else (None,) * tensor.ndim


def _check_axes(state: StateDict, axes: Axes) -> None:
    lengths = group_lengths(state, axes)
    for name, groups in axes.items():
        numbered = [(axis, group) for axis, group in enumerate(groups) if group is not None]
        fits = all(state[name].shape[axis] == lengths[group] for axis, group in numbered)
        if not fits or len({group for _, group in numbered}) < len(numbered):
            raise _unmatchable(name, state[name])


def group_lengths(state: StateDict, axes: Axes) -> dict[str, int]:
    """How many channels each group numbers, groups in the order of the network."""
    lengths: dict[str, int] = {}
    for name, groups in axes.items():
        for axis, group in enumerate(groups):
            if group is not None:
                lengths.setdefault(group, state[name].shape[axis])
    return lengths


def _unmatchable(name: str, tensor: Tensor) -> UnmatchableError:
    return UnmatchableError(
        f"cannot tell how {name} {tuple(tensor.shape)} numbers its channels: matching knows"
        " residual networks of plain convolutions in torchvision's names; measure the barrier"
        " without alignment"
    )


# --- permuting --------------------------------------------------------------------------------


def permute_state(state: StateDict, axes: Axes, permutations: Permutations) -> dict[str, Tensor]:
    """``state`` with channel i of each group taken from channel ``permutations[group][i]``."""
    permuted = dict(state)
    for name, groups in axes.items():
        permuted[name] = _permuted(state[name], groups, permutations)
    return permuted


def _permuted(
    tensor: Tensor, groups: Sequence[str | None], permutations: Permutations, but: int | None = None
) -> Tensor:
    """``tensor`` permuted along every axis but ``but``."""
    for axis, group in enumerate(groups):
        if group is not None and axis != but:
            tensor = tensor.index_select(axis, permutations[group].to(tensor.device))
    return tensor


def random_permutations(state: StateDict, axes: Axes, generator: Generator) -> dict[str, Tensor]:
    """One uniformly drawn permutation for each group."""
    lengths = group_lengths(state, axes)
    return {group: torch.randperm(n, generator=generator) for group, n in lengths.items()}


def keeps_function(net: nn.Module, axes: Axes, images: Tensor, generator: Generator) -> bool:
    """Whether ``net`` answers these images (N, C, H, W) alike after a random permutation.

    The proof that ``axes`` are symmetries of this network; ``net`` is left as it was.
    Error: alike means within 1e-3 of the largest logit, far above rounding.
    """
    before = clone_state(net)
    with eval_mode(net), torch.no_grad():
        expected = net(images)
        try:
            load_state(
                net, permute_state(before, axes, random_permutations(before, axes, generator))
            )
            found = net(images)
        finally:
            load_state(net, before)
    return bool((found - expected).abs().max() <= 1e-3 * expected.abs().max())


# --- matching ---------------------------------------------------------------------------------


def match_weights(
    a: StateDict, b: StateDict, axes: Axes, generator: Generator
) -> dict[str, Tensor]:
    """The permutations that bring ``b`` nearest to ``a``: the sum of products of their weights.

    Coordinate ascent: one group after another, in random order, takes its best assignment while
    the others stand still, until a sweep gains nothing. It climbs twice, from the numbering as it
    is and from a pass from input to output in which each group sees only what is numbered
    already, and keeps the higher summit: ascent alone can end on a low one, while the pass undoes
    a pure renumbering at once. Batch statistics are permuted but not matched.

    Source: Ainsworth et al. 2022, arXiv 2209.04836, Algorithm 1 (weight matching).
    """
    ours, theirs = _matched_tensors(a, axes), _matched_tensors(b, axes)
    problem = _Problem(ours, theirs, {name: axes[name] for name in ours})
    identity = {group: torch.arange(n) for group, n in group_lengths(a, axes).items()}
    summits = [problem.climb(start, generator) for start in (identity, problem.forward(identity))]
    return max(summits, key=problem.agreement)


def _matched_tensors(state: StateDict, axes: Axes) -> dict[str, Tensor]:
    return {
        name: state[name].detach().cpu().float()
        for name, groups in axes.items()
        if any(groups) and name.rpartition(".")[2] not in STATISTICS
    }


class _Problem(NamedTuple):
    """Two networks' weights, and which group numbers which axis of them."""

    a: StateDict
    b: StateDict
    axes: Axes

    def agreement(self, permutations: Permutations) -> float:
        """What matching maximises: the sum of products of weights that stand in one place."""
        return sum(
            float((tensor * _permuted(self.b[name], self.axes[name], permutations)).sum())
            for name, tensor in self.a.items()
        )

    def climb(self, start: Permutations, generator: Generator) -> dict[str, Tensor]:
        """Assign groups anew, in random order, until none gains; only what changed is redone."""
        permutations, stale = dict(start), set(start)
        for _ in range(MOST_SWEEPS):
            waiting = [group for group in start if group in stale]
            for place in torch.randperm(len(waiting), generator=generator).tolist():
                group = waiting[place]
                stale.discard(group)
                products = self._products(group, permutations)
                best, old = _assignment(products), _agreed(products, permutations[group])
                if _agreed(products, best) > old + GAIN * abs(old):
                    permutations[group] = best
                    stale |= self._neighbours(group)
            if not stale:
                break
        return permutations

    def forward(self, start: Permutations) -> dict[str, Tensor]:
        """Each group in turn by the tensors whose other axes are numbered already."""
        settled: dict[str, Tensor] = {}
        for group in start:
            settled[group] = _assignment(self._products(group, settled))
        return settled

    def _products(self, group: str, permutations: Permutations) -> Tensor:
        """How much channel i of ``a`` agrees with channel j of ``b``. Shapes: returns (C, C).

        Tensors with an axis that nothing numbers yet have no say.
        """
        products = [
            _rows(self.a[name], axis)
            @ _rows(_permuted(self.b[name], groups, permutations, but=axis), axis).T
            for name, groups in self.axes.items()
            for axis, own in enumerate(groups)
            if own == group and _others(groups, axis) <= permutations.keys()
        ]
        return torch.stack(products).double().sum(0)

    def _neighbours(self, group: str) -> set[str]:
        """The groups that number another axis of a tensor of this one."""
        shared = (set(groups) for groups in self.axes.values() if group in groups)
        return {other for groups in shared for other in groups if other is not None} - {group}


def _assignment(products: Tensor) -> Tensor:
    _, columns = linear_sum_assignment(products.numpy(), maximize=True)
    return torch.from_numpy(columns)


def _agreed(products: Tensor, permutation: Tensor) -> float:
    return float(products.gather(1, permutation[:, None]).sum())


def _others(groups: Sequence[str | None], axis: int) -> set[str]:
    return {group for place, group in enumerate(groups) if group is not None and place != axis}


def _rows(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]


# --- REPAIR -----------------------------------------------------------------------------------


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of each channel behind one convolution. Shapes: (C,) each."""

    mean: Tensor
    std: Tensor

    def lerp(self, other: ChannelStatistics, weight: float) -> ChannelStatistics:
        """``(1 - weight)`` of these statistics and ``weight`` of the others."""
        return ChannelStatistics(
            torch.lerp(self.mean, other.mean, weight), torch.lerp(self.std, other.std, weight)
        )


EPSILON = 1e-5
"""Added to each variance, as batch normalisation does: a closed branch has none."""


class _Convolutions(TorchFunctionMode):
    """Hands the output of every convolution inside the block to ``change``, with its number.

    Seen as function calls, because networks (Fixup's) may use a layer's weights without calling
    the layer. ``count``: convolutions in one forward pass; numbers start anew after each.
    """

    def __init__(self, change: Change, count: int | None = None) -> None:
        super().__init__()
        self._change = change
        self._count = count
        self._place = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],  # torch's protocol
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is not torch.conv2d:
            return found
        place = self._place
        self._place = place + 1 if self._count is None else (place + 1) % self._count
        return self._change(place, found)


def activation_statistics(
    net: nn.Module, images: Tensor, goal: Sequence[ChannelStatistics] | None = None
) -> list[ChannelStatistics]:
    """What each convolution of ``net`` gives on these images (N, C, H, W), in order of the calls.

    With a ``goal``, each output is brought to the goal's statistics before it goes on, as batch
    normalisation would do in train mode.
    """
    found: list[ChannelStatistics] = []

    def note(place: int, output: Tensor) -> Tensor:
        variance, mean = torch.var_mean(output.float(), dim=(0, 2, 3), correction=0)
        found.append(ChannelStatistics(mean, (variance + EPSILON).sqrt()))
        return output if goal is None else _moved(output, found[place], goal[place])

    with eval_mode(net), torch.no_grad(), _Convolutions(note):
        net(images)
    return found


def _moved(output: Tensor, own: ChannelStatistics, goal: ChannelStatistics) -> Tensor:
    scale = goal.std / own.std
    shift = goal.mean - own.mean * scale
    return output * scale[:, None, None] + shift[:, None, None]


def repaired(
    net: nn.Module, goal: Sequence[ChannelStatistics], images: Tensor
) -> AbstractContextManager[object]:
    """A block in which every convolution of ``net`` gives each channel the goal's statistics.

    They are met exactly on ``images`` (N, C, H, W); other images pass the same affine maps. For
    networks without batch normalisation; with it, recomputing the batch statistics does the same.

    Source: Jordan et al. 2022, arXiv 2211.08403 (REPAIR), for the variance collapse of averages.
    """
    own = activation_statistics(net, images, goal)

    def move(place: int, output: Tensor) -> Tensor:
        return _moved(output, own[place], goal[place])

    return _Convolutions(move, count=len(goal))
