"""Executing the jobs that the store lacks: the executor, the device, checks before training."""

from __future__ import annotations

import os
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transferbench.errors import DataError, StoreError, SuiteError
from transferbench.identity import digest
from transferbench.networks.weight_paths import existing_path
from transferbench.plan import Job
from transferbench.registry import ENVIRONMENT_VARIABLE, blamed
from transferbench.runner.contact_sheet import write_sheets
from transferbench.runner.executors import Executor, Outcome
from transferbench.runner.executors.offers import choose_executor
from transferbench.runner.executors.spec import ExecutorContext
from transferbench.runner.executors.this_machine import MEASURES, TRAINS, refuse_few_cards
from transferbench.runner.messages import say
from transferbench.runner.options import Options
from transferbench.runner.planning import Planned
from transferbench.runner.recomputed import say_other_bits
from transferbench.runner.schedule import Grouping, JobSchedule, Watcher, cost_of
from transferbench.runner.states import states_to_store, stored_states
from transferbench.store import Store

if TYPE_CHECKING:
    from transferbench.engine.resources import Machine

__all__ = [
    "LoadedWeights", "execute", "grouping_of", "machine_of", "refuse_options", "start_executor",
    "try_files", "try_weights", "write_pictures",
]  # fmt: skip


CPU_PIXELS = 2e8
"""Of a diagnosis, passes of images times their pixels: larger ones are measured on a card."""


def execute(
    planned: Planned,
    done: set[str],
    watcher: Watcher,
    failed: Mapping[str, Outcome] | None = None,
    turns: Mapping[str, int] | None = None,
) -> dict[str, Outcome]:
    """Run the jobs that are not ``done``, nor ``failed`` before; returns how each of them ended.

    ``turns``: jobs of a smaller number go first.
    """
    jobs, failed = planned.plan.jobs, failed or {}
    if jobs.keys() <= done | failed.keys():
        watcher.planned(jobs, done)
        return {}
    _prepare_store(planned, len(jobs.keys() - done))
    weights, code = _weights_files(planned), planned.registry.file_codes
    machine = machine_of(planned.options, planned.store, weights)
    machine = machine._replace(code=code, states=_states(planned, done))
    turns = turns or {}
    # Without the watcher of a run in Python, which need not be fit for other machines.
    options = Options(
        **{each.name: getattr(planned.options, each.name) for each in fields(Options)}
    )
    context = ExecutorContext(
        options, machine, planned.store, planned.folder, jobs, frozenset(done), turns
    )
    with start_executor(context) as executor:
        compare = partial(say_other_bits, planned.store, jobs)
        grouping = grouping_of(context, executor)
        schedule = JobSchedule(
            jobs, done, planned.store, executor, watcher, failed, compare, grouping, turns
        )
        return schedule.run()


def _states(planned: Planned, done: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """The states that each training stores; all, where it is not named.

    One that is trained again for a state that it lacks stores what it has, too.
    """
    stored = states_to_store(planned.plan, planned.registry)
    again = {job: stored[job] for job in planned.lacking if job not in done}
    for job, states in again.items():
        again[job] = tuple({*states, *stored_states(planned.store.artefact(job))})
    return again if planned.options.keep == "all" else stored | again


def start_executor(context: ExecutorContext) -> Executor:
    """What runs the jobs of a context. Raises: as ``choose_executor``."""
    options = context.options
    chosen = choose_executor(options.executor, options.executor_options)
    if chosen.spec.remote:
        from transferbench.engine.versions import package_versions

        accept = options.accept_versions
        machine = context.machine._replace(versions=package_versions(), accept_versions=accept)
        context = replace(context, machine=machine)
    return chosen.spec.build(context, chosen.options)


def machine_of(options: Options, store: Store, weights: Mapping[str, str]) -> Machine:
    """What a worker needs, but for its device; ``weights``: files of them by their sha256."""
    from transferbench.engine.resources import Machine

    return Machine(
        store=store.root.absolute(),
        cache=store.datasets.absolute(),
        data_root=None if options.data_root is None else Path(options.data_root).absolute(),
        device="cpu",
        plugins=tuple(Path(path).absolute() for path in options.plugins),
        plugin_variable=os.environ.get(ENVIRONMENT_VARIABLE, ""),
        weights=weights,
        micro_batch=options.micro_batch,
        image_bytes=None if options.image_memory is None else int(options.image_memory * 1e9),
        compile=options.compile,
        offline=options.offline,
        fast_kernels=options.fast_kernels,
        accept_rounding=options.accept_rounding,
        shard=options.shard,
        processes=options.gpus_per_job,
    )


def write_pictures(planned: Planned) -> None:
    """Write what networks see of test images for the report, on the CPU."""
    write_sheets(planned, machine_of(planned.options, planned.store, {}))


def _weights_files(planned: Planned) -> dict[str, str]:
    return {
        weights.sha256: str(path.absolute())
        for requested in planned.entries
        if (weights := requested.entry.weights) and weights.sha256
        if (path := existing_path(requested.weights))
    }


def grouping_of(context: ExecutorContext, executor: Executor) -> Grouping:
    """Which jobs run together, and where."""
    size = context.group_size(executor.device)
    lanes = executor.device == "cuda"
    return Grouping(size, partial(_lane, context.jobs)) if lanes else Grouping(size)


def _lane(jobs: Mapping[str, Job], job: Job) -> str:
    """Trainings, and what takes as long, run on a card: the same job always in the same place."""
    if job.kind in {"pretrain", "trial", "tuning"}:
        return TRAINS
    images = (jobs[need].payload.get("image") for need in job.requires if need in jobs)
    side = max((image["size"] for image in images if image), default=0)
    return TRAINS if cost_of(job) * side**2 > CPU_PIXELS else MEASURES


# --- checked before anything is trained -------------------------------------------------------


def _prepare_store(planned: Planned, left: int) -> None:
    """Say what is repaired. Raises: ``StoreError`` where the store cannot take ``left`` jobs."""
    before = len(planned.store.set_aside)
    try:
        planned.store.prepare()
    except StoreError as error:
        raise StoreError(
            f"{left} of {len(planned.plan.jobs)} jobs are to be computed and kept: {error}"
        ) from error
    for text in planned.store.set_aside[before:]:
        say(text)


def refuse_options(planned: Planned, done: Container[str]) -> None:
    """Refuse options with which the jobs that are not ``done`` cannot be computed here.

    Raises: ``DeviceError``, ``SuiteError``.
    """
    from transferbench.engine.resources import find_device

    options = planned.options
    if not choose_executor(options.executor, options.executor_options).spec.remote:
        device = find_device(options.device)
        refuse_few_cards(options, device.type)
    _refuse_group_of_processes(options)
    _refuse_shards(options)
    _refuse_micro_batch(planned, done)
    _refuse_other_rounding(planned, done)


def _refuse_group_of_processes(options: Options) -> None:
    """Refuse to share and to group trainings at once. Raises: ``SuiteError``."""
    if options.gpus_per_job > 1 and options.group is not None and options.group > 1:
        raise SuiteError(
            f"--gpus-per-job {options.gpus_per_job} shares each training among processes, and "
            f"--group {options.group} computes several trainings in one: give one of the two"
        )


def _refuse_shards(options: Options) -> None:
    """Refuse to spread what is on one process, or compiled. Raises: ``SuiteError``."""
    if options.shard and options.gpus_per_job == 1:
        raise SuiteError("--shard spreads each training over GPUs: give --gpus-per-job as well")
    if options.shard and options.compile:
        raise SuiteError("what --shard spreads over GPUs is not compiled: leave out --compile")


def _refuse_micro_batch(planned: Planned, done: Container[str]) -> None:
    """Refuse a micro-batch that would change what an entry declares to normalise by.

    Raises: ``SuiteError``.
    """
    from transferbench.training import refuse_smaller_batches

    size = planned.options.micro_batch
    if size is None:
        return
    for entry, by_batch, payloads in _trainings(planned, done):
        if by_batch:
            largest = max((payload["recipe"]["batch_size"] for payload in payloads), default=0)
            refuse_smaller_batches(entry, largest, size)


def _refuse_other_rounding(planned: Planned, done: Container[str]) -> None:
    """Refuse trainings of which several processes keep no tolerance. Raises: ``SuiteError``."""
    if planned.options.gpus_per_job == 1:
        return
    from transferbench.training import refuse_other_rounding

    for entry, by_batch, payloads in _trainings(planned, done):
        for payload in payloads:
            recipe = payload["recipe"]
            refuse_other_rounding(
                entry, recipe["optimizer"], recipe["precision"],
                by_batch=by_batch and not payload.get("frozen"),
                recorded=planned.options.accept_rounding,
            )  # fmt: skip


def _trainings(
    planned: Planned, done: Container[str]
) -> Iterator[tuple[str, bool, list[dict[str, Any]]]]:
    """Of each entry: whether it declares batch statistics, and the payloads that are not done."""
    trainings = [job.payload for job in planned.plan.jobs.values()
                 if "recipe" in job.payload and job.id not in done]  # fmt: skip
    for entry in planned.plan.entries:
        spec = planned.registry.backbone(entry.backbone["name"])
        with blamed(f"backbone {spec.name!r}"):
            by_batch = spec.batch_statistics(spec.parse(entry.backbone["params"]))
        own = [payload for payload in trainings if payload["backbone"] == entry.backbone]
        yield entry.name, by_batch, own


class LoadedWeights(NamedTuple):
    """External weights of an entry that were loaded once.

    ``source``: their file, or tag. ``tensors``: how many of the body they fill. ``remark``: what
    was stripped, ignored or converted for it.
    """

    entry: str
    source: str
    sha256: str | None
    tensors: int
    remark: str

    @property
    def note(self) -> str:
        """What the user should know before a run; nothing where the file was the network's."""
        return self.remark and f"{self.entry}: {self.remark}"

    def __str__(self) -> str:
        digest = f", sha256 {self.sha256}" if self.sha256 else ""
        done = self.remark or "nothing was stripped, ignored or converted"
        return f"{self.entry}: {self.tensors} tensors of {self.source}{digest}; {done}"


def try_weights(
    planned: Planned, done: Container[str], *, tags: bool = True
) -> list[LoadedWeights]:
    """Load the external weights of the jobs that are not ``done`` once, to report bad ones early.

    ``tags``: also those that would be downloaded.

    Raises: ``DataError`` where they cannot be had, are no weights, do not fit, or give outputs
    that are not finite.
    """
    from transferbench.engine.resources import WorkerResources

    files = _weights_files(planned)
    machine = machine_of(planned.options, planned.store, files)
    resources = WorkerResources(planned.registry, planned.store, machine)
    networks: dict[str, tuple[str, Job]] = {}
    for cell in (*planned.plan.tuned, *planned.plan.cells):
        job = planned.plan.jobs[cell.job]
        weights = job.payload["initialization"].get("weights")
        if weights is not None and job.id not in done and (tags or weights["sha256"] in files):
            network = {key: job.payload[key] for key in ("backbone", "image")}
            classes = job.payload["dataset"]["classes"]
            networks.setdefault(digest([network, weights, classes]), (cell.entry, job))
    loaded: dict[LoadedWeights, None] = {}
    for entry, job in networks.values():
        try:
            state = resources.external_state(job.payload, evaluate=True)
        except DataError as error:
            raise DataError(f"{entry}: {error}") from error
        tag, sha256 = (job.payload["initialization"]["weights"][key] for key in ("tag", "sha256"))
        source = files.get(sha256, tag)
        loaded[LoadedWeights(entry, source, sha256, len(state.body), state.remark)] = None
    return list(loaded)


def try_files(planned: Planned) -> list[str]:
    """As ``try_weights``, without a download; returns notes, also on what was not looked at."""
    done, files = planned.done, _weights_files(planned)
    notes = [weights.note for weights in try_weights(planned, done, tags=False) if weights.note]
    tagged = ((requested.entry.name, weights.tag) for requested in planned.own
              if (weights := requested.entry.weights) and weights.sha256 not in files)  # fmt: skip
    return notes + [
        f"{entry}: the weights {tag} were not looked at; transferbench prepare, with the same"
        " options, gets and checks them"
        for entry, tag in tagged
        if planned.plan.jobs_of(entry) - done
    ]
