"""The check that the values of diagnoses follow from the trials that a submission holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from transferbench.errors import (
    PluginError,
    SubmissionError,
    TransferbenchError,
    UnknownNameError,
)
from transferbench.metrics import chance_level, predict
from transferbench.records import Measurement, MeasurementKey, Record
from transferbench.registry import Registry, blamed
from transferbench.specs import DiagnosticSpec, Metric, Task
from transferbench.submission.bundle import Bundle, Problem
from transferbench.submission.recompute import equal_values, measurement_name

__all__ = [
    "JobValues",
    "PackedTrial",
    "Recomputation",
    "check_diagnoses_follow_from_trials",
    "packed_trials",
    "recompute_diagnoses",
]

CellKey: TypeAlias = tuple[str, str, str, int, str | None, int | None]
"""Target, perturbation, arm and replicate of a measurement, and the arm and replicate of a pair."""
RecordedHistory: TypeAlias = Sequence[Mapping[str, float | None]]

HISTORY_METRICS = frozenset(
    {"train_metric", "train_loss", "test_metric", "test_loss", "validation_metric"}
)
MAX_CLASSES = 100_000
"""Recomputation may need memory for each class, whose number is the submitter's word."""
MAX_EPOCH = 100_000
"""Histories with a later epoch are ignored: recomputation may need memory for each epoch."""


@dataclass(frozen=True)
class PackedTrial:
    """A ``transferbench.specs.SubmittedTrial`` with the fields of its ``Predictions``."""

    job: str
    task: Task
    metric: Metric
    classes: int
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
            if dataset["classes"] > MAX_CLASSES:
                raise SubmissionError(f"trial {job.id[:12]} has more than {MAX_CLASSES} classes")
            trials[job.id] = PackedTrial(
                job.id, dataset["task"], dataset["metric"], dataset["classes"], history,
                *bundle.predictions[job.id],
            )  # fmt: skip
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


class JobValues(NamedTuple):
    """The measurements that follow from a job's trials; which of them need no history.

    ``flags_follow``: whether flags do, which may be on a history that is not recorded.
    """

    all: Mapping[MeasurementKey, Measurement]
    of_predictions: Collection[MeasurementKey]
    flags_follow: bool


class Recomputation(NamedTuple):
    """What plugins compute from a submission: by the job of a diagnosis.

    ``not_installed``: diagnostics whose values are only reported. ``faults``: what failed.
    """

    by_job: Mapping[str, JobValues]
    not_installed: Sequence[str]
    faults: Sequence[str]


def recompute_diagnoses(bundle: Bundle, registry: Registry) -> Recomputation:
    """Values of diagnostics, recomputed by their plugins from predictions and histories.

    The values of a diagnostic that is not installed here, or in another version, are only
    reported: nothing is imported for a submission.
    """
    trials = packed_trials(bundle)
    by_job: dict[str, JobValues] = {}
    not_installed: dict[str, None] = {}
    faults = []
    for job in bundle.plan.jobs:
        if job.kind != "diagnosis":
            continue
        use, subjects = job.payload["diagnostic"], job.payload["subjects"]
        spec = _installed(use, registry)
        if spec is None:
            not_installed[f"{use['name']} version {use['version']}"] = None
        elif spec.recompute is not None and trials.keys() >= set(subjects):
            packed = [trials[subject] for subject in subjects]
            try:
                by_job[job.id] = _values(spec, use["params"], packed)
            except TransferbenchError as error:
                names = ", ".join(trial.job[:12] for trial in packed)
                faults.append(f"{error} (subjects {names})")
    return Recomputation(by_job, list(not_installed), faults)


def _values(
    spec: DiagnosticSpec, params: Mapping[str, Any], trials: Sequence[PackedTrial]
) -> JobValues:
    """Raises: ``TransferbenchError`` where the plugin fails."""
    bare = [replace(trial, history=None) for trial in trials]
    with blamed(f"diagnostic {spec.name!r}", role="recompute of "):
        parsed, recompute = spec.parse(params), spec.recompute or (lambda *_: ())
        values = {m.key: m for m in recompute(parsed, trials)}
        if all(trial.history is None for trial in trials):
            return JobValues(values, values.keys(), flags_follow=False)
        complete = all(trial.history is not None for trial in trials)
        return JobValues(values, {m.key for m in recompute(parsed, bare)}, complete)


def check_diagnoses_follow_from_trials(
    bundle: Bundle, recomputation: Recomputation
) -> Iterator[Problem]:
    """The recorded values of diagnostics are those that follow, and none of these is left out."""
    recorded: dict[str, dict[CellKey, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in bundle.records:
        cell = (record.target, record.perturbation, record.initialization, record.replicate,
                record.other_initialization, record.other_replicate)  # fmt: skip
        recorded[record.job][cell].append(record)
    yield from map(Problem, recomputation.faults)
    for job, values in recomputation.by_job.items():
        for rows in recorded[job].values():
            yield from _differences(rows, values)
    for name in recomputation.not_installed:
        yield Problem(f"{name} is not installed here: its values are only reported", warning=True)


def _installed(use: Mapping[str, Any], registry: Registry) -> DiagnosticSpec | None:
    """The diagnostic of the name and version that measured; None where it is not installed."""
    try:
        spec = registry.diagnostic(use["name"])
    except (PluginError, UnknownNameError):
        return None
    return spec if spec.version == use["version"] else None


def _differences(records: Sequence[Record], values: JobValues) -> Iterator[Problem]:
    """The records of one cell of a job that are not what its plugin recomputes, or lack some."""
    recomputed = values.all
    metrics = {metric for metric, _ in recomputed}
    for record in records:
        expected, name = recomputed.get(record.key), measurement_name(record)
        if expected is None:
            if record.metric in metrics:
                yield Problem(f"{name}{_at(record.key)} is not what its trials give")
        elif not equal_values(record.value, expected.value):
            yield Problem(f"{name} is {record.value}, but its trials give {expected.value}")
        elif record.n != expected.n:
            yield Problem(f"{name} is of {record.n} items, but its trials have {expected.n}")
        elif record.unit != expected.unit:
            yield Problem(f"{name} is in {record.unit!r}, but its trials give {expected.unit!r}")
        elif values.flags_follow and record.flag != expected.flag:
            yield Problem(f"{name} is flagged {record.flag!r}, not as its trials say")
    recorded = {record.key for record in records}
    for key in sorted(recomputed.keys() - recorded, key=str):
        yield Problem(f"{key[0]}{_at(key)} of job {records[0].job[:12]} is missing")


def _at(key: MeasurementKey) -> str:
    # With escapes, since a record's coordinates may be any text.
    pairs = [(ascii(name)[1:-1], str(value)) for name, value in sorted(key[1], key=str)]
    return "".join(f", {name} {ascii(value)[1:-1]}" for name, value in pairs)
