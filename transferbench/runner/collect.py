"""What the jobs of a plan left in the store: states, records, facts, and what is damaged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from transferbench.claims import EqualTrials
from transferbench.plan import ENGINE_VERSION, Job, Plan
from transferbench.records import Record
from transferbench.registry import Code, codes_in
from transferbench.runner.equal_outputs import equal_outputs
from transferbench.store import Artefact, CorruptArtefactError, Store

__all__ = [
    "ENDED",
    "Collected",
    "JobState",
    "collect",
    "damaged_jobs",
    "finished_codes",
    "job_states",
]

READ_AT_THE_END = ("measurements.json", "outputs.safetensors", "trial.json")
"""The files that a run's records, its folder and its board are made from."""


ENDED = (
    "ended while it computed this: it was killed, or code in C of a plugin ended it (--jobs 2 runs "
    "jobs in processes of their own, whose end costs that job alone)"
)


class JobState(NamedTuple):
    """How a job ended: ``ok``, the status of its failure, ``damaged`` or ``missing``."""

    status: str
    wall_seconds: float | None = None
    message: str = ""


class Collected(NamedTuple):
    """Everything that a run's folder is written from, read in one pass.

    ``states``: by job. ``records``: of the finished jobs, in the order of the plan.
    ``parameters``: of the network of each entry with a finished trial.
    ``facts``: the values of what each job noted of its environment.
    ``equal``: of each entry the trials that predict the same as another one.
    """

    states: Mapping[str, JobState]
    records: tuple[Record, ...]
    parameters: Mapping[str, int]
    facts: Mapping[str, list[str]]
    equal: Mapping[str, EqualTrials]


def finished_codes(jobs: Iterable[str], store: Store) -> dict[str, dict[str, Code]]:
    """The jobs whose finished artefacts are in the store, each with the code that computed it."""
    artefacts = ((job, store.open(job)) for job in jobs)
    return {job: codes_in(artefact.facts) for job, artefact in artefacts if artefact}


def job_states(jobs: Iterable[str], store: Store) -> dict[str, JobState]:
    """How each job ended; reads no artefact's files."""
    states = {job: _state(job, store, store.open(job)) for job in jobs}
    for job, writer in store.interrupted().items():
        if job in states:
            states[job] = JobState("missing", None, f"{writer}, {ENDED}")
    return states


def damaged_jobs(finished: Iterable[str], store: Store) -> dict[str, str]:
    """Of jobs that finished, those whose artefact is gone or damaged, each with the fault."""
    artefacts = {job: store.open(job) for job in finished}
    unseen = store.settle(job for job, artefact in artefacts.items() if artefact is None)
    faults = {job: store.damage(job) or "it is gone" for job in unseen}
    for job, artefact in artefacts.items():
        if job not in unseen and (fault := _fault(artefact or store.artefact(job))):
            faults[job] = fault
    return faults


def _fault(artefact: Artefact) -> str:
    try:
        for name in artefact.names:
            if name in READ_AT_THE_END:
                artefact.path(name)
    except CorruptArtefactError as error:
        return error.fault
    return ""


def collect(plan: Plan, store: Store) -> Collected:
    """Read what the jobs of ``plan`` left.

    Raises: ``CorruptArtefactError`` where an artefact is not what was written.
    """
    artefacts = {job: store.open(job) for job in plan.jobs}
    finished = {job: artefact for job, artefact in artefacts.items() if artefact is not None}
    records = tuple(_records(plan, finished))
    return Collected(
        {job: _state(job, store, artefact) for job, artefact in artefacts.items()},
        records,
        _parameters(plan, finished),
        _facts(finished.values()),
        equal_outputs(records, finished),
    )


def _state(job: str, store: Store, artefact: Artefact | None) -> JobState:
    if artefact is not None:
        return JobState("ok", artefact.facts.get("wall_seconds"))
    if damage := store.damage(job):
        return JobState("damaged", None, damage)
    failure = store.failure(job)
    return JobState(failure.status, None, failure.message) if failure else JobState("missing")


def _records(plan: Plan, finished: Mapping[str, Artefact]) -> Iterator[Record]:
    suite = plan.suite.id
    for cell in plan.measurements():
        if cell.job in finished:
            origin = cell.axes | _origin(plan.jobs[cell.job])
            for measurement in finished[cell.job].json("measurements.json"):
                yield Record(suite=suite, **measurement, **origin)


def _origin(job: Job) -> dict[str, Any]:
    """The fields of a record that name the job, what it measured and the diagnostic's version."""
    if job.kind != "diagnosis":
        return {"job": job.id, "subjects": (job.id,), "diagnostic_version": ENGINE_VERSION}
    subjects, version = job.payload["subjects"], job.payload["diagnostic"]["version"]
    return {"job": job.id, "subjects": tuple(subjects), "diagnostic_version": version}


def _parameters(plan: Plan, finished: Mapping[str, Artefact]) -> dict[str, int]:
    trials = {cell.entry: cell.job for cell in reversed(plan.cells) if cell.job in finished}
    return {entry: finished[job].json("trial.json")["parameters"] for entry, job in trials.items()}


def _facts(artefacts: Iterable[Artefact]) -> dict[str, list[str]]:
    values: defaultdict[str, set[str]] = defaultdict(set)
    for artefact in artefacts:
        for name, value in artefact.facts.items():
            if isinstance(value, str):
                values[name].add(value)
        for code in codes_in(artefact.facts).values():
            values["code"].add(str(code))
    return {name: sorted(values[name]) for name in sorted(values)}
