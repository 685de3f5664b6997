"""Which jobs may begin, in order; a job that ends costs the jobs that require it, and no others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from heapq import heappop, heappush
from typing import Any, NamedTuple

from transferbench.plan import Job

__all__ = ["Queue", "ReadyJobs"]


class Queue(NamedTuple):
    """Ready jobs of one lane, and of one shape where they may run together."""

    lane: str
    shape: str = ""


class ReadyJobs:
    """The jobs that wait, and those of them that may begin: all that they require is done.

    ``order``: smaller ones first. ``queue_of``: where a job that becomes ready is put.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        done: Collection[str],
        order: Callable[[str], Any],
        queue_of: Callable[[str], Queue],
    ) -> None:
        self.waiting: set[str] = set()
        self._order, self._queue_of = order, queue_of
        self._dependents: defaultdict[str, list[str]] = defaultdict(list)
        self._missing: dict[str, int] = {}
        for name, job in jobs.items():
            missing = {need for need in job.requires if need not in done}
            self._missing[name] = len(missing)
            for need in {*job.requires}:
                self._dependents[need].append(name)
        self._heaps: defaultdict[Queue, list[tuple[Any, str]]] = defaultdict(list)
        self._sizes: Counter[Queue] = Counter()
        self._queued: dict[str, Queue] = {}

    def add(self, name: str) -> None:
        """Let a job wait."""
        self.waiting.add(name)
        if not self._missing[name]:
            self._push(name)

    def remove(self, name: str) -> None:
        """A job no longer waits: it begins, or has ended without."""
        self.waiting.discard(name)
        self._withdraw(name)

    def done(self, name: str) -> None:
        """A job is done, which was not."""
        for each in self._dependents[name]:
            self._missing[each] -= 1
            if not self._missing[each] and each in self.waiting:
                self._push(each)

    def undone(self, name: str) -> None:
        """A job that was done has to be computed again."""
        for each in self._dependents[name]:
            self._missing[each] += 1
            self._withdraw(each)

    def dependents(self, name: str) -> list[str]:
        """The waiting jobs that require a job."""
        return [each for each in self._dependents[name] if each in self.waiting]

    def queues(self) -> Iterator[tuple[Queue, int]]:
        """The queues that are not empty, each with its length: that of the first job first.

        Those of single jobs come before those of jobs that may run together.
        """
        heads = []
        for queue, size in self._sizes.items():
            heap = self._heaps[queue]
            while heap and self._queued.get(heap[0][1]) != queue:
                heappop(heap)
            if size:
                heads.append((bool(queue.shape), heap[0][0], queue, size))
        return ((queue, size) for _, _, queue, size in sorted(heads))

    def take(self, queue: Queue, n: int) -> list[str]:
        """The first ``n`` jobs of a queue, which no longer wait."""
        taken: list[str] = []
        heap = self._heaps[queue]
        while len(taken) < n and heap:
            _, name = heappop(heap)
            if self._queued.get(name) == queue:
                self.remove(name)
                taken.append(name)
        return taken

    def __len__(self) -> int:
        return len(self._queued)

    def _push(self, name: str) -> None:
        if name not in self._queued:
            queue = self._queued[name] = self._queue_of(name)
            self._sizes[queue] += 1
            heappush(self._heaps[queue], (self._order(name), name))

    def _withdraw(self, name: str) -> None:
        if queue := self._queued.pop(name, None):
            self._sizes[queue] -= 1
