"""Running a graph of jobs in the order of their requirements; a failure costs its dependents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from transferbench.errors import listing
from transferbench.identity import digest
from transferbench.plan import Job
from transferbench.runner.executors import Assignment, Executor, Outcome
from transferbench.runner.messages import say
from transferbench.runner.ready import Queue, ReadyJobs
from transferbench.store import Store

__all__ = ["Grouping", "JobSchedule", "SilentWatcher", "Watcher", "cost_of", "record_failure",
           "shape_of"]  # fmt: skip

REPAIRS = 2
"""How often a job is run again because an artefact that it reads is corrupted."""
ATTEMPTS = 3
"""How often a job is begun whose worker is lost each time."""
LISTED = 5
"""Damaged jobs that are listed."""


@runtime_checkable
class Watcher(Protocol):
    """Callbacks on the progress of a run."""

    def note(self, text: str) -> None:
        """A line that the user should read before the first job starts."""

    def planned(self, jobs: Mapping[str, Job], done: Collection[str]) -> None:
        """The run has ``jobs``, of which those in ``done`` need no work."""

    def started(self, job: Job) -> None:
        """A job was handed to the executor."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """A job ended, or was skipped because a job that it requires failed."""


class SilentWatcher:
    """A watcher that shows nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def planned(self, jobs: Mapping[str, Job], done: Collection[str]) -> None:
        """Do nothing."""

    def started(self, job: Job) -> None:
        """Do nothing."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Do nothing."""


def _ignored(_job: str, _done: Collection[str]) -> None: ...


def cost_of(job: Job) -> float:
    """How long a job takes beside others, in forward passes of images."""
    return 3 * job.work.trained + job.work.evaluated


def shape_of(job: Job) -> str:
    """What trainings share that one graph may hold; "" of a job that trains nothing.

    Rates, seeds, data, perturbations and initial weights may differ.
    """
    recipe = job.payload.get("recipe")
    if recipe is None or not job.work.trained:
        return ""
    fixed = {key: value for key, value in recipe.items() if key != "learning_rate"}
    steps = math.ceil(job.work.trained / recipe["epochs"] / recipe["batch_size"])
    classes = [job.payload["dataset"][key] for key in ("classes", "task")]
    of_network = [job.payload.get(key) for key in ("backbone", "image", "frozen")]
    return digest([job.kind, fixed, steps, classes, of_network])


def record_failure(store: Store, job: Job, outcome: Outcome) -> None:
    """Keep how a job failed; it is never served as a result."""
    if outcome.status != "ok" and outcome.status != "lost":  # noqa: PLR1714  # narrows the type
        store.record_failure(job.id, job.kind, outcome.status, outcome.message, outcome.traceback)


class Grouping(NamedTuple):
    """Up to ``size`` trainings of one shape go to one worker; ``lanes``: which may take a job."""

    size: int = 1
    lane_of: Callable[[Job], str] = lambda _: ""


@dataclass
class JobSchedule:
    """Runs every job that is not ``done`` nor ``failed`` before, each after those it requires.

    A job that fails leaves its failure in the store and costs only the jobs that need it.
    ``computed``: called with each job that was computed, and the jobs that were done before.
    ``turns``: jobs of a smaller number first, 0 where none is there. Of one turn the longest first.
    A job whose worker is lost is tried again, alone. ``take``: called before a job begins; False
    where another process has begun it, which tells how it ended. ``shared``: by processes that
    tell each other of failures and of what is computed again.
    """

    jobs: Mapping[str, Job]
    done: set[str]
    store: Store
    executor: Executor
    watcher: Watcher
    failed: Mapping[str, Outcome] = field(default_factory=dict)
    computed: Callable[[str, Collection[str]], None] = _ignored
    grouping: Grouping = field(default_factory=Grouping)
    turns: Mapping[str, int] = field(default_factory=dict)
    take: Callable[[str], bool] = lambda _: True
    shared: bool = False
    running: set[str] = field(default_factory=set)
    repairs: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.done = set(self.done)
        places = {name: place for place, name in enumerate(self.jobs)}

        def order(name: str) -> tuple[float, ...]:
            job = self.jobs[name]
            # What cost a worker before goes last.
            return self.losses[name], self.turns.get(name, 0), -cost_of(job), places[name]

        self.ready = ReadyJobs(self.jobs, self.done, order, self._queue_of)
        for name in self.jobs:
            if name not in self.done and name not in self.failed:
                self.ready.add(name)

    def run(self) -> dict[str, Outcome]:
        """The outcomes of the jobs that were not done at the start."""
        self.begin()
        while self.is_unfinished:
            self.submit()
            if self.running:
                for outcome in self.executor.wait(None):
                    self.settle(outcome)
        return self.outcomes

    def begin(self) -> None:
        """Tell what there is to do, and skip what requires a job that failed before."""
        self.watcher.planned(self.jobs, frozenset(self.done))
        for name, outcome in self.failed.items():
            if outcome.status != "ok" and name in self.jobs:
                self._skip_dependents(name)

    @property
    def is_unfinished(self) -> bool:
        """Whether jobs wait, or run."""
        return bool(self.ready.waiting or self.running)

    def submit(self) -> None:
        """Let as many jobs begin as there are free workers."""
        while self.executor.free() and (jobs := self._next()):
            lane = self.grouping.lane_of(jobs[0])
            self.running.update(job.id for job in jobs)
            cost = sum(map(cost_of, jobs))
            self.executor.submit(Assignment({job.id: job for job in jobs}, cost, lane))
            for job in jobs:
                self.watcher.started(job)

    def settle(self, outcome: Outcome) -> None:
        """Take note of how a job ended, here or in another process."""
        self.running.discard(outcome.job)
        if outcome.status == "ok":
            self.computed(outcome.job, self.done)
            if outcome.job not in self.done:
                self.done.add(outcome.job)
                self.ready.done(outcome.job)
        elif outcome.status == "lost":
            self.losses[outcome.job] += 1
            if self.losses[outcome.job] < ATTEMPTS:
                self.put_back(outcome.job)
                return
            text = f"{outcome.message}; it was tried {ATTEMPTS} times"
            outcome = outcome._replace(status="failed", message=text)
        elif not self.shared and (damaged := self.damaged_requirements(outcome.job)):
            self.say_repaired(outcome.job, damaged)
            for name in (*damaged, outcome.job):
                self.put_back(name)
            return
        self._record(outcome)

    def put_back(self, name: str) -> None:
        """A job is to be computed, or computed again, unless it is running."""
        if name not in self.running:
            if name in self.done:
                self.done.discard(name)
                self.ready.undone(name)
            self.ready.add(name)

    def damaged_requirements(self, name: str) -> list[str]:
        """The jobs whose artefacts a failed job found corrupted, where it may be tried again."""
        lost = [need for need in self.jobs[name].requires if not self.store.sees(need)]
        return lost if self.repairs[name] < REPAIRS else []

    def say_repaired(self, name: str, damaged: Sequence[str]) -> None:
        """Say what is computed again, and count it."""
        self.repairs[name] += 1
        titles = listing([self.jobs[need].title for need in damaged], LISTED, "; ")
        say(f"damaged, and computed again for {self.jobs[name].title}: {titles}")

    def _queue_of(self, name: str) -> Queue:
        job = self.jobs[name]
        shape = shape_of(job) if self.grouping.size > 1 and not self.losses[name] else ""
        return Queue(self.grouping.lane_of(job), shape)

    def _next(self) -> list[Job]:
        """A job that may begin now, or a group of trainings of one shape; none where none may."""
        for queue, n in self.ready.queues():
            workers = self.executor.free(queue.lane)
            while workers:
                size = min(self.grouping.size, math.ceil(n / workers)) if queue.shape else 1
                names = self.ready.take(queue, size)
                if own := [self.jobs[name] for name in names if self._taken(name)]:
                    return own
                if not names:
                    break
        return []

    def _taken(self, name: str) -> bool:
        if not self.take(name):
            self.ready.waiting.add(name)  # in no queue: what became of it is told
            return False
        return True

    def _skip_dependents(self, failed: str) -> None:
        """Skip the jobs that require a failed one, and so on down the graph."""
        reason = f"needs {self.jobs[failed].title}, which did not finish"
        for name in self.ready.dependents(failed):
            if name in self.ready.waiting:  # one that requires another of them is skipped already
                self._record(Outcome(name, "skipped", reason, "", 0.0))

    def _record(self, outcome: Outcome) -> None:
        job = self.jobs[outcome.job]
        self.ready.remove(outcome.job)
        if not self.shared:
            record_failure(self.store, job, outcome)
        self.outcomes[job.id] = outcome
        self.watcher.finished(job, outcome)
        if outcome.status != "ok":
            self._skip_dependents(job.id)
