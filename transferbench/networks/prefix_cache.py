"""Cached inputs of a module: the rest of the network runs on them instead of on the images.

Where states differ in the weights of one module only, everything before the module computes the
same each time. Inside ``PrefixCache.inputs_of`` the network starts at that module: evaluation code
stays as it is, runs on other inputs and gets equal numbers.

The network's own ``forward`` runs: of the submodules before the cut, the last returns the cached
inputs and the others return NaN of the right shape. This is exact only where the modules form a
chain. A network that reads an earlier output, or the changed weights too early, is detected by
comparing logits on a few images, and runs completely.

Rejected: cutting the network with torch.fx or torchvision's feature extraction, whose tracing does
not support control flow that depends on tensors.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PrefixCache"]

PROBE_IMAGES = 3
"""Enough: NaN spoils the logits of all images, and so do weights that are read too early."""

MAX_BYTES = 4 * 2**30
"""Inputs that need more memory are not cached: the network runs completely."""

Forward = Callable[..., Any]


@dataclass
class _Call:
    """When a submodule was first entered and last left, and its outputs, without their data."""

    entered: int
    left: int = -1
    outputs: list[Any] = field(default_factory=list)

    def is_replaceable(self, n: int) -> bool:
        """Whether it was called once and returned one floating tensor with ``n`` rows."""
        if len(self.outputs) != 1 or not isinstance(self.outputs[0], Tensor):
            return False
        output: Tensor = self.outputs[0]
        return output.ndim > 0 and len(output) == n and output.is_floating_point()


@dataclass(frozen=True)
class _Cut:
    """A network is cut after ``last``; ``skipped`` are the other submodules before the cut."""

    last: str
    skipped: tuple[str, ...]


class _CutReached(Exception):  # noqa: N818  # control flow, no error
    """Ends a forward pass at the output after which a network is cut."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


class PrefixCache:
    """The inputs of the modules of a network, computed from ``images`` module by module.

    ``net`` is in eval mode and holds the same weights whenever ``inputs_of`` is entered; it is
    left unchanged. Only one set of inputs is cached. Requested from input to output, each set is
    computed from the one before: all of them together cost one pass over ``images``.

    Shapes: images (N, C, H, W).
    Error: none, where the network runs on batches of ``batch_size``: kernels get equal tensors.
    Raises: ``ValueError`` for a network in training mode.
    """

    def __init__(self, net: nn.Module, images: Tensor, batch_size: int) -> None:
        if any(module.training for module in net.modules()):
            raise ValueError(
                f"{type(net).__name__} is in training mode, where outputs depend on the batch or "
                "are random and cannot be cached; call eval() first"
            )
        self._net = net
        self._images = images
        self._batch_size = batch_size
        self._submodules = {name: module for name, module in net.named_modules() if name}
        self._probe = images[:PROBE_IMAGES]
        self._calls = _recorded_calls(net, self._submodules, self._probe)
        self._cut: _Cut | None = None
        self._inputs = images

    @contextmanager
    def inputs_of(self, names: Iterable[str]) -> Iterator[Tensor]:
        """The inputs of the module with the parameters and buffers ``names``; ``net`` starts there.

        Shapes: N rows. Where ``net`` cannot be cut there, or the inputs need more than
        ``MAX_BYTES``: the images, and ``net`` runs completely.
        """
        cut = self._find_cut(frozenset(names))
        if cut is None:
            yield self._images
            return
        self._advance(cut)
        with self._starting_at(cut):
            yield self._inputs

    # --- where to cut -------------------------------------------------------------------------

    def _find_cut(self, names: frozenset[str]) -> _Cut | None:
        tensors = self._net.state_dict(keep_vars=True)
        changed = [tensor for name, tensor in tensors.items() if name in names]
        before = self._before(self._first_use(names), {id(tensor) for tensor in changed})
        if not before:
            return None
        *skipped, last = sorted(before, key=lambda name: self._calls[name].left)
        if self._calls[last].outputs[0].nbytes / len(self._probe) * len(self._images) > MAX_BYTES:
            return None
        cut = _Cut(last, tuple(skipped))
        return cut if self._is_exact(cut, changed) else None

    def _first_use(self, names: Iterable[str]) -> int:
        """When the first submodule that owns one of ``names`` is entered; 0 where none does.

        Parameters of the network itself are used in its own forward, which always runs;
        ``_is_exact`` detects where they are used too early.
        """
        owners = {name.rpartition(".")[0] for name in names}
        entries = [self._entered(owner) for owner in owners]
        return min((entry for entry in entries if entry is not None), default=0)

    def _entered(self, owner: str) -> int | None:
        # A submodule that only holds weights for its parent is never called: the parent counts.
        while owner and owner not in self._calls:
            owner = owner.rpartition(".")[0]
        return self._calls[owner].entered if owner else None

    def _before(self, start: int, changed: set[int]) -> list[str]:
        """The outermost submodules that were left before ``start`` and hold no changed tensor."""
        names: list[str] = []
        for name, call in self._calls.items():
            nested = any(name.startswith(f"{outer}.") for outer in names)
            if not nested and call.left < start and call.is_replaceable(len(self._probe)):
                module = self._submodules[name]
                owned = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
                if owned.isdisjoint(changed):
                    names.append(name)
        return names

    @torch.no_grad()
    def _is_exact(self, cut: _Cut, changed: Sequence[Tensor]) -> bool:
        """Whether changed weights give the same logits, bit for bit, with and without the cut.

        The second run with the cut detects a network that overwrites the cached inputs.
        """
        inputs = self._run_to(cut, self._probe)
        with _modified([tensor for tensor in changed if tensor.is_floating_point()]):
            expected = self._net(self._probe)
            with self._starting_at(cut):
                return all(torch.equal(self._net(inputs), expected) for _ in range(2))

    # --- running ------------------------------------------------------------------------------

    @torch.no_grad()
    def _advance(self, cut: _Cut) -> None:
        """Cache the inputs at ``cut``, computed from the cached ones where they come before it."""
        if self._cut is not None and self._left(self._cut) > self._left(cut):
            self._cut, self._inputs = None, self._images
        if self._cut is None or self._cut.last != cut.last:
            with ExitStack() as stack:
                if self._cut is not None:
                    stack.enter_context(self._starting_at(self._cut))
                batches = torch.split(self._inputs, self._batch_size)
                self._inputs = _concatenate(
                    (self._run_to(cut, batch) for batch in batches), len(self._images)
                )
        self._cut = cut

    def _left(self, cut: _Cut) -> int:
        return self._calls[cut.last].left

    def _run_to(self, cut: _Cut, inputs: Tensor) -> Tensor:
        """The output of ``cut.last``; what follows it is not run."""
        with self._submodules[cut.last].register_forward_hook(_stop):
            try:
                self._net(inputs)
            except _CutReached as reached:
                return reached.output
        raise AssertionError(f"{cut.last} was called in one pass and not in the next")

    @contextmanager
    def _starting_at(self, cut: _Cut) -> Iterator[None]:
        """Inside the block ``net`` takes outputs of ``cut.last`` instead of images."""
        forward = self._net.forward
        current: list[Tensor] = []

        def suffix(inputs: Tensor) -> Tensor:
            current[:] = [inputs]
            logits: Tensor = forward(_nan_like(self._images, inputs))
            return logits

        def cached(*_: Any, **__: Any) -> Tensor:
            return current[0]

        with ExitStack() as stack:
            stack.enter_context(_replaced_forward(self._net, suffix))
            stack.enter_context(_replaced_forward(self._submodules[cut.last], cached))
            for name in cut.skipped:
                blank = partial(_nan_output, self._calls[name].outputs[0], current)
                stack.enter_context(_replaced_forward(self._submodules[name], blank))
            yield


# --- recording --------------------------------------------------------------------------------


def _recorded_calls(
    net: nn.Module, submodules: dict[str, nn.Module], images: Tensor
) -> dict[str, _Call]:
    """The calls of one forward pass, outer submodules before those inside them."""
    calls: dict[str, _Call] = {}
    clock = count(1)

    def enter(name: str, *_: Any) -> None:
        calls.setdefault(name, _Call(next(clock)))

    def leave(name: str, _: nn.Module, __: Any, output: Any) -> None:
        calls[name].left = next(clock)
        # Only shape and dtype are needed later.
        calls[name].outputs.append(output.to("meta") if isinstance(output, Tensor) else None)

    with ExitStack() as hooks, torch.no_grad():
        for name, module in submodules.items():
            hooks.enter_context(module.register_forward_pre_hook(partial(enter, name)))
            hooks.enter_context(module.register_forward_hook(partial(leave, name)))
        net(images)
    return {name: calls[name] for name in submodules if name in calls}


def _stop(_: nn.Module, __: Any, output: Tensor) -> None:
    raise _CutReached(output)


# --- replacing --------------------------------------------------------------------------------


def _nan_like(like: Tensor, inputs: Tensor) -> Tensor:
    """NaN shaped as ``like``, with a row for each of ``inputs``, without memory of its own."""
    nan = torch.full((), torch.nan, dtype=like.dtype, device=inputs.device)
    return nan.expand(len(inputs), *like.shape[1:])


def _nan_output(like: Tensor, current: Sequence[Tensor], *_: Any, **__: Any) -> Tensor:
    return _nan_like(like, current[0])


@contextmanager
def _replaced_forward(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Inside the block ``module`` runs ``forward``; its weights and hooks are unchanged."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextmanager
def _modified(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block the tensors have other values; variances among them stay positive."""
    saved = [tensor.clone() for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.mul_(1.25).add_(0.01)
        yield
    finally:
        for tensor, value in zip(tensors, saved, strict=True):
            tensor.copy_(value)


def _concatenate(batches: Iterator[Tensor], n: int) -> Tensor:
    """The ``n`` rows of all batches in the memory order of the first.

    torch.cat would make transposed tensors contiguous, and another layout may round differently.
    """
    first = next(batches)
    strides = first.stride()
    order = [0, *sorted(range(1, first.ndim), key=lambda dim: -strides[dim])]
    shape = (n, *first.shape[1:])
    rows = torch.empty_permuted(shape, order, dtype=first.dtype, device=first.device)
    filled = 0
    for batch in chain([first], batches):
        rows[filled : filled + len(batch)] = batch
        filled += len(batch)
    return rows
