"""The executor ``local``: workers on this machine, one for each core or card."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pydantic import Field

from transferbench.errors import DeviceError, ExecutorError
from transferbench.runner.executors import Executor
from transferbench.runner.executors.inprocess import InProcessExecutor
from transferbench.runner.executors.local import LocalExecutor, SlotSetup, Start
from transferbench.runner.executors.spec import ExecutorContext, ExecutorOptions, ExecutorSpec
from transferbench.runner.options import Options

__all__ = ["LOCAL", "MEASURES", "TRAINS", "LocalOptions", "available_cpus", "gpu_setups",
           "refuse_few_cards", "refuse_shared_cards", "slots_of", "together",
           "workers_here"]  # fmt: skip

TRAINS, MEASURES = "training", "diagnosis"
"""The lanes of workers where there is a card."""


class LocalOptions(ExecutorOptions):
    """The options of the executor ``local``."""

    slots_per_gpu: int = Field(1, ge=1)
    """Workers that train on one card at the same time."""


def on_this_machine(context: ExecutorContext, own: LocalOptions) -> Executor:
    """Workers here; or none, where one job at a time needs no limit."""
    options, device = context.options, _device(context.options)
    # A limit needs a process of its own, which can be ended.
    if options.jobs == 1 and options.time_limit_seconds is None:
        from transferbench.engine.jobs import single_threaded  # torch comes with the jobs

        return InProcessExecutor(context.start(device, 1), device, single_threaded)
    return workers_here(context, own)


def workers_here(context: ExecutorContext, own: LocalOptions) -> LocalExecutor:
    """Worker processes on this machine."""
    options, device = context.options, _device(context.options)
    refuse_shared_cards(options, own.slots_per_gpu)
    slots = slots_of(options, device)
    start, setups = context.start(device, slots), None
    if device == "cuda":
        beside = context.start("cpu", slots, group=1)
        cards = together(_cards(), options.gpus_per_job) * own.slots_per_gpu
        setups = gpu_setups(cards, options.jobs, available_cpus(), beside)
        slots = len(setups)
    return LocalExecutor(start, slots, options.time_limit_seconds, setups, device)


def _device(options: Options) -> str:
    # torch comes with the jobs, and a run that has nothing to compute needs neither.
    from transferbench.engine.resources import find_device

    return find_device(options.device).type


LOCAL = ExecutorSpec(
    name="local",
    summary="Worker processes on this machine: one for each core, or one for each GPU.",
    options=LocalOptions,
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


def refuse_shared_cards(options: Options, slots_per_gpu: int) -> None:
    """Raise ``ExecutorError`` where slots are to share cards of which each has several."""
    if options.gpus_per_job > 1 and slots_per_gpu > 1:
        raise ExecutorError("a card cannot be shared by slots whose jobs have several each: "
                            "leave out slots_per_gpu or --gpus-per-job")  # fmt: skip


def together(cards: Sequence[str], size: int) -> list[str]:
    """Cards for workers that have ``size`` of them each; the rest is left out."""
    used = len(cards) - len(cards) % size
    return [",".join(cards[first : first + size]) for first in range(0, used, size)]


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
