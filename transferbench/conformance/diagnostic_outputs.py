"""The checks of what is made of a diagnostic's measurements: recomputed values and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd

from transferbench.conformance.checks import Violation, defined_in, refuse_any
from transferbench.conformance.diagnostic_case import COUNTS, DiagnosticCase, described, key_of
from transferbench.conformance.fixture_trials import fixture_plan
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.engine.resources import WorkerResources
from transferbench.errors import TransferbenchError
from transferbench.measurements import Measurements
from transferbench.metrics import predict
from transferbench.plan import Plan
from transferbench.records import Measurement
from transferbench.report.comparisons import name_selves
from transferbench.report.drawing import draw
from transferbench.report.parts import Drawing, Part, Scope
from transferbench.runner.collect import collect
from transferbench.submission.diagnoses import PackedTrial
from transferbench.submission.recompute import equal_values

__all__ = ["CHECKS"]


def check_recomputed_values_are_those_measured(case: DiagnosticCase) -> None:
    """``recompute`` gives the values of ``measure`` from predictions and history alone."""
    if case.spec.recompute is None:
        raise SkipTest("it recomputes nothing")
    for network, values in case.measurements.items():
        trials = [_submitted(trial) for trial in case.subjects(network)]
        recomputed = list(case.spec.recompute(case.params, trials))
        if not recomputed:
            raise Violation(f"it recomputes nothing of trials of {network}",
                            "yield values of measure again, or leave recompute out")  # fmt: skip
        _check_recomputed(network, recomputed, {key_of(value): value for value in values})
        # A submission has no history of a trial whose history no diagnosis records.
        list(case.spec.recompute(case.params, [replace(trial, history=None) for trial in trials]))


def _submitted(trial: FinishedTrial) -> PackedTrial:
    """The trial as a submission holds it."""
    items, labels = np.arange(len(trial.labels)), trial.labels.astype(np.int32)
    outputs = predict(trial.logits, labels).astype(np.int32)
    return PackedTrial(trial.job, trial.task, trial.metric, trial.history, items, labels, outputs)


def _check_recomputed(
    network: str, recomputed: Sequence[Measurement], measured: Mapping[Any, Measurement]
) -> None:
    for value in recomputed:
        expected = measured.get(key_of(value))
        if expected is None:
            raise Violation(f"{described(value)} is recomputed, but not measured, on {network}",
                            "yield metrics and coordinates of measure alone")  # fmt: skip
        if not equal_values(value.value, expected.value) or value.n != expected.n:
            raise Violation(
                f"{described(value)} is {expected.value} (n={expected.n}) on {network}, and "
                f"{value.value} (n={value.n}) when it is recomputed",
                "use one function of predictions and history in both, or leave the metric out",
            )


def check_the_report_shows_its_measurements(case: DiagnosticCase) -> None:
    """The part of ``report`` has figures or tables, and names only metrics that it measures."""
    report = case.spec.report
    if report is None:
        raise SkipTest("it brings no part of the report")
    _ = case.calls
    planned, resources = fixture_plan(case.spec, case.params, case.device)
    trials = [record.row() for record in collect(planned, resources.store).records]
    measured = list(_rows(case, planned, resources))
    refuse_any(report.metrics - {row["metric"] for row in measured},
               "is named in report.metrics, but not measured",
               "name metrics that it yields with the tiny parameters")  # fmt: skip
    measurements = Measurements(name_selves(pd.DataFrame([*trials, *measured])))
    scope = Scope(planned.suite, trials[0]["entry"], measurements, frozenset({case.spec.name}))
    part = report.build(scope)
    if part is None:
        raise SkipTest("its part has nothing to show of the kit's trials")
    if not isinstance(part, Part):
        raise Violation(f"report.build returned {type(part).__name__} for measured trials",
                        "return transferbench.reporting.Part")  # fmt: skip
    if not part.blocks:
        notes = f" ({'; '.join(part.notes)})" if part.notes else ""
        raise Violation(f"the part {part.title!r} shows nothing of measured trials{notes}",
                        "give it a figure or a table")  # fmt: skip
    for block in part.blocks:
        if isinstance(block, Drawing):
            draw(block.figure, case.spec.name)


def _rows(
    case: DiagnosticCase, planned: Plan, resources: WorkerResources
) -> Iterator[dict[str, Any]]:
    """Its measurements, as rows of the run's table."""
    for cell in planned.measured:
        jobs = planned.jobs[cell.job].payload["subjects"]
        # It may refuse a comparison with the source, and few take references beside a pair.
        refusal = Exception if len(jobs) > COUNTS[case.spec.subjects] else TransferbenchError
        with suppress(refusal):
            for value in case.measure([FinishedTrial(resources, job) for job in jobs]):
                fields = value.model_dump(exclude={"coordinates"})
                yield {**cell.axes, **fields, **value.coordinates}


CHECKS = tuple(defined_in(__name__))
