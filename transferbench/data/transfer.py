"""Images on their way to the device: through pinned buffers and a stream of their own on a card.

The thread that reads images fills a buffer; a side stream copies it while the card computes; the
stream that computes waits for that copy alone, and the host for nothing but a buffer that is still
being copied.

Shape letters: M images of a batch, V values an image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["BUFFERS", "Arrival", "CudaStreams", "SideStream", "Streams", "Transfer", "transfer_to"]

BUFFERS = 3
"""One is filled, one is copied, and one may still be read: as many as batches are begun ahead."""

Transfer = Callable[[np.ndarray], Callable[[], Tensor]]
"""Called by the thread that reads with images (M, V); what it returns gives them on the device."""


class Arrival(Protocol):
    """The end of a copy: ``wait`` lets the computing stream wait, ``synchronize`` the host."""

    def wait(self) -> None: ...
    def synchronize(self) -> None: ...


class Streams(Protocol):
    """Pinned memory of the host, and copies out of it beside the computation."""

    def pinned(self, size_bytes: int) -> Tensor: ...
    def copied(self, host: Tensor) -> tuple[Tensor, Arrival]: ...


class _Buffer(NamedTuple):
    memory: Tensor
    arrival: Arrival | None


class SideStream:
    """Transfers through ``BUFFERS`` buffers in turn."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._buffers: list[_Buffer | None] = [None] * BUFFERS
        self._next = 0

    def __call__(self, images: np.ndarray) -> Callable[[], Tensor]:
        """Begin to copy images, uint8 (M, V)."""
        index, self._next = self._next, (self._next + 1) % BUFFERS
        buffer = self._buffers[index]
        if buffer is not None and buffer.arrival is not None:
            buffer.arrival.synchronize()
        if buffer is None or buffer.memory.nbytes < images.nbytes:
            buffer = _Buffer(self._streams.pinned(images.nbytes), None)
        host = buffer.memory[: images.nbytes].view(images.shape)
        host.copy_(torch.from_numpy(images))
        on_device, arrival = self._streams.copied(host)
        self._buffers[index] = _Buffer(buffer.memory, arrival)

        def arrived() -> Tensor:
            arrival.wait()
            return on_device

        return arrived


class _CudaArrival:
    def __init__(self, images: Tensor, stream: torch.cuda.Stream) -> None:
        self._images = images
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._event.record(stream)

    def wait(self) -> None:
        """Let the current stream wait; its memory is not given to others before it is done."""
        current = torch.cuda.current_stream(self._images.device)
        current.wait_event(self._event)
        self._images.record_stream(current)

    def synchronize(self) -> None:
        """Wait for the copy."""
        self._event.synchronize()


class CudaStreams:
    """The streams of a card."""

    def __init__(self, device: torch.device) -> None:
        # Of priority: torch hands out the others in turn, 32 of them. One of a graph that is being
        # captured may be among those, and a copy on it would become part of the graph.
        self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        # With its number: the thread that reads may have another current card.
        self._device = self._stream.device

    def pinned(self, size_bytes: int) -> Tensor:
        """Memory of the host from which a card copies while the host goes on."""
        return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)

    def copied(self, host: Tensor) -> tuple[Tensor, Arrival]:
        """``host`` on the card, once it has arrived."""
        with torch.cuda.stream(self._stream):
            images = host.to(self._device, non_blocking=True)
        return images, _CudaArrival(images, self._stream)


def _direct(images: np.ndarray) -> Callable[[], Tensor]:
    """On the CPU images are where they are computed with."""
    tensor = torch.from_numpy(images)
    return lambda: tensor


def transfer_to(device: torch.device) -> Transfer:
    """The way of images to ``device``."""
    return SideStream(CudaStreams(device)) if device.type == "cuda" else _direct
