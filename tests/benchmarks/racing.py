"""The peers of a benchmark, and the result of a comparison."""

import statistics
from collections.abc import Callable
from typing import NamedTuple


class Peer(NamedTuple):
    """An implementation to compare with, and the goal of the comparison, if any.

    ``faster``: the least speed-up over the peer. ``within``: the largest multiple of its time.
    """

    name: str
    run: Callable[[], object]
    faster: float | None = None
    within: float | None = None


def result(peer: Peer, own: list[float], peer_seconds: list[float]) -> dict[str, object]:
    speedups = [theirs / ours for ours, theirs in zip(own, peer_seconds, strict=True)]
    return {
        "peer": peer.name,
        "peer_seconds": statistics.median(peer_seconds),
        "speedup": statistics.median(speedups),
        "faster": peer.faster,
        "within": peer.within,
    }
