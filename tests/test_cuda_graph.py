"""What a CUDA graph asks of torch, and how it leaves a capture that fails: on a fake of a card.

The fake keeps the rules of CUDA: a capture ends only where all streams have come back, one that is
broken does not end, and its stream stays the current one. Torch up to 2.12 then believes, in its
allocator and its generators, that the capture goes on.
"""

import gc
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from transferbench.data.transfer import CudaStreams
from transferbench.training import graph as graph_module
from transferbench.training.generators import OwnGenerators
from transferbench.training.graph import CudaGraph

DEVICE = torch.device("cuda")


class Generator:
    """``state``: an object that several generators may share, as in torch."""

    def __init__(self, device=DEVICE, seed=0):
        self.device, self.state = device, SimpleNamespace(seed=seed, captured=False)

    def get_state(self):
        return self.state.seed

    def set_state(self, seed):
        self.state.seed = seed

    def graphsafe_get_state(self):
        shares = Generator()
        shares.state = self.state
        return shares

    def graphsafe_set_state(self, other):
        self.state = other.state


class Stream:
    def __init__(self, card, priority):
        self.card, self.priority, self.waits = card, priority, []
        self.device = DEVICE

    def wait_stream(self, other):
        if self.card.broken:
            raise RuntimeError(
                "CUDA error: operation failed due to a previous error during capture"
            )
        self.waits.append(other)
        if other in self.card.forked:
            self.card.forked.remove(other)
        elif self.card.capturing is other:
            self.card.forked.append(self)


class Card:
    """The parts of ``torch.cuda`` that graphs use."""

    def __init__(self):
        self.streams, self.forked = [], []
        self.current = self.default = Stream(self, 0)
        self.capturing, self.broken = None, False
        self.mode, self.modes, self.ended = "default", [], []
        self.generators = [Generator(seed=7)]

    def new_stream(self, _device, priority=0):
        self.streams.append(Stream(self, priority))
        return self.streams[-1]

    @contextmanager
    def on(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph, _pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        assert not self.forked
        self.current = self.capturing = stream
        drawing = [*graph.registered, self.generators[0]]
        for generator in drawing:
            generator.state.captured = True
        before = self.default
        try:
            yield
        finally:
            self.capturing, broken, self.broken = None, self.broken or bool(self.forked), False
            self.forked.clear()
            if broken:
                raise RuntimeError("CUDA error: capturing stream has unjoined work")
            for generator in drawing:
                generator.state.captured = False
            self.current = before

    def set_mode(self, mode):
        self.mode = mode
        self.modes.append(mode)


class Captured:
    def __init__(self):
        self.registered = []

    def register_generator_state(self, generator):
        self.registered.append(generator)


@pytest.fixture
def card(monkeypatch):
    card = Card()
    for name, value in {
        "Stream": card.new_stream, "stream": card.on, "graph": card.graph, "CUDAGraph": Captured,
        "current_stream": lambda *_: card.current, "current_device": lambda: 0,
        "default_generators": card.generators, "get_sync_debug_mode": lambda: card.mode,
        "set_sync_debug_mode": card.set_mode,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(
        torch._C, "_cuda_endAllocateToPool", lambda *pool: card.ended.append(pool), raising=False
    )
    graph_module._stream.cache_clear()
    yield card
    graph_module._stream.cache_clear()


def generators(count):
    own = [OwnGenerators(torch.device("cpu")) for _ in range(count)]
    for index, each in enumerate(own):
        each.cuda = Generator(seed=index + 1)
    return own


def nothing():
    pass


def test_each_work_is_captured_on_a_stream_of_its_own_and_joined(card):
    notes = []

    def work():
        notes.append((card.current, card.generators[0].get_state(), gc.isenabled()))

    graph, own = CudaGraph(DEVICE, (0, 1)), generators(3)
    graph.warm_up([nothing] * 3)
    graph.capture([work] * 3, own)
    streams, states, collects = zip(*notes, strict=True)
    assert len(set(streams)) == 3
    assert card.streams[0] not in streams
    assert states == (1, 2, 3)
    assert card.generators[0].get_state() == 7
    assert (not any(collects), gc.isenabled()) == (True, True)
    assert graph._graph.registered == [each.cuda for each in own]
    assert (card.current, card.ended) == (card.default, [])


def test_graphs_of_a_device_have_the_same_streams(card):
    """Each stream that cuBLAS has computed on keeps tens of MB."""
    for count in (3, 2, 4):
        graph = CudaGraph(DEVICE, (0, 1))
        graph.warm_up([nothing] * count)
        graph.capture([nothing] * count, generators(count))
    assert len(card.streams) == 5


def test_images_are_copied_on_a_stream_that_no_graph_has(card):
    """Streams of priority come from another pool: a copy never becomes part of a graph."""
    CudaStreams(DEVICE)
    CudaGraph(DEVICE, (0, 1)).warm_up([nothing])
    copies, *of_graphs = card.streams
    assert copies.priority < 0
    assert {stream.priority for stream in of_graphs} == {0}


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_a_capture_without_memory_ends_and_says_so(card):
    """With a stream that has not come back it would end in another error, and G not be halved."""
    with pytest.raises(torch.OutOfMemoryError):
        CudaGraph(DEVICE, (0, 1)).capture([nothing, out_of_memory, nothing], generators(3))
    assert (card.current, card.forked) == (card.default, [])


def test_what_broke_a_capture_is_told_and_nothing_stays_in_it(card):
    def waits():
        card.broken = True
        raise RuntimeError("operation not permitted when stream is capturing")

    own = generators(2)
    with pytest.raises(RuntimeError, match=r"^operation not permitted"):
        CudaGraph(DEVICE, (0, 1)).capture([nothing, waits], own)
    assert card.current is card.default
    assert card.ended == [(0, (0, 1))]
    states = [each.state for each in (own[0].cuda, own[1].cuda, card.generators[0])]
    assert [(state.seed, state.captured) for state in states] == [(n, False) for n in (1, 2, 7)]
    assert gc.isenabled()


def test_a_warm_up_may_wait_for_the_device_only_at_first(card):
    modes = []
    graph = CudaGraph(DEVICE, (0, 1))
    for _ in range(2):
        graph.warm_up([lambda: modes.append(card.mode)])
    assert modes == ["default", "error"]
    assert card.mode == "default"


def test_what_a_failed_warm_up_still_computes_is_waited_for(card):
    """Else weights would be put back while steps of others still change them."""
    with pytest.raises(torch.OutOfMemoryError):
        CudaGraph(DEVICE, (0, 1)).warm_up([nothing, out_of_memory])
    main, *streams = card.streams
    assert main.waits == [card.default, *streams]
    assert card.default.waits == [main]
