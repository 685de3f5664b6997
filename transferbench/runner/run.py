"""A run of a plan: execute what the store lacks, collect, judge, write the folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from transferbench.claims import Verdict, judge
from transferbench.measurements import Measurements, frame_of
from transferbench.runner.collect import Collected, collect, done_jobs, job_states
from transferbench.runner.execute import execute
from transferbench.runner.executors import Outcome
from transferbench.runner.planning import Planned
from transferbench.runner.schedule import Watcher
from transferbench.runner.write import write_plan, write_results
from transferbench.store import CorruptArtefactError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Results", "run_plan"]

ATTEMPTS = 3
"""How often a run computes again what it finds corrupted while collecting."""


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
    done = {job for job, state in states.items() if state.status == "ok"}
    outcomes, collected = _compute(planned, done, watcher)
    table = frame_of(collected.records)
    measurements = Measurements(table)
    verdicts = {
        entry.name: judge(plan.suite, measurements, entry.name, plan.left_out[entry.name])
        for entry in plan.entries
    }
    write_results(planned, collected, verdicts)
    return Results(outcomes, collected, table, verdicts)


def _compute(
    planned: Planned, done: set[str], watcher: Watcher
) -> tuple[dict[str, Outcome], Collected]:
    """Execute and collect; artefacts found corrupted are discarded and computed again."""
    outcomes: dict[str, Outcome] = {}
    attempts = ATTEMPTS
    while True:
        outcomes |= execute(planned, done, watcher)
        try:
            return outcomes, collect(planned.plan, planned.store)
        except CorruptArtefactError as error:
            attempts -= 1
            if not attempts:
                raise
            planned.store.discard(error.job)
            done = done_jobs(planned.plan.jobs, planned.store)
