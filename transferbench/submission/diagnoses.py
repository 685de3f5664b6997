"""A check that the values of diagnoses follow from the trials that a submission holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transferbench.errors import PluginError, TransferbenchError, UnknownNameError
from transferbench.records import Measurement, Record
from transferbench.registry import Registry, blamed
from transferbench.specs import DiagnosticSpec
from transferbench.submission.bundle import Bundle, Problem
from transferbench.submission.recompute import equal_values, measurement_name
from transferbench.submission.submitted_trials import PackedTrial, packed_trials

__all__ = ["check_diagnoses_follow_from_trials"]


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
        with blamed(f"recompute of diagnostic {spec.name!r}"):
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
