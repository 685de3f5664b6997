"""The trials of a submission, rebuilt from its predictions and records for recomputation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from transferbench.metrics import chance_level, predict
from transferbench.specs import Metric, Task
from transferbench.submission.bundle import Bundle

__all__ = ["PackedTrial", "packed_trials"]

RecordedHistory: TypeAlias = Sequence[Mapping[str, float | None]]

HISTORY_METRICS = frozenset(
    {"train_metric", "train_loss", "test_metric", "test_loss", "validation_metric"}
)
MAX_EPOCH = 100_000
"""An epoch beyond it is no history: recomputation may need memory for each epoch up to it."""


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
        """Shapes: (N, L)."""
        return self.outputs if self.labels.ndim == 2 else None


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
        trial: [{"epoch": epoch, **by_epoch[epoch]} for epoch in sorted(by_epoch)]
        for trial, by_epoch in rows.items()
        if trial not in ambiguous
    }
