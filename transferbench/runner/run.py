"""A run of a plan: execute what the store lacks, collect, judge, write the folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from transferbench.claims import Verdict, judge
from transferbench.errors import StoreError, shortened
from transferbench.measurements import Measurements, frame_of
from transferbench.runner.collect import Collected, collect, damaged_jobs, job_states
from transferbench.runner.execute import execute
from transferbench.runner.executors import Outcome
from transferbench.runner.messages import say
from transferbench.runner.planning import Planned
from transferbench.runner.schedule import Watcher
from transferbench.runner.write import write_plan, write_results

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Results", "run_plan"]

ATTEMPTS = 3
"""How often a run computes again what is damaged at its end."""
LISTED = 5
"""Damaged jobs that are listed."""


class Results(NamedTuple):
    """How the executed jobs ended, what all jobs left, and the verdicts of each entry."""

    outcomes: Mapping[str, Outcome]
    collected: Collected
    measurements: pd.DataFrame
    verdicts: Mapping[str, list[Verdict]]


def run_plan(planned: Planned, watcher: Watcher) -> Results:
    """Compute what is not in the store, and write the run's folder.

    An interrupt loses nothing that was finished; the same call goes on from there.
    """
    plan = planned.plan
    states = job_states(plan.jobs, planned.store)
    write_plan(planned, states)
    _set_aside(planned, {job: state.message for job, state in states.items()
                         if state.status == "damaged"})  # fmt: skip
    done = {job for job, state in states.items() if state.status == "ok"}
    outcomes = _compute(planned, done, watcher)
    collected = collect(plan, planned.store)
    table = frame_of(collected.records)
    measurements = Measurements(table)
    verdicts = {
        entry.name: judge(plan.suite, measurements, entry.name, plan.left_out[entry.name])
        for entry in plan.entries
    }
    write_results(planned, collected, verdicts)
    return Results(outcomes, collected, table, verdicts)


def _compute(planned: Planned, done: set[str], watcher: Watcher) -> dict[str, Outcome]:
    """Execute the jobs that are not ``done``, and again those that are damaged at the end.

    Raises: ``StoreError`` where they are damaged whenever they are computed.
    """
    outcomes: dict[str, Outcome] = {}
    for _ in range(ATTEMPTS):
        failed = {job: outcome for job, outcome in outcomes.items() if outcome.status != "ok"}
        outcomes |= execute(planned, done, watcher, failed)
        done = done | {job for job, outcome in outcomes.items() if outcome.status == "ok"}
        damaged = damaged_jobs(done, planned.store)
        if not damaged:
            return outcomes
        _set_aside(planned, damaged)
        done = done - damaged.keys()
    raise StoreError(
        f"{len(damaged)} jobs are damaged whenever they are computed: check the disk of "
        f"{planned.store.root}; what is sound is kept"
    )


def _set_aside(planned: Planned, damaged: Mapping[str, str]) -> None:
    """Set damaged artefacts aside, so that they are computed again, and say so."""
    if not damaged:
        return
    jobs, store = planned.plan.jobs, planned.store
    lines = [f"  {jobs[job].title}: {fault}" for job, fault in damaged.items()]
    say(
        f"{len(damaged)} finished job(s) in the store are damaged; they are set aside in "
        f"{store.root / 'corrupt'} and computed again:\n" + "\n".join(shortened(lines, LISTED))
    )
    for job in damaged:
        store.discard(job)
