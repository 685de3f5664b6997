"""Weight matching: permutes the channels of a residual network to align it with another.

Two networks that compute the same function can have very different weights because their channels
are in another order. Matching finds the permutation from the weights alone; REPAIR then restores
the activation statistics that are lost by interpolating weights.

Rejected: the authors' code for Git Re-Basin, in JAX, where the permutations of each architecture
are written by hand. The assignment problem is solved by scipy.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
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

BLOCK = re.compile(r"^layer\d+\.\d+\.")
CONVOLUTION = re.compile(r"^conv\d+(\.\d+)?\.weight$")
NUMBERED = re.compile(r"^(conv|bn)(\d+)(?:\.(\d+))?\.")
SHORTCUT = re.compile(r"^downsample(\.\d+)?\.(weight|bias|running_mean|running_var)$")
PER_CHANNEL = re.compile(r"^(conv|bn)\d+(\.\d+)?\.(weight|bias|running_mean|running_var)$")
STATISTICS = ("running_mean", "running_var")
MAX_SWEEPS = 100
MIN_GAIN = 1e-6
"""Relative gains below it are rounding of float32."""


class UnmatchableError(TransferbenchError):
    """The permutation symmetries of a network are unknown, so its channels cannot be matched."""


# --- permutation groups -----------------------------------------------------------------------


def residual_axes(state: StateDict, head: Sequence[str]) -> dict[str, tuple[str | None, ...]]:
    """For each tensor of a residual convolutional network, the permutation group of each axis.

    Permuting all axes of a group in the same way does not change the function. Channels that are
    added to each other share a group: those of the residual stream, from one projection to the
    next. Networks must use torchvision's names, as timm's and the Fixup ResNets do: ``conv1`` (or a
    chain ``conv1.0`` ...), ``layerS.B.convJ``, ``bnJ``, ``downsample``. Tensors of one element have
    no group. ``head``: the names of the tensors after the global average.

    Source: Ainsworth et al. 2022, arXiv 2209.04836, Section 3.2 and its residual specification.
    Raises: ``UnmatchableError`` with the first tensor that does not fit this form.
    """
    axes: dict[str, tuple[str | None, ...]] = {}
    stream: str | None = None
    # In the order of the forward pass, for any order of ``state``: files sort by name.
    body = sorted((name for name in state if name not in head), key=_layer_order)
    for block, names in groupby(body, key=_block):
        stream = _add_block_axes(block, list(names), stream, state, axes)
    for name in head:
        ndim = state[name].ndim
        axes[name] = (None, stream) if ndim == 2 else (None,) * ndim
    _check_axes(state, axes)
    return axes


def _block(name: str) -> str:
    """The prefix ``layerS.B.`` of a tensor; empty for the stem."""
    match = BLOCK.match(name)
    return match[0] if match else ""


def _layer_order(name: str) -> tuple[list[int], float, float]:
    """By block, then ``conv1`` or ``conv1.0`` and its followers, ``bn1``, ``conv2``, the rest."""
    block = _block(name)
    blocks = [int(number) for number in re.findall(r"\d+", block)]
    match = NUMBERED.match(name.removeprefix(block))
    if not match:
        return blocks, math.inf, 0
    kind, number, inner = match.groups()
    return blocks, int(number), math.inf if kind == "bn" else int(inner or 0)


def _add_block_axes(
    block: str,
    names: list[str],
    stream: str | None,
    state: StateDict,
    axes: dict[str, tuple[str | None, ...]],
) -> str | None:
    """Add the axes of one block, or of the stem, to ``axes``; returns the group of its output."""
    layers = {name: name.removeprefix(block) for name in names}
    convolutions = [n for n in names if CONVOLUTION.match(layers[n]) and state[n].ndim == 4]
    projects = not block or any(SHORTCUT.match(layer) for layer in layers.values())
    output = (block.removesuffix(".") or "stem") if projects else stream
    current = stream
    for name, layer in layers.items():
        tensor = state[name]
        if name in convolutions:
            source, last = current, name == convolutions[-1]
            current = output if last else name.removesuffix(".weight")
            axes[name] = (current, source, None, None)
        elif tensor.numel() == 1:
            axes[name] = (None,) * tensor.ndim
        elif SHORTCUT.match(layer):
            axes[name] = (output, stream, None, None)[: tensor.ndim]
        elif PER_CHANNEL.match(layer) and tensor.ndim == 1:
            axes[name] = (current,)
        else:
            raise _unmatchable(name, tensor)
    return output


def _check_axes(state: StateDict, axes: Axes) -> None:
    lengths = group_lengths(state, axes)
    for name, groups in axes.items():
        grouped = [(axis, group) for axis, group in enumerate(groups) if group is not None]
        fits = all(state[name].shape[axis] == lengths[group] for axis, group in grouped)
        if not fits or len({group for _, group in grouped}) < len(grouped):
            raise _unmatchable(name, state[name])


def group_lengths(state: StateDict, axes: Axes) -> dict[str, int]:
    """The number of channels of each group, groups in the order of the network."""
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
    tensor: Tensor,
    groups: Sequence[str | None],
    permutations: Permutations,
    skip: int | None = None,
) -> Tensor:
    """``tensor`` permuted along all axes but ``skip``."""
    for axis, group in enumerate(groups):
        if group is not None and axis != skip:
            tensor = tensor.index_select(axis, permutations[group].to(tensor.device))
    return tensor


def random_permutations(state: StateDict, axes: Axes, generator: Generator) -> dict[str, Tensor]:
    """One uniformly drawn permutation for each group."""
    lengths = group_lengths(state, axes)
    return {group: torch.randperm(n, generator=generator) for group, n in lengths.items()}


def keeps_function(net: nn.Module, axes: Axes, images: Tensor, generator: Generator) -> bool:
    """Whether the logits of these images (N, C, H, W) are unchanged by a random permutation.

    Checks that ``axes`` are symmetries of this network; ``net`` is restored afterwards.
    Error: unchanged to within 1e-3 of the largest logit, far above rounding.
    """
    before = clone_state(net)
    with eval_mode(net), torch.no_grad():
        expected = net(images)
        try:
            permutations = random_permutations(before, axes, generator)
            load_state(net, permute_state(before, axes, permutations))
            logits = net(images)
        finally:
            load_state(net, before)
    return bool((logits - expected).abs().max() <= 1e-3 * expected.abs().max())


# --- matching ---------------------------------------------------------------------------------


def match_weights(
    a: StateDict, b: StateDict, axes: Axes, generator: Generator
) -> dict[str, Tensor]:
    """The permutations of ``b`` that maximise the inner product of its weights with those of ``a``.

    Coordinate ascent: one group after another, in random order, gets its best assignment with the
    others fixed, until a sweep has no gain. It runs twice, from the identity and from a greedy pass
    from input to output in which each group only uses the groups before it, and keeps the better
    local optimum: ascent alone can end in a poor one, while the greedy pass recovers a pure
    permutation at once. Batch statistics are permuted but not matched.

    Source: Ainsworth et al. 2022, arXiv 2209.04836, Algorithm 1 (weight matching).
    """
    weights_a, weights_b = _matched_tensors(a, axes), _matched_tensors(b, axes)
    matching = _Matching(weights_a, weights_b, {name: axes[name] for name in weights_a})
    identity = {group: torch.arange(n) for group, n in group_lengths(a, axes).items()}
    starts = (identity, matching.greedy(identity))
    return max((matching.ascend(start, generator) for start in starts), key=matching.objective)


def _matched_tensors(state: StateDict, axes: Axes) -> dict[str, Tensor]:
    return {
        name: state[name].detach().cpu().float()
        for name, groups in axes.items()
        if any(groups) and name.rpartition(".")[2] not in STATISTICS
    }


class _Matching(NamedTuple):
    """The weights of two networks, and the groups of their axes."""

    a: StateDict
    b: StateDict
    axes: Axes

    def objective(self, permutations: Permutations) -> float:
        """The inner product of the weights after permutation."""
        return sum(
            float((tensor * _permuted(self.b[name], self.axes[name], permutations)).sum())
            for name, tensor in self.a.items()
        )

    def ascend(self, start: Permutations, generator: Generator) -> dict[str, Tensor]:
        """Reassign groups in random order until none gains, skipping those without a change."""
        permutations, stale = dict(start), set(start)
        for _ in range(MAX_SWEEPS):
            pending = [group for group in start if group in stale]
            for index in torch.randperm(len(pending), generator=generator).tolist():
                group = pending[index]
                stale.discard(group)
                products = self._products(group, permutations)
                best, old = _assignment(products), _assigned_sum(products, permutations[group])
                if _assigned_sum(products, best) > old + MIN_GAIN * abs(old):
                    permutations[group] = best
                    stale |= self._neighbours(group)
            if not stale:
                break
        return permutations

    def greedy(self, start: Permutations) -> dict[str, Tensor]:
        """Assign each group in turn, from tensors whose other axes are already assigned."""
        assigned: dict[str, Tensor] = {}
        for group in start:
            assigned[group] = _assignment(self._products(group, assigned))
        return assigned

    def _products(self, group: str, permutations: Permutations) -> Tensor:
        """Inner products of the weights of channel i of ``a`` and channel j of ``b``.

        Tensors with another axis without a permutation are excluded. Shapes: returns (C, C).
        """
        products = []
        for name, groups in self.axes.items():
            if group in groups and set(groups) - {group, None} <= permutations.keys():
                axis = groups.index(group)
                permuted = _permuted(self.b[name], groups, permutations, skip=axis)
                products.append(_rows(self.a[name], axis) @ _rows(permuted, axis).T)
        return torch.stack(products).double().sum(0)

    def _neighbours(self, group: str) -> set[str]:
        """The groups that share a tensor with this one."""
        shared = (groups for groups in self.axes.values() if group in groups)
        return {other for groups in shared for other in groups if other not in {group, None}}


def _assignment(products: Tensor) -> Tensor:
    _, columns = linear_sum_assignment(products.numpy(), maximize=True)
    return torch.from_numpy(columns)


def _assigned_sum(products: Tensor, permutation: Tensor) -> float:
    return float(products.gather(1, permutation[:, None]).sum())


def _rows(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]


# --- REPAIR -----------------------------------------------------------------------------------


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of each output channel of a convolution. Shapes: (C,) each."""

    mean: Tensor
    std: Tensor

    def lerp(self, other: ChannelStatistics, weight: float) -> ChannelStatistics:
        """``(1 - weight) * self + weight * other``."""
        return ChannelStatistics(
            torch.lerp(self.mean, other.mean, weight), torch.lerp(self.std, other.std, weight)
        )


EPSILON = 1e-5
"""Added to each variance, as in batch normalisation: that of a zero-initialized branch is 0."""


class _ConvolutionOutputs(TorchFunctionMode):
    """Inside the block, replaces the output of convolution i by ``change(i, output)``.

    It intercepts function calls, because networks (Fixup's) may use a layer's weights without
    calling the layer. ``count``: the number of convolutions of a forward pass, after which the
    index restarts at 0.
    """

    def __init__(self, change: Change, count: int | None = None) -> None:
        super().__init__()
        self._change = change
        self._count = count
        self._index = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],  # required by torch
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is not torch.conv2d:
            return output
        index = self._index
        self._index = index + 1 if self._count is None else (index + 1) % self._count
        return self._change(index, output)


def activation_statistics(
    net: nn.Module, images: Tensor, goal: Sequence[ChannelStatistics] | None = None
) -> list[ChannelStatistics]:
    """Statistics of each convolution's output on these images (N, C, H, W), in call order.

    With a ``goal``, each output is normalised to the goal's statistics before it is passed on, as
    batch normalisation does in training mode.
    """
    statistics: list[ChannelStatistics] = []

    def record(index: int, output: Tensor) -> Tensor:
        variance, mean = torch.var_mean(output.float(), dim=(0, 2, 3), correction=0)
        statistics.append(ChannelStatistics(mean, (variance + EPSILON).sqrt()))
        return output if goal is None else _rescaled(output, statistics[index], goal[index])

    with eval_mode(net), torch.no_grad(), _ConvolutionOutputs(record):
        net(images)
    return statistics


def _rescaled(output: Tensor, own: ChannelStatistics, goal: ChannelStatistics) -> Tensor:
    scale = goal.std / own.std
    shift = goal.mean - own.mean * scale
    return output * scale[:, None, None] + shift[:, None, None]


def repaired(
    net: nn.Module, goal: Sequence[ChannelStatistics], images: Tensor
) -> AbstractContextManager[object]:
    """A context in which the convolution outputs of ``net`` have the goal's channel statistics.

    Exactly on ``images`` (N, C, H, W); other images pass the same affine maps. For networks without
    batch normalisation; with it, recomputing the batch statistics has the same effect.

    Source: Jordan et al. 2022, arXiv 2211.08403 (REPAIR), for the variance collapse of averages.
    """
    own = activation_statistics(net, images, goal)

    def rescale(index: int, output: Tensor) -> Tensor:
        return _rescaled(output, own[index], goal[index])

    return _ConvolutionOutputs(rescale, count=len(goal))
