"""The cost of a plan: time and memory, from a few measured steps of each of its networks."""

from __future__ import annotations

import math
import resource
import sys
import timeit
from collections.abc import Callable, Container
from functools import cache
from typing import Any, NamedTuple

import torch

from transferbench.engine.jobs import single_threaded
from transferbench.engine.resources import Machine, WorkerResources
from transferbench.identity import digest
from transferbench.networks.modules import freeze_body, partition
from transferbench.plan import Job
from transferbench.registry import blamed
from transferbench.registry.numerics import seeded_generators
from transferbench.runner.planning import Planned
from transferbench.suite import Recipe
from transferbench.training import (
    Execution,
    Training,
    evaluate,
    random_task,
    set_train_mode,
)

__all__ = ["Estimate", "estimate"]

TRIES = 5
EVALUATED = 256


class Estimate(NamedTuple):
    """Seconds of all jobs one after another, and the most memory one of them takes."""

    seconds: float
    memory_bytes: int


class _Speed(NamedTuple):
    """Seconds an image takes in training and in evaluation."""

    trained: float
    evaluated: float


def estimate(planned: Planned, done: Container[str], device: torch.device) -> Estimate:
    """The cost on this machine of the jobs that are not ``done``.

    Measured on ``TRIES`` steps of each training, on one thread as in a worker.
    """
    jobs, store = planned.plan.jobs, planned.store
    machine = Machine(store.root, store.root, None, str(device))
    resources = WorkerResources(planned.registry, store, machine)
    speeds: dict[str, _Speed] = {}

    @cache  # many diagnoses need the speed of the same training
    def speed_of(training: str) -> _Speed:
        job = jobs[training]
        batch = _batch_size(job)
        # Trainings of equal networks on equal images by equal recipes share one measurement.
        fields = ("backbone", "image", "recipe", "frozen")
        key = digest([*(job.payload.get(field) for field in fields), batch])
        if key not in speeds:
            with single_threaded():
                speeds[key] = _measure(resources, job.payload, batch)
        return speeds[key]

    seconds = 0.0
    for job in (job for name, job in jobs.items() if name not in done and any(job.work)):
        trainings = job.requires if job.kind == "diagnosis" else (job.id,)
        measured = [speed_of(training) for training in trainings]
        seconds += job.work.trained * max(speed.trained for speed in measured)
        seconds += job.work.evaluated * max(speed.evaluated for speed in measured)
    return Estimate(seconds, _memory(device))


def _batch_size(job: Job) -> int:
    """Images per step: those of the recipe, or all that the job trains on."""
    recipe = job.payload["recipe"]
    images = math.ceil(job.work.trained / recipe["epochs"])
    return int(min(recipe["batch_size"], max(images, 1)))


def _measure(resources: WorkerResources, payload: dict[str, Any], batch: int) -> _Speed:
    """Time a few steps on random images; the first step, which warms up, is not counted."""
    spec, _ = resources.backbone(payload)
    net = resources.network(payload).to(resources.device)
    recipe = Recipe.model_validate(payload["recipe"])
    n = max(batch, EVALUATED)
    image, dataset = payload["image"], payload["dataset"]
    shape = (image["size"], image["size"], image["channels"])
    data = random_task(n, shape, dataset["classes"], resources.device, dataset["task"])
    execution = Execution(resources.device)
    only_head = resources.head(spec, net) if payload.get("frozen") else None
    if only_head is not None:
        freeze_body(net, partition(spec, net))
    training = Training(net, data, recipe, execution, spec.rate_factors, only_head=only_head)
    set_train_mode(net, only_head)
    generator = torch.Generator(resources.device).manual_seed(0)
    indices = torch.arange(batch, device=resources.device)
    # Dropout draws from the global generators.
    with blamed(f"backbone {spec.name!r}"), seeded_generators(0):
        training.step(indices, generator)
        trained = _shortest(lambda: training.step(indices, generator), resources.device)
        evaluated = _shortest(
            lambda: evaluate(net, data.test, data, execution, recipe.precision), resources.device
        )
    return _Speed(trained / batch, evaluated / n)


def _shortest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of a few tries: other load only adds to them."""

    def finish() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return min(timeit.repeat(finish, number=1, repeat=TRIES))


def _memory(device: torch.device) -> int:
    """The most memory used so far: of the device, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes
