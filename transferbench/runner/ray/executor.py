"""Jobs on the nodes of a cluster: slots come and go with their nodes, and lost jobs are told."""

from __future__ import annotations

import atexit
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

from transferbench.errors import TransferbenchError
from transferbench.runner.executors import Assignment, Outcome
from transferbench.runner.messages import say
from transferbench.runner.ray.slots import Lane, Node, slots_of_nodes

__all__ = ["Answer", "Cluster", "Gone", "RayExecutor", "Ready", "Refused", "Slot"]

TICK_SECONDS = 1.0
"""How often nodes are looked at."""
PATIENCE_SECONDS = 10.0
"""For an actor to begin, where nothing else can be done."""
SILENCE_SECONDS = 30.0
"""Without any worker, until the user is told what the run waits for."""
FALSE_STARTS = 3
"""Actors in succession that die before they begin, until their node is not used."""
GRACE_SECONDS = 6.0
"""For the jobs to end after an interrupt; a worker takes twice two seconds at most."""


class Ready(NamedTuple):
    """An actor has begun and may take jobs; ``log``: where they print."""

    log: str


class Refused(NamedTuple):
    """An actor, or its worker, cannot work on its node."""

    error: Exception


class Gone(NamedTuple):
    """An actor or its node is gone; ``detail`` is what Ray says on it."""

    message: str
    detail: str


Answer: TypeAlias = Ready | Refused | Gone | list[Outcome | str]


@dataclass(eq=False)
class Slot:
    """An actor on a node; ``pending``: where its next answer comes. ``jobs``: not ended yet.

    ``log``: where its jobs print; empty before it has started.
    """

    node: Node
    lane: str
    actor: Any
    pending: Any
    log: str = ""
    jobs: list[str] = field(default_factory=list)
    began: float = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether it may take jobs."""
        return bool(self.log) and not self.jobs


class Cluster(Protocol):
    """What Ray does for the executor; ``RayCluster``, or a fake one in tests."""

    def nodes(self) -> list[Node]:
        """The nodes that are alive."""

    def begin(self, node: Node, lane: Lane) -> Slot:
        """Have an actor on a node, which answers when it is ready."""

    def give(self, slot: Slot, jobs: Assignment) -> None:
        """Give jobs to an idle slot."""

    def answers(self, slots: Sequence[Slot], timeout: float) -> list[tuple[Slot, Answer]]:
        """The answers of slots that are not idle, waiting for one up to ``timeout`` seconds."""

    def end(self, slots: Sequence[Slot], timeout: float) -> None:
        """End the jobs of slots as an interrupt does, and wait for that."""

    def kill(self, slot: Slot) -> None:
        """End an actor."""

    def close(self) -> None:
        """Leave the cluster, or end it where it was begun for this run."""


class RayExecutor:
    """As many actors as the nodes of a cluster have room for, ``limit`` at most.

    Nodes that join get actors. A node on which an actor cannot begin is told, and not used.
    """

    def __init__(
        self,
        cluster: Cluster,
        lanes: Sequence[Lane],
        limit: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.device = device
        self._cluster, self._limit = cluster, limit
        self._lanes = {lane.name: lane for lane in lanes}
        self._slots: list[Slot] = []
        self._refused: set[str] = set()
        self._false_starts: Counter[str] = Counter()
        self._looked_at, self._idle_since = -TICK_SECONDS, time.monotonic()
        self._told = False
        atexit.register(self.close)
        self._follow_nodes()

    @property
    def slots(self) -> int:
        """How many assignments may run at once on the nodes of this moment."""
        return max(1, len(self._slots))

    def free(self, lane: str = "") -> int:
        """How many assignments of a lane may be submitted.

        Where nothing runs, it waits a while for an actor that begins.
        """
        self._settle_all(self._beginning(), 0.0)
        until = time.monotonic() + PATIENCE_SECONDS
        while not self._idle(lane) and not self._busy():
            self._poll(TICK_SECONDS)
            self._tell_waiting(lane)
            if not self._beginning(lane) or time.monotonic() > until:
                break
        return len(self._idle(lane))

    def submit(self, work: Assignment) -> None:
        """Give jobs to an idle actor of their lane."""
        idle = self._idle(work.lane)
        if not idle:
            raise RuntimeError("no slot is free: wait for an outcome before the next job")
        slot = idle[0]
        slot.jobs, slot.began, self._told = list(work.jobs), time.monotonic(), False
        self._cluster.give(slot, work)

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """The outcomes that came; none, too, where a slot has become free.

        Raises: what kept the workers of all nodes from starting.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self._busy():
            idle = set(self._idle())
            left = TICK_SECONDS if until is None else max(0.0, until - time.monotonic())
            outcomes = self._poll(min(left, TICK_SECONDS))
            if outcomes or left <= 0 or set(self._idle()) - idle:
                return outcomes
        return []

    def close(self) -> None:
        """End what runs, keeping unfinished trainings, and every actor."""
        atexit.unregister(self.close)
        busy, slots, self._slots = self._busy(), self._slots, []
        try:
            if busy:
                self._cluster.end(busy, GRACE_SECONDS)
        finally:
            for slot in slots:
                self._cluster.kill(slot)
            self._cluster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _busy(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.jobs]

    def _beginning(self, lane: str = "") -> list[Slot]:
        return [slot for slot in self._of_lane(lane) if not slot.log]

    def _idle(self, lane: str = "") -> list[Slot]:
        return [slot for slot in self._of_lane(lane) if slot.is_idle]

    def _of_lane(self, lane: str) -> list[Slot]:
        """The slots of a lane; of the first one, where the nodes of this moment have none of it."""
        own = [slot for slot in self._slots if lane in {"", slot.lane}]
        return own or [slot for slot in self._slots if slot.lane == next(iter(self._lanes))]

    def _poll(self, seconds: float) -> list[Outcome]:
        """Follow the nodes, and settle what their actors answer within ``seconds``."""
        if time.monotonic() - self._looked_at >= TICK_SECONDS:
            self._follow_nodes()
        return self._settle_all([slot for slot in self._slots if not slot.is_idle], seconds)

    def _settle_all(self, slots: Sequence[Slot], seconds: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for slot, answer in self._cluster.answers(slots, seconds):
            if slot in self._slots:  # its node may have been refused for an answer before
                outcomes += self._settle(slot, answer)
        return outcomes

    def _follow_nodes(self) -> None:
        """Have actors on nodes that joined, and none on those that left."""
        self._looked_at = time.monotonic()
        nodes = {node.id: node for node in self._cluster.nodes() if node.id not in self._refused}
        for slot in list(self._slots):
            # That a busy one is gone is its own answer.
            if slot.node.id not in nodes and not slot.jobs:
                self._drop(slot)
        room = slots_of_nodes(list(nodes.values()), list(self._lanes.values()), self._limit)
        room -= Counter((slot.node.id, slot.lane) for slot in self._slots)
        for node, lane in room.elements():
            if self._limit is None or len(self._slots) < self._limit:
                self._slots.append(self._cluster.begin(nodes[node], self._lanes[lane]))

    def _settle(self, slot: Slot, answer: Answer) -> list[Outcome]:
        match answer:
            case Ready():
                slot.log = answer.log
                self._false_starts[slot.node.id] = 0
                return []
            case Refused():
                return self._refuse(slot, answer.error)
            case Gone():
                return self._lose(slot, answer) if slot.log else self._false_start(slot, answer)
        outcomes = [each for each in answer if isinstance(each, Outcome)]
        for outcome in outcomes:
            slot.jobs.remove(outcome.job)
        for note in answer:
            if isinstance(note, str):
                say(f"{slot.node.name}: {note}")
        return outcomes

    def _lose(self, slot: Slot, gone: Gone) -> list[Outcome]:
        """The outcomes of the jobs that a slot had."""
        self._drop(slot)
        see = f"; what it printed is in {slot.log}" if slot.log else ""
        message = f"the worker on {slot.node.name} {gone.message}{see}"
        seconds = time.monotonic() - slot.began
        return [Outcome(job, "lost", message, gone.detail, seconds) for job in slot.jobs]

    def _false_start(self, slot: Slot, gone: Gone) -> list[Outcome]:
        """Drop an actor that died before it began; its node gets others, for a while."""
        self._false_starts[slot.node.id] += 1
        if self._false_starts[slot.node.id] == FALSE_STARTS:
            return self._refuse(slot, TransferbenchError(f"its workers die: {gone.detail}"))
        self._drop(slot)
        return []

    def _refuse(self, slot: Slot, error: Exception) -> list[Outcome]:
        """Use a node no longer. Raises: ``error`` where there is no other."""
        self._refused.add(slot.node.id)
        lost = self._lose(slot, Gone(f"could not start: {error}", ""))
        for other in list(self._slots):
            if other.node.id == slot.node.id and not other.jobs:
                self._drop(other)
        if not self._slots and not any(n.id not in self._refused for n in self._cluster.nodes()):
            raise error
        say(f"the node {slot.node.name} is not used: {error}")
        return lost

    def _drop(self, slot: Slot) -> None:
        self._cluster.kill(slot)
        self._slots.remove(slot)

    def _tell_waiting(self, lane: str) -> None:
        """Say once for what the run waits while it has no worker of a lane."""
        if self._idle(lane):
            self._idle_since = time.monotonic()
        elif not self._told and time.monotonic() - self._idle_since > SILENCE_SECONDS:
            self._told = True
            worker = f"{lane} worker".lstrip()
            say(f"no {worker} has begun on the Ray cluster yet: the run waits for a node with room "
                "(ray status shows what is in use)")  # fmt: skip
