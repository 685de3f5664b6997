"""The cost of a plan: time and memory, from a few measured steps of each of its networks.

Large steps are measured on a few of their images, and the rest is extrapolated.
"""

from __future__ import annotations

import math
import re
import resource
import sys
import timeit
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from transferbench.analysis.memory import free_bytes
from transferbench.engine.jobs import single_threaded
from transferbench.engine.kernels import choose_kernels
from transferbench.engine.resources import Machine, WorkerResources
from transferbench.identity import digest
from transferbench.networks.modules import freeze_body, partition
from transferbench.plan import Job, JobKind
from transferbench.plan.tuning import recipe_at
from transferbench.registry import blamed
from transferbench.registry.numerics import seeded_generators
from transferbench.runner.executors.spec import ExecutorContext
from transferbench.runner.messages import said_where_slow
from transferbench.runner.planning import Planned
from transferbench.runner.schedule import shape_of
from transferbench.training import (
    Execution,
    TaskData,
    Training,
    evaluate,
    random_task,
    set_train_mode,
)
from transferbench.training.captured import CapturedSteps, GroupMember
from transferbench.training.generators import OwnGenerators
from transferbench.training.graph import graphs_of

__all__ = [
    "MEASURED_PIXELS",
    "Estimate",
    "SavedBytes",
    "estimate",
    "memory_warning",
    "peak_memory_bytes",
]

TRIES = 5
EVALUATED = 256
MEASURED_SECONDS = 1.0
"""After them a step is not tried again."""
MEASURED_PIXELS = {"cpu": 2**20, "cuda": 2**24}
"""Of a step that is measured: beyond them the time of an image does not depend on their number."""
ANY_RATE = 1e-3
"""Of the steps that are timed: a step takes as long at any learning rate."""
UNTIMED = {"learning_rate", "evaluate_train", "evaluate_test"}
"""Fields of a recipe that do not change how long a step takes."""
LAYER_TENSORS = 3
"""Those of a layer in evaluation: what it takes, what it gives, and what it computes between."""


class Estimate(NamedTuple):
    """Seconds of the jobs of each kind one after another, and the most memory one job takes.

    ``shared_bytes``: the part of it that all jobs on the CPU have in common, the code of libraries.
    """

    seconds_of: Mapping[JobKind, float]
    memory_bytes: int
    shared_bytes: int = 0

    @property
    def seconds(self) -> float:
        """Of all jobs."""
        return sum(self.seconds_of.values())


class _Speed(NamedTuple):
    """Seconds an image takes in training and in evaluation; bytes of images not measured."""

    trained: float
    evaluated: float
    unmeasured_bytes: float


class _Batch(NamedTuple):
    """Images of a step of training, and of a pass of evaluation."""

    trained: int
    evaluated: int


def estimate(planned: Planned, done: Container[str], device: torch.device) -> Estimate:
    """The cost on this machine of the jobs that are not ``done``.

    Measured on up to ``TRIES`` steps of each training, on one thread as in a worker.
    """
    with said_where_slow("a few steps of each network are timed on this machine"):
        return _estimate(planned, done, device)


def _estimate(planned: Planned, done: Container[str], device: torch.device) -> Estimate:
    # As a worker does, and before the card is first used: it may run in this process next.
    choose_kernels(str(device), fast=planned.options.fast_kernels)
    jobs, store = planned.plan.jobs, planned.store
    machine = Machine(store.root, store.root, None, str(device))
    resources = WorkerResources(planned.registry, store, machine)
    speeds: dict[str, _Speed] = {}

    context = ExecutorContext(planned.options, machine, store, planned.folder, jobs)
    shapes = Counter(shape_of(job) for name, job in jobs.items() if name not in done)
    group = context.group_size(device.type)

    @cache  # many diagnoses need the speed of the same training
    def speed_of(training: str) -> _Speed:
        job = jobs[training]
        evaluated = min(Execution(device).evaluation_batch, math.ceil(job.work.evaluated))
        batch = _Batch(_batch_size(job), evaluated)
        # Trainings of equal networks on equal images share one measurement, if their recipes
        # differ in the learning rate and in what is evaluated alone.
        recipe = {k: v for k, v in job.payload["recipe"].items() if k not in UNTIMED}
        fields = ("backbone", "image", "frozen")
        together = min(group, max(shapes[shape_of(job)], 1))
        key = digest([recipe, *(job.payload.get(field) for field in fields), *batch, together])
        if key not in speeds:
            with single_threaded():
                speeds[key] = _measure(resources, job.payload, batch, together)
        return speeds[key]

    seconds: dict[JobKind, float] = dict.fromkeys(get_args(JobKind), 0.0)
    for job in (job for name, job in jobs.items() if name not in done and any(job.work)):
        trainings = job.requires if job.kind == "diagnosis" else (job.id,)
        # The network of external weights is as fast as those that started from it.
        trainings = tuple(name for name in trainings if "recipe" in jobs[name].payload)
        measured = [speed_of(training) for training in trainings]
        seconds[job.kind] += job.work.trained * max(speed.trained for speed in measured)
        seconds[job.kind] += job.work.evaluated * max(speed.evaluated for speed in measured)
    unmeasured = max((speed.unmeasured_bytes for speed in speeds.values()), default=0)
    shared = _status_bytes("RssFile") or 0 if device.type == "cpu" else 0
    return Estimate(seconds, _memory(device) + round(unmeasured), shared)


def memory_warning(cost: Estimate, at_once: int, device: torch.device) -> str | None:
    """A sentence where more jobs are to run at once than there is free memory for."""
    free, own = free_bytes(device), cost.memory_bytes - cost.shared_bytes
    needed = cost.shared_bytes + at_once * own
    if free is None or needed <= free:
        return None
    fitting = (free - cost.shared_bytes) // own
    way_on = f"run at most {fitting} at once (--jobs {fitting})"
    if fitting < 1:
        way_on = "train with a smaller batch_size, or split the batches (--micro-batch)"
    return (
        f"{at_once} job(s) at once take about {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are "
        f"free on {device}, so that the system may end some: {way_on}"
    )


def _batch_size(job: Job) -> int:
    """Images per step: those of the recipe, or all that the job trains on."""
    recipe = job.payload["recipe"]
    images = math.ceil(job.work.trained / recipe["epochs"])
    return int(min(recipe["batch_size"], max(images, 1)))


def _measure(
    resources: WorkerResources, payload: dict[str, Any], batch: _Batch, together: int
) -> _Speed:
    """Time a few steps on random images; the first step, which warms up, is not counted.

    Of ``together`` trainings in a graph where they can be captured, as a worker takes them.
    """
    spec, _ = resources.backbone(payload)
    image, dataset = payload["image"], payload["dataset"]
    execution = Execution(resources.device, captured=together > 1)
    # Two at least: one alone has no batch statistics.
    fitting = max(2, MEASURED_PIXELS[resources.device.type] // image["size"] ** 2)
    at_once = min(batch.trained, resources.machine.micro_batch or batch.trained)
    trained_n, evaluated_n = min(at_once, fitting), min(EVALUATED, fitting)
    shape = (image["size"], image["size"], image["channels"])
    n = max(trained_n, evaluated_n)
    data = random_task(n, shape, dataset["classes"], resources.device, dataset["task"])
    training = _training(resources, payload, data, execution)
    net = training.net
    # On the CPU, where a worker draws.
    generator, indices = torch.Generator().manual_seed(0), torch.arange(trained_n)
    saved = SavedBytes(net, trained_n)
    # Dropout draws from the global generators.
    with blamed(f"backbone {spec.name!r}"), seeded_generators(0):
        with saved_tensors_hooks(saved, _unchanged):
            training.step(indices, generator)
        trained = _shortest(lambda: training.step(indices, generator), resources.device)
        evaluated = _shortest(
            lambda: evaluate(net, data.test, data, execution, training.recipe.precision),
            resources.device,
        )
        if together > 1:
            trainings = [_training(resources, payload, data, execution) for _ in range(together)]
            trained = min(trained, _captured_seconds(trainings, indices))
    unmeasured_bytes = max(
        0.0,
        saved.total / trained_n * (at_once - trained_n),
        saved.largest / trained_n * LAYER_TENSORS * (batch.evaluated - n),
    )
    return _Speed(trained / trained_n, evaluated / n, unmeasured_bytes)


def _training(
    resources: WorkerResources, payload: dict[str, Any], data: TaskData, execution: Execution
) -> Training:
    spec, _ = resources.backbone(payload)
    net = resources.network(payload)
    net.to(resources.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    only_head = resources.head(spec, net) if payload.get("frozen") else None
    if only_head is not None:
        freeze_body(net, partition(spec, net))
    recipe = recipe_at(payload, ANY_RATE)
    training = Training(net, data, recipe, execution, spec.rate_factors, only_head=only_head)
    set_train_mode(net, only_head)
    return training


def _captured_seconds(trainings: Sequence[Training], indices: torch.Tensor) -> float:
    """Seconds of a step of one of the trainings that are captured in one graph.

    Infinite where they cannot be captured, or memory runs out: a worker then takes other steps.
    """
    device = trainings[0].execution.device
    members = [GroupMember(training, OwnGenerators(device)) for training in trainings]
    draws = [training.stepping.draw(indices, torch.Generator().manual_seed(0), 0)
             for training in trainings]  # fmt: skip
    try:
        steps = CapturedSteps(members, draws, graphs_of(device), compared=False)
    except Exception:  # noqa: BLE001  # whatever keeps it from being captured
        return math.inf
    return _shortest(lambda: steps.take(draws), device) / len(trainings)


class SavedBytes:
    """Hook of autograd: the bytes that a step on ``n`` images keeps of them for its gradients.

    ``total``: of all tensors; ``largest``: of the largest one. Weights are not counted, also where
    they are computed from others.
    """

    def __init__(self, net: nn.Module, n: int) -> None:
        self.n = n
        self.total = 0
        self.largest = 0
        self._counted = {tensor.data_ptr() for tensor in net.parameters()}

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count ``tensor`` where it is a new one, with a row or several for each image."""
        storage = tensor.untyped_storage()
        is_of_images = tensor.ndim > 0 and len(tensor) % self.n == 0
        if is_of_images and storage.data_ptr() not in self._counted:
            self._counted.add(storage.data_ptr())
            self.total += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())
        return tensor


def _unchanged(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _shortest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of a few tries: other load only adds to them."""

    def finish() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times: list[float] = []
    while len(times) < TRIES and sum(times) < MEASURED_SECONDS:
        times.append(timeit.timeit(finish, number=1))
    return min(times)


def _memory(device: torch.device) -> int:
    """The most memory used so far: of the device, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory_bytes()


def peak_memory_bytes() -> int:
    """The most memory that this process has used so far.

    Linux's ``ru_maxrss`` would count the process that started this one as well: its mark is
    kept over fork and exec.
    """
    if (mark := _status_bytes("VmHWM")) is not None:
        return mark
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


def _status_bytes(field: str) -> int | None:
    """What Linux tells of the memory of this process; None elsewhere."""
    status = Path("/proc/self/status")
    text = status.read_text() if status.exists() else ""
    size = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(size[1]) * 1024 if size else None
