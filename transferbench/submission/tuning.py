"""The check that the learning rates of a submission's trials follow from what tuning recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from transferbench.plan.tuning import BEST_METRIC, RATE, TRAINED, choose_rate
from transferbench.records import Record
from transferbench.submission.bundle import Bundle, Problem
from transferbench.submission.recompute import measurement_name
from transferbench.suite import TRIAL, TUNING

__all__ = ["check_rates_follow_from_tuning"]

MEASURED = {BEST_METRIC: ("fraction", 1.0), TRAINED: ("images", 2.0**40)}
"""Unit and largest value of what a training of a grid measures."""


def check_rates_follow_from_tuning(bundle: Bundle) -> Iterator[Problem]:
    """The learning rate of each trial with a grid is the best one by what its tuning recorded."""
    if TUNING in bundle.plan.suite.diagnostics:
        return  # a diagnosis of that label, in a suite that tunes nothing
    recorded = [row for row in bundle.records if row.diagnostic == TUNING]
    yield from _misplaced(bundle, recorded)
    values = {row.job: row.value for row in recorded if row.metric == BEST_METRIC}
    rates = {row.job: row for row in bundle.records
             if row.diagnostic == TRIAL and row.metric == RATE}  # fmt: skip
    for job in bundle.plan.jobs:
        if job.kind != "trial" or not (planned := job.payload.get("tuning")):
            continue
        if row := rates.get(job.id):
            yield from _other_choice(row, planned, values)
        else:
            yield Problem(f"trial {job.id[:12]} does not say which learning rate it was given")


def _misplaced(bundle: Bundle, recorded: Iterable[Record]) -> Iterator[Problem]:
    """Records of tuning that are not of a training of a grid, not of its rate, or impossible."""
    for row in recorded:
        if row.metric not in MEASURED:
            yield Problem(f"{measurement_name(row)} is not what tuning measures")
            continue
        unit, most = MEASURED[row.metric]
        if row.unit != unit or not 0 <= (row.value or 0) <= most:
            yield Problem(f"{measurement_name(row)} is {row.value} {row.unit}, not 0 to {most:g} "
                          f"{unit}")  # fmt: skip
        job = bundle.plan.by_id.get(row.job)
        if job is None or job.kind != "tuning":
            yield Problem(f"{measurement_name(row)} is of {row.job[:12]}, which tunes nothing")
        elif row.coordinates != {RATE: job.payload["recipe"][RATE]}:
            yield Problem(f"{measurement_name(row)} is not of the rate of its job {row.job[:12]}")


def _other_choice(
    row: Record, planned: Sequence[Mapping[str, Any]], values: Mapping[str, float | None]
) -> Iterator[Problem]:
    """What is wrong with the recorded rate of a trial; ``values``: what each job reached."""
    needed = {job for rate in planned for job in rate["jobs"]}
    if missing := sorted(needed - values.keys()):
        what = f"a tuning of which {missing[0][:12]} is not recorded"
        yield Problem(f"{measurement_name(row)} is of {what}")
        return
    choice = choose_rate(planned, values.__getitem__)
    if row.value != choice.best.learning_rate:
        why = f"but its tuning gives {choice.best.learning_rate:g}"
        yield Problem(f"{measurement_name(row)} is {row.value}, {why}")
    elif bool(row.flag) != bool(choice.flags):
        yield Problem(f"{measurement_name(row)} is not flagged as its tuning is")
