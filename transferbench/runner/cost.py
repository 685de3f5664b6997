"""The cost of a plan: time and memory, from a few measured steps of each of its networks."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple

import torch

from transferbench.data.pipeline import ImagePipeline
from transferbench.engine.jobs import single_threaded
from transferbench.engine.resources import Machine, WorkerResources
from transferbench.identity import digest
from transferbench.plan import Job
from transferbench.registry import Registry
from transferbench.store import Store
from transferbench.suite import Recipe
from transferbench.training import DataSplit, Execution, TaskData, Training, evaluate

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


def estimate(
    jobs: Mapping[str, Job],
    done: Container[str],
    registry: Registry,
    store: Store,
    device: torch.device,
) -> Estimate:
    """The cost on this machine of the ``jobs`` that are not ``done``.

    Measured on ``TRIES`` steps of each training, on one thread as in a worker.
    """
    resources = WorkerResources(registry, store, Machine(store.root, store.root, None, str(device)))
    speeds = _Speeds(resources)
    seconds = 0.0
    for job in (job for name, job in jobs.items() if name not in done and any(job.work)):
        if job.kind == "diagnosis":
            subjects = (speeds.of(jobs[name]) for name in job.requires)
            seconds += job.work.evaluated * max(speed.evaluated for speed in subjects)
        else:
            speed = speeds.of(job)
            seconds += job.work.trained * speed.trained + job.work.evaluated * speed.evaluated
    return Estimate(seconds, _memory(device))


class _Speeds:
    """The speed of each training, measured at the first request."""

    def __init__(self, resources: WorkerResources) -> None:
        self._resources = resources
        self._of_jobs: dict[str, _Speed] = {}
        self._of_trainings: dict[str, _Speed] = {}

    def of(self, job: Job) -> _Speed:
        """The speed of a job that trains; many diagnoses need the same one."""
        if job.id not in self._of_jobs:
            self._of_jobs[job.id] = self._of_training(job.payload)
        return self._of_jobs[job.id]

    def _of_training(self, payload: dict[str, Any]) -> _Speed:
        """Trainings of equal networks on equal images by equal recipes share one measurement."""
        key = digest({key: payload[key] for key in ("backbone", "image", "recipe")})
        if key not in self._of_trainings:
            with single_threaded():
                self._of_trainings[key] = _measure(self._resources, payload)
        return self._of_trainings[key]


def _measure(resources: WorkerResources, payload: dict[str, Any]) -> _Speed:
    """Time a few steps on random images; the first step, which warms up, is not counted."""
    spec, params = resources.backbone(payload)
    classes = payload["dataset"]["classes"]
    net = resources.network(payload, spec, params, classes).to(resources.device)
    recipe = Recipe.model_validate(payload["recipe"])
    n = max(recipe.batch_size, EVALUATED)
    split = _random_split(payload, n, classes, resources.device)
    task, metric = payload["dataset"]["task"], payload["dataset"]["metric"]
    data = TaskData(task, metric, classes, split, split, None)
    execution = Execution(resources.device)
    training = Training(net, data, recipe, execution, spec.rate_factors)
    generator = torch.Generator(resources.device).manual_seed(0)
    indices = torch.arange(recipe.batch_size, device=resources.device)
    training.step(indices, generator)
    trained = _shortest(lambda: training.step(indices, generator), resources.device)
    evaluated = _shortest(
        lambda: evaluate(net, split, data, execution, recipe.precision), resources.device
    )
    return _Speed(trained / recipe.batch_size, evaluated / n)


def _shortest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of a few tries: other load only adds to them."""
    tries = []
    for _ in range(TRIES):
        started = _now(device)
        work()
        tries.append(_now(device) - started)
    return min(tries)


def _random_split(payload: dict[str, Any], n: int, classes: int, device: torch.device) -> DataSplit:
    image = payload["image"]
    draws = torch.Generator().manual_seed(0)
    shape = (n, image["size"], image["size"], image["channels"])
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws).to(device)
    if payload["dataset"]["task"] == "multi-label":
        labels = torch.randint(0, 2, (n, classes), generator=draws).float()
    else:
        labels = torch.randint(0, classes, (n,), generator=draws)
    return DataSplit(ImagePipeline(images, image["mean"], image["std"]), labels.to(device))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _memory(device: torch.device) -> int:
    """The most memory used so far: of the device, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes
