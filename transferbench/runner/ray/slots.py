"""Which slots a cluster has room for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Lane", "Node", "slots_of_nodes"]


class Node(NamedTuple):
    """A machine of a cluster, and what Ray may give away of it."""

    id: str
    name: str
    cpus: float
    gpus: float


class Lane(NamedTuple):
    """A kind of slot: what each takes of its node, and the pickled start of its workers."""

    name: str
    cpus: float
    gpus: float
    start: bytes


def slots_of_nodes(
    nodes: Sequence[Node], lanes: Sequence[Lane], limit: int | None
) -> Counter[tuple[str, str]]:
    """How many slots each node has of each lane, by their ids: up to ``limit`` in all.

    The first lane takes what it can; of each lane, nodes get one slot in turn.
    """
    cpus = {node.id: node.cpus for node in nodes}
    gpus = {node.id: node.gpus for node in nodes}
    slots: Counter[tuple[str, str]] = Counter()
    for lane in lanes:
        room = {node.id: _room(lane, cpus[node.id], gpus[node.id]) for node in nodes}
        turns = sorted((turn, i) for i, node in enumerate(nodes) for turn in range(room[node.id]))
        left = None if limit is None else max(0, limit - slots.total())
        for _, i in turns[:left]:
            node = nodes[i].id
            slots[node, lane.name] += 1
            cpus[node] -= lane.cpus
            gpus[node] -= lane.gpus
    return slots


def _room(lane: Lane, cpus: float, gpus: float) -> int:
    """How many slots fit; shares such as a third are not exact."""
    rooms = [have / need for have, need in ((cpus, lane.cpus), (gpus, lane.gpus)) if need]
    return math.floor(min(rooms) + 1e-6)
