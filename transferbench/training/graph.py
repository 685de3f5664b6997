"""Graphs: work of a device that is captured once and then replayed without the host.

A training step of a small network is some 200 launches of 30 us each, during which a card idles;
a captured step is one launch. Several trainings in one graph, each on a stream of its own, fill
the card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch

from transferbench.training.generators import OwnGenerators

__all__ = ["CudaGraph", "Graph", "MakeGraph", "RecordedCalls", "graphs_of"]

Work: TypeAlias = Callable[[], None]


class Graph(Protocol):
    """Works that are captured together and then done again at each replay.

    A replay reads and writes the memory that the capture saw: inputs are filled into fixed tensors
    before it. ``warm_up`` does the works once, as they will be captured: the first call of a kernel
    prepares what a capture may not. ``generators``: from which each work draws. ``replay`` returns
    what works raised, by their place; on a card none does.
    """

    def warm_up(self, works: Sequence[Work]) -> None: ...
    def capture(self, works: Sequence[Work], generators: Sequence[OwnGenerators]) -> None: ...
    def replay(self) -> dict[int, Exception]: ...


MakeGraph: TypeAlias = Callable[[], Graph]


class RecordedCalls:
    """A graph where there is no card: it calls the works again, in their order."""

    def __init__(self) -> None:
        self._works: list[Work] = []
        self._generators: list[OwnGenerators] = []

    def warm_up(self, works: Sequence[Work]) -> None:
        """Call them."""
        for work in works:
            work()

    def capture(self, works: Sequence[Work], generators: Sequence[OwnGenerators]) -> None:
        """Record them."""
        self._works, self._generators = list(works), list(generators)

    def replay(self) -> dict[int, Exception]:
        """Call them, each with the generators of its training."""
        raised: dict[int, Exception] = {}
        for index, (work, own) in enumerate(zip(self._works, self._generators, strict=True)):
            try:
                with own.active():
                    work()
            except Exception as error:  # noqa: BLE001  # of one training: the others go on
                raised[index] = error
        return raised


class CudaGraph:
    """A CUDA graph: each work is captured on a stream of its own, between a fork and a join.

    Graphs of one ``pool`` share the memory of what they compute in between.
    """

    def __init__(self, device: torch.device, pool: Any) -> None:
        self._device, self._pool = device, pool
        self._graph = torch.cuda.CUDAGraph()
        self._main = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._streams: list[torch.cuda.Stream] = []

    def warm_up(self, works: Sequence[Work]) -> None:
        """Do the works on the streams of the capture."""
        self._add_streams(len(works))
        current = torch.cuda.current_stream(self._device)
        self._main.wait_stream(current)
        with torch.cuda.stream(self._main):
            self._fork(works)
        current.wait_stream(self._main)

    def capture(self, works: Sequence[Work], generators: Sequence[OwnGenerators]) -> None:
        """Capture the works. Raises: what torch raises for what cannot be captured."""
        self._add_streams(len(works))
        for own in generators:
            if own.cuda is not None:
                self._graph.register_generator_state(own.cuda)
        # Threads that load images may allocate meanwhile.
        with torch.cuda.graph(
            self._graph, self._pool, self._main, capture_error_mode="thread_local"
        ):
            self._fork([_drawing_from(own, work)
                        for own, work in zip(generators, works, strict=True)])  # fmt: skip

    def replay(self) -> dict[int, Exception]:
        """Launch the graph on the current stream; nothing waits for it."""
        self._graph.replay()
        return {}

    def _add_streams(self, count: int) -> None:
        while len(self._streams) < count:
            self._streams.append(torch.cuda.Stream(self._device))  # type: ignore[no-untyped-call]  # as above

    def _fork(self, works: Sequence[Work]) -> None:
        streams = self._streams[: len(works)]
        for stream, work in zip(streams, works, strict=True):
            stream.wait_stream(self._main)
            with torch.cuda.stream(stream):
                work()
        for stream in streams:
            self._main.wait_stream(stream)


def graphs_of(device: torch.device) -> MakeGraph:
    """What makes the graphs of a device; those of a card share one pool of memory."""
    if device.type != "cuda":
        return RecordedCalls
    return partial(CudaGraph, device, torch.cuda.graph_pool_handle())


def _drawing_from(own: OwnGenerators, work: Work) -> Work:
    def run() -> None:
        with own.on_card():
            work()

    return run
