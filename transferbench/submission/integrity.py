"""Checks that a submission is unmodified, complete, and what its suite requires."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from transferbench.errors import SubmissionError, TransferbenchError, UnknownNameError
from transferbench.plan import (
    ENGINE_VERSION,
    NOT_MEASURED,
    DatasetFacts,
    Entry,
    Plan,
    job_id,
    plan_resolved,
)
from transferbench.plan.resolve import (
    ResolvedDataset,
    ResolvedSuite,
    left_out_arms,
    resolve_suite,
)
from transferbench.records import Record
from transferbench.registry import Registry, identity
from transferbench.specs import Weights
from transferbench.submission.bundle import (
    SUBMISSION,
    Bundle,
    PlannedJob,
    Problem,
    content_digests,
    is_visible,
    parse_json,
    slug,
    submission_id,
)
from transferbench.suite import TRIAL, Suite
from transferbench.suite.published import KnownSuites

__all__ = [
    "check_content_is_untouched",
    "check_every_cell_is_there_once",
    "check_job_ids_follow_from_payloads",
    "check_licence_and_overlap_are_declared",
    "check_plan_can_be_made_again",
    "check_suite_is_the_published_one",
    "fillable_cells",
    "missing_cells",
    "planned_again",
    "scored_rows",
    "severities",
]

TrialKey: TypeAlias = tuple[str, str, str, int]
"""Target, perturbation, arm and replicate of a trial."""

TEST_METRIC = "test_metric"
MAX_CELLS = 50_000
MAX_REPLICATES = 1000


def scored_rows(records: tuple[Record, ...]) -> list[Record]:
    """The test metric of each trial, one record per cell."""
    return [row for row in records if row.diagnostic == TRIAL and row.metric == TEST_METRIC]


def check_content_is_untouched(bundle: Bundle) -> Iterator[Problem]:
    """Files, id and folder names are those that were packed."""
    submission, folder = bundle.submission, bundle.path
    digests = content_digests(folder)
    for name in sorted(digests.keys() | submission.files.keys()):
        if digests.get(name) != submission.files.get(name):
            yield Problem(f"{name} is not the file that was packed: its sha256 differs")
    if submission_id(parse_json(folder / SUBMISSION)) != submission.id:
        yield Problem(f"the id {submission.id[:12]} does not belong to this {SUBMISSION}")
    expected = (submission.board, slug(submission.entry.name), submission.id)
    if folder.resolve().parts[-3:] != expected:
        # A copy elsewhere would have the page of the one that it is a copy of.
        yield Problem(f"the folder is not {'/'.join(expected)}: call it so")


def check_suite_is_the_published_one(bundle: Bundle, suites: KnownSuites) -> Iterator[Problem]:
    """The suite has the digest it claims, which is that of a known suite."""
    submission, suite = bundle.submission, bundle.plan.suite
    if submission.suite != suite.id:
        yield Problem(f"it is for {submission.suite}, but its plan is of {suite.id}")
    suite_digest = suite.digest
    if suite_digest != submission.suite_digest:
        yield Problem(
            f"the suite of the plan has digest {suite_digest[:12]}, not"
            f" {submission.suite_digest[:12]}"
        )
    published = suites.of(suite.board)
    if not published:
        yield Problem(f"{suite.board} is not a known suite: it stands on no board", warning=True)
    elif suite.id not in published:
        yield Problem(f"there is no {suite.id}, only {' and '.join(published)}")
    elif published[suite.id].digest != suite_digest:
        yield Problem(f"{suite.id} was changed: it differs from the known suite of that id")


def check_job_ids_follow_from_payloads(bundle: Bundle) -> Iterator[Problem]:
    """Each job's id is the hash of its payload, and the jobs it needs are there."""
    for name, count in Counter(job.id for job in bundle.plan.jobs).items():
        if count > 1:
            yield Problem(f"job {name[:12]} is planned {count} times")
    for job in bundle.plan.jobs:
        if job_id(job.kind, job.payload) != job.id:
            yield Problem(f"{job.kind} {job.id[:12]} has an id that is not the hash of its payload")
        for needed in sorted(set(job.requires) - bundle.plan.by_id.keys()):
            yield Problem(f"{job.kind} {job.id[:12]} needs {needed[:12]}, which is not planned")


def _too_large(suite: Suite) -> bool:
    """Whether no submission can be of a suite: its pairs alone would fill any memory."""
    replicates = max([suite.replicates, *(grid.replicates or 0 for grid in suite.trials)])
    return replicates > MAX_REPLICATES or suite.most_trials > MAX_CELLS


def _grid(suite: Suite) -> dict[TrialKey, None]:
    """The cells of the suite with their replicates, in its order."""
    return {(*cell, k): None for cell in suite.cells() for k in range(suite.replicates_in(*cell))}


def fillable_cells(
    suite: Suite, weights: Weights | None, registry: Registry
) -> dict[TrialKey, None]:
    """The cells of the suite without those of arms that an entry with ``weights`` leaves out.

    Raises: ``UnknownNameError`` for external weights and an arm whose plugin is not installed.
    """
    left_out = left_out_arms(suite, weights, registry)
    return {cell: None for cell in _grid(suite) if cell[2] not in left_out}


def missing_cells(cells: Iterable[TrialKey], records: tuple[Record, ...]) -> list[str]:
    """Descriptions of those of ``cells`` that have no test metric."""
    measured = {_cell(row) for row in scored_rows(records)}
    return [_named(cell) for cell in cells if cell not in measured]


def _cell(row: Record) -> TrialKey:
    return row.target, row.perturbation, row.initialization, row.replicate


def _named(cell: TrialKey) -> str:
    target, perturbation, arm, replicate = cell
    return f"{arm} on {target}, {perturbation}, replicate {replicate}"


def check_every_cell_is_there_once(bundle: Bundle, registry: Registry) -> Iterator[Problem]:
    """Each cell that the entry can fill has one test metric, each job has records, none is extra.

    Arms that external weights cannot start may be missing.
    """
    suite, records, weights = bundle.plan.suite, bundle.records, bundle.submission.entry.weights
    if _too_large(suite):
        yield Problem(f"the suite has more than {MAX_CELLS} cells or {MAX_REPLICATES} replicates")
        return
    try:
        cells = fillable_cells(suite, weights, registry)
    except UnknownNameError as error:
        yield Problem(f"{error}: install its plugin to see what is missing", warning=True)
        cells = _grid(suite)
    else:
        for missing in missing_cells(cells, records):
            yield Problem(f"{missing} is missing")
    for cell, count in Counter(_cell(row) for row in scored_rows(records)).items():
        if count > 1:
            yield Problem(f"{_named(cell)} is recorded {count} times")
        if cell not in cells:
            by = " that external weights can fill" if weights else ""
            yield Problem(f"{_named(cell)} is not a cell of the suite{by}")
    yield from _record_problems(bundle)


def _record_problems(bundle: Bundle) -> Iterator[Problem]:
    records = bundle.records
    yield from _strange_records(bundle)
    for text in sorted(text for text in _texts(records) if not is_visible(text)):
        yield Problem(f"a record says {text[:80]!a}, which is no line of visible characters")
    measured = {row.job for row in records}
    for job in bundle.plan.jobs:
        if job.kind not in NOT_MEASURED and job.id not in measured:
            yield Problem(f"{job.kind} {job.id[:12]} has no records")
    # A shared job fills several cells; a coordinate is the same one as 1 and as 1.0.
    for (axes, (metric, _)), count in Counter((_axes(row), row.key) for row in records).items():
        if count > 1:
            yield Problem(f"{metric} of {_named(axes.cell)} is recorded {count} times")


def _strange_records(bundle: Bundle) -> Iterator[Problem]:
    """Records that are not of this submission, or not as their jobs say."""
    records, planned, head = bundle.records, bundle.plan.by_id, bundle.submission
    starting = _starting_from_several(bundle)
    for row in records:
        if (row.suite, row.entry) != (head.suite, head.entry.name):
            yield Problem(f"a record is of {row.entry} on {row.suite}")
        if unknown := sorted(job for job in {row.job, *row.subjects} if job not in planned):
            yield Problem(f"a {row.metric} record is of job {unknown[0][:12]}, not in the plan")
        elif (row.subjects, row.diagnostic_version) != _measuring(planned[row.job]):
            yield Problem(f"a {row.metric} record has other subjects, or another version, than its "
                          f"job {row.job[:12]}")  # fmt: skip
        if row.network is None and starting & {row.initialization, row.other_initialization}:
            yield Problem(f"a {row.metric} record of {_named(_cell(row))} has no source network")
        pair = row.other_initialization, row.other_replicate
        if pair != (None, None) and (None in pair or len(row.subjects) == 1):
            yield Problem(f"a {row.metric} record of {_named(_cell(row))} is of half a pair")


def _texts(records: Iterable[Record]) -> set[str]:
    """What records say in the words of whoever made them."""
    return {
        text
        for row in records
        for text in (row.metric, row.unit, row.interval, row.flag, *chain(*row.coordinates.items()))
        if isinstance(text, str)
    }


def _measuring(job: PlannedJob) -> tuple[tuple[str, ...], Any]:
    """The subjects and the version of the measurements of a job."""
    if job.kind != "diagnosis":
        return (job.id,), job.payload.get("engine")
    return tuple(job.payload["subjects"]), job.payload["diagnostic"]["version"]


def _starting_from_several(bundle: Bundle) -> set[str]:
    """The arms whose trials start from one of several source networks; no plugin is needed."""
    suite, planned = bundle.plan.suite, bundle.plan.by_id
    several = {label for label, source in suite.sources.items() if source.networks > 1}
    arms = {label for label, use in suite.initializations.items() if use.source in several}
    return {
        row.initialization
        for row in scored_rows(bundle.records)
        if row.initialization in arms
        and row.job in planned
        and "source" in planned[row.job].payload["initialization"]
    }


def check_plan_can_be_made_again(
    bundle: Bundle, registry: Registry, planned: Callable[[], Plan] | None = None
) -> Iterator[Problem]:
    """The suite, planned here for this entry, has exactly these jobs and diagnoses.

    ``planned`` returns that plan where it is at hand. The entry is called by its backbone and its
    external weights, as in every run.
    """
    yield from _another_name(bundle, registry)
    if _too_large(bundle.plan.suite):
        return  # which another check says
    try:
        plan = planned() if planned else planned_again(bundle, registry)
    except UnknownNameError as error:
        yield Problem(f"{error}: install its plugin to plan again", warning=True)
        return
    plan = _with_earlier_ids(plan, bundle.plan.by_id)
    if stale := sorted(_stale(bundle, registry)):
        yield Problem(f"made with {', '.join(stale)}: planned again as of these", warning=True)
    for job in sorted(plan.jobs.keys() - bundle.plan.by_id.keys()):
        yield Problem(f"the suite requires: {plan.jobs[job].title}, which is not in the plan")
    for job in sorted(bundle.plan.by_id.keys() - plan.jobs.keys()):
        yield Problem(f"{bundle.plan.by_id[job].kind} {job[:12]} is not required by the suite")
    yield from _misplaced(bundle, plan)
    if severities(bundle.plan.suite, registry) != bundle.submission.severities:
        yield Problem("the severities of its perturbations are not those of their plugins")


def _another_name(bundle: Bundle, registry: Registry) -> Iterator[Problem]:
    entry = bundle.submission.entry
    name, backbone = entry.weightless_name, entry.backbone
    family, _, member = name.partition("/")
    version, installed = backbone["version"], None
    try:
        installed = registry.backbone(str(backbone["name"])).version
    except UnknownNameError as error:
        yield Problem(f"{error}: install its plugin to compare its parameters", warning=True)
    if installed not in {None, version}:
        why = f"made with {backbone['name']} version {version}: its parameters are not compared"
        yield Problem(why, warning=True)
    try:
        spec, values = registry.resolve_backbone(name)
        own = identity(spec, spec.parse(values))
        is_same = own["name"] == backbone["name"] and (
            own["params"] == backbone["params"] or version != installed
        )
    except TransferbenchError:  # another version of a library has other members
        is_member = member in backbone["params"].values() if member else installed is None
        is_same = family == backbone["name"] and is_member
    if not is_same:
        yield Problem(f"the entry is called {name}, and its backbone is {backbone['name']} "
                      f"with {backbone['params']}")  # fmt: skip


def planned_again(bundle: Bundle, registry: Registry) -> Plan:
    """The suite of a submission, planned here for its entry.

    Raises: ``TransferbenchError`` where a plugin is not installed, or the suite is too large.
    """
    if _too_large(bundle.plan.suite):
        raise SubmissionError("its suite is too large to be planned")
    given, own = bundle.submission.entry, _facts_of_datasets(bundle)
    entry = Entry(**{field.name: getattr(given, field.name) for field in fields(Entry)})
    resolved = resolve_suite(bundle.plan.suite, registry, own)
    facts = {label: _as_published(own[label], data) for label, data in resolved.datasets.items()}
    as_submitted = _in_versions(resolved, _submitted_versions(bundle))
    return plan_resolved(as_submitted, [entry], facts, _engine(bundle))


def _as_published(facts: DatasetFacts, dataset: ResolvedDataset) -> DatasetFacts:
    """The facts with what a dataset itself says, which no submission changes.

    Its classes it may have to read, and a plan reads nothing.
    """
    spec = dataset.spec
    joins = facts.joins_copies and spec.reads_users_folder
    return facts._replace(task=spec.task, metric=spec.metric, joins_copies=joins)


def _in_versions(resolved: ResolvedSuite, submitted: Mapping[str, set[int]]) -> ResolvedSuite:
    """``resolved`` with the versions of plugins that a submission was made with."""

    def of(use: Any) -> Any:
        if isinstance(use, list):
            return [of(each) for each in use]
        if not isinstance(use, dict):
            return use
        versions = submitted.get(str(use.get("name")), set())
        changed = "version" in use and versions and use["version"] not in versions
        own = {"version": max(versions)} if changed else {}
        return {key: of(value) for key, value in use.items()} | own

    return resolved._replace(
        datasets={label: use._replace(identity=of(use.identity))
                  for label, use in resolved.datasets.items()},
        perturbations={label: of(use) for label, use in resolved.perturbations.items()},
        arms={label: use._replace(identity=of(use.identity))
              for label, use in resolved.arms.items()},
        diagnoses={label: use._replace(identity=of(use.identity))
                   for label, use in resolved.diagnoses.items()},
    )  # fmt: skip


def _submitted_versions(bundle: Bundle) -> dict[str, set[int]]:
    """Name of a plugin -> the versions that the jobs of a submission have."""
    versions: dict[str, set[int]] = defaultdict(set)
    for job in bundle.plan.jobs:
        for name, version in _versions(job.payload):
            versions[name].add(version)
    return versions


def _engine(bundle: Bundle) -> int:
    """The version of the engine of the first job, which all others must have."""
    engine = next((job.payload.get("engine") for job in bundle.plan.jobs), None)
    return engine if isinstance(engine, int) else ENGINE_VERSION


def severities(suite: Suite, registry: Registry) -> dict[str, float]:
    """The severity of each perturbation of the suite, on the scale of its plugin."""
    shape = (suite.image.size, suite.image.size, suite.image.channels)
    by_label = {}
    for label, use in suite.perturbations.items():
        spec = registry.perturbation(use.name)
        by_label[label] = float(spec.severity(spec.parse(use.params), shape))
    return by_label


def _with_earlier_ids(plan: Plan, submitted: Container[str]) -> Plan:
    """``plan`` with the ids of submissions made before payloads held versions of perturbations.

    Only diagnoses change, and no job requires a diagnosis.
    """
    renamed = {}
    for job in plan.of_kind("diagnosis"):
        if job.id not in submitted:
            diagnostic = {
                k: v for k, v in job.payload["diagnostic"].items() if k != "perturbations"
            }
            payload = job.payload | {"diagnostic": diagnostic}
            earlier = job._replace(id=job_id(job.kind, payload), payload=payload)
            if earlier.id in submitted:
                renamed[job.id] = earlier
    jobs = [renamed.get(job.id, job) for job in plan.jobs.values()]
    measured = [
        row._replace(job=renamed.get(row.job, plan.jobs[row.job]).id) for row in plan.measured
    ]
    return replace(plan, jobs={job.id: job for job in jobs}, measured=measured)


def _facts_of_datasets(bundle: Bundle) -> dict[str, DatasetFacts]:
    """The facts about datasets that planning needs, from the payloads of trials."""
    planned, suite = bundle.plan.by_id, bundle.plan.suite
    facts = {}
    for row in scored_rows(bundle.records):
        trial = planned.get(row.job)
        if trial is None or row.initialization not in suite.initializations:
            continue
        facts[f"target:{row.target}"] = _facts(trial)
        source = planned.get(str(trial.payload["initialization"].get("source")))
        if source is not None:
            facts[f"source:{suite.initializations[row.initialization].source}"] = _facts(source)
    return facts


def _facts(job: PlannedJob) -> DatasetFacts:
    data = job.payload["dataset"]
    # Sizes are only used to estimate the work; no payload holds them.
    facts = DatasetFacts(data["fingerprint"], data["classes"], data["task"], data["metric"], 0, 0)
    return facts._replace(joins_copies="copies" in job.payload["selection"])


def _stale(bundle: Bundle, registry: Registry) -> set[str]:
    """Versions in the payloads that this installation does not have."""
    resolved = resolve_suite(bundle.plan.suite, registry, _facts_of_datasets(bundle))
    others = (resolved.datasets, resolved.arms, resolved.diagnoses)
    identities = (use.identity for uses in others for use in uses.values())
    installed = set(_versions([*resolved.perturbations.values(), *identities]))
    names = {name for name, _ in installed}
    stale = {
        f"{name} version {version}"
        for name, versions in _submitted_versions(bundle).items()
        for version in versions
        if name in names and (name, version) not in installed
    }
    if (engine := _engine(bundle)) != ENGINE_VERSION:
        stale.add(f"engine version {engine}")
    return stale


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
    """Measurements of the plan that have no record, and records that are of none of them."""
    planned = {
        _RecordAxes(each.job, each.diagnostic, each.a[2:], each.b and each.b[2:], each.network)
        for each in plan.measurements()
    }
    recorded = set(map(_axes, bundle.records))
    for word, differing in (("not required", recorded - planned), ("missing", planned - recorded)):
        for axes in sorted(differing, key=str):
            yield Problem(f"{axes.diagnostic} of {_named(axes.cell)} is {word} ({axes.rest})")


class _RecordAxes(NamedTuple):
    """What a record is of: every field by which claims and boards select, group or drop it."""

    job: str
    diagnostic: str
    cell: TrialKey
    other: tuple[str, str, str | None, int | None] | None
    network: int | None

    @property
    def rest(self) -> str:
        """The job, the second of a pair and the source network."""
        pair = f", with {self.other[2]}, replicate {self.other[3]}" if self.other else ""
        network = "" if self.network is None else f", source network {self.network}"
        return f"job {self.job[:12]}{pair}{network}"


def _axes(row: Record) -> _RecordAxes:
    second = row.other_initialization, row.other_replicate
    other = None if second == (None, None) else (row.target, row.perturbation, *second)
    return _RecordAxes(row.job, row.diagnostic, _cell(row), other, row.network)


def check_licence_and_overlap_are_declared(bundle: Bundle) -> Iterator[Problem]:
    """The licence of the weights and the overlap of each target with the pre-training."""
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
