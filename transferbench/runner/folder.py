"""What a run leaves besides the store: the plan it ran, its records, verdicts and environment."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from transferbench.errors import StoreError
from transferbench.plan import ENGINE_VERSION, Cell, DiagnosisCell, Plan
from transferbench.records import Measurement, Record
from transferbench.runner.request import Planned
from transferbench.store import Store
from transferbench.suite import TRIAL

__all__ = [
    "CLAIMS",
    "ENVIRONMENT",
    "RECORDS",
    "RUN",
    "collect_records",
    "describe_run",
    "environment",
    "read_json",
    "read_statuses",
]

RUN = "run.json"
RECORDS = "records.jsonl"
CLAIMS = "claims.json"
ENVIRONMENT = "environment.json"

MEASUREMENTS = TypeAdapter(list[Measurement])
PACKAGES = ("transferbench", "torch", "timm", "numpy", "pandas", "scikit-learn")


def read_json(path: Path) -> Any:
    """A JSON file's value. Raises: ``StoreError`` naming a file that is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(
            f"{path.parent} is not a run's folder: it has no {path.name}; give the folder that "
            "'transferbench run' wrote its report to"
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}; run the suite again") from error


def collect_records(plan: Plan, store: Store) -> Iterator[Record]:
    """Every measurement of the finished jobs of ``plan``, in the order of the plan.

    Raises: ``CorruptArtefactError`` where an artefact is not what was written.
    """
    for cell in plan.cells:
        if store.is_done(cell.job):
            yield from _records(plan, store, DiagnosisCell(cell.job, TRIAL, cell, None))
    for measured in plan.measured:
        if store.is_done(measured.job):
            yield from _records(plan, store, measured)


def _records(plan: Plan, store: Store, measured: DiagnosisCell) -> Iterator[Record]:
    job, a, b = plan.jobs[measured.job], measured.a, measured.b
    trial = measured.diagnostic == TRIAL
    found = MEASUREMENTS.validate_python(store.artefact(job.id).json("measurements.json"))
    for measurement in found:
        yield Record(
            **measurement.model_dump(),
            suite=plan.suite.id,
            entry=a.entry,
            target=a.target,
            perturbation=a.perturbation,
            initialization=a.initialization,
            replicate=a.replicate,
            other_initialization=None if b is None else b.initialization,
            other_replicate=None if b is None else b.replicate,
            diagnostic=measured.diagnostic,
            diagnostic_version=ENGINE_VERSION if trial else job.payload["diagnostic"]["version"],
            job=job.id,
            subjects=(job.id,) if trial else tuple(job.payload["subjects"]),
        )


def describe_run(planned: Planned) -> dict[str, Any]:
    """The content of ``run.json``: the suite, its entries and a line for each place of a job."""
    plan, store = planned.plan, planned.store
    return {
        "schema_version": 1,
        "suite_id": plan.suite.id,
        "suite_digest": plan.suite.digest,
        "changed": list(planned.changed),
        "store": os.path.relpath(store.root, planned.folder),
        "asked": [{"backbone": name, "weights": weights} for name, weights in planned.asked],
        "entries": [_entry(planned, index) for index in range(len(plan.entries))],
        "jobs": list(_job_rows(plan, store)),
        "suite": plan.suite.model_dump(mode="json"),
    }


def _entry(planned: Planned, index: int) -> dict[str, Any]:
    entry = planned.plan.entries[index]
    trial = next(
        (cell.job for cell in planned.plan.cells
         if cell.entry == entry.name and planned.store.is_done(cell.job)), None,
    )  # fmt: skip
    parameters = planned.store.artefact(trial).json("trial.json")["parameters"] if trial else None
    return {
        "name": entry.name,
        "backbone": entry.backbone,
        "license": entry.license,
        "source": entry.source,
        "weights": None if entry.weights is None else entry.weights.model_dump(mode="json"),
        "preprocessing": (
            None if entry.preprocessing is None else entry.preprocessing.model_dump(mode="json")
        ),
        "parameters": parameters,
        "origin": planned.registry.origin("backbone", entry.backbone["name"]),
    }


def _job_rows(plan: Plan, store: Store) -> Iterator[dict[str, Any]]:
    for entry, job in dict.fromkeys(_pretrainings(plan)):
        yield _job_row(plan, store, job, {"entry": entry})
    for cell in plan.cells:
        yield _job_row(plan, store, cell.job, _place(cell))
    for measured in plan.measured:
        place = _place(measured.a) | {"diagnostic": measured.diagnostic}
        if measured.b is not None:
            place |= {
                "other_initialization": measured.b.initialization,
                "other_replicate": measured.b.replicate,
            }
        yield _job_row(plan, store, measured.job, place)


def _pretrainings(plan: Plan) -> Iterator[tuple[str, str]]:
    for cell in plan.cells:
        for need in plan.jobs[cell.job].requires:
            yield cell.entry, need


def _place(cell: Cell) -> dict[str, Any]:
    return {key: value for key, value in cell._asdict().items() if key != "job"}


def _job_row(plan: Plan, store: Store, name: str, place: Mapping[str, Any]) -> dict[str, Any]:
    job = plan.jobs[name]
    return {
        "id": job.id,
        "kind": job.kind,
        "label": job.title,
        "status": store.status(job.id) or "missing",
        **place,
        "requires": list(job.requires),
        "payload": job.payload,
    }


def read_statuses(folder: Path) -> list[dict[str, Any]]:
    """What the jobs of a run have come to, read from the store: one mapping for each job.

    Keys: job, kind, label, status, wall_seconds and the message of a failure.
    """
    described = read_json(folder / RUN)
    store = Store(folder / described["store"])
    jobs = {row["id"]: row for row in described["jobs"]}
    return [_status(store, row) for row in jobs.values()]


def _status(store: Store, row: Mapping[str, Any]) -> dict[str, Any]:
    job = row["id"]
    done = store.is_done(job)
    failure = None if done else store.failure(job)
    return {
        "job": job,
        "kind": row["kind"],
        "label": row["label"],
        "status": "ok" if done else failure.status if failure else "missing",
        "wall_seconds": store.artefact(job).facts.get("wall_seconds") if done else None,
        "message": failure.message if failure else "",
    }


def environment(plan: Plan, store: Store) -> dict[str, Any]:
    """What the numbers were computed on and with, from the facts that each job left."""
    seen: dict[str, set[str]] = {}
    for job in plan.jobs:
        if store.is_done(job):
            for name, value in store.artefact(job).facts.items():
                if isinstance(value, str):
                    seen.setdefault(name, set()).add(value)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "jobs": {name: sorted(values) for name, values in sorted(seen.items())},
    }
