"""Do the numbers of a submission follow from its predictions, and can they be right at all?"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from transferbench.claims import Verdict, judge
from transferbench.measurements import Measurements
from transferbench.metrics import chance_level
from transferbench.records import Record
from transferbench.specs import Metric
from transferbench.statistics import student_t
from transferbench.submission.bundle import CLAIMS, Bundle
from transferbench.submission.integrity import TEST_METRIC, Problem, scored_rows
from transferbench.submission.predictions import Predictions, recompute_metric
from transferbench.suite import TRIAL

__all__ = [
    "check_controls_are_at_chance",
    "check_metrics_follow_from_predictions",
    "check_numbers_are_possible",
    "check_predictions_belong_together",
    "check_settings_did_something",
    "check_verdicts_follow_from_records",
    "equal_values",
]

# The engine and this check add up the same counts; only the last bits may differ.
TOLERANCE = 1e-6

FORMER_INTERVALS = {"fieller-95": "jackknife-95"}
"""How intervals are made now -> how an earlier version made them, told with its verdicts."""

FRACTIONS = {TEST_METRIC, "best_test_metric", "train_metric"}


def check_predictions_belong_together(bundle: Bundle) -> Iterator[Problem]:
    """Every trial has predictions, on one fixed test subset with one set of labels a target."""
    trials = {job.id for job in bundle.plan.jobs if job.kind == "trial"}
    for job in sorted(trials - set(bundle.predictions)):
        yield Problem(f"trial {job[:12]} has no predictions")
    for job in sorted(set(bundle.predictions) - trials):
        yield Problem(f"there are predictions of {job[:12]}, which is not a planned trial")
    if set(bundle.submission.outputs) != set(bundle.predictions):
        yield Problem("the logits' digests are not of the trials that have predictions")
    first: dict[str, Predictions] = {}
    for row in scored_rows(bundle.records):
        if (found := bundle.predictions.get(row.job)) is None:
            continue
        if len(np.unique(found.items)) < len(found.items):
            yield Problem(f"trial {row.job[:12]} has an image twice")
        other = first.setdefault(row.target, found)
        if not (_same(found.items, other.items) and _same(found.labels, other.labels)):
            yield Problem(f"trial {row.job[:12]} has other test images than others on {row.target}")


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and bool(np.array_equal(first, second))


def check_metrics_follow_from_predictions(bundle: Bundle) -> Iterator[Problem]:
    """Test metrics, recomputed from the predictions."""
    if (metric := bundle.plan.suite.scoring.metric) != TEST_METRIC:
        yield Problem(f"the score is of {metric}, which predictions do not give", warning=True)
    for row in scored_rows(bundle.records):
        if row.job in bundle.predictions:
            yield from _compared(row, bundle.predictions[row.job], _metric(bundle, row.job))


def _metric(bundle: Bundle, trial: str) -> Metric:
    metric: Metric = bundle.plan.by_id[trial].payload["dataset"]["metric"]
    return metric


def _compared(row: Record, found: Predictions, metric: Metric) -> Iterator[Problem]:
    told = f"{row.metric} of {row.initialization} on {row.target}, {row.perturbation}"
    expected = recompute_metric(metric, found)
    if not equal_values(row.value, expected):
        yield Problem(f"{told} is {row.value}, but its predictions give {expected}")
    if row.n != len(found.items):
        yield Problem(f"{told} is of {row.n} images, but {len(found.items)} were predicted")


def equal_values(value: float | None, expected: float | None) -> bool:
    """Whether a recorded value is the recomputed one."""
    if value is None or expected is None:
        return value is expected
    return math.isclose(value, expected, abs_tol=TOLERANCE, rel_tol=0)


def check_numbers_are_possible(bundle: Bundle) -> Iterator[Problem]:
    """Fractions lie in [0, 1], values within their intervals, and each is of some items."""
    for row in bundle.records:
        if row.value is None:
            continue
        told = f"{row.metric} of {row.initialization} on {row.target}, {row.perturbation}"
        if row.diagnostic == TRIAL and row.metric in FRACTIONS and not 0 <= row.value <= 1:
            yield Problem(f"{told} is {row.value}, not a fraction")
        low, high = row.low, row.high
        if low is not None and high is not None and not _within(row.value, low, high):
            yield Problem(f"{told} is {row.value}, outside its interval {low} to {high}")
        if row.n == 0:
            yield Problem(f"{told} is of no items")


def _within(value: float, low: float, high: float) -> bool:
    slack = TOLERANCE * max(1.0, abs(value))
    return low - slack <= value <= high + slack


def check_settings_did_something(bundle: Bundle) -> Iterator[Problem]:
    """No two trials end in the same network: then a setting between them did nothing.

    A replicate, or the arm against its baseline, must differ. Between other arms or
    perturbations a suite may have a reason (the last checkpoint *is* P), so these are warnings.
    """
    by_job = {row.job: row for row in scored_rows(bundle.records)}
    for jobs in _equal(bundle):
        for first, second in combinations([by_job[job] for job in jobs if job in by_job], 2):
            if first.target == second.target:
                yield _equal_problem(bundle, first, second)


def _equal(bundle: Bundle) -> list[list[str]]:
    """Groups of trials whose logits are equal in every bit."""
    groups = defaultdict(list)
    for job, found in bundle.predictions.items():
        # The scores of a multi-label trial are its logits; of another only a digest was packed,
        # since two networks may well agree on every class.
        told = bundle.submission.outputs.get(job, job)
        scores = hashlib.sha256(found.outputs.tobytes()).hexdigest() if found.multi_label else told
        groups[scores].append(job)
    return [jobs for jobs in groups.values() if len(jobs) > 1]


def _equal_problem(bundle: Bundle, first: Record, second: Record) -> Problem:
    scoring = bundle.plan.suite.scoring
    arms = {first.initialization, second.initialization}
    grave = first.replicate != second.replicate or arms == {
        scoring.initialization,
        scoring.baseline,
    }
    told = " and ".join(
        f"{row.initialization}, {row.perturbation}, replicate {row.replicate}"
        for row in (first, second)
    )
    why = f"equal outputs on {first.target}: {told}; a setting between them did nothing"
    return Problem(why, warning=not grave)


def check_controls_are_at_chance(bundle: Bundle) -> Iterator[Problem]:
    """Networks that learned shuffled labels are not above chance; control claims are not broken."""
    suite = bundle.plan.suite
    values = defaultdict(list)
    chances: dict[str, float] = {}
    for row in scored_rows(bundle.records):
        if row.target in suite.targets and suite.targets[row.target].shuffle_labels:
            if row.value is not None:
                values[row.target, row.perturbation, row.initialization].append(row.value)
            if row.job in bundle.predictions:
                chances[row.target] = chance_level(
                    _metric(bundle, row.job), bundle.predictions[row.job].labels
                )
    for (target, perturbation, arm), found in sorted(values.items()):
        low, chance = student_t(found).low, chances.get(target, 1.0)
        if low is not None and low > chance:
            told = f"{arm} on {target} (shuffled labels), {perturbation}"
            yield Problem(f"{told} is above chance: {low:.4f} > {chance:.4f}", warning=True)
    for verdict in bundle.verdicts:
        if verdict.control and verdict.verdict == "contradicted":
            yield Problem(f"control {verdict.claim!r} is contradicted", warning=True)


def check_verdicts_follow_from_records(bundle: Bundle) -> Iterator[Problem]:
    """Every claim of the suite, judged again, has the verdict that was told.

    A verdict is to be read with its interval's method: one that an earlier version judged by
    another method, and that differs for it, is a warning.
    """
    measurements, entry = Measurements.of_records(bundle.records), bundle.submission.entry.name
    judged = {v.claim: v for v in judge(bundle.plan.suite, measurements, entry)}
    told = {verdict.claim: verdict for verdict in bundle.verdicts}
    for claim in sorted(judged.keys() | told.keys()):
        if claim not in told or claim not in judged:
            where = "the suite" if claim in judged else CLAIMS
            yield Problem(f"claim {claim!r} stands in {where} alone")
        elif told[claim].verdict != judged[claim].verdict:
            yield _other_verdict(told[claim], judged[claim])


def _other_verdict(told: Verdict, judged: Verdict) -> Problem:
    if told.interval != FORMER_INTERVALS.get(judged.interval):
        why = f"claim {told.claim!r} is told {told.verdict}, judged {judged.verdict}"
        return Problem(why)
    why = (
        f"claim {told.claim!r} was judged {told.verdict} by {told.interval}; by {judged.interval}"
        f" it is {judged.verdict}"
    )
    return Problem(why, warning=True)
