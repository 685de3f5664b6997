"""The part of a network behind a module's input, run on that input instead of the images.

Where only one module's weights change from state to state, all that comes before it computes the
same each time. Inside ``Prefix.behind`` a network runs from that place on: whoever evaluates
states does it as always, on other inputs, and finds the same numbers.

A network is run by its own ``forward``: of the submodules that come before, the last answers with
what was kept, the others with NaN in the right shape. Only a network whose modules form a chain
makes the same logits of that. One that looks back at an earlier output, or reads the changed
weights early, is found out by a trial, and runs whole.

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

__all__ = ["Prefix"]

TRIED = 3
"""Images of the trial: NaN spoils every image, and weights that are read early move every one."""

KEPT_BYTES = 4 * 2**30
"""Inputs that would take more memory are not kept: the network runs whole."""

Forward = Callable[..., Any]


@dataclass
class _Call:
    """When a submodule was entered first and left last, how often, and what it gave."""

    entered: int
    left: int = -1
    outputs: list[Any] = field(default_factory=list)

    def answers_for(self, n: int) -> bool:
        """Whether one tensor, a row for each of ``n`` images, can stand for the call."""
        if len(self.outputs) != 1 or not isinstance(self.outputs[0], Tensor):
            return False
        output: Tensor = self.outputs[0]
        return output.ndim > 0 and len(output) == n and output.is_floating_point()


@dataclass(frozen=True)
class _Cut:
    """Where a network is cut: behind ``last``; ``silent`` are the others that come before."""

    last: str
    silent: tuple[str, ...]


class _Reached(Exception):  # noqa: N818  # no error: a pass that has done its work
    """Ends a forward pass at the output behind which a network is cut."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


class Prefix:
    """The images as each module of a network sees them, found module by module.

    ``net`` is in eval mode and holds the same weights whenever ``behind`` is entered; it is left
    as it was. Asked for modules from input to output, each prefix goes on from the one before: all
    of them together cost one pass over ``images``. One set of inputs is kept at a time.

    Shapes: images (N, C, H, W).
    Error: none, where the network is run on batches of ``batch_size``: kernels get equal tensors.
    Raises: ``ValueError`` for a network in training mode.
    """

    def __init__(self, net: nn.Module, images: Tensor, batch_size: int) -> None:
        if any(module.training for module in net.modules()):
            raise ValueError(
                f"{type(net).__name__} is in training mode, where outputs depend on the batch or "
                "on chance and cannot be kept; call eval() first"
            )
        self._net = net
        self._images = images
        self._batch_size = batch_size
        self._submodules = {name: module for name, module in net.named_modules() if name}
        self._tried = images[:TRIED]
        self._calls = _recorded(net, self._submodules, self._tried)
        self._cut: _Cut | None = None
        self._inputs = images

    @contextmanager
    def behind(self, names: Iterable[str]) -> Iterator[Tensor]:
        """The inputs of the parameters and buffers ``names``; ``net`` runs from there on.

        Shapes: N rows. Where ``net`` cannot be cut there, or the inputs would take more than
        ``KEPT_BYTES``: the images, and it runs whole.
        """
        cut = self._find(frozenset(names))
        if cut is None:
            yield self._images
            return
        self._advance(cut)
        with self._answering(cut):
            yield self._inputs

    # --- where to cut -------------------------------------------------------------------------

    def _find(self, names: frozenset[str]) -> _Cut | None:
        tensors = self._net.state_dict(keep_vars=True)
        changed = [tensor for name, tensor in tensors.items() if name in names]
        before = self._before(self._first_use(names), {id(tensor) for tensor in changed})
        if not before:
            return None
        *silent, last = sorted(before, key=lambda name: self._calls[name].left)
        if self._calls[last].outputs[0].nbytes / len(self._tried) * len(self._images) > KEPT_BYTES:
            return None
        cut = _Cut(last, tuple(silent))
        return cut if self._holds(cut, changed) else None

    def _first_use(self, names: Iterable[str]) -> int:
        """When the first submodule that owns one of ``names`` is entered; 0 where none does.

        What the network itself owns is used in its own forward pass, which always runs; whether
        it is used too early, the trial tells.
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
        """The outermost submodules that were left before ``start`` and hold nothing changed."""
        found: list[str] = []
        for name, call in self._calls.items():
            nested = any(name.startswith(f"{outer}.") for outer in found)
            if not nested and call.left < start and call.answers_for(len(self._tried)):
                module = self._submodules[name]
                held = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
                if held.isdisjoint(changed):
                    found.append(name)
        return found

    @torch.no_grad()
    def _holds(self, cut: _Cut, changed: Sequence[Tensor]) -> bool:
        """Whether other weights give the same logits, bit for bit, whole and cut.

        The second cut run finds what the first may have overwritten.
        """
        kept = self._run_to(cut, self._tried)
        with _moved([tensor for tensor in changed if tensor.is_floating_point()]):
            whole = self._net(self._tried)
            with self._answering(cut):
                return all(torch.equal(self._net(kept), whole) for _ in range(2))

    # --- running ------------------------------------------------------------------------------

    @torch.no_grad()
    def _advance(self, cut: _Cut) -> None:
        """Keep the inputs behind ``cut``, starting from those that are kept where it can."""
        if self._cut is not None and self._left(self._cut) > self._left(cut):
            self._cut, self._inputs = None, self._images
        if self._cut is None or self._cut.last != cut.last:
            with ExitStack() as stack:
                if self._cut is not None:
                    stack.enter_context(self._answering(self._cut))
                batches = torch.split(self._inputs, self._batch_size)
                self._inputs = _joined(
                    (self._run_to(cut, batch) for batch in batches), len(self._images)
                )
        self._cut = cut

    def _left(self, cut: _Cut) -> int:
        return self._calls[cut.last].left

    def _run_to(self, cut: _Cut, inputs: Tensor) -> Tensor:
        """The output of ``cut.last``; what comes behind it is not run."""
        handle = self._submodules[cut.last].register_forward_hook(_stop)
        try:
            self._net(inputs)
        except _Reached as reached:
            return reached.output
        finally:
            handle.remove()
        raise AssertionError(f"{cut.last} was called in one pass and not in the next")

    @contextmanager
    def _answering(self, cut: _Cut) -> Iterator[None]:
        """Inside the block ``net`` takes what ``cut.last`` gave for its images."""
        whole = self._net.forward
        given: list[Tensor] = []

        def suffix(inputs: Tensor) -> Tensor:
            given[:] = [inputs]
            logits: Tensor = whole(_blank(self._images, inputs))
            return logits

        def kept(*_: Any, **__: Any) -> Tensor:
            return given[0]

        with ExitStack() as stack:
            stack.enter_context(_replaced(self._net, suffix))
            stack.enter_context(_replaced(self._submodules[cut.last], kept))
            for name in cut.silent:
                blank = partial(_blank_answer, self._calls[name].outputs[0], given)
                stack.enter_context(_replaced(self._submodules[name], blank))
            yield


# --- one pass, watched ------------------------------------------------------------------------


def _recorded(net: nn.Module, submodules: dict[str, nn.Module], images: Tensor) -> dict[str, _Call]:
    """The calls of one forward pass, outer submodules before those inside them."""
    calls: dict[str, _Call] = {}
    clock = count(1)

    def enter(name: str, *_: Any) -> None:
        calls.setdefault(name, _Call(next(clock)))

    def leave(name: str, _: nn.Module, __: Any, output: Any) -> None:
        calls[name].left = next(clock)
        # Shape and type are all that is asked of it later.
        calls[name].outputs.append(output.to("meta") if isinstance(output, Tensor) else None)

    with ExitStack() as hooks, torch.no_grad():
        for name, module in submodules.items():
            hooks.callback(module.register_forward_pre_hook(partial(enter, name)).remove)
            hooks.callback(module.register_forward_hook(partial(leave, name)).remove)
        net(images)
    return {name: calls[name] for name in submodules if name in calls}


def _stop(_: nn.Module, __: Any, output: Tensor) -> None:
    raise _Reached(output)


# --- what is put in the place of something ----------------------------------------------------


def _blank(like: Tensor, inputs: Tensor) -> Tensor:
    """NaN shaped as ``like``, a row for each of ``inputs``, in no memory of its own."""
    nothing = torch.full((), torch.nan, dtype=like.dtype, device=inputs.device)
    return nothing.expand(len(inputs), *like.shape[1:])


def _blank_answer(like: Tensor, given: Sequence[Tensor], *_: Any, **__: Any) -> Tensor:
    return _blank(like, given[0])


@contextmanager
def _replaced(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Inside the block ``module`` computes ``forward``; its weights and hooks stay."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextmanager
def _moved(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Other values inside the block; variances among them stay positive."""
    saved = [tensor.clone() for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.mul_(1.25).add_(0.01)
        yield
    finally:
        for tensor, value in zip(tensors, saved, strict=True):
            tensor.copy_(value)


def _joined(batches: Iterator[Tensor], n: int) -> Tensor:
    """The rows of all batches, ``n`` in number, in the memory order of the first.

    torch.cat would make what is transposed contiguous, and another layout may round otherwise.
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
