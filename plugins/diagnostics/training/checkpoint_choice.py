"""Checkpoint choice: what fine-tuning reached from a checkpoint, beside what that one knew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from transferbench.metrics import score
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, Subject
from transferbench.statistics import wilson
from transferbench_plugins.diagnostics._history import evaluated, last_value
from transferbench_plugins.diagnostics._starting_point import StartingPoint, starting_point
from transferbench_plugins.diagnostics.training.speed import speed_of
from transferbench_plugins.diagnostics.transferability._source_view import BATCH

__all__ = ["CHECKPOINT_CHOICE"]

NO_START = "a starts from no kept state of b"


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Of trial a and the source network b that it started from: when, and how good both were.

    ``checkpoint``: the pre-training epoch whose body a started with, found in the weights;
    ``target_metric`` and ``speed`` of a; ``source_metric`` of b at that epoch.
    Units: epochs and fractions. Error: Wilson over test images where the metric is the accuracy
    of classes; ``n`` counts them, for the speed epochs.
    """
    del params, context  # nothing to choose, nothing drawn
    trial, source = subjects
    start = starting_point(trial, source)
    place = {} if start is None else {"checkpoint": start.epoch}
    yield Measurement(
        metric="checkpoint",
        value=None if start is None else start.epoch,
        unit="epochs",
        n=1,
        coordinates=place,
        flag=NO_START if start is None else None,
    )
    yield _metric("target_metric", trial, last_value(trial.history, "test_metric"), place)
    speed = speed_of(trial.history)
    yield Measurement(metric="speed", unit="fraction", coordinates=place, **speed._asdict())
    known = None if start is None else _source_metric(source, start)
    yield _metric("source_metric", source, known, place, NO_START if start is None else None)


def _metric(
    name: str,
    subject: Subject,
    value: float | None,
    place: Mapping[str, int],
    flag: str | None = None,
) -> Measurement:
    n = len(subject.labels)
    shared = value is not None and subject.metric == "accuracy" and subject.labels.ndim == 1
    missing = "the test metric is not defined: not evaluated, or diverged"
    return Measurement(
        metric=name,
        value=value,
        unit="fraction",
        n=n,
        coordinates=dict(place),
        flag=flag or (missing if value is None else None),
        **(wilson(round(value * n), n).fields() if value is not None and shared else {}),
    )


def _source_metric(source: Subject, start: StartingPoint) -> float | None:
    """From the history where that epoch was evaluated, else on the source's test images."""
    epochs, values = evaluated(source.history, "test_metric")
    found: list[float] = values[epochs == start.epoch].tolist()
    return found[0] if found else _evaluated(source, start)


def _evaluated(source: Subject, start: StartingPoint) -> float | None:
    import torch

    net = source.network(start.which)
    with torch.no_grad():
        batches = torch.split(source.images("test"), BATCH)
        logits = torch.cat([net(images) for images in batches])
    return score(source.metric, logits.float().cpu().numpy(), source.labels)


CHECKPOINT_CHOICE = DiagnosticSpec(
    name="checkpoint-choice",
    version=1,
    summary="The checkpoint that a trial started from, what it knew and what came of it",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Section 3.5 and Figure 7",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    needs=frozenset({"init_state", "trajectory", "history", "images"}),
    cost=lambda params: 1.0,
)
