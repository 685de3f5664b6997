"""Checks that the numbers of a submission follow from its predictions and are plausible."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from transferbench.measurements import Measurements
from transferbench.metrics import chance_level
from transferbench.records import Record
from transferbench.registry import Registry
from transferbench.specs import Metric
from transferbench.statistics import replicate_mean
from transferbench.submission.bundle import Bundle, Problem
from transferbench.submission.integrity import TEST_METRIC, scored_rows
from transferbench.submission.predictions import Predictions, recompute_metric
from transferbench.suite import TUNING
from transferbench.suite.ranges import metric_ranges

__all__ = [
    "chance_levels",
    "check_controls_are_at_chance",
    "check_metrics_follow_from_predictions",
    "check_numbers_are_possible",
    "check_predictions_belong_together",
    "check_settings_did_something",
    "equal_values",
    "measurement_name",
    "metric_of",
]

# The engine and this check add up the same counts; only the last bits may differ.
TOLERANCE = 1e-6

LARGEST_VALUE = 1e40
"""Above all float32; sums of squares of such values are finite."""

RANGES = {
    "fraction": (-1.0, 1.0),
    "kappa": (-1.0, 1.0),
    "correlation": (-1.0, 1.0),
    "cka": (-1.0, 1.0),
    "images": (0.0, 2.0**40),
    "items": (0.0, 2.0**40),
    "epochs": (0.0, 2.0**20),
    "l2": (0.0, LARGEST_VALUE),
}
"""Of a unit, where none is declared; fractions may be differences."""


def check_predictions_belong_together(bundle: Bundle) -> Iterator[Problem]:
    """Every trial has predictions; those of a target have the same test items and labels."""
    trials = {job.id for job in bundle.plan.jobs if job.kind == "trial"}
    for job in sorted(trials - set(bundle.predictions)):
        yield Problem(f"trial {job[:12]} has no predictions")
    for job in sorted(set(bundle.predictions) - trials):
        yield Problem(f"there are predictions of {job[:12]}, which is not a planned trial")
    if set(bundle.submission.outputs) != set(bundle.predictions):
        yield Problem("the logits' digests are not of the trials that have predictions")
    first: dict[str, Predictions] = {}
    for row in scored_rows(bundle.records):
        if (trial := bundle.predictions.get(row.job)) is None:
            continue
        if len(np.unique(trial.items)) < len(trial.items):
            yield Problem(f"trial {row.job[:12]} has an image twice")
        other = first.setdefault(row.target, trial)
        same_items = np.array_equal(trial.items, other.items)
        if not (same_items and np.array_equal(trial.labels, other.labels, equal_nan=True)):
            yield Problem(f"trial {row.job[:12]} has other test images than others on {row.target}")


def check_metrics_follow_from_predictions(bundle: Bundle) -> Iterator[Problem]:
    """Test metrics, recomputed from the predictions."""
    if (metric := bundle.plan.suite.scoring.metric) != TEST_METRIC:
        yield Problem(f"the score is of {metric}, which predictions do not give", warning=True)
    for row in scored_rows(bundle.records):
        if (trial := bundle.predictions.get(row.job)) is None:
            continue
        name, expected = measurement_name(row), recompute_metric(metric_of(bundle, row.job), trial)
        if not equal_values(row.value, expected):
            yield Problem(f"{name} is {row.value}, but its predictions give {expected}")
        if row.n != len(trial.items):
            yield Problem(f"{name} is of {row.n} images, but {len(trial.items)} were predicted")


def metric_of(bundle: Bundle, trial: str) -> Metric:
    """The metric that a planned trial is tested by."""
    metric: Metric = bundle.plan.by_id[trial].payload["dataset"]["metric"]
    return metric


def measurement_name(row: Record) -> str:
    """Metric, arms, target and perturbation of a record, for messages."""
    arms = [arm for arm in (row.initialization, row.other_initialization) if arm is not None]
    return f"{row.metric} of {' and '.join(arms)} on {row.target}, {row.perturbation}"


def equal_values(value: float | None, expected: float | None) -> bool:
    """Whether a recorded value is the recomputed one."""
    if value is None or expected is None:
        return value is expected
    return math.isclose(value, expected, abs_tol=TOLERANCE, rel_tol=0)


def check_numbers_are_possible(bundle: Bundle, registry: Registry) -> Iterator[Problem]:
    """Values are within their ranges and intervals, and ``n`` is positive.

    The range is the one that the diagnostic declares, or that of the unit. A quantity has one unit.
    Diagnoses that measured more or less in one replicate are told.
    """
    units: dict[tuple[str, str], str] = {}
    declared = metric_ranges(bundle.plan.suite, registry.diagnostics)
    for row in bundle.records:
        name, low, high = measurement_name(row), row.low, row.high
        if row.unit != (unit := units.setdefault((row.diagnostic, row.metric), row.unit)):
            yield Problem(f"{name} is in {row.unit!r}, and others in {unit!r}")
        if row.n == 0 and row.value is not None:
            yield Problem(f"{name} is of no items")
        if row.value is None:
            continue
        of_unit = RANGES.get(row.unit, (-LARGEST_VALUE, LARGEST_VALUE))
        least, most = declared.get((row.diagnostic, row.metric), of_unit)
        least, most = max(least, -LARGEST_VALUE), min(most, LARGEST_VALUE)
        tolerance = TOLERANCE * max(1.0, abs(row.value))
        if not least - tolerance <= row.value <= most + tolerance:
            ends = f"{least:g} to {most:g}"
            yield Problem(f"{name} is {row.value} {row.unit}, outside its range {ends}")
        if low is None or high is None:
            continue
        if not low - tolerance <= row.value <= high + tolerance:
            yield Problem(f"{name} is {row.value}, outside its interval {low} to {high}")
    yield from _uneven(bundle)


def _uneven(bundle: Bundle) -> Iterator[Problem]:
    """Cells of a diagnosis in which one replicate has other measurements than another."""
    measured: dict[tuple[str | None, ...], dict[tuple[Any, ...], set[Any]]] = {}
    for row in bundle.records:
        cell = (row.diagnostic, row.target, row.perturbation, row.initialization,
                row.other_initialization)  # fmt: skip
        at = (row.metric, frozenset(row.coordinates.items()))
        replicates = measured.setdefault(cell, {})
        replicates.setdefault((row.replicate, row.other_replicate, row.subjects), set()).add(at)
    several = {cell[0] for cell, replicates in measured.items()
               if len(set(map(frozenset, replicates.values()))) > 1}  # fmt: skip
    for diagnostic in sorted(map(str, several - {TUNING})):
        yield Problem(f"{diagnostic} has other measurements in some replicates", warning=True)


def check_settings_did_something(bundle: Bundle) -> Iterator[Problem]:
    """No two trials end in the same network, which means that their settings had no effect.

    Replicates must differ, and so must the scored arm and its baseline. Other arms or
    perturbations may be equal for a reason (the last checkpoint *is* P): these are warnings.
    """
    by_job = {row.job: row for row in scored_rows(bundle.records)}
    for jobs in _equal(bundle):
        for first, second in combinations([by_job[job] for job in jobs if job in by_job], 2):
            if first.target == second.target:
                yield _equal_problem(bundle, first, second)


def _equal(bundle: Bundle) -> list[list[str]]:
    """Groups of trials whose logits are equal in every bit."""
    groups = defaultdict(list)
    for job, trial in bundle.predictions.items():
        if trial.multi_label:
            logits = hashlib.sha256(trial.outputs.tobytes()).hexdigest()
        else:
            # Different networks may predict equal classes; their logits are packed as a digest.
            logits = bundle.submission.outputs.get(job, job)
        groups[logits].append(job)
    return [jobs for jobs in groups.values() if len(jobs) > 1]


def _equal_problem(bundle: Bundle, first: Record, second: Record) -> Problem:
    scoring = bundle.plan.suite.scoring
    arms = {first.initialization, second.initialization}
    compared = {scoring.initialization, scoring.baseline}
    cells = " and ".join(
        f"{row.initialization}, {row.perturbation}, replicate {row.replicate}"
        for row in (first, second)
    )
    why = f"equal outputs on {first.target}: {cells}; a setting between them did nothing"
    return Problem(why, warning=first.replicate == second.replicate and arms != compared)


def chance_levels(bundle: Bundle) -> dict[str, float]:
    """Target -> the metric of the best constant prediction on its test images."""
    jobs = {row.target: row.job for row in scored_rows(bundle.records)
            if row.job in bundle.predictions}  # fmt: skip
    return {
        target: chance_level(metric_of(bundle, job), bundle.predictions[job].labels)
        for target, job in jobs.items()
    }


def check_controls_are_at_chance(bundle: Bundle) -> Iterator[Problem]:
    """Networks trained on shuffled labels are at chance; control claims are not contradicted."""
    suite = bundle.plan.suite
    values, chances = defaultdict(list), chance_levels(bundle)
    for row in scored_rows(bundle.records):
        target = suite.targets.get(row.target)
        if target is not None and target.shuffle_labels and row.value is not None:
            values[row.target, row.perturbation, row.initialization].append(row)
    for (label, perturbation, arm), rows in sorted(values.items()):
        measured, chance = Measurements.of_records(rows), chances.get(label, 1.0)
        low = replicate_mean(measured.by_replicate(), measured.networks, ends=measured.bounds).low
        if low is not None and low > chance:
            cell = f"{arm} on {label} (shuffled labels), {perturbation}"
            yield Problem(f"{cell} is above chance: {low:.4f} > {chance:.4f}", warning=True)
    for verdict in bundle.verdicts:
        if verdict.control and verdict.verdict == "contradicted":
            yield Problem(f"control {verdict.claim!r} is contradicted", warning=True)
