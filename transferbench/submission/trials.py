"""The checks of what the trials themselves measure: complete, in its unit, and consistent."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np

from transferbench.plan.tuning import RATE
from transferbench.records import Record
from transferbench.statistics import Interval, exact_share
from transferbench.statistics.intervals import wilson_bounds
from transferbench.submission.bundle import Bundle, PlannedJob, Problem
from transferbench.submission.integrity import TEST_METRIC
from transferbench.submission.predictions import Predictions
from transferbench.submission.recompute import TOLERANCE, equal_values, measurement_name
from transferbench.suite import TRIAL, TRIAL_METRICS

__all__ = ["check_labels_are_classes", "check_trials_are_whole"]

CellKey: TypeAlias = tuple[str, str, str, str, int]
"""Job, target, perturbation, arm and replicate of a trial."""

UNITS = {"test_metric": "fraction", "test_loss": "nats", "train_metric": "fraction",
         "train_loss": "nats", "best_test_metric": "fraction", "best_epoch": "epochs",
         "n_train": "images", RATE: "1"}  # fmt: skip
LARGEST_ITEM = 2**31
"""Positions in a test split are below it."""

WILSON = "wilson-95"
"""The interval of accuracies in earlier versions."""


def check_labels_are_classes(bundle: Bundle) -> Iterator[Problem]:
    """Items are positions; labels and predicted classes are those of the dataset."""
    for job in bundle.plan.jobs:
        if job.kind != "trial" or (trial := bundle.predictions.get(job.id)) is None:
            continue
        classes = job.payload["dataset"]["classes"]
        if len(trial.items) and not 0 <= trial.items.min() <= trial.items.max() < LARGEST_ITEM:
            yield Problem(f"trial {job.id[:12]} has items that are no positions in a test split")
        lowest, highest, width = (-1, 1, classes) if trial.multi_label else (0, classes - 1, None)
        labels = np.nan_to_num(trial.labels, nan=-1)
        arrays = [labels] if trial.outputs.ndim == 2 else [labels, trial.outputs]
        if any(len(a) and not lowest <= a.min() <= a.max() <= highest for a in arrays):
            yield Problem(f"trial {job.id[:12]} has labels that are none of its {classes} classes")
        shapes = [a.shape[1] for a in (trial.labels, trial.outputs) if a.ndim == 2]
        if any(shape != (width or classes) for shape in shapes):
            yield Problem(f"trial {job.id[:12]} has lists that are not of its {classes} classes")


def check_trials_are_whole(bundle: Bundle) -> Iterator[Problem]:
    """Each trial has every measurement once, in its unit and range, of its images.

    The interval of an accuracy follows from its value; the last point of a recorded curve is the
    value at the end, and that of the best epoch the best one.
    """
    planned, points = bundle.plan.by_id, _points(bundle)
    cells: dict[CellKey, dict[str, Record]] = defaultdict(dict)
    counts: Counter[tuple[CellKey, str]] = Counter()
    for row in bundle.records:
        if row.diagnostic == TRIAL:
            key = (row.job, row.target, row.perturbation, row.initialization, row.replicate)
            cells[key][row.metric] = row
            counts[key, row.metric] += 1
    for (key, metric), count in counts.items():
        if count > 1:
            yield Problem(f"{measurement_name(cells[key][metric])} is recorded {count} times")
    for key, rows in cells.items():
        job = planned.get(key[0])
        if job is None or job.kind != "trial":
            yield Problem(f"{measurement_name(next(iter(rows.values())))} is of no planned trial")
            continue
        expected = {*TRIAL_METRICS, *([RATE] if job.payload.get("tuning") else [])}
        for metric in sorted(expected ^ rows.keys()):
            is_missing = "is missing" if metric in expected else "is not what a trial measures"
            yield Problem(f"{metric} of {key[3]} on {key[1]}, {key[2]} {is_missing}")
        if not expected ^ rows.keys():
            is_accuracy = job.payload["dataset"]["metric"] == "accuracy"
            curve = points.get(key[0], {})
            trial = bundle.predictions.get(key[0])
            epochs = job.payload["recipe"]["epochs"]
            yield from _impossible(rows, trial, epochs)
            yield from _too_many_images(rows["n_train"], job)
            yield from _other_intervals(rows, trial, is_accuracy=is_accuracy)
            yield from _other_points(rows, curve, epochs)


def _points(bundle: Bundle) -> dict[str, dict[tuple[str, int], list[Record]]]:
    """Trial -> the recorded points of its curves, by metric and epoch."""
    points: dict[str, dict[tuple[str, int], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for row in bundle.records:
        epoch = row.coordinates.get("epoch")
        if len(row.subjects) == 1 and len(row.coordinates) == 1 and isinstance(epoch, int):
            points[row.subjects[0]][row.metric, epoch].append(row)
    return points


def _impossible(
    rows: Mapping[str, Record], trial: Predictions | None, epochs: int
) -> Iterator[Problem]:
    n_train = rows["n_train"].value
    sizes = {"train_metric": n_train, "train_loss": n_train, "best_epoch": 1, "n_train": 1}
    if trial is not None:
        sizes |= dict.fromkeys(("test_metric", "test_loss", "best_test_metric"), len(trial.items))
    for metric, row in rows.items():
        name, value = measurement_name(row), row.value
        if row.unit != UNITS[metric]:
            yield Problem(f"{name} is in {row.unit!r}, not in {UNITS[metric]!r}")
        if row.coordinates:
            yield Problem(f"{name} has coordinates, which those of a trial have not")
        if metric in sizes and row.n != sizes[metric]:
            yield Problem(f"{name} is of {row.n} items, not of {sizes[metric]}")
        if value is None:
            continue
        if metric.endswith("_metric") and not -TOLERANCE <= value <= 1 + TOLERANCE:
            yield Problem(f"{name} is {value}, not a fraction")
        if value < 0:
            yield Problem(f"{name} is {value}, below 0")
        if metric == "best_epoch" and not (value <= epochs and value == int(value)):
            yield Problem(f"{name} is {value}, which is none of {epochs} epochs")


def _too_many_images(row: Record, job: PlannedJob) -> Iterator[Problem]:
    """A number of training images that is none, or more than the target draws of all classes."""
    labels = job.payload["selection"].get("labels_per_class")
    most = labels and labels * job.payload["dataset"]["classes"]
    value = row.value or 0.0
    if value < 1 or value != int(value) or (most and value > most):
        least = f"1 to {most}" if most else "1 or more"
        yield Problem(f"{measurement_name(row)} is {row.value}, not {least} images")


def _other_intervals(
    rows: Mapping[str, Record], trial: Predictions | None, *, is_accuracy: bool
) -> Iterator[Problem]:
    """Counts of images that are no whole numbers, and intervals that are not theirs."""
    multi = trial is not None and trial.multi_label
    for metric in ("test_metric", "train_metric", "best_test_metric"):
        row = rows[metric]
        if row.value is None or not is_accuracy or multi:
            continue
        hits = row.value * row.n
        if abs(hits - round(hits)) > TOLERANCE * max(row.n, 1):
            yield Problem(f"{measurement_name(row)} is {row.value}, no share of {row.n} images")
        expected = _interval_of(round(hits), row)
        bounds = zip((row.low, row.high), (expected.low, expected.high), strict=True)
        if not all(equal_values(value, bound) for value, bound in bounds):
            yield Problem(
                f"{measurement_name(row)} has the interval {row.low} to {row.high}, and its value "
                f"gives {expected.low} to {expected.high}"
            )
        if row.interval != expected.method:
            yield Problem(f"{measurement_name(row)} has an interval by {row.interval}")


def _interval_of(hits: int, row: Record) -> Interval:
    """The exact interval of a share; Wilson's, where the record is of an earlier version."""
    if row.interval == WILSON and row.n:
        return Interval(hits / row.n, *wilson_bounds(hits / row.n, row.n, 0.95), row.n, WILSON)
    return exact_share(hits, row.n)


def _other_points(
    rows: Mapping[str, Record],
    curve: Mapping[tuple[str, int], list[Record]],
    epochs: int,
) -> Iterator[Problem]:
    """Values of a trial that are not those of its recorded curve at the same epoch."""
    best = rows["best_epoch"].value
    same = [(TEST_METRIC, TEST_METRIC, epochs), ("train_metric", "train_metric", epochs)]
    if best is not None:
        same.append(("best_test_metric", TEST_METRIC, int(best)))
    for metric, of_curve, epoch in same:
        for point in curve.get((of_curve, epoch), []):
            if not equal_values(rows[metric].value, point.value):
                yield Problem(
                    f"{measurement_name(rows[metric])} is {rows[metric].value}, but its curve has "
                    f"{point.value} at epoch {epoch}"
                )
