"""Graphs: work of a device that is captured once and then replayed without the host.

A training step of a small network is some 200 launches of 30 us each, during which a card idles;
a captured step is one launch. Several trainings in one graph, each on a stream of its own, fill
the card.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, partial
from typing import Any, Protocol, TypeAlias

import torch

from transferbench.training.generators import OwnGenerators, renew_default_generator

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
        self._is_warm = False

    def warm_up(self, works: Sequence[Work]) -> None:
        """Do the works on the streams of the capture.

        From the second time on they may not wait for the device: to wait in a capture breaks it.
        """
        current, main = torch.cuda.current_stream(self._device), _stream(self._device, 0)
        main.wait_stream(current)
        try:
            with torch.cuda.stream(main), _never_waiting() if self._is_warm else nullcontext():
                self._fork(works)
        finally:
            # Where one raised, the others still compute: they are not to be put back before.
            current.wait_stream(main)
        self._is_warm = True

    def capture(self, works: Sequence[Work], generators: Sequence[OwnGenerators]) -> None:
        """Capture the works. Raises: what torch raises for what cannot be captured."""
        for own in generators:
            if own.cuda is not None:
                self._graph.register_generator_state(own.cuda)
        drawing = [_drawing_from(*each) for each in zip(generators, works, strict=True)]
        reason: BaseException | None = None
        try:
            # The current stream is entered as well: a capture that fails to end does not leave its.
            with (
                _collector_paused(),
                torch.cuda.stream(torch.cuda.current_stream(self._device)),
                # Threads that load images may allocate meanwhile.
                torch.cuda.graph(
                    self._graph, self._pool, _stream(self._device, 0),
                    capture_error_mode="thread_local",
                ),
            ):  # fmt: skip
                try:
                    self._fork(drawing)
                except BaseException as error:
                    reason = error
                    raise
        except BaseException:
            self._leave(generators)
            if reason is not None:
                raise reason  # noqa: B904  # and not that the broken capture cannot end
            raise

    def replay(self) -> dict[int, Exception]:
        """Launch the graph on the current stream; nothing waits for it."""
        self._graph.replay()
        return {}

    def _fork(self, works: Sequence[Work]) -> None:
        main = _stream(self._device, 0)
        streams: list[torch.cuda.Stream] = []
        try:
            for index, work in enumerate(works, start=1):
                streams.append(_stream(self._device, index))
                streams[-1].wait_stream(main)
                with torch.cuda.stream(streams[-1]):
                    work()
        except BaseException:
            # Joined all the same: a capture in which memory runs out then ends, and says so.
            with suppress(RuntimeError):
                _join(main, streams)
            raise
        _join(main, streams)

    def _leave(self, generators: Sequence[OwnGenerators]) -> None:
        """Torch (2.6 to 2.12) leaves allocator and generators in a capture that failed to end."""
        with suppress(RuntimeError):  # where they have left it
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)  # noqa: SLF001
        renew_default_generator()
        for own in generators:
            own.renew()


@cache
def _stream(device: torch.device, _index: int) -> torch.cuda.Stream:
    """The same of all graphs of a device: cuBLAS keeps a workspace for each that it computes on."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _join(main: torch.cuda.Stream, streams: Iterable[torch.cuda.Stream]) -> None:
    for stream in streams:
        main.wait_stream(stream)


@contextmanager
def _never_waiting() -> Iterator[None]:
    """Inside the block an operation that waits for the card raises ``RuntimeError``."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that not all of them are known
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Inside the block Python frees no cycles: other graphs and their events may be among them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
