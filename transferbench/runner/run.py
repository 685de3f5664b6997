"""A run of a plan: execute what the store lacks, collect, judge, write the folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from transferbench.claims import Verdict, judge
from transferbench.errors import StoreError, listing, shortened
from transferbench.measurements import Measurements, frame_of
from transferbench.runner.collect import Collected, JobState, collect, damaged_jobs, job_states
from transferbench.runner.entries import record_entries
from transferbench.runner.execute import execute, refuse_options, try_weights, write_pictures
from transferbench.runner.executors import Outcome
from transferbench.runner.folder import PICTURES
from transferbench.runner.messages import say
from transferbench.runner.planning import Planned, with_entries_finished_since
from transferbench.runner.schedule import Watcher
from transferbench.runner.write import write_plan, write_results
from transferbench.suite.ranges import metric_ranges

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
    Raises: ``PluginError`` where numbers of two codes of a plugin file would be mixed.
    """
    planned.code.refuse_mixtures()
    for text in planned.code.notes:
        watcher.note(text)
    if planned.lacking:
        watcher.note(_trained_again(planned))
    states = job_states(planned.plan.jobs, planned.store)
    _refuse_early(planned, states, watcher)
    record_entries(planned.folder, planned.suite.digest, planned.entries)
    outcomes: dict[str, Outcome] = {}
    while True:
        write_plan(planned, states)
        _set_aside(planned, {job: state.message for job, state in states.items()
                             if state.status == "damaged"})  # fmt: skip
        done = _done(planned, states)
        outcomes = _compute(planned, done, watcher, outcomes)
        joined = with_entries_finished_since(planned)
        if joined is planned:
            results = _judged(planned, outcomes)
            write_results(planned, results.collected, results.verdicts)
            if outcomes or not (planned.folder / PICTURES).is_file():
                write_pictures(planned)
            # Another process may have written the folder meanwhile, and be overwritten now:
            # whoever writes last looks again, and by then every finished entry is in its file.
            joined = with_entries_finished_since(planned)
            if joined is planned:
                return results
        planned = joined
        states = job_states(planned.plan.jobs, planned.store)


def _done(planned: Planned, states: Mapping[str, JobState]) -> set[str]:
    """The jobs that need not be computed."""
    done = {job for job, state in states.items() if state.status == "ok"}
    return done - planned.lacking.keys()


def _trained_again(planned: Planned) -> str:
    titles = [f"{planned.plan.jobs[job].title} ({states})"
              for job, states in planned.lacking.items()]  # fmt: skip
    return (
        f"{len(titles)} finished training(s) did not store states that are read now, and are "
        f"trained again: {listing(titles, LISTED, '; ')}"
    )


def _refuse_early(planned: Planned, states: Mapping[str, JobState], watcher: Watcher) -> None:
    """Before the folder names an entry that could never be finished, or loses an older run.

    Raises: as ``refuse_options`` and ``try_weights``.
    """
    done = _done(planned, states)
    if planned.plan.jobs.keys() - done:
        refuse_options(planned, done)
        for weights in try_weights(planned, done):
            if weights.note:
                watcher.note(weights.note)


def _judged(planned: Planned, outcomes: Mapping[str, Outcome]) -> Results:
    plan, collected = planned.plan, collect(planned.plan, planned.store)
    table = frame_of(collected.records)
    ranges = metric_ranges(plan.suite, planned.registry.diagnostics)
    measurements = Measurements(table, ranges)
    verdicts = {
        name: judge(
            plan.suite,
            measurements,
            name,
            plan.left_out[name],
            plan.single_source[name],
            collected.equal.get(name),
            plan.unmeasured[name],
        )
        for name in (entry.name for entry in plan.entries)
    }
    return Results(outcomes, collected, table, verdicts)


def _compute(
    planned: Planned, done: set[str], watcher: Watcher, before: Mapping[str, Outcome]
) -> dict[str, Outcome]:
    """Execute the jobs that are not ``done``, and again those that are damaged at the end.

    Those that failed ``before`` are not tried again. Raises: ``StoreError`` where jobs are damaged
    whenever they are computed.
    """
    outcomes = dict(before)
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
