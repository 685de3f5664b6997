"""What the jobs of a plan left in the store, read in one pass: states, records, facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from transferbench.plan import ENGINE_VERSION, DiagnosisCell, Plan
from transferbench.records import Record
from transferbench.store import Artefact, Store
from transferbench.suite import TRIAL

__all__ = ["Collected", "JobState", "collect", "done_jobs", "job_states"]


class JobState(NamedTuple):
    """How a job ended: ``ok``, the status of its failure, or ``missing``."""

    status: str
    wall_seconds: float | None = None
    message: str = ""


class Collected(NamedTuple):
    """Everything that a run's folder is written from, read in one pass.

    ``states``: by job. ``records``: of the finished jobs, in the order of the plan.
    ``parameters``: of the network of each entry with a finished trial.
    ``facts``: the values of what each job noted of its environment.
    """

    states: Mapping[str, JobState]
    records: tuple[Record, ...]
    parameters: Mapping[str, int]
    facts: Mapping[str, list[str]]


def done_jobs(jobs: Iterable[str], store: Store) -> set[str]:
    """The jobs whose finished artefacts are in the store."""
    return {job for job in jobs if store.is_done(job)}


def job_states(jobs: Iterable[str], store: Store) -> dict[str, JobState]:
    """How each job ended; reads no artefact's files."""
    return {job: _state(job, store, _artefact(job, store)) for job in jobs}


def collect(plan: Plan, store: Store) -> Collected:
    """Read what the jobs of ``plan`` left.

    Raises: ``CorruptArtefactError`` where an artefact is not what was written.
    """
    artefacts = {job: _artefact(job, store) for job in plan.jobs}
    finished = {job: artefact for job, artefact in artefacts.items() if artefact is not None}
    return Collected(
        {job: _state(job, store, artefact) for job, artefact in artefacts.items()},
        tuple(_records(plan, finished)),
        _parameters(plan, finished),
        _facts(finished.values()),
    )


def _artefact(job: str, store: Store) -> Artefact | None:
    return store.artefact(job) if store.is_done(job) else None


def _state(job: str, store: Store, artefact: Artefact | None) -> JobState:
    if artefact is not None:
        return JobState("ok", artefact.facts.get("wall_seconds"))
    failure = store.failure(job)
    return JobState(failure.status, None, failure.message) if failure else JobState("missing")


def _records(plan: Plan, finished: Mapping[str, Artefact]) -> Iterator[Record]:
    trials = (DiagnosisCell(cell.job, TRIAL, cell, None) for cell in plan.cells)
    for cell in (*trials, *plan.measured):
        if cell.job in finished:
            origin = _origin(plan, cell)
            for measurement in finished[cell.job].json("measurements.json"):
                yield Record(**measurement, **origin)


def _origin(plan: Plan, cell: DiagnosisCell) -> dict[str, Any]:
    """The fields of a record that say where its measurement comes from."""
    a, b, payload = cell.a, cell.b, plan.jobs[cell.job].payload
    trial = cell.diagnostic == TRIAL
    return {
        "suite": plan.suite.id,
        "entry": a.entry,
        "target": a.target,
        "perturbation": a.perturbation,
        "initialization": a.initialization,
        "replicate": a.replicate,
        "other_initialization": None if b is None else b.initialization,
        "other_replicate": None if b is None else b.replicate,
        "diagnostic": cell.diagnostic,
        "diagnostic_version": ENGINE_VERSION if trial else payload["diagnostic"]["version"],
        "job": cell.job,
        "subjects": (cell.job,) if trial else tuple(payload["subjects"]),
    }


def _parameters(plan: Plan, finished: Mapping[str, Artefact]) -> dict[str, int]:
    parameters: dict[str, int] = {}
    for cell in plan.cells:
        if cell.entry not in parameters and cell.job in finished:
            parameters[cell.entry] = finished[cell.job].json("trial.json")["parameters"]
    return parameters


def _facts(artefacts: Iterable[Artefact]) -> dict[str, list[str]]:
    values: dict[str, set[str]] = {}
    for artefact in artefacts:
        for name, value in artefact.facts.items():
            if isinstance(value, str):
                values.setdefault(name, set()).add(value)
    return {name: sorted(values[name]) for name in sorted(values)}
