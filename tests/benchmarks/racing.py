"""Who is raced against, and what a race came to."""

import statistics
from collections.abc import Callable
from typing import NamedTuple


class Peer(NamedTuple):
    """Who is raced against, and the goal: ``faster`` times at least, or ``within`` times of it.

    With neither, it is there to compare with.
    """

    name: str
    run: Callable[[], object]
    faster: float | None = None
    within: float | None = None


def result(peer: Peer, own: list[float], others: list[float]) -> dict[str, object]:
    speedups = [other / mine for mine, other in zip(own, others, strict=True)]
    return {
        "peer": peer.name,
        "peer_seconds": statistics.median(others),
        "speedup": statistics.median(speedups),
        "faster": peer.faster,
        "within": peer.within,
    }
