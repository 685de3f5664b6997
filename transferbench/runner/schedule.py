"""Running a graph of jobs in the order of their requirements; a failure costs its dependents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from transferbench.errors import listing
from transferbench.identity import digest
from transferbench.plan import Job
from transferbench.runner.executors import Assignment, Executor, Outcome
from transferbench.runner.messages import say
from transferbench.store import Store

__all__ = ["Grouping", "JobSchedule", "SilentWatcher", "Watcher", "cost_of", "shape_of"]

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
    A job whose worker is lost is tried again, alone.
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
    running: set[str] = field(default_factory=set)
    repairs: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.done = set(self.done)
        names = [job for job in self.jobs if job not in self.done and job not in self.failed]
        # A dictionary keeps the order and lets one job go in constant time. The sort is stable.
        names.sort(key=lambda name: (self.turns.get(name, 0), -cost_of(self.jobs[name])))
        self.waiting = dict.fromkeys(names)

    def run(self) -> dict[str, Outcome]:
        """The outcomes of the jobs that were not done at the start."""
        self.watcher.planned(self.jobs, frozenset(self.done))
        while self.waiting or self.running:
            self._skip()
            self._submit()
            if self.running:
                for outcome in self.executor.wait(None):
                    self._settle(outcome)
        return self.outcomes

    def _submit(self) -> None:
        for jobs, lane in self._ready():
            if self.executor.free() == 0:
                return
            if self.executor.free(lane):
                for job in jobs:
                    del self.waiting[job.id]
                    self.running.add(job.id)
                cost = sum(map(cost_of, jobs))
                self.executor.submit(Assignment({job.id: job for job in jobs}, cost, lane))
                for job in jobs:
                    self.watcher.started(job)

    def _ready(self) -> Iterator[tuple[list[Job], str]]:
        """What may begin, each with its lane: jobs, and groups of trainings of one shape."""
        shapes: dict[str, list[Job]] = {}
        for name in list(self.waiting):
            job = self.jobs[name]
            if self.done.issuperset(job.requires):
                shape = shape_of(job) if self.grouping.size > 1 and not self.losses[name] else ""
                if shape:
                    shapes.setdefault(shape, []).append(job)
                else:
                    yield [job], self.grouping.lane_of(job)
        for jobs in shapes.values():
            lane = self.grouping.lane_of(jobs[0])
            workers = max(1, self.executor.free(lane))
            size = min(self.grouping.size, math.ceil(len(jobs) / workers))
            for first in range(0, len(jobs), size):
                yield jobs[first : first + size], lane

    def _skip(self) -> None:
        """Skip the jobs that require a failed one, and so on down the graph."""
        for name in list(self.waiting):
            lost = [need for need in self.jobs[name].requires if self._failed(need)]
            if lost:
                del self.waiting[name]
                reason = f"needs {self.jobs[lost[0]].title}, which did not finish"
                self._record(Outcome(name, "skipped", reason, "", 0.0))

    def _failed(self, name: str) -> bool:
        outcome = self.outcomes.get(name, self.failed.get(name))
        return outcome is not None and outcome.status != "ok"

    def _settle(self, outcome: Outcome) -> None:
        self.running.discard(outcome.job)
        if outcome.status == "ok":
            self.computed(outcome.job, self.done)
            self.done.add(outcome.job)
        elif outcome.status == "lost":
            self.losses[outcome.job] += 1
            if self.losses[outcome.job] < ATTEMPTS:
                self.waiting[outcome.job] = None
                return
            text = f"{outcome.message}; it was tried {ATTEMPTS} times"
            outcome = outcome._replace(status="failed", message=text)
        elif self._repair(outcome.job):
            return
        self._record(outcome)

    def _repair(self, name: str) -> bool:
        """Run again the jobs whose artefacts a failed job found corrupted, and then it."""
        lost = [need for need in self.jobs[name].requires if not self.store.is_done(need)]
        if not lost or self.repairs[name] >= REPAIRS:
            return False
        self.repairs[name] += 1
        titles = listing([self.jobs[need].title for need in lost], LISTED, "; ")
        say(f"damaged, and computed again for {self.jobs[name].title}: {titles}")
        for need in lost:
            if need not in self.running:
                self.done.discard(need)
                self.waiting[need] = None
        self.waiting[name] = None
        return True

    def _record(self, outcome: Outcome) -> None:
        job = self.jobs[outcome.job]
        if outcome.status != "ok" and outcome.status != "lost":  # noqa: PLR1714  # narrows the type
            self.store.record_failure(
                job.id, job.kind, outcome.status, outcome.message, outcome.traceback
            )
        self.outcomes[job.id] = outcome
        self.watcher.finished(job, outcome)
