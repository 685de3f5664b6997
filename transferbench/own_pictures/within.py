"""A run that ends in the time given: replicate after replicate, as long as there is time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from time import monotonic

from transferbench.errors import SuiteError
from transferbench.plan import Job, Plan
from transferbench.runner.execute import execute, refuse_options
from transferbench.runner.executors import Outcome
from transferbench.runner.planning import Planned
from transferbench.runner.schedule import Watcher

__all__ = ["END_SECONDS", "computed_within"]

END_SECONDS = 15
"""What the tables and the report take at the end."""


class _TimeIsUpError(Exception):
    """The time of a run is over; no job is started any more."""


class _Deadline:
    """A watcher that ends a run where a job ends after its time."""

    def __init__(self, watcher: Watcher, deadline: float) -> None:
        self.watcher = watcher
        self.deadline = deadline
        self.failed: set[str] = set()

    def note(self, text: str) -> None:
        self.watcher.note(text)

    def planned(self, jobs: Mapping[str, Job], done: Collection[str]) -> None:
        self.watcher.planned(jobs, done)

    def started(self, job: Job) -> None:
        self.watcher.started(job)

    def finished(self, job: Job, outcome: Outcome) -> None:
        self.watcher.finished(job, outcome)
        if outcome.status != "ok":
            self.failed.add(job.id)
        if monotonic() > self.deadline:
            raise _TimeIsUpError


def computed_within(
    planned_with: Callable[[int], Planned], replicates: int, deadline: float, watcher: Watcher
) -> Planned:
    """Compute up to ``replicates`` until ``deadline``; the plan of those that are complete.

    ``planned_with``: the plan of so many replicates. ``deadline``: of ``time.monotonic``. Jobs
    that run at the deadline are ended with the first of them. Raises: ``SuiteError`` where not one
    replicate is complete.
    """
    planned = planned_with(replicates)
    planned.code.refuse_mixtures()
    refuse_options(planned, planned.done)
    for note in planned.notes:
        watcher.note(note)
    needed_by = _needed_by(planned.plan)
    ending = _Deadline(watcher, deadline)
    try:
        execute(planned, planned.done, ending, turns=needed_by)
    except _TimeIsUpError:
        ended = ending.failed
        left = [job for job in needed_by if job not in ended and not planned.store.is_done(job)]
        complete = min((needed_by[job] for job in left), default=replicates)
        if complete < 1:
            raise SuiteError(
                "the time is over before one replicate is complete; what was computed is kept: the "
                "same command with more --minutes goes on"
            ) from None
        return planned_with(complete)
    return planned


def _needed_by(plan: Plan) -> dict[str, int]:
    """The first replicate that needs each job; -1 for those that all need."""
    first = dict.fromkeys(plan.jobs, -1)
    trials = [(cell.job, cell.replicate) for cell in plan.cells]
    diagnoses = [
        (cell.job, max(part.replicate for part in (cell.a, cell.b) if part))
        for cell in plan.measured
    ]
    # Backwards, so that the first replicate is what remains of a job that several share.
    for job, replicate in sorted(trials + diagnoses, key=lambda row: -row[1]):
        first[job] = replicate
    return first
