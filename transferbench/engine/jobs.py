"""What running one job means: pre-train a network, train one on a target, or measure some.

An engine lives in a worker process. It takes jobs of a plan and leaves artefacts in the store; it
knows no suite.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_limits
from torch import nn

from transferbench.data.pipeline import keep_large_allocations
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.engine.resources import Machine, Prepared, Workbench, same_version
from transferbench.errors import PluginError, StoreError
from transferbench.metrics import chance_level
from transferbench.networks.modules import freeze_body, normalises_by_batch, partition
from transferbench.plan import Job
from transferbench.records import Measurement
from transferbench.registry import blamed, load_registry
from transferbench.specs import HEAD, BackboneSpec, DiagnosticContext, InitializationContext
from transferbench.statistics import wilson
from transferbench.store import CorruptArtefactError, Draft, Store
from transferbench.suite import Recipe
from transferbench.training import (
    Execution,
    Task,
    Trained,
    Training,
    outputs,
    refuse_smaller_batches,
)

__all__ = ["Engine", "start_engine", "threads_of_a_worker"]

SOURCE_BATCH = 256
"""Images of the batch that a data-dependent initialization sees."""

DIVERGED = "the outputs are not finite: diverged"


def start_engine(machine: Machine) -> Callable[[Job], None]:
    """Make a worker process ready for jobs; called once in each.

    CPU work takes one thread a process: numbers then do not depend on how many run at once, and
    two one-thread processes beat one process with two threads.
    """
    import scipy.linalg  # noqa: F401  # slow; only what is loaded can be limited

    _take_one_thread()
    keep_large_allocations()
    registry = load_registry(machine.plugins, {"TRANSFERBENCH_PLUGINS": machine.plugin_variable})
    return Engine(Workbench(registry, Store(machine.store), machine)).run


@contextmanager
def threads_of_a_worker() -> Iterator[None]:
    """Inside the block this process takes as many threads as a worker does."""
    threads = torch.get_num_threads()
    try:
        with _take_one_thread():
            yield
    finally:
        torch.set_num_threads(threads)


def _take_one_thread() -> threadpool_limits:
    """One for torch, and for the linear algebra of numpy and of scipy, which have their own."""
    torch.set_num_threads(1)
    return threadpool_limits(1)


class Engine:
    """Runs jobs one after another; what they share is loaded once."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        machine = bench.machine
        self.execution = Execution(
            bench.device, micro_batch=machine.micro_batch, compile=machine.compile
        )

    def run(self, job: Job) -> None:
        """Compute one job and publish its artefact; its requirements are in the store."""
        started = time.perf_counter()
        # Entered before the work: of two runs that share a store, one computes and one waits.
        with self.bench.store.writing(job.id, job.kind) as draft:
            if draft.already_done:
                return
            try:
                (self._diagnose if job.kind == "diagnosis" else self._train)(job, draft)
            except CorruptArtefactError as error:
                # Out of the way, so that it is computed again instead of failing every run.
                self.bench.store.discard(error.job)
                raise
            draft.facts |= machine_facts(self.bench.device, started)

    # --- pre-training and trials --------------------------------------------------------------

    def _train(self, job: Job, draft: Draft) -> None:
        payload = job.payload
        spec, params = self.bench.backbone(payload)
        prepared = self.bench.prepare(payload)
        net = self.bench.network(payload, spec, params, payload["dataset"]["classes"])
        recipe = Recipe.model_validate(payload["recipe"])
        # The network itself is asked too: a backbone may have declared otherwise.
        if normalises_by_batch(net):
            refuse_smaller_batches(spec.name, recipe.batch_size, self.execution.micro_batch)
        modules = partition(spec, net)
        if job.kind == "trial":
            self._initialize(payload, net, modules, prepared)
        net.to(self.bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        head = self.bench.head(spec, net)
        if payload.get("frozen"):
            freeze_body(net, modules)
        training = Training(
            net,
            prepared.task,
            recipe,
            self.execution,
            spec.rate_factors,
            only_head=head if payload.get("frozen") else None,
        )
        seeds = payload["seeds"]
        trained = training.train(
            data_seed=seeds["data"],
            augmentation_seed=seeds["augmentation"],
            checkpoints=payload["checkpoints"],
        )
        self._write(draft, job.payload, net, spec, trained, prepared)

    def _initialize(
        self,
        payload: Mapping[str, Any],
        net: nn.Module,
        modules: Mapping[str, Sequence[str]],
        prepared: Prepared,
    ) -> None:
        used = payload["initialization"]
        spec = same_version(self.bench.registry.initialization(used["name"]), used)
        images = None
        if "images" in spec.needs:
            pipeline = prepared.task.train.pipeline
            first = torch.arange(min(len(pipeline), SOURCE_BATCH), device=self.bench.device)
            images = pipeline.batch(first, None).cpu()
        context = InitializationContext(
            source_state=self._source_state(payload),
            modules=modules,
            generator=torch.Generator().manual_seed(payload["seeds"]["initialization"]),
            images=images,
        )
        with blamed(f"initialization {spec.name!r}"):
            spec.initialize(spec.parse(used["params"]), net, context)

    def _source_state(self, payload: Mapping[str, Any]) -> Mapping[str, torch.Tensor] | None:
        """The body of the source network, from the suite's pre-training or from outside."""
        used = payload["initialization"]
        if "weights" in used:
            return self.bench.external_state(payload)
        if "source" not in used:
            return None
        which = "final" if used["checkpoint"] is None else f"epoch-{used['checkpoint']}"
        artefact = self.bench.store.artefact(used["source"])
        if f"{which}.safetensors" not in artefact.names:
            kept = ", ".join(sorted(name for name in artefact.names if name.startswith("epoch-")))
            raise StoreError(
                f"the pre-training kept no checkpoint {which!r} (it has: {kept or 'none'}); add "
                "the epoch to the source's checkpoints"
            )
        head = set(artefact.json("trial.json")["modules"][HEAD])
        state = load_file(artefact.path(f"{which}.safetensors"))
        return {name: tensor for name, tensor in state.items() if name not in head}

    def _write(
        self,
        draft: Draft,
        payload: Mapping[str, Any],
        net: nn.Module,
        spec: BackboneSpec,
        trained: Trained,
        prepared: Prepared,
    ) -> None:
        task = prepared.task
        found = outputs(net, self.bench.head(spec, net), task.test.pipeline, self.execution)
        modules = {name: list(names) for name, names in partition(spec, net).items()}
        n_train = len(task.train.pipeline)
        described = {
            "task": task.kind,
            "metric": task.metric,
            "chance": chance_level(task.metric, prepared.test_labels),
            "modules": modules,
            "n_train": n_train,
            "n_test": len(prepared.items),
            "parameters": sum(p.numel() for p in net.parameters()),
            "best_epoch": trained.best_epoch,
        }
        measured = trial_measurements(trained, task, n_train, len(prepared.items))
        draft.write_json("payload.json", payload)
        draft.write_json("trial.json", described)
        draft.write_json("history.json", trained.history)
        draft.write_json("measurements.json", [m.model_dump(mode="json") for m in measured])
        for name, state in trained.states.items():
            save_file(state, draft.path(f"{name}.safetensors"))
        save_file(
            {
                "logits": found.logits.contiguous(),
                "features": found.features.contiguous(),
                "labels": torch.from_numpy(prepared.test_labels),
                "items": torch.from_numpy(prepared.items),
            },
            draft.path("outputs.safetensors"),
        )

    # --- diagnoses ----------------------------------------------------------------------------

    def _diagnose(self, job: Job, draft: Draft) -> None:
        payload = job.payload
        used = payload["diagnostic"]
        spec = same_version(self.bench.registry.diagnostic(used["name"]), used)
        for named in used.get("perturbations", ()):
            same_version(self.bench.registry.perturbation(named["name"]), named)
        subjects = [FinishedTrial(self.bench, job_id) for job_id in payload["subjects"]]
        context = DiagnosticContext(
            self.bench.device,
            torch.Generator().manual_seed(payload["seed"]),
            payload["seed"],
            self.bench.memoize,
        )
        with blamed(f"diagnostic {spec.name!r}"):
            measured = list(spec.measure(spec.parse(used["params"]), subjects, context))
        for measurement in measured:
            if not isinstance(measurement, Measurement):
                raise PluginError(
                    f"diagnostic {spec.name!r} yielded {type(measurement).__name__}; "
                    "it must yield Measurement"
                )
        draft.write_json("measurements.json", [m.model_dump(mode="json") for m in measured])


def trial_measurements(
    trained: Trained, task: Task, n_train: int, n_test: int
) -> list[Measurement]:
    """What a trial itself reports: final and best metrics, losses and sizes."""
    final = trained.history[-1]
    best = next((row for row in trained.history if row["epoch"] == trained.best_epoch), final)
    return [
        _metric("test_metric", final, "test", n_test, task),
        _loss("test_loss", final, n_test),
        _metric("train_metric", final, "train", n_train, task),
        _loss("train_loss", final, n_train),
        _metric("best_test_metric", best, "test", n_test, task),
        Measurement(metric="best_epoch", value=best["epoch"], unit="epochs", n=1),
        Measurement(metric="n_train", value=float(n_train), unit="images", n=1),
    ]


def _metric(
    name: str, row: Mapping[str, float | None], split: str, n: int, task: Task
) -> Measurement:
    value, flag = row[f"{split}_metric"], None
    if row[f"{split}_loss"] is None:
        # An accuracy has a value all the same: of logits that are NaN the first is the largest.
        flag = DIVERGED
    elif value is None:
        flag = "not defined on these images"
    counts = task.kind == "multi-class" and task.metric == "accuracy"
    bounds = wilson(round(value * n), n).fields() if counts and value is not None else {}
    return Measurement(metric=name, value=value, unit="fraction", n=n, flag=flag, **bounds)


def _loss(name: str, row: Mapping[str, float | None], n: int) -> Measurement:
    flag = DIVERGED if row[name] is None else None
    return Measurement(metric=name, value=row[name], unit="nats", n=n, flag=flag)


def machine_facts(device: torch.device, started: float) -> dict[str, str | float]:
    """What a job was computed on and how long it took: published beside it, never in an id."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "device_name": name,
        "host": platform.node(),
        "wall_seconds": round(time.perf_counter() - started, 3),
        **_packages(),
    }


@cache
def _packages() -> dict[str, str]:
    # Reading three distributions' metadata takes as long as a small diagnosis.
    return {package: version(package) for package in ("torch", "timm", "numpy")}
