"""Running a graph of jobs in the order of their requirements; a failure costs its dependents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from transferbench.errors import listing
from transferbench.plan import Job
from transferbench.runner.executors import Executor, Outcome
from transferbench.runner.messages import say
from transferbench.store import Store

__all__ = ["JobSchedule", "SilentWatcher", "Watcher"]

REPAIRS = 2
"""How often a job is run again because an artefact that it reads is corrupted."""
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


@dataclass
class JobSchedule:
    """Runs every job that is not ``done`` nor ``failed`` before, each after those it requires.

    A job that fails leaves its failure in the store and costs only the jobs that need it.
    ``computed``: called with each job that was computed, and the jobs that were done before.
    """

    jobs: Mapping[str, Job]
    done: set[str]
    store: Store
    executor: Executor
    watcher: Watcher
    failed: Mapping[str, Outcome] = field(default_factory=dict)
    computed: Callable[[str, Collection[str]], None] = _ignored
    running: set[str] = field(default_factory=set)
    repairs: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.done = set(self.done)
        # A dictionary keeps the order of the plan and lets one job go in constant time.
        self.waiting = {
            job: None for job in self.jobs if job not in self.done and job not in self.failed
        }

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
        for name in list(self.waiting):
            if self.executor.free == 0:
                return
            job = self.jobs[name]
            if self.done.issuperset(job.requires):
                del self.waiting[name]
                self.running.add(name)
                self.executor.submit(name, job)
                self.watcher.started(job)

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
        if outcome.status != "ok":
            self.store.record_failure(
                job.id, job.kind, outcome.status, outcome.message, outcome.traceback
            )
        self.outcomes[job.id] = outcome
        self.watcher.finished(job, outcome)
