"""The check that the values of diagnoses follow from the trials that a submission holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from transferbench.errors import PluginError, TransferbenchError, UnknownNameError
from transferbench.metrics import chance_level, predict
from transferbench.records import Measurement, Record
from transferbench.registry import Registry, blamed
from transferbench.specs import DiagnosticSpec, Metric, Task
from transferbench.submission.bundle import Bundle, Problem
from transferbench.submission.recompute import equal_values, measurement_name

__all__ = ["PackedTrial", "check_diagnoses_follow_from_trials", "packed_trials"]

RecordedHistory: TypeAlias = Sequence[Mapping[str, float | None]]

HISTORY_METRICS = frozenset(
    {"train_metric", "train_loss", "test_metric", "test_loss", "validation_metric"}
)
MAX_EPOCH = 100_000
"""Histories with a later epoch are ignored: recomputation may need memory for each epoch."""


@dataclass(frozen=True)
class PackedTrial:
    """A ``transferbench.specs.SubmittedTrial`` with the fields of its ``Predictions``."""

    job: str
    task: Task
    metric: Metric
    history: RecordedHistory | None
    items: np.ndarray
    labels: np.ndarray
    outputs: np.ndarray

    @property
    def chance(self) -> float:
        """The metric of the best constant prediction."""
        return chance_level(self.metric, self.labels)

    @property
    def predicted(self) -> np.ndarray:
        """Shapes: (N,) or (N, L)."""
        return self.outputs if self.scores is None else predict(self.scores, self.labels)

    @property
    def scores(self) -> np.ndarray | None:
        """Shapes: (N, L) or (N, K)."""
        return self.outputs if self.outputs.ndim == 2 else None


def packed_trials(bundle: Bundle) -> dict[str, PackedTrial]:
    """The planned trials that have predictions, by job id."""
    histories = _histories(bundle)
    trials = {}
    for job in bundle.plan.jobs:
        if job.kind == "trial" and job.id in bundle.predictions:
            dataset, history = job.payload["dataset"], histories.get(job.id)
            trials[job.id] = PackedTrial(
                job.id, dataset["task"], dataset["metric"], history, *bundle.predictions[job.id]
            )
    return trials


def _histories(bundle: Bundle) -> dict[str, RecordedHistory]:
    """Trial -> what its diagnoses recorded by epoch alone; none where two of them differ."""
    rows: dict[str, dict[int, dict[str, float | None]]] = defaultdict(lambda: defaultdict(dict))
    ambiguous = set()
    for record in bundle.records:
        epoch = record.coordinates.get("epoch")
        if (
            record.metric not in HISTORY_METRICS
            or len(record.subjects) != 1
            or len(record.coordinates) != 1
            or not isinstance(epoch, int)
        ):
            continue
        (trial,) = record.subjects
        value = rows[trial][epoch].setdefault(record.metric, record.value)
        if value != record.value or not 0 <= epoch <= MAX_EPOCH:
            ambiguous.add(trial)
    return {
        # Read-only: the plugins that recompute share them.
        trial: tuple(
            MappingProxyType({"epoch": epoch, **by_epoch[epoch]}) for epoch in sorted(by_epoch)
        )
        for trial, by_epoch in rows.items()
        if trial not in ambiguous
    }


def check_diagnoses_follow_from_trials(bundle: Bundle, registry: Registry) -> Iterator[Problem]:
    """Values of diagnostics, recomputed by their plugins from predictions and histories.

    The values of a diagnostic that is not installed here, or in another version, are only
    reported: nothing is imported for a submission.
    """
    trials = packed_trials(bundle)
    records: dict[str, list[Record]] = defaultdict(list)
    for record in bundle.records:
        records[record.job].append(record)
    only_reported: dict[str, None] = {}
    for job in bundle.plan.jobs:
        if job.kind != "diagnosis":
            continue
        use, subjects = job.payload["diagnostic"], job.payload["subjects"]
        spec = _installed(use, registry)
        if spec is None:
            only_reported[f"{use['name']} version {use['version']}"] = None
        elif trials.keys() >= set(subjects):
            packed = [trials[subject] for subject in subjects]
            yield from _differences(spec, use["params"], packed, records[job.id])
    for name in only_reported:
        yield Problem(f"{name} is not installed here: its values are only reported", warning=True)


def _installed(use: Mapping[str, Any], registry: Registry) -> DiagnosticSpec | None:
    """The diagnostic of the name and version that measured; None where it is not installed."""
    try:
        spec = registry.diagnostic(use["name"])
    except (PluginError, UnknownNameError):
        return None
    return spec if spec.version == use["version"] else None


def _differences(
    spec: DiagnosticSpec,
    params: Mapping[str, Any],
    trials: Sequence[PackedTrial],
    records: Sequence[Record],
) -> Iterator[Problem]:
    """The records of a job whose value or number of items is not what its plugin recomputes."""
    if spec.recompute is None:
        return
    try:
        with blamed(f"diagnostic {spec.name!r}", role="recompute of "):
            recomputed = {_key(m): m for m in spec.recompute(spec.parse(params), trials)}
    except TransferbenchError as error:
        yield Problem(f"{error} (subjects {', '.join(trial.job[:12] for trial in trials)})")
        return
    for record in records:
        expected = recomputed.get(_key(record))
        if expected is None:
            continue
        name = measurement_name(record)
        if not equal_values(record.value, expected.value):
            yield Problem(f"{name} is {record.value}, but its trials give {expected.value}")
        elif record.n != expected.n:
            yield Problem(f"{name} is of {record.n} items, but its trials have {expected.n}")


def _key(measurement: Measurement) -> tuple[str, frozenset[tuple[str, Any]]]:
    return measurement.metric, frozenset(measurement.coordinates.items())
