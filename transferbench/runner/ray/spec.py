"""The executor ``ray``: its options, and how it is built for a run."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from transferbench.errors import DeviceError, ExecutorError
from transferbench.files import disk_errors_explained
from transferbench.runner.executors.spec import ExecutorContext, ExecutorOptions, ExecutorSpec
from transferbench.runner.executors.this_machine import (
    MEASURES,
    TRAINS,
    available_cpus,
    refuse_shared_cards,
)
from transferbench.runner.messages import say
from transferbench.runner.options import Options
from transferbench.runner.ray.cluster import RayCluster
from transferbench.runner.ray.executor import RayExecutor
from transferbench.runner.ray.slots import Lane, Node, slots_of_nodes

__all__ = ["RAY", "RayOptions"]


class RayOptions(ExecutorOptions):
    """Where Ray runs, and what a slot takes of a node."""

    address: Annotated[
        str | None,
        Field(
            description="of a cluster: HOST:PORT, or auto for the one that this machine is part "
            "of; by default $RAY_ADDRESS, or else a Ray that is begun here for the run"
        ),
    ] = None
    cpus_per_slot: Annotated[float, Field(gt=0, description="cores that a slot takes")] = 1.0
    slots_per_gpu: Annotated[int, Field(ge=1, description="slots that share a card")] = 1


def build(context: ExecutorContext, options: RayOptions) -> RayExecutor:
    """Connect to the cluster. Raises: ``DeviceError``, ``ExecutorError``, ``StoreError``."""
    _refuse_large_slots(options)
    logs = context.folder.absolute() / "ray" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    with disk_errors_explained(logs):
        logs.mkdir(parents=True)
    jobs = context.options.jobs
    cores = math.ceil((jobs or 1) * options.cpus_per_slot * context.options.gpus_per_job)
    cluster = RayCluster(
        options.address, logs, context.options.time_limit_seconds, max(cores, available_cpus())
    )
    try:
        nodes = cluster.nodes()
        device = _device(context.options, nodes)
        executor = RayExecutor(cluster, _lanes(context, options, device, nodes), jobs, device)
    except BaseException:
        cluster.close()
        raise
    say(f"Ray: {executor.slots} slot(s) on {len(nodes)} node(s)")
    return executor


def _refuse_large_slots(options: RayOptions) -> None:
    """Raise ``ExecutorError`` where a Ray that is begun here could have no slot."""
    cpus = available_cpus()
    elsewhere = options.address or os.environ.get("RAY_ADDRESS")
    if not elsewhere and options.cpus_per_slot > cpus:
        raise ExecutorError(
            f"cpus_per_slot={options.cpus_per_slot:g} was requested, and this machine has {cpus} "
            "core(s) for the Ray that is begun here: give fewer, or address=HOST:PORT of a cluster"
        )


def _device(options: Options, nodes: Sequence[Node]) -> str:
    """What trainings run on: a card where a node has one, unless the CPU is requested."""
    cards = max((node.gpus for node in nodes), default=0.0)
    if options.device == "cpu" or (options.device == "auto" and not cards):
        return "cpu"
    if cards < options.gpus_per_job:
        raise DeviceError(
            f"--device {options.device} with {options.gpus_per_job} GPU(s) a job was requested, "
            f"but no node of the Ray cluster has more than {cards:g}; use --device cpu or fewer "
            "--gpus-per-job, or start nodes with ray start --num-gpus"
        )
    return "cuda"


def _lanes(
    context: ExecutorContext, options: RayOptions, device: str, nodes: Sequence[Node]
) -> list[Lane]:
    """The kinds of slots: with cards, some train on these, and the cores that are left measure."""
    together = context.options.gpus_per_job
    refuse_shared_cards(context.options, options.slots_per_gpu)
    trains, measures = options.cpus_per_slot * together, options.cpus_per_slot
    # Ray counts in shares of 0.0001.
    cards = float(together) if together > 1 else int(1e4 / options.slots_per_gpu) / 1e4
    kinds: list[tuple[str, float, float, str, int | None]] = [("", trains, 0.0, "cpu", None)]
    if device == "cuda":
        kinds = [(TRAINS, trains, cards, device, None), (MEASURES, measures, 0.0, "cpu", 1)]
    lanes = [Lane(name, cpus, gpus, b"") for name, cpus, gpus, _, _ in kinds]
    slots = slots_of_nodes(nodes, lanes, context.options.jobs)
    # They share the memory of their node.
    most = max((sum(slots[node.id, lane.name] for lane in lanes) for node in nodes), default=1)
    return [
        lane._replace(start=pickle.dumps(context.start(on, max(1, most), group)))
        for lane, (*_, on, group) in zip(lanes, kinds, strict=True)
    ]


RAY = ExecutorSpec(
    name="ray",
    summary="Actors on the nodes of a Ray cluster, which may come and go.",
    options=RayOptions,
    build=build,
    modules=("ray",),
    install="pip install 'transferbench[ray]'",
    remote=True,
)
