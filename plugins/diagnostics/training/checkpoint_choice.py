"""Checkpoint choice: target metric of a trial and source metric of the checkpoint it started from.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Section 3.5 and Figure 7.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench.metrics import score
from transferbench.records import Coordinate, Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, NoParams, ReportPart, Subject
from transferbench_plugins.diagnostics._history import final_value, metric_curve
from transferbench_plugins.diagnostics._images import compute_logits
from transferbench_plugins.diagnostics._measurement import measurement, recorded_metric
from transferbench_plugins.diagnostics._source_checkpoint import (
    SourceCheckpoint,
    initial_checkpoint,
)
from transferbench_plugins.diagnostics.training.speed import speed_of

__all__ = ["CHECKPOINT_CHOICE"]

BATCH_SIZE = 256

NO_CHECKPOINT = "a starts from no kept state of b"
UNDEFINED = "the test metric is not defined: not evaluated, or diverged"


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The checkpoint of source b that trial a started from, and the metrics of both networks.

    ``checkpoint``: the pre-training epoch whose body a was initialized with, identified by its
    weights; ``target_metric`` and ``speed`` of a; ``source_metric`` of b at that epoch.
    Units: epochs and fractions. Error: exact over test images for a multi-class accuracy.
    ``n`` counts test images; for ``speed``, epochs.
    """
    del params, context  # deterministic, without parameters
    trial, source = subjects
    checkpoint = initial_checkpoint(trial, source)
    epoch = checkpoint.epoch if checkpoint else None
    coordinates: dict[str, Coordinate] = {} if epoch is None else {"checkpoint": epoch}
    yield measurement("checkpoint", epoch, "epochs", 1, coordinates, missing=NO_CHECKPOINT)
    n, value = len(trial.labels), final_value(trial.history, "test_metric")
    target_metric = recorded_metric(trial, value, n)
    yield measurement("target_metric", target_metric, "fraction", n, coordinates, missing=UNDEFINED)
    speed = speed_of(trial.history)
    yield measurement("speed", speed.value, "fraction", speed.n, coordinates, flag=speed.flag)
    n, value = len(source.labels), _source_metric(source, checkpoint) if checkpoint else None
    source_metric = recorded_metric(source, value, n)
    missing = UNDEFINED if checkpoint else NO_CHECKPOINT
    yield measurement("source_metric", source_metric, "fraction", n, coordinates, missing=missing)


def _source_metric(source: Subject, checkpoint: SourceCheckpoint) -> float | None:
    """From the history if that epoch was evaluated, else from a forward pass over test images."""
    epochs, values = metric_curve(source.history, "test_metric")
    recorded: list[float] = values[epochs == checkpoint.epoch].tolist()
    if recorded:
        return recorded[0]
    net = source.network(checkpoint.which)
    logits = compute_logits(net, source.images("test"), BATCH_SIZE)
    return score(source.metric, logits, source.labels)


CHECKPOINT_CHOICE = DiagnosticSpec(
    name="checkpoint-choice",
    version=1,
    summary="The pre-training checkpoint of a trial, with its source metric and the target metric",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Section 3.5 and Figure 7",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"checkpoint", "source_metric", "speed", "target_metric"}),
    ranges=dict.fromkeys(("source_metric", "speed", "target_metric"), (0, 1)),
    needs=frozenset({"init_state", "trajectory", "history", "images"}),
    cost=lambda params: 1.0,
    report=ReportPart(
        build=f"{__package__}._checkpoint_choice_report:checkpoints",
        metrics=frozenset({"checkpoint", "source_metric", "speed", "target_metric"}),
    ),
)
