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
<<<<<<< HEAD
from transferbench.suite import TUNING
=======
from transferbench.suite import TRIAL
from transferbench.suite.ranges import metric_ranges
>>>>>>> 4065327 (Intervals that hold near the end of a range, for the mean of one arm, and for shares of images; diagnostics declare ranges)

__all__ = [
    "chance_levels",
    "check_controls_are_at_chance",
    "check_metrics_follow_from_predictions",
    "check_numbers_are_possible",
    "check_predictions_belong_together",
    "check_settings_did_something",
    "equal_values",
    "measurement_name",
]

# The engine and this check add up the same counts; only the last bits may differ.
TOLERANCE = 1e-6

<<<<<<< HEAD
RANGES = {
    "fraction": (-1.0, 1.0),
    "kappa": (-1.0, 1.0),
    "correlation": (-1.0, 1.0),
    "cka": (-1.0, 1.0),
    "images": (0.0, 2.0**40),
    "items": (0.0, 2.0**40),
    "epochs": (0.0, 2.0**20),
    "l2": (0.0, math.inf),
}
"""The least and the most of a unit; fractions may be differences. Others may have any value."""
=======
P_TOLERANCE = 1e-3
"""Relative: p-values far below 1 multiply differences of last bits."""

FORMER_INTERVALS = {
    "fieller-95": "jackknife-95",
    "pairs-95": "jackknife-95",
    "bounded-t-95": "jackknife-95",
    "bounded-t-networks-95": "jackknife-networks-95",
    "level-t-95": "jackknife-95",
    "level-t-networks-95": "jackknife-networks-95",
}
"""Method of an interval -> the method of an earlier version, whose verdicts name it."""

FRACTIONS = {TEST_METRIC, "best_test_metric", "train_metric"}
>>>>>>> 4065327 (Intervals that hold near the end of a range, for the mean of one arm, and for shares of images; diagnostics declare ranges)


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
        name, expected = measurement_name(row), recompute_metric(_metric(bundle, row.job), trial)
        if not equal_values(row.value, expected):
            yield Problem(f"{name} is {row.value}, but its predictions give {expected}")
        if row.n != len(trial.items):
            yield Problem(f"{name} is of {row.n} images, but {len(trial.items)} were predicted")


def _metric(bundle: Bundle, trial: str) -> Metric:
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


def check_numbers_are_possible(bundle: Bundle) -> Iterator[Problem]:
    """Values are in the range of their unit and within their intervals, and ``n`` is positive.

    A quantity has one unit. Diagnoses that measured more or less in one replicate are told.
    """
    units: dict[tuple[str, str], str] = {}
    for row in bundle.records:
        name, low, high = measurement_name(row), row.low, row.high
        if row.unit != (unit := units.setdefault((row.diagnostic, row.metric), row.unit)):
            yield Problem(f"{name} is in {row.unit!r}, and others in {unit!r}")
        if row.n == 0 and row.value is not None:
            yield Problem(f"{name} is of no items")
        if row.value is None:
            continue
        least, most = RANGES.get(row.unit, (-math.inf, math.inf))
        tolerance = TOLERANCE * max(1.0, abs(row.value))
        if not least - tolerance <= row.value <= most + tolerance:
            yield Problem(f"{name} is {row.value} {row.unit}, which no {row.unit} can be")
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
        target: chance_level(_metric(bundle, job), bundle.predictions[job].labels)
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
<<<<<<< HEAD
=======


def check_verdicts_follow_from_records(bundle: Bundle, registry: Registry) -> Iterator[Problem]:
    """Each claim of the suite, judged again, has the submitted verdict.

    A verdict that differs because an earlier version used another method for intervals, or did not
    look for equal predictions, is a warning.
    """
    suite, entry = bundle.plan.suite, bundle.submission.entry.name
    ranges = metric_ranges(suite, registry.diagnostics)
    measurements = Measurements.of_records(bundle.records, ranges)
    equal = equal_trials(
        {
            (row.target, row.perturbation, row.initialization, row.replicate): outputs
            for row in scored_rows(bundle.records)
            if (outputs := bundle.submission.outputs.get(row.job)) and row.value is not None
        }
    )
    verdicts = judge(suite, measurements, entry, equal=equal)
    judged = {v.claim: v for v in verdicts}
    submitted = {verdict.claim: verdict for verdict in bundle.verdicts}
    for claim in sorted(judged.keys() | submitted.keys()):
        if claim not in submitted or claim not in judged:
            source = "the suite" if claim in judged else CLAIMS
            yield Problem(f"claim {claim!r} is only in {source}")
        elif submitted[claim].verdict != judged[claim].verdict:
            yield _other_verdict(submitted[claim], judged[claim])
        elif other := _other_certainty(submitted[claim], judged[claim]):
            yield Problem(f"claim {claim!r} has {other}")


def _other_certainty(submitted: Verdict, judged: Verdict) -> str | None:
    """A family or p-value that does not follow; earlier versions gave none, or other ones."""
    by_former = submitted.interval == FORMER_INTERVALS.get(judged.interval)
    for field in ("family",) if by_former else ("family", "p_reproduced", "p_contradicted"):
        value, expected = getattr(submitted, field), getattr(judged, field)
        if field == "family" or value is None or expected is None:
            equal = value in {expected, None}
        else:
            equal = math.isclose(value, expected, rel_tol=P_TOLERANCE)
        if not equal:
            return f"{field} {value}, and its records give {expected}"
    return None


def _other_verdict(submitted: Verdict, judged: Verdict) -> Problem:
    claim, former = submitted.claim, submitted.interval
    if EQUAL_PREDICTIONS in judged.flags and submitted.lacks_p:
        why = f"claim {claim!r} was judged {submitted.verdict}; it is undecided: {judged.reason}"
        return Problem(why, warning=True)
    if former != FORMER_INTERVALS.get(judged.interval):
        return Problem(f"claim {claim!r} is {judged.verdict}, not {submitted.verdict}")
    why = (
        f"claim {claim!r} was judged {submitted.verdict} by {former}; by {judged.interval} it is"
        f" {judged.verdict}"
    )
    return Problem(why, warning=True)
>>>>>>> 4065327 (Intervals that hold near the end of a range, for the mean of one arm, and for shares of images; diagnostics declare ranges)
