"""Packing one entry of a finished run into an immutable submission."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from transferbench.claims import Verdict
from transferbench.errors import SubmissionError, UnknownNameError, shortened
from transferbench.files import write_json
from transferbench.plan import NOT_MEASURED
from transferbench.records import Measurement, Overlap, Record, write_records
from transferbench.registry import Kind, Registry
from transferbench.runner.folder import read_claims, read_environment, read_run, read_run_records
from transferbench.specs import Frozen, Metric
from transferbench.store import Store
from transferbench.submission.bundle import (
    CLAIMS,
    ENVIRONMENT,
    IMAGES,
    MAX_BYTES,
    MAX_RECORD_BYTES,
    PLAN,
    PREDICTIONS,
    RECORDS,
    SCHEMA_VERSION,
    SUBMISSION,
    Declaration,
    EntryFacts,
    PlannedJob,
    content_digests,
    parse_json,
    slug,
    submission_id,
)
from transferbench.submission.images import ImageSets, image_sets, write_images
from transferbench.submission.integrity import fillable_cells, missing_cells, severities
from transferbench.submission.predictions import Predictions, read_outputs, write_predictions
from transferbench.suite import Suite
from transferbench.suite.columns import columns_of

__all__ = ["compared_images", "pack", "suite_as_packed"]

MAX_LISTED = 20
"""Missing parts of an entry that are listed."""


class _RunJob(PlannedJob):
    entry: str
    status: str


class _Data(BaseModel):
    overlap: dict[str, Overlap] = {}


class _Run(Frozen):
    """The part of ``run.json`` that packing reads."""

    model_config = ConfigDict(extra="ignore")

    suite: Suite
    suite_id: str
    suite_digest: str
    changed: tuple[str, ...] = ()
    data: _Data = _Data()
    entries: tuple[EntryFacts, ...]
    jobs: tuple[_RunJob, ...]


def pack(
    run: Path,
    store: Store,
    entry: str,
    out: Path,
    declaration: Declaration,
    registry: Registry,
    *,
    private: bool = False,
) -> Path:
    """Write ``out/<suite>@<major>/<entry>/<submission-id>/`` from the run in folder ``run``.

    The folder appears complete or not at all; packing the same content again gives the same
    folder. ``private``: pack a changed suite too, under another name, for a board that is not
    published. Raises: ``SubmissionError`` for a changed suite, an entry that the run does not
    have, or one with missing or failed jobs.
    """
    chosen = _choose(run, entry, private=private)
    _refuse_incomplete(chosen, registry)
    _refuse_edited(chosen, store)
    declared = _complete(declaration, chosen)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".packing-", dir=out) as scratch:
        folder = Path(scratch) / "submission"
        folder.mkdir()
        digests = _write_content(folder, chosen, store, registry)
        head = {
            "schema_version": SCHEMA_VERSION,
            "suite": chosen.run.suite_id,
            "suite_digest": chosen.run.suite_digest,
            "entry": chosen.entry.model_dump(mode="json"),
            "declaration": declared,
            "trust": "reported",
            "outputs": digests,
            **_from_plugins(chosen, registry),
            "files": content_digests(folder),
        }
        head |= {"id": submission_id(head)}
        write_json(folder / SUBMISSION, head, canonical=True)
        for name in (SUBMISSION, *content_digests(folder)):
            _refuse_oversized(name, (folder / name).stat().st_size, MAX_BYTES[name])
        return _publish(folder, out / chosen.run.suite.board / slug(entry) / str(head["id"]))


def suite_as_packed(run: Path) -> Suite:
    """The suite of the submissions that are packed ``private`` from the run in this folder."""
    described = _read_run(run)
    return (_renamed(described) if described.changed else described).suite


class _Chosen(NamedTuple):
    """One entry of a run, with its records and verdicts and the jobs it needs."""

    folder: Path
    run: _Run
    entry: EntryFacts
    records: tuple[Record, ...]
    verdicts: tuple[Verdict, ...]
    jobs: tuple[_RunJob, ...]


def _choose(folder: Path, name: str, *, private: bool) -> _Chosen:
    run = _read_run(folder)
    renamed = private and bool(run.changed)
    if renamed:
        run = _renamed(run)
    elif run.changed:
        raise SubmissionError(
            f"the run changed its suite ({', '.join(run.changed)}), so its numbers cannot stand"
            f" beside others of {run.suite_id}; run the suite without --set and pack that"
        )
    entries = {entry.name: entry for entry in run.entries}
    if name not in entries:
        error = UnknownNameError("entry", name, entries, "entries of this run")
        raise SubmissionError(str(error))
    described = read_run(folder)
    records = tuple(row for row in read_run_records(folder, described) if row.entry == name)
    verdicts = tuple(read_claims(folder, described).get(name, ()))
    if renamed:
        records = tuple(row.model_copy(update={"suite": run.suite_id}) for row in records)
    jobs = _jobs(run, name, records)
    return _Chosen(folder, run, entries[name], records, verdicts, jobs)


def _read_run(run: Path) -> _Run:
    path = run / "run.json"
    if not path.is_file():
        raise SubmissionError(f"{run} is not a run: it has no run.json; give the folder of --out")
    try:
        return _Run.model_validate(parse_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SubmissionError(f"{path}: {where}: {first['msg']}; run the suite again") from error


def _renamed(run: _Run) -> _Run:
    """The run with its changed suite under another name: its numbers are not the suite's."""
    # The columns of a published suite are listed by its name, which is lost here.
    scoring = run.suite.scoring.model_copy(update={"columns": columns_of(run.suite)})
    name = f"{run.suite.name}-changed"
    suite = run.suite.model_copy(update={"name": name, "scoring": scoring})
    renamed = {"suite": suite, "suite_id": suite.id, "suite_digest": suite.digest}
    return run.model_copy(update=renamed)


def _jobs(run: _Run, entry: str, records: Iterable[Record]) -> tuple[_RunJob, ...]:
    """The jobs of this entry and all that they require, in the order of the run."""
    by_id = {job.id: job for job in run.jobs}
    # A job that two entries share is listed under one of them.
    required = {job.id for job in run.jobs if job.entry == entry} | {row.job for row in records}
    frontier = list(required)
    while frontier:
        job = by_id.get(frontier.pop())
        more = set(job.requires) - required if job else set()
        required |= more
        frontier += more
    return tuple(job for job in by_id.values() if job.id in required)


def _refuse_incomplete(chosen: _Chosen, registry: Registry) -> None:
    """Raise an error that lists failed jobs, jobs without records, and missing cells."""
    measured = {row.job for row in chosen.records}
    lacking = []
    for job in chosen.jobs:
        if job.status != "ok":
            lacking.append(f"{job.kind} {job.id[:12]}: {job.status}")
        elif job.kind not in NOT_MEASURED and job.id not in measured:
            lacking.append(f"{job.kind} {job.id[:12]}: nothing recorded")
    cells = fillable_cells(chosen.run.suite, chosen.entry.weights, registry)
    lacking += [f"{cell}: missing" for cell in missing_cells(cells, chosen.records)]
    if lacking:
        lines = "\n  ".join(shortened(lacking, MAX_LISTED))
        raise SubmissionError(
            f"{chosen.entry.name} is not complete on {chosen.run.suite_id}; run the suite again"
            f" with the same --out, which does what is left:\n  {lines}"
        )


def _refuse_edited(chosen: _Chosen, store: Store) -> None:
    """Raise an error where the records of the run's folder are not what the store holds."""
    fields = set(Measurement.model_fields)
    recorded: dict[tuple[Any, ...], list[Measurement]] = {}
    for row in chosen.records:
        cell = (row.job, row.target, row.perturbation, row.initialization, row.replicate,
                row.other_initialization, row.other_replicate, row.diagnostic)  # fmt: skip
        recorded.setdefault(cell, []).append(Measurement(**row.model_dump(include=fields)))
    measured: dict[str, list[Measurement]] = {}
    for (job, *_), rows in recorded.items():
        if job not in measured:
            content = store.artefact(job).json("measurements.json")
            measured[job] = [Measurement(**values) for values in content]
        if rows != measured[job]:
            raise SubmissionError(
                f"the records of {chosen.folder} were changed: of job {job[:12]} they are not what "
                f"the store {store.root} holds; run the suite again with the same --out, which "
                "writes them from the store"
            )


def _write_content(
    folder: Path, chosen: _Chosen, store: Store, registry: Registry
) -> dict[str, str]:
    """Write every file but the head; returns the digest of each trial's logits."""
    text = write_records(chosen.records, folder / RECORDS)
    _refuse_oversized(f"the text of {RECORDS}", text, MAX_RECORD_BYTES)
    fields = set(PlannedJob.model_fields)
    plan = [job.model_dump(mode="json", include=fields) for job in chosen.jobs]
    environment = read_environment(chosen.folder).model_dump(mode="json")
    environment["jobs"].pop("host", None)  # the names of machines stay private
    contents = {
        PLAN: {"suite": chosen.run.suite.model_dump(mode="json"), "jobs": plan},
        CLAIMS: [verdict.model_dump(mode="json") for verdict in chosen.verdicts],
        ENVIRONMENT: environment,
    }
    for name, content in contents.items():
        write_json(folder / name, content, canonical=True)
    trials: dict[str, Predictions] = {}
    digests = {}
    for job in chosen.jobs:
        if job.kind == "trial":
            outputs = store.artefact(job.id).path("outputs.safetensors")
            metric: Metric = job.payload["dataset"]["metric"]
            trials[job.id], digests[job.id] = read_outputs(outputs, metric)
    write_predictions(trials, folder / PREDICTIONS)
    if images := compared_images(chosen.jobs, trials, store.datasets, registry):
        write_images(images, folder / IMAGES)
    return digests


def compared_images(
    jobs: Iterable[PlannedJob],
    trials: Mapping[str, Predictions],
    cache: Path,
    registry: Registry,
) -> ImageSets | None:
    """The training images of the sources among ``jobs``, and the test images of ``trials``.

    None where no source is pre-trained, or as ``image_sets``.
    """
    data = {job.id: (job.kind, job.payload["dataset"]) for job in jobs if "dataset" in job.payload}
    sources = [dataset for kind, dataset in data.values() if kind == "pretrain"]
    tested: dict[str, tuple[Mapping[str, Any], np.ndarray]] = {}
    for job, trial in trials.items():
        dataset = data[job][1]
        _, before = tested.get(dataset["fingerprint"], (dataset, trial.items))
        tested[dataset["fingerprint"]] = dataset, np.union1d(before, trial.items)
    return image_sets(sources, tested, cache, registry) if sources else None


def _complete(declared: Declaration, chosen: _Chosen) -> dict[str, Any]:
    """The declaration with defaults for the licence and the overlap of every target.

    Where the suite pre-trains from scratch, the overlap is what the run computed, if it did.
    Raises: ``SubmissionError`` where the declaration denies what the run computed.
    """
    entry, suite = chosen.entry, chosen.run.suite
    if unknown := sorted(set(declared.overlap) - set(suite.targets)):
        error = UnknownNameError("target", unknown[0], suite.targets)
        raise SubmissionError(f"overlap declared: {error}")
    sources = [source.dataset for source in suite.sources.values()]
    computed = {
        label: "unknown" if entry.weights
        else "yes" if target.dataset in sources
        else chosen.run.data.overlap.get(label, "unknown")
        for label, target in suite.targets.items()
    }  # fmt: skip
    for target, answer in declared.overlap.items():
        if computed[target] == "yes" != answer:
            raise SubmissionError(
                f"overlap declared: {target}={answer}, but the run compared the images, and those"
                f" of {target} are among the pre-training's; leave the declaration out"
            )
    weights = entry.weights.license if entry.weights else entry.license
    return {
        "submitter": declared.submitter,
        "license": declared.license or weights,
        "overlap": computed | declared.overlap,
    }


def _from_plugins(chosen: _Chosen, registry: Registry) -> dict[str, Any]:
    """The distribution of each plugin, and the severity of each perturbation."""
    suite = chosen.run.suite
    uses: list[tuple[Kind, str]] = [
        ("backbone", str(chosen.entry.backbone["name"])),
        *(("dataset", source.dataset.name) for source in suite.sources.values()),
        *(("dataset", target.dataset.name) for target in suite.targets.values()),
        *(("perturbation", use.name) for use in suite.perturbations.values()),
        *(("initialization", use.name) for use in suite.initializations.values()),
        *(("diagnostic", use.name) for use in suite.diagnostics.values()),
    ]
    origins = {f"{kind}:{name}": registry.origin(kind, name) for kind, name in sorted(set(uses))}
    return {"plugins": origins, "severities": severities(suite, registry)}


def _refuse_oversized(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise SubmissionError(
            f"{name} would have {size} bytes, more than the {limit} that are accepted; give the"
            " suite's targets a test_limit"
        )


def _publish(folder: Path, path: Path) -> Path:
    """Rename a complete folder to ``path``, unless it is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        if content_digests(path) != content_digests(folder):
            raise SubmissionError(
                f"{path} was changed after it was packed, and a submission never changes; remove"
                " that folder and pack again"
            ) from None
    return path
