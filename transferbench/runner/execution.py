"""A run: skip what is done, execute the rest, collect what was measured, judge the claims."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferbench.claims import judge
from transferbench.files import write_json, write_text
from transferbench.identity import digest
from transferbench.measurements import Measurements
from transferbench.plan import Entry
from transferbench.plan.external_weights import left_out_arms
from transferbench.records import Record
from transferbench.registry import blamed
from transferbench.runner.executors import Executor, Outcome
from transferbench.runner.executors.inprocess import InProcessExecutor
from transferbench.runner.executors.local import LocalExecutor
from transferbench.runner.folder import (
    CLAIMS,
    ENVIRONMENT,
    RECORDS,
    RUN,
    collect_records,
    describe_run,
    environment,
)
from transferbench.runner.request import Options, Planned, plugin_variable
from transferbench.runner.scheduler import Watcher, execute
from transferbench.store import CorruptArtefactError

if TYPE_CHECKING:
    from transferbench.engine.resources import Machine

__all__ = ["execute_plan", "slots_of", "try_weights"]

ATTEMPTS = 3
"""How often a run goes back to compute again what it finds corrupted while collecting."""


def execute_plan(planned: Planned, watcher: Watcher) -> dict[str, Outcome]:
    """Compute what is not in the store, write the run's folder, and say how each job ended.

    An interrupt loses nothing that was finished; the same call goes on from there.
    """
    # Written before the work too: it shows now, not after hours, that the folder is writable.
    write_json(planned.folder / RUN, describe_run(planned))
    outcomes: dict[str, Outcome] = {}
    for attempt in range(ATTEMPTS):
        outcomes |= _compute(planned, watcher)
        try:
            records = tuple(collect_records(planned.plan, planned.store))
            break
        except CorruptArtefactError as error:
            if attempt == ATTEMPTS - 1:
                raise
            planned.store.discard(error.job)
    _write(planned, records)
    return outcomes


def _compute(planned: Planned, watcher: Watcher) -> dict[str, Outcome]:
    jobs, store = planned.plan.jobs, planned.store
    if all(store.is_done(job) for job in jobs):
        watcher.planned(len(jobs), len(jobs))
        return {}
    with _executor(planned) as executor:
        return execute(jobs, store, executor, watcher)


def _executor(planned: Planned) -> Executor:
    # torch comes with the jobs, and a run that has nothing to compute needs neither.
    from transferbench.engine.jobs import start_engine
    from transferbench.engine.resources import find_device

    refuse_micro_batch(planned)
    try_weights(planned)
    options = planned.options
    device = find_device(options.device)
    start = partial(start_engine, _machine(planned, str(device)))
    # A limit needs a process of its own, which can be ended.
    if options.jobs == 1 and options.time_limit_seconds is None:
        return InProcessExecutor(start)
    slots = slots_of(options, device.type)
    return LocalExecutor(start, slots, options.time_limit_seconds, _cards(str(device), slots))


def _machine(planned: Planned, device: str) -> Machine:
    from transferbench.engine.resources import Machine

    options = planned.options
    return Machine(
        store=planned.store.root.absolute(),
        cache=(planned.store.root / "datasets").absolute(),
        data_root=None if options.data_root is None else Path(options.data_root).absolute(),
        device=device,
        plugins=tuple(Path(path).absolute() for path in options.plugins),
        plugin_variable=plugin_variable(),
        weights=_weight_files(planned),
        micro_batch=options.micro_batch,
        compile=options.compile,
    )


def _cards(device: str, slots: int) -> list[dict[str, str]] | None:
    """The CUDA device that each worker sees, dealt out in turn; None: all see the same."""
    if device != "cuda":
        return None
    from transferbench.engine.resources import cuda_devices

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = given.split(",") if given else [str(i) for i in range(len(cuda_devices()))]
    return [{"CUDA_VISIBLE_DEVICES": cards[slot % len(cards)]} for slot in range(slots)]


def refuse_micro_batch(planned: Planned) -> None:
    """Refuse a micro-batch that would change what an entry declares to normalise by.

    Raises: ``SuiteError`` before anything is trained.
    """
    from transferbench.training import refuse_smaller_batches

    given = planned.options.micro_batch
    for entry in planned.plan.entries if given is not None else ():
        spec = planned.registry.backbone(entry.backbone["name"])
        with blamed(f"backbone {spec.name!r}"):
            affected = spec.batch_statistics(spec.parse(entry.backbone["params"]))
        if affected:
            refuse_smaller_batches(entry.name, _largest_batch(planned, entry), given)


def _largest_batch(planned: Planned, entry: Entry) -> int:
    """Of what is left to train of an entry; 0 where nothing is."""
    return max(
        (
            int(job.payload["recipe"]["batch_size"])
            for job in planned.plan.jobs.values()
            if job.kind != "diagnosis"
            and job.payload["backbone"] == entry.backbone
            and not planned.store.is_done(job.id)
        ),
        default=0,
    )


def try_weights(planned: Planned) -> None:
    """Load the weights from outside once, so that bad ones are told before anything is trained.

    Raises: ``DataError`` where they cannot be had, are no weights or do not fit.
    """
    from transferbench.engine.resources import WorkerResources

    resources = WorkerResources(planned.registry, planned.store, _machine(planned, "cpu"))
    tried: set[str] = set()
    for job in planned.plan.of_kind("trial"):
        weights = job.payload["initialization"].get("weights")
        if weights is None or planned.store.is_done(job.id):
            continue
        network = {key: job.payload[key] for key in ("backbone", "image")}
        key = digest(network | {"weights": weights, "classes": job.payload["dataset"]["classes"]})
        if key not in tried:
            resources.external_state(job.payload)
            tried.add(key)


def slots_of(options: Options, device_type: str) -> int:
    """How many jobs run at once: one for each core, or one for the GPU, unless asked otherwise."""
    return options.jobs or (1 if device_type == "cuda" else len(os.sched_getaffinity(0)))


def _weight_files(planned: Planned) -> dict[str, str]:
    """The file behind each tag that was given as one."""
    found = {}
    for entry, (_, given) in zip(planned.plan.entries, planned.asked, strict=True):
        if entry.weights is not None and Path(given).is_file():
            found[entry.weights.tag] = str(Path(given).absolute())
    return found


def _write(planned: Planned, records: tuple[Record, ...]) -> None:
    folder, plan = planned.folder, planned.plan
    measurements = Measurements.of_records(records)
    verdicts = {entry.name: _verdicts(planned, entry, measurements) for entry in plan.entries}
    lines = "".join(record.model_dump_json(exclude_none=True) + "\n" for record in records)
    write_text(folder / RECORDS, lines)
    write_json(folder / CLAIMS, verdicts)
    write_json(folder / ENVIRONMENT, environment(plan, planned.store))
    write_json(folder / RUN, describe_run(planned))


def _verdicts(planned: Planned, entry: Entry, measurements: Measurements) -> list[dict[str, Any]]:
    left_out = left_out_arms(planned.suite, entry.weights, planned.registry)
    judged = judge(planned.suite, measurements, entry.name, left_out)
    return [verdict.model_dump(mode="json") for verdict in judged]
