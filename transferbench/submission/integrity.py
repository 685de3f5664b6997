"""Is this submission what it says it is: untouched, complete, and what the suite asks for?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import NamedTuple

from transferbench.errors import UnknownNameError
from transferbench.plan import ENGINE_VERSION, DatasetFacts, Entry, Job, Plan, job_id, make_plan
from transferbench.plan.external_weights import left_out_arms
from transferbench.records import Record
from transferbench.registry import Registry
from transferbench.specs import Weights
from transferbench.submission.bundle import (
    SUBMISSION,
    Bundle,
    PlannedJob,
    content_digests,
    parse_json,
    slug,
    submission_id,
)
from transferbench.suite import TRIAL, Suite
from transferbench.suite.loading import bundled_suites, load_suite

__all__ = [
    "Problem",
    "check_content_is_untouched",
    "check_every_cell_is_there_once",
    "check_job_ids_follow_from_payloads",
    "check_licence_and_overlap_are_declared",
    "check_plan_can_be_made_again",
    "check_suite_is_the_published_one",
    "missing_cells",
    "scored_rows",
    "severities",
]

TEST_METRIC = "test_metric"
MAX_CELLS = 1_000_000


class Problem(NamedTuple):
    """Why a check does not hold; a warning leaves the submission acceptable."""

    why: str
    warning: bool = False


def scored_rows(records: tuple[Record, ...]) -> list[Record]:
    """The rows that say how well each trial did on its test subset, one a cell."""
    return [row for row in records if row.diagnostic == TRIAL and row.metric == TEST_METRIC]


def check_content_is_untouched(bundle: Bundle) -> Iterator[Problem]:
    """Files, id and folder names are those that were packed."""
    submission, folder = bundle.submission, bundle.path
    found = content_digests(folder)
    for name in sorted(found.keys() | submission.files.keys()):
        if found.get(name) != submission.files.get(name):
            yield Problem(f"{name} is not the file that was packed: its sha256 differs")
    if submission_id(parse_json(folder / SUBMISSION)) != submission.id:
        yield Problem(f"the id {submission.id[:12]} does not belong to this {SUBMISSION}")
    expected = (submission.board, slug(submission.entry.name), submission.id)
    if folder.resolve().parts[-3:] != expected:
        yield Problem(f"the folder is not {'/'.join(expected)}", warning=True)


def check_suite_is_the_published_one(bundle: Bundle) -> Iterator[Problem]:
    """The suite has the digest it claims, and the bundled suite of that id has the same."""
    submission, suite = bundle.submission, bundle.plan.suite
    if submission.suite != suite.id:
        yield Problem(f"it is for {submission.suite}, but its plan is of {suite.id}")
    found = suite.digest
    if found != submission.suite_digest:
        yield Problem(f"the suite in the plan is not the one of digest {found[:12]}")
    if suite.name not in bundled_suites():
        yield Problem(f"{suite.name!r} is not a bundled suite: nothing to compare", warning=True)
        return
    published = load_suite(suite.name)
    if published.id != suite.id:
        why = f"here {suite.name!r} is {published.id}, not {suite.id}: nothing to compare"
        yield Problem(why, warning=True)
    elif published.digest != found:
        yield Problem(f"{suite.id} was changed: it differs from the bundled suite of that id")


def check_job_ids_follow_from_payloads(bundle: Bundle) -> Iterator[Problem]:
    """Each job's id is the hash of its payload, and the jobs it needs are there."""
    for name, count in Counter(job.id for job in bundle.plan.jobs).items():
        if count > 1:
            yield Problem(f"job {name[:12]} is planned {count} times")
    for job in bundle.plan.jobs:
        if job_id(job.kind, job.payload) != job.id:
            yield Problem(f"{job.kind} {job.id[:12]} has another payload than its id says")
        for needed in sorted(set(job.requires) - set(bundle.plan.by_id)):
            yield Problem(f"{job.kind} {job.id[:12]} needs {needed[:12]}, which is not planned")


def _grid(suite: Suite) -> Iterator[tuple[str, str, str, int]]:
    for axes in _axes(suite):
        yield from product(*axes)


def _grid_size(suite: Suite) -> int:
    return sum(prod(map(len, axes)) for axes in _axes(suite))


def _axes(suite: Suite) -> Iterator[tuple[Sequence[str], Sequence[str], Sequence[str], range]]:
    """Targets, perturbations, arms and replicates of each grid of the suite."""
    for grid in suite.trials:
        yield (
            _chosen(grid.targets, suite.targets),
            _chosen(grid.perturbations, suite.perturbations),
            _chosen(grid.initializations, suite.initializations),
            range(suite.replicates),
        )


def _chosen(wanted: tuple[str, ...] | None, known: Iterable[str]) -> tuple[str, ...]:
    return tuple(known) if wanted is None else wanted


def missing_cells(
    suite: Suite, weights: Weights | None, records: tuple[Record, ...], registry: Registry
) -> list[str]:
    """The cells that an entry of ``weights`` can fill and has no test metric for, readably.

    Raises: ``UnknownNameError`` for external weights and an arm whose plugin is not installed.
    """
    found = {_cell(row) for row in scored_rows(records)}
    return [_named(cell) for cell in _fillable(suite, weights, registry) if cell not in found]


def _fillable(
    suite: Suite, weights: Weights | None, registry: Registry
) -> dict[tuple[str, str, str, int], None]:
    """The cells of the suite's grid without those of arms that the entry goes without."""
    left_out = left_out_arms(suite, weights, registry)
    return {cell: None for cell in _grid(suite) if cell[2] not in left_out}


def _cell(row: Record) -> tuple[str, str, str, int]:
    return row.target, row.perturbation, row.initialization, row.replicate


def _named(cell: tuple[str, str, str, int]) -> str:
    target, perturbation, arm, replicate = cell
    return f"{arm} on {target}, {perturbation}, replicate {replicate}"


def check_every_cell_is_there_once(bundle: Bundle, registry: Registry) -> Iterator[Problem]:
    """Every cell that the entry can fill has one test metric, every job its records, none is extra.

    What external weights cannot start is not missed.
    """
    suite, records, weights = bundle.plan.suite, bundle.records, bundle.submission.entry.weights
    if _grid_size(suite) > MAX_CELLS:
        yield Problem(f"the suite asks for more than {MAX_CELLS} cells")
        return
    try:
        for missing in missing_cells(suite, weights, records, registry):
            yield Problem(f"{missing} is missing")
        grid = _fillable(suite, weights, registry)
    except UnknownNameError as error:
        yield Problem(f"{error}: install its plugin to see what is missing", warning=True)
        grid = dict.fromkeys(_grid(suite))
    for cell, count in Counter(_cell(row) for row in scored_rows(records)).items():
        if count > 1:
            yield Problem(f"{_named(cell)} is there {count} times")
        if cell not in grid:
            by = " that external weights can fill" if weights else ""
            yield Problem(f"{_named(cell)} is not a cell of the suite{by}")
    yield from _record_problems(bundle)


def _record_problems(bundle: Bundle) -> Iterator[Problem]:
    records, planned = bundle.records, bundle.plan.by_id
    head = bundle.submission
    for row in records:
        if (row.suite, row.entry) != (head.suite, head.entry.name):
            yield Problem(f"a record is of {row.entry} on {row.suite}")
        if unknown := sorted({row.job, *row.subjects} - set(planned)):
            yield Problem(f"a {row.metric} record is of job {unknown[0][:12]}, not in the plan")
    measured = {row.job for row in records}
    for job in bundle.plan.jobs:
        if job.kind != "pretrain" and job.id not in measured:
            yield Problem(f"{job.kind} {job.id[:12]} has no records")
    # A shared job fills several cells, so its rows are told apart by every field but the number.
    numbers = {"value", "n", "low", "high", "interval", "flag", "unit"}
    for key, count in Counter(row.model_dump_json(exclude=numbers) for row in records).items():
        if count > 1:
            yield Problem(f"a record is there {count} times: {key[:200]}")


def check_plan_can_be_made_again(bundle: Bundle, registry: Registry) -> Iterator[Problem]:
    """The suite, planned here for this entry, asks for exactly these jobs and diagnoses."""
    try:
        plan = _planned_again(bundle, registry)
    except UnknownNameError as error:
        yield Problem(f"{error}: install its plugin to plan again", warning=True)
        return
    if stale := sorted(set(_stale(bundle, plan))):
        yield Problem(f"made with {', '.join(stale)}: cannot be planned again", warning=True)
        return
    for job in sorted(plan.jobs.keys() - bundle.plan.by_id.keys()):
        yield Problem(f"the suite asks for: {plan.jobs[job].title}, which is not in the plan")
    for job in sorted(bundle.plan.by_id.keys() - plan.jobs.keys()):
        yield Problem(f"{bundle.plan.by_id[job].kind} {job[:12]} is not asked for by the suite")
    yield from _misplaced(bundle, plan)
    if severities(bundle.plan.suite, registry) != bundle.submission.severities:
        yield Problem("its perturbations are not as severe as it says")


def severities(suite: Suite, registry: Registry) -> dict[str, float]:
    """How strong each perturbation of the suite is, on its own plugin's scale."""
    shape = (suite.image.size, suite.image.size, suite.image.channels)
    found = {}
    for label, use in suite.perturbations.items():
        spec = registry.perturbation(use.name)
        found[label] = float(spec.severity(spec.parse(use.params), shape))
    return found


def _planned_again(bundle: Bundle, registry: Registry) -> Plan:
    facts = bundle.submission.entry
    entry = Entry(
        name=facts.name,
        backbone=facts.backbone,
        license=facts.license,
        source=facts.source,
        weights=facts.weights,
        preprocessing=facts.preprocessing,
    )
    plan = make_plan(bundle.plan.suite, [entry], registry, _dataset_facts(bundle))
    return _with_earlier_ids(plan, bundle.plan.by_id)


def _with_earlier_ids(plan: Plan, submitted: Container[str]) -> Plan:
    """``plan`` with the ids of submissions made before payloads held versions of perturbations.

    Only diagnoses change, and no job requires a diagnosis.
    """
    earlier = {job.id: _without_perturbation_versions(job) for job in plan.of_kind("diagnosis")}
    renamed = {
        job: before
        for job, before in earlier.items()
        if job not in submitted and before.id in submitted
    }
    jobs = [renamed.get(job.id, job) for job in plan.jobs.values()]
    measured = [
        row._replace(job=renamed[row.job].id) if row.job in renamed else row
        for row in plan.measured
    ]
    return replace(plan, jobs={job.id: job for job in jobs}, measured=measured)


def _without_perturbation_versions(job: Job) -> Job:
    if "perturbations" not in job.payload["diagnostic"]:
        return job
    diagnostic = {k: v for k, v in job.payload["diagnostic"].items() if k != "perturbations"}
    payload = job.payload | {"diagnostic": diagnostic}
    return job._replace(id=job_id(job.kind, payload), payload=payload)


def _dataset_facts(bundle: Bundle) -> dict[str, DatasetFacts]:
    """What the payloads say of the data: all that planning again needs to know of it."""
    planned, suite = bundle.plan.by_id, bundle.plan.suite
    found = {}
    for row in scored_rows(bundle.records):
        if (
            trial := planned.get(row.job)
        ) is None or row.initialization not in suite.initializations:
            continue
        found[f"target:{row.target}"] = _facts(trial)
        source = planned.get(str(trial.payload["initialization"].get("source")))
        if source is not None:
            found[f"source:{suite.initializations[row.initialization].source}"] = _facts(source)
    return found


def _facts(job: PlannedJob) -> DatasetFacts:
    told = job.payload["dataset"]
    # Sizes only estimate the work; no payload holds them.
    return DatasetFacts(told["fingerprint"], told["classes"], told["task"], told["metric"], 0, 0)


def _stale(bundle: Bundle, plan: Plan) -> Iterator[str]:
    """Versions in the payloads that this installation does not have."""
    here = {name for job in plan.jobs.values() for name in _versions(job.payload)}
    for job in bundle.plan.jobs:
        if job.payload.get("engine") != ENGINE_VERSION:
            yield f"engine version {job.payload.get('engine')}"
        names = {name for name, _ in here}
        for name, version in _versions(job.payload):
            if name in names and (name, version) not in here:
                yield f"{name} version {version}"


def _versions(payload: object) -> Iterator[tuple[str, int]]:
    """(name, version) of every plugin that a payload names."""
    if isinstance(payload, list):
        for item in payload:
            yield from _versions(item)
    if isinstance(payload, dict):
        name, version = payload.get("name"), payload.get("version")
        if isinstance(name, str) and isinstance(version, int):
            yield name, version
        for value in payload.values():
            yield from _versions(value)


def _misplaced(bundle: Bundle, plan: Plan) -> Iterator[Problem]:
    """Records whose labels are not those of the job that the suite puts there."""
    trials = {(c.target, c.perturbation, c.initialization, c.replicate): c.job for c in plan.cells}
    for row in scored_rows(bundle.records):
        if trials.get(_cell(row), row.job) != row.job:
            yield Problem(f"{_named(_cell(row))} is told of another trial's job")
    wanted = {(m.job, m.diagnostic, m.a[2:], m.b and m.b[2:]) for m in plan.measured}
    found = {
        (row.job, row.diagnostic, _cell(row), _other_cell(row))
        for row in bundle.records
        if row.diagnostic != TRIAL
    }
    for job, diagnostic, cell, _ in sorted(wanted - found, key=str):
        yield Problem(f"{diagnostic} of {_named(cell)} is missing (job {job[:12]})")
    for job, diagnostic, cell, _ in sorted(found - wanted, key=str):
        yield Problem(f"{diagnostic} of {_named(cell)} is not asked for (job {job[:12]})")


def _other_cell(row: Record) -> tuple[str, str, str, int] | None:
    if row.other_initialization is None or row.other_replicate is None:
        return None
    return row.target, row.perturbation, row.other_initialization, row.other_replicate


def check_licence_and_overlap_are_declared(bundle: Bundle) -> Iterator[Problem]:
    """The weights have a licence, and each target a word on overlap with the pre-training."""
    declared = bundle.submission.declaration
    if not declared.license:
        yield Problem("the licence of the weights is not declared")
    targets = set(bundle.plan.suite.targets)
    for target in sorted(targets - set(declared.overlap)):
        yield Problem(f"overlap of the pre-training with {target} is not declared")
    for target in sorted(set(declared.overlap) - targets):
        yield Problem(f"overlap is declared for {target}, which is not a target of the suite")
    if unknown := sorted(t for t, overlap in declared.overlap.items() if overlap == "unknown"):
        yield Problem(f"overlap is unknown for {', '.join(unknown)}", warning=True)
