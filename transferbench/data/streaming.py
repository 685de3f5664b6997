"""Images that stay on the disk: batches of a memory map, read by a thread ahead of their use.

The order of an epoch is known before its first step, so that a batch is in memory when it is its
turn; which images a batch has, and what is drawn for them, is decided elsewhere, so that numbers do
not depend on it. For a GPU the same thread fills pinned buffers that a side stream copies
(``transfer``).

Shape letters: N images, M images of a batch, V = H*W*C values an image.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from transferbench.data.transfer import Transfer, transfer_to
from transferbench.specs import ImageShape

__all__ = ["StreamedImages"]

AHEAD = 2
"""Batches that are read before their turn: one may be late without a step that waits."""


class _Begun(NamedTuple):
    indices: Tensor
    images: Future[Callable[[], Tensor]]


class StreamedImages:
    """The images at ``positions`` of a split, read when they are used.

    ``read``: as of a ``PreparedSplit``: positions to uint8 (M, H, W, C), which is checked.
    ``transfer``: their way to the device, by default that of its kind.
    ``waited_seconds``: how long ``fetch`` has waited for images that were announced.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        positions: np.ndarray,
        image_shape: ImageShape,
        device: torch.device,
        transfer: Transfer | None = None,
    ) -> None:
        self.shape = (len(positions), *image_shape)
        self.device = device
        self.waited_seconds = 0.0
        self._read = read
        self._transfer = transfer or transfer_to(device)
        self._positions = positions
        self._pool: ThreadPoolExecutor | None = None
        self._begun: deque[_Begun] = deque()
        self._next: Iterator[Tensor] = iter(())

    def announce(self, batches: Iterable[Tensor]) -> None:
        """The batches, int64 (M,) each, that are fetched from now on, in this order.

        Another call takes the place of what was announced before.
        """
        for begun in self._begun:
            begun.images.cancel()
        self._begun.clear()
        self._next = iter(batches)
        for _ in range(AHEAD):
            self._begin()

    def fetch(self, indices: Tensor) -> Tensor:
        """The images at ``indices``, uint8 (M, V), on the device.

        Any batch may be fetched; those that are announced are there already.
        Raises: ``DamagedImagesError`` where an image is not what was written.
        """
        if not self._begun or not torch.equal(self._begun[0].indices.cpu(), indices.cpu()):
            return self._in_thread(indices).result()()
        images = self._begun.popleft().images
        self._begin()
        started = time.perf_counter()
        try:
            return images.result()()
        finally:
            self.waited_seconds += time.perf_counter() - started

    def _begin(self) -> None:
        """Begin to read the batch after those that are being read."""
        indices = next(self._next, None)
        if indices is not None:
            self._begun.append(_Begun(indices, self._in_thread(indices)))

    def _in_thread(self, indices: Tensor) -> Future[Callable[[], Tensor]]:
        # One thread: the disk, or the copy out of the page cache, is what takes the time.
        self._pool = self._pool or ThreadPoolExecutor(1, "images")
        return self._pool.submit(self._load, indices)

    def _load(self, indices: Tensor) -> Callable[[], Tensor]:
        images = self._read(self._positions[indices.cpu().numpy()])
        return self._transfer(images.reshape(len(images), -1))
