"""Benchmarks against peers, timed in turn so that load on the machine affects all of them."""

import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable

import pytest
import torch
from racing import Peer, result
from threadpoolctl import threadpool_limits

from transferbench.data.pipeline import keep_large_allocations

PACKAGES = (
    "albumentations",
    "cka-pytorch",
    "kornia",
    "loss-landscapes",
    "numpy",
    "pytorch-cka",
    "timm",
    "torch",
    "torch-cka",
    "torchvision",
)
THREADS = 1


@pytest.fixture
def one_thread_and_kept_memory():
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    keep_large_allocations()
    # The BLAS of numpy has its own threads.
    with threadpool_limits(THREADS):
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def race(benchmark, one_thread_and_kept_memory):  # noqa: ARG001  # sets threads and allocator
    """Time ``ours`` and each peer once per round; record the medians and the goals.

    A ratio is the median over rounds of the ratio of both times in a round. The default clock is
    CPU time of this process, which excludes waiting for a busy core. Pass ``time.perf_counter`` to
    measure waiting or several processes.
    """

    def run(
        ours: Callable[[], object],
        *peers: Peer,
        rounds: int = 15,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        own: list[float] = []
        peer_seconds: dict[str, list[float]] = {peer.name: [] for peer in peers}

        def timed(work: Callable[[], object], seconds: list[float]) -> None:
            start = clock()
            work()
            seconds.append(clock() - start)

        def run_peers() -> None:
            for peer in peers:
                timed(peer.run, peer_seconds[peer.name])

        benchmark.pedantic(timed, args=(ours, own), setup=run_peers, rounds=rounds, warmup_rounds=2)
        last = own[-rounds:]
        benchmark.extra_info["seconds"] = statistics.median(last)
        benchmark.extra_info["clock"] = clock.__name__
        benchmark.extra_info["races"] = [
            result(peer, last, peer_seconds[peer.name][-rounds:]) for peer in peers
        ]

    return run


def pytest_benchmark_update_machine_info(config, machine_info):  # noqa: ARG001  # the hook's signature
    """Record what affects the ratios, without the name of the machine."""
    machine_info.pop("node", None)
    machine_info["threads"] = THREADS
    machine_info["load"] = os.getloadavg()[0]
    machine_info["packages"] = {name: version(name) for name in PACKAGES if version(name)}


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
