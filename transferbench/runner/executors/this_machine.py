"""The executor ``local``: workers on this machine, one for each core or card."""

from __future__ import annotations

import os
from collections.abc import Sequence

from transferbench.errors import DeviceError
from transferbench.runner.executors import Executor
from transferbench.runner.executors.inprocess import InProcessExecutor
from transferbench.runner.executors.local import LocalExecutor, SlotSetup, Start
from transferbench.runner.executors.spec import ExecutorContext, ExecutorSpec, NoOptions
from transferbench.runner.options import Options

__all__ = ["LOCAL", "MEASURES", "TRAINS", "available_cpus", "gpu_setups", "on_this_machine",
           "refuse_few_cards", "slots_of", "together"]  # fmt: skip

TRAINS, MEASURES = "training", "diagnosis"
"""The lanes of workers where there is a card."""


def on_this_machine(context: ExecutorContext, _: object = None) -> Executor:
    """Workers here; or none, where one job at a time needs no limit."""
    # torch comes with the jobs, and a run that has nothing to compute needs neither.
    from transferbench.engine.resources import find_device

    options, device = context.options, find_device(context.options.device)
    slots = slots_of(options, device.type)
    start = context.start(str(device), slots)
    # A limit needs a process of its own, which can be ended.
    if options.jobs == 1 and options.time_limit_seconds is None:
        return InProcessExecutor(start, device.type)
    setups = None
    if device.type == "cuda":
        beside = context.start("cpu", slots, group=1)
        cards = together(_cards(), options.gpus_per_job)
        setups = gpu_setups(cards, options.jobs, available_cpus(), beside)
        slots = len(setups)
    return LocalExecutor(start, slots, options.time_limit_seconds, setups, device.type)


LOCAL = ExecutorSpec(
    name="local",
    summary="Worker processes on this machine: one for each core, or one for each GPU.",
    options=NoOptions,
    build=on_this_machine,
)


def _cards() -> list[str]:
    """The CUDA devices, as CUDA_VISIBLE_DEVICES names them."""
    from transferbench.engine.resources import cuda_devices

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(len(cuda_devices()))]


def refuse_few_cards(options: Options, device_type: str) -> None:
    """Raise ``DeviceError`` where a training is to have more GPUs than there are."""
    count = options.gpus_per_job
    if count > 1 and device_type == "cuda" and len(cards := _cards()) < count:
        raise DeviceError(
            f"--gpus-per-job {count} was requested, and the GPUs here are {len(cards)}; give at "
            f"most --gpus-per-job {max(len(cards), 1)}"
        )


def together(cards: Sequence[str], size: int) -> list[str]:
    """Cards for workers that have ``size`` of them each; the rest is left out."""
    whole = len(cards) - len(cards) % size
    return [",".join(cards[first : first + size]) for first in range(0, whole, size)]


def gpu_setups(cards: Sequence[str], jobs: int | None, cpus: int, beside: Start) -> list[SlotSetup]:
    """A worker for each of ``cards``, which trains, and beside them some on the CPU for diagnoses.

    ``jobs``: how many workers in all; by default as many as ``cpus``, and two at least.
    """
    slots = jobs or max(cpus, len(cards) + 1)
    trains = [SlotSetup(TRAINS, {"CUDA_VISIBLE_DEVICES": card}) for card in cards[:slots]]
    return trains + [SlotSetup(MEASURES, {}, beside)] * (slots - len(trains))


def slots_of(options: Options, device_type: str) -> int:
    """How many jobs run at once: by default as many as CPU cores suffice for, or one on GPUs."""
    cpus = available_cpus() // options.gpus_per_job or 1
    return options.jobs or (1 if device_type == "cuda" else cpus)


def available_cpus() -> int:
    """The CPUs that this process may use; all of them where the system has no affinity (macOS)."""
    if hasattr(os, "process_cpu_count"):  # since Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
