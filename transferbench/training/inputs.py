"""Fixed tensors that a graph reads, filled before each replay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from transferbench.training.step import on_each_tensor

__all__ = ["FixedInputs"]

DrawT = TypeVar("DrawT")

ALIGNMENT_BYTES = 64
BLOCKS = 2
"""One is filled while the device may still read from the other."""


class FixedInputs(Generic[DrawT]):
    """Draws of fixed shapes on the device.

    What comes from the host is written to one block of memory, which one copy brings over.
    """

    def __init__(self, draws: Sequence[DrawT], device: torch.device) -> None:
        self._device = device
        self._form = [_form(draw) for draw in draws]
        host = [tensor for draw in draws for tensor in _tensors(draw) if self._is_packed(tensor)]
        sizes = [_padded(tensor.nbytes) for tensor in host]
        self._block = torch.zeros(sum(sizes), dtype=torch.uint8, device=device)
        blocks = BLOCKS if device.type == "cuda" else 1
        self._host = [
            torch.zeros(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
            for _ in range(blocks)
        ]
        self._copied: list[Any] = [None] * blocks
        self._next = 0
        self._host_views = [_views(block, host) for block in self._host]
        views = iter(_views(self._block, host))

        def fixed(tensor: Tensor) -> Tensor:
            return next(views) if self._is_packed(tensor) else torch.empty_like(tensor)

        self.draws = [on_each_tensor(draw, fixed) for draw in draws]
        self.fill(draws)

    def fits(self, draws: Sequence[DrawT]) -> bool:
        """Whether the draws have the shapes of these."""
        return [_form(draw) for draw in draws] == self._form

    def fill(self, draws: Sequence[DrawT]) -> None:
        """Bring the draws, which must fit, to the device."""
        block, self._next = self._next, (self._next + 1) % len(self._host)
        if self._copied[block] is not None:
            self._copied[block].synchronize()  # long past: a replay or two ago
        views = iter(self._host_views[block])
        for draw, fixed in zip(draws, self.draws, strict=True):
            for tensor, target in zip(_tensors(draw), _tensors(fixed), strict=True):
                (next(views) if self._is_packed(tensor) else target).copy_(tensor)
        self._block.copy_(self._host[block], non_blocking=True)
        if self._device.type == "cuda":
            self._copied[block] = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._copied[block].record()

    def _is_packed(self, tensor: Tensor) -> bool:
        """Whether it comes from the host in the block.

        On the CPU images are made in their own layout. For a card whatever comes from the host is
        packed: a copy out of memory that is not pinned would become part of the graph.
        """
        on_host = tensor.device.type == "cpu"
        return on_host and (tensor.is_contiguous() or self._device.type == "cuda")


def _views(block: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of these types and shapes in a block of bytes."""
    views, start = [], 0
    for tensor in like:
        part = block[start : start + tensor.nbytes]
        views.append(part.view(tensor.dtype).view(tensor.shape))
        start += _padded(tensor.nbytes)
    return views


def _padded(size_bytes: int) -> int:
    return math.ceil(size_bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _tensors(draw: Any) -> Iterator[Tensor]:
    if isinstance(draw, Tensor):
        yield draw
    elif isinstance(draw, tuple):
        for member in draw:
            yield from _tensors(member)


def _form(draw: Any) -> Any:
    """What must be equal for two draws to have the same tensors in the same places."""
    if isinstance(draw, Tensor):
        return draw.shape, draw.dtype, draw.stride(), draw.device
    return tuple(map(_form, draw)) if isinstance(draw, tuple) else draw
