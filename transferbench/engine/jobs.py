"""Runs one job: a pre-training, a training of a tuning grid, a trial, or a diagnosis of trials.

An engine runs in a worker process. It reads the payloads of jobs and writes artefacts to the store,
without access to the suite.
"""

from __future__ import annotations

import math
import time
from collections.abc import (
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)  # fmt: skip
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_limits
from torch import nn

from transferbench.analysis.memory import card_bytes
from transferbench.analysis.metric_intervals import metric_interval
from transferbench.data.pipeline import keep_large_allocations
from transferbench.engine.diagnosis import measured
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.engine.groups import Groups, Steps
from transferbench.engine.kernels import choose_kernels, machine_facts
from transferbench.engine.ranks import RankedJob, joined, lost_another, on_ranks
from transferbench.engine.resources import Machine, WorkerResources, same_version
from transferbench.engine.tuning import rate_measurement, tuning_measurements
from transferbench.engine.versions import differing_versions
from transferbench.errors import (
    DataError,
    PluginError,
    StoreError,
    TransferbenchError,
    is_out_of_memory,
)
from transferbench.identity import digest
from transferbench.interrupts import endings_deferred
from transferbench.metrics import Evaluation, chance_level
from transferbench.networks.modules import (
    Partition,
    StateDict,
    clone_state,
    freeze_body,
    load_state,
    normalises_by_batch,
    partition,
)
from transferbench.plan import Job, JobKind
from transferbench.plan.plugins import PluginUse, codes_of, plugins_in
from transferbench.plan.tuning import BEST_METRIC, Choice, choose_rate, recipe_at
from transferbench.records import Measurement
from transferbench.registry import blamed, blamed_job, is_trusted, load_registry
from transferbench.registry.guard import only_plugins_run
from transferbench.registry.numerics import seeded_generators
from transferbench.specs import HEAD, DiagnosticContext, InitializationContext
from transferbench.statistics import exact_share
from transferbench.store import (
    PAYLOAD,
    CorruptArtefactError,
    Draft,
    Store,
    WaitEvent,
    Waiting,
    silent,
)
from transferbench.suite import Recipe
from transferbench.training import (
    DIVERGED,
    SPLITS,
    UNDEFINED,
    Execution,
    TaskData,
    Training,
    TrainingResult,
    model_outputs,
    refuse_other_rounding,
    refuse_smaller_batches,
)
from transferbench.training.compiling import keep_compiled_in, pays
from transferbench.training.evaluation_batch import evaluation_batch
from transferbench.training.loop import Request, run_alone
from transferbench.training.processes import ALONE, Processes
from transferbench.training.resume import COMPILED, KEPT, Unfinished
from transferbench.training.sharding import fills_a_card

__all__ = ["Engine", "serve_rank", "single_threaded", "start_engine"]

TRAININGS = {"pretrain", "tuning", "trial"}

INITIALIZATION_BATCH = 256
"""Number of target images that a data-dependent initialization receives."""


def start_engine(machine: Machine, waiting: Waiting = silent) -> Engine:
    """Set up a worker process, once; returns what runs its jobs.

    ``waiting``: called where a job waits for another process that computes it already.
    Raises: ``ExecutorError`` where this machine has other versions of packages than the run.
    Each process uses one CPU thread: numbers then do not depend on how many run at once, and two
    single-threaded processes are faster than one process with two threads.
    """
    differing = differing_versions(machine.versions, accept=machine.accept_versions)
    _use_one_thread()
    keep_large_allocations()
    choose_kernels(machine.device, fast=machine.fast_kernels)
    registry = load_registry(machine.plugins, {"TRANSFERBENCH_PLUGINS": machine.plugin_variable})
    for file, sha256 in registry.file_codes.items():
        if machine.code.get(file, sha256) != sha256:
            raise _changed(file)
    facts = {"other_versions": differing} if differing else {}
    return Engine(WorkerResources(registry, Store(machine.store), machine), waiting, facts)


def serve_rank(folder: Path) -> None:
    """Train as one of the processes that ``on_ranks`` has started."""
    with joined(folder) as (task, draft):
        start_engine(task.machine).train_share(task.job, draft)


def _changed(file: str) -> PluginError:
    return PluginError(
        f"plugin file {file!r}, or a module that it imports, has changed since the run was "
        "planned; run again"
    )


@contextmanager
def single_threaded() -> Iterator[None]:
    """Inside the block this process uses one thread, as a worker does."""
    threads = torch.get_num_threads()
    try:
        with _use_one_thread():
            yield
    finally:
        torch.set_num_threads(threads)


def _use_one_thread() -> threadpool_limits:
    """Limit torch and the BLAS libraries of numpy and scipy, which have their own thread pools."""
    import scipy.linalg  # noqa: F401  # slow; threads are limited only in loaded libraries

    torch.set_num_threads(1)
    return threadpool_limits(1)


class TrainedNetwork(NamedTuple):
    """A network after its training, with its head, its declared modules, and its history.

    ``execution``: that of the training, with the batch of evaluation that memory had room for.
    """

    net: nn.Module
    head: nn.Module
    modules: Partition
    result: TrainingResult
    execution: Execution


class Engine:
    """Runs jobs one after another, or trainings together, with shared resources."""

    def __init__(
        self,
        resources: WorkerResources,
        waiting: Waiting = silent,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        self.resources = resources
        self.waiting = waiting
        self._facts = facts or {}
        machine = resources.machine
        self.execution = Execution(
            resources.device,
            micro_batch=machine.micro_batch,
            captured=machine.processes == 1
            and (machine.group > 1 or resources.device.type == "cuda"),
            processes=ALONE if machine.rank is None else Processes(machine.rank, machine.processes),
        )
        self._groups = Groups(resources.device, machine, waiting)
        self._stored = machine.states
        self._is_first = True
        self._steps: Mapping[JobKind, Callable[[Job, Draft], Steps | None]] = {
            "pretrain": self._train,
            "weights": self._load,
            "tuning": self._tune,
            "trial": self._train,
            "diagnosis": self._diagnose,
        }

    def __call__(self, job: Job) -> None:
        """Compute one job and publish its artefact; the jobs it requires are in the store."""
        if self.execution.captured and job.kind in TRAININGS:
            (error,) = self.together([job])
            if error:
                raise error
        else:
            with endings_deferred() if job.kind in TRAININGS else nullcontext():
                run_alone(self._work(job))

    def together(self, jobs: Sequence[Job]) -> list[BaseException | None]:
        """Compute trainings of one shape together; returns what each raised, in their order."""
        # In one order wherever they run: of two groups that share jobs, one waits for the other.
        ordered = sorted(jobs, key=lambda job: job.id)
        works = {job.id: self._work(job, together=len(jobs)) for job in ordered}
        with endings_deferred():
            errors = self._groups.run(ordered[0], works)
        return [errors[job.id] for job in jobs]

    def _compiles(self, draft: Draft, recipe: Recipe, n: int, side: int) -> bool:
        """Whether a training on ``n`` images is compiled: as it was begun, or as it is told."""
        machine, processes = self.resources.machine, self.execution.processes
        mark, chosen = draft.unfinished / COMPILED, machine.compile
        if chosen is None and (draft.unfinished / KEPT).exists():
            chosen = mark.exists()
        if chosen is None:
            steps = recipe.epochs * max(n // recipe.batch_size, 1)
            chosen = pays(self.resources.device.type, recipe, steps, side)
        if chosen:
            keep_compiled_in(self.resources.store.compiled)
            if not processes.rank:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
            draft.facts["compiled"] = True
        elif not processes.rank:
            mark.unlink(missing_ok=True)
        return chosen

    def _shards(self, draft: Draft, net: nn.Module, recipe: Recipe) -> bool:
        """Whether a training is spread over its processes: as it is told, or where it must be."""
        if self.execution.processes.size == 1:
            return False
        chosen, memory = self.resources.machine.shard, card_bytes(self.resources.device)
        if chosen is None and memory is not None:
            chosen = fills_a_card(net, recipe, memory)
        if chosen:
            draft.facts["sharded"] = True
        return bool(chosen)

    def _unfinished(self, job: Job, draft: Draft, *, compiled: bool, sharded: bool) -> Unfinished:
        """Where a training is kept, with what must be the same for it to go on bit for bit."""
        facts = machine_facts(self.resources.device, 0)
        same = {key: fact for key, fact in facts.items() if key not in {"host", "wall_seconds"}}
        codes = codes_of(plugins_in(job.payload, ()), self.resources.registry)
        code = {plugin: code.sha256 for plugin, code in codes.items()}
        of_job = [job.id, same, code, self.execution.micro_batch, compiled]
        processes = self.execution.processes
        shared = [processes.size] * (processes.size > 1) + ["sharded"] * sharded
        key = digest([*of_job, *shared])
        path = draft.unfinished / KEPT
        # Of several processes, which are all at the same step, one writes.
        seconds = math.inf if processes.rank else self.resources.machine.save_seconds
        return Unfinished(path, key, seconds)

    def train_share(self, job: Job, draft: Draft) -> None:
        """Train this process's share of each step of a job; the first writes what is kept."""
        with endings_deferred(), self._guarded(job, plugins_in(job.payload, ())):
            for_training = self._steps[job.kind](job, draft)
            if for_training is not None:
                run_alone(for_training)

    def _on_ranks(self, job: Job, draft: Draft) -> None:
        machine = self.resources.machine
        draft.facts |= on_ranks(RankedJob(machine, job, draft.folder, draft.unfinished))
        draft.facts["processes"] = machine.processes

    def _work(self, job: Job, together: int = 1) -> Steps:
        """The job, with its trainings left to who runs it; ``together``: how many go on at once."""

        def waiting(event: WaitEvent) -> None:
            text = f"{job.title}: {event.text}" if event.text else ""
            self.waiting(event._replace(text=text))

        store = self.resources.store
        # Entered before the work: of two runs that share a store, one computes and the other waits.
        files = [_state_file(name) for name in self._stored.get(job.id, ())]
        with store.writing(job.id, job.kind, waiting, files) as draft:
            if draft.already_done:
                return
            started = time.perf_counter()
            # What another host has finished just now need not be seen here at once.
            store.settle(need for need in job.requires if not store.folder_of(need).exists())
            try:
                subjects = map(self.resources.payload, job.payload.get("subjects", ()))
                plugins = plugins_in(job.payload, subjects)
                with self._guarded(job, plugins):
                    yield from self._step_of(job)(job, draft) or ()
            except CorruptArtefactError as error:
                # Whatever is damaged is computed again at once, and then this job.
                for name in {error.job, *job.requires}:
                    store.discard(name)
                raise
            # With it, the artefact can be computed again wherever its store is.
            draft.write_json(PAYLOAD, job.payload)
            draft.facts |= machine_facts(self.resources.device, started) | self._code(plugins)
            draft.facts |= self._facts
            if together > 1:
                draft.facts["trained_together"] = together

    def _step_of(self, job: Job) -> Callable[[Job, Draft], Steps | None]:
        machine = self.resources.machine
        starts = machine.processes > 1 and machine.rank is None and job.kind in TRAININGS
        return self._on_ranks if starts else self._steps[job.kind]

    def _code(self, plugins: Iterable[PluginUse]) -> dict[str, Any]:
        """The code of the plugins that ran, as a fact.

        Raises: ``PluginError`` where a module may have been imported after its file had changed.
        """
        codes = codes_of(plugins, self.resources.registry)
        for code in codes.values():
            if code.imports_later and not code.is_unchanged():
                raise _changed(code.origin)
        return {"code": {plugin: code.code.model_dump() for plugin, code in codes.items()}}

    @contextmanager
    def _guarded(self, job: Job, plugins: Iterable[PluginUse]) -> Iterator[None]:
        """A job that the one before has not moved, and that moves none after it."""
        trains = job.kind != "diagnosis"
        # Whose code runs in each step, where not every call is compared in full.
        kinds = ("backbone", "perturbation") if trains else ("diagnostic",)
        suspects = [f"{kind} {job.payload[kind]['name']!r}" for kind in kinds
                    if job.payload.get(kind)]  # fmt: skip
        strangers = [plugin.title for plugin in plugins if not is_trusted(plugin.title)]
        # A diagnostic of ours runs the networks of others.
        suspects = [plugin for plugin in strangers if plugin in suspects] or strangers or suspects
        # Between the jobs of a worker nobody changes libraries.
        accept, self._is_first = self._is_first, False
        with (
            only_plugins_run(accept_libraries=accept),
            blamed_job(" or ".join(suspects), code=bool(strangers)),
            seeded_generators(int(job.id[:8], 16)),
        ):
            yield

    # --- trainings ----------------------------------------------------------------------------

    def _train(self, job: Job, draft: Draft) -> Steps:
        """A pre-training or a trial, at the chosen rate where the plan names a grid."""
        choice = self._choice(job.payload)
        recipe = recipe_at(job.payload, choice and choice.best.learning_rate)
        data = self.resources.task_data(job.payload)
        trained = yield from self._trained(job, draft, data, recipe)
        if self.execution.processes.rank:
            return
        net, head, modules, result, execution = trained
        outputs = model_outputs(net, head, data.test.pipeline, execution)
        outputs |= {
            "labels": data.test.labels.cpu(),
            "items": torch.from_numpy(data.test.pipeline.image_ids),
        }
        save_file(outputs, draft.path("outputs.safetensors"))
        if job.id in self._stored:
            states = {name: result.states[name] for name in self._stored[job.id]}
            result = result._replace(states=states)
        _write_training(draft, net, modules, data, result)
        measurements = trial_measurements(result, data, outputs["logits"])
        if choice:
            measurements.append(rate_measurement(choice))
        _write_measurements(draft, measurements)

    def _tune(self, job: Job, draft: Draft) -> Steps:
        """A training of a grid: it is evaluated on validation images alone, and kept as numbers."""
        data, recipe = self.resources.task_data(job.payload, test=False), recipe_at(job.payload)
        trained = yield from self._trained(job, draft, data, recipe, evaluated=("validation",))
        if self.execution.processes.rank:
            return
        result = trained.result
        _write_measurements(draft, tuning_measurements(result, data, recipe))

    def _choice(self, payload: Mapping[str, Any]) -> Choice | None:
        """The learning rate of a trial, from what its tuning measured; None without tuning."""
        if "tuning" not in payload:
            return None

        def value_of(job: str) -> float | None:
            rows = self.resources.store.artefact(job).json("measurements.json")
            value: float | None = next(m["value"] for m in rows if m["metric"] == BEST_METRIC)
            return value

        return choose_rate(payload["tuning"], value_of)

    def _trained(
        self,
        job: Job,
        draft: Draft,
        data: TaskData,
        recipe: Recipe,
        evaluated: Collection[str] = SPLITS,
    ) -> Generator[Request, Evaluation | None, TrainedNetwork]:
        payload, resources = job.payload, self.resources
        spec, _ = resources.backbone(payload)
        net = resources.network(payload)
        # The network is checked too, since the backbone's declaration may be wrong.
        if normalises_by_batch(net):
            refuse_smaller_batches(spec.name, recipe.batch_size, self.execution.micro_batch)
        if self.execution.processes.size > 1 and refuse_other_rounding(
            spec.name, recipe.optimizer, recipe.precision,
            by_batch=normalises_by_batch(net) and not payload.get("frozen"),
            recorded=resources.machine.accept_rounding,
        ):  # fmt: skip
            draft.facts["accepted_rounding"] = True
        with blamed(f"backbone {spec.name!r}"):
            modules = partition(spec, net)
        if job.kind != "pretrain":
            draft.facts |= self._initialize(payload, net, modules, data)
        sharded = self._shards(draft, net, recipe)
        if not sharded:
            net.to(resources.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
        head = resources.head(spec, net)
        frozen = bool(payload.get("frozen"))
        if frozen:
            freeze_body(net, modules)
        only_head = head if frozen else None
        n, side = len(data.train.pipeline), payload["image"]["size"]
        compiled = not sharded and self._compiles(draft, recipe, n, side)
        execution = replace(
            self.execution, compile=compiled, sharded=sharded,
            evaluation_batch=self._evaluation_batch(net, data),
        )  # fmt: skip
        training = Training(
            net, data, recipe, execution, spec.rate_factors,
            only_head=only_head, evaluated=evaluated,
        )  # fmt: skip
        seeds, checkpoints = payload["seeds"], payload.get("checkpoints", ())
        unfinished = self._unfinished(job, draft, compiled=compiled, sharded=sharded)
        try:
            result = yield from training.loop(
                seeds["data"], seeds["augmentation"], checkpoints, unfinished
            )
        except Exception as error:
            if not (_may_pass(error) or self.execution.processes.rank):
                unfinished.forget()
            raise
        if sharded and not self.execution.processes.rank:  # which computes alone from here on
            net = resources.network(payload)
            load_state(net, result.states["final"])
            net.to(resources.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # as above
            head = resources.head(spec, net)
        execution = training.execution
        if execution.evaluation_batch != self.execution.evaluation_batch:
            draft.facts["evaluation_batch"] = execution.evaluation_batch
        return TrainedNetwork(net, head, modules, result, execution)

    def _evaluation_batch(self, net: nn.Module, data: TaskData) -> int:
        """The images that an evaluation takes at once: more on a card, where the network is small.

        Of several processes all take what any card has memory for.
        """
        memory = card_bytes(self.resources.device)
        if memory is None or self.execution.processes.size > 1:
            return self.execution.evaluation_batch
        few = data.train.pipeline.batch(torch.zeros(2, dtype=torch.int64))
        return evaluation_batch(net, few, memory)

    def _initialize(
        self,
        payload: Mapping[str, Any],
        net: nn.Module,
        modules: Partition,
        data: TaskData,
    ) -> dict[str, str]:
        """Set the initial weights of ``net``; returns facts about those it started from."""
        planned = payload["initialization"]
        spec = same_version(self.resources.registry.initialization(planned["name"]), planned)
        images = None
        if "images" in spec.needs:
            pipeline = data.train.pipeline
            n = min(len(pipeline), INITIALIZATION_BATCH)
            images = pipeline.batch(torch.arange(n, device=self.resources.device), None).cpu()
        source_state, remark = self._source_state(payload)
        context = InitializationContext(
            source_state=source_state,
            modules=modules,
            generator=torch.Generator().manual_seed(payload["seeds"]["initialization"]),
            images=images,
        )
        with blamed(f"initialization {spec.name!r}"):
            spec.initialize(spec.parse(planned["params"]), net, context)
        return {"weights": f"{planned['weights']['tag']}: {remark}"} if remark else {}

    def _source_state(self, payload: Mapping[str, Any]) -> tuple[StateDict | None, str]:
        """The body of the source network, from the suite's pre-training or external weights.

        And a remark on how external weights were loaded.
        """
        planned = payload["initialization"]
        if "weights" in planned:
            return self.resources.external_state(payload)
        if "source" not in planned:
            return None, ""
        which = "final" if planned["checkpoint"] is None else f"epoch-{planned['checkpoint']}"
        artefact = self.resources.store.artefact(planned["source"])
        if f"{which}.safetensors" not in artefact.names:
            epochs = ", ".join(sorted(name for name in artefact.names if name.startswith("epoch-")))
            raise StoreError(
                f"the pre-training kept no checkpoint {which!r} (it has: {epochs or 'none'}); add "
                "the epoch to the source's checkpoints"
            )
        head = set(artefact.json("trial.json")["modules"][HEAD])
        state = artefact.read(f"{which}.safetensors", load_file)
        return {name: tensor for name, tensor in state.items() if name not in head}, ""

    def _load(self, job: Job, draft: Draft) -> None:
        """External weights as a source network: a final state, and a head where it is known."""
        payload, resources = job.payload, self.resources
        spec, _ = resources.backbone(payload)
        before = resources.head(spec, resources.network(payload)).state_dict()
        net, remark = resources.external_network(payload, payload["weights"])
        head = resources.head(spec, net).state_dict()
        if payload["classes"] and all(torch.equal(head[name], before[name]) for name in head):
            raise DataError(
                f"the weights {payload['weights']['tag']} of {spec.name} hold no head of"
                f" {payload['classes']} classes, as it says they do"
            )
        with blamed(f"backbone {spec.name!r}"):
            modules = partition(spec, net)
        save_file(clone_state(net), draft.path("final.safetensors"))
        draft.write_json("history.json", [])
        draft.write_json("trial.json", {
            "task": "multi-class",
            "modules": {name: list(names) for name, names in modules.items()},
            "parameters": sum(p.numel() for p in net.parameters()),
        })  # fmt: skip
        if remark:
            draft.facts["weights"] = f"{payload['weights']['tag']}: {remark}"

    # --- diagnoses ----------------------------------------------------------------------------

    def _diagnose(self, job: Job, draft: Draft) -> None:
        payload, registry = job.payload, self.resources.registry
        planned = payload["diagnostic"]
        spec = same_version(registry.diagnostic(planned["name"]), planned)
        for perturbation in planned.get("perturbations", ()):
            same_version(registry.perturbation(perturbation["name"]), perturbation)
        subjects = [FinishedTrial(self.resources, job_id) for job_id in payload["subjects"]]
        context = DiagnosticContext(
            self.resources.device,
            torch.Generator().manual_seed(payload["seed"]),
            payload["seed"],
            self.resources.memoize,
        )
        measurements = measured(spec, planned["params"], subjects, context)
        _write_measurements(draft, measurements)


def _may_pass(error: Exception) -> bool:
    """Whether an error has another cause than what a training went on from."""
    passes = isinstance(error, TransferbenchError | OSError) or is_out_of_memory(error)
    return passes or lost_another(error)


def _write_training(
    draft: Draft, net: nn.Module, modules: Partition, data: TaskData, result: TrainingResult
) -> None:
    draft.write_json("history.json", result.history)
    for name, state in result.states.items():
        save_file(state, draft.path(_state_file(name)))
    described = {
        "task": data.task,
        "metric": data.metric,
        "chance": chance_level(data.metric, data.test.labels.cpu().numpy()),
        "modules": {name: list(names) for name, names in modules.items()},
        "n_train": len(data.train.pipeline),
        "n_test": len(data.test.pipeline),
        "parameters": sum(p.numel() for p in net.parameters()),
        "best_epoch": result.best_epoch,
    }
    draft.write_json("trial.json", described)


def _state_file(name: str) -> str:
    return f"{name}.safetensors"


def _write_measurements(draft: Draft, measurements: Iterable[Measurement]) -> None:
    draft.write_json("measurements.json", [m.model_dump(mode="json") for m in measurements])


def trial_measurements(
    result: TrainingResult, data: TaskData, logits: torch.Tensor | None = None
) -> list[Measurement]:
    """The measurements of a trial itself: final and best metrics, losses and sizes.

    ``logits`` (N, K): of the test images, from which metrics other than the accuracy get the
    interval of their final value.
    """
    n_train, n_test = len(data.train.pipeline), len(data.test.pipeline)
    final = result.history[-1]
    best = next((row for row in result.history if row["epoch"] == result.best_epoch), final)
    return [
        _metric("test_metric", final, "test", n_test, data, logits),
        _loss("test_loss", final, n_test),
        _metric("train_metric", final, "train", n_train, data),
        _loss("train_loss", final, n_train),
        _metric("best_test_metric", best, "test", n_test, data),
        Measurement(metric="best_epoch", value=best["epoch"], unit="epochs", n=1),
        Measurement(metric="n_train", value=float(n_train), unit="images", n=1),
    ]


def _metric(
    name: str,
    row: Mapping[str, float | None],
    split: str,
    n: int,
    data: TaskData,
    logits: torch.Tensor | None = None,
) -> Measurement:
    value, flag = row[f"{split}_metric"], None
    if row[f"{split}_loss"] is None:
        # Accuracy still has a value: the first of NaN logits counts as the largest.
        flag = DIVERGED
    elif value is None:
        flag = UNDEFINED
    counts_images = data.task == "multi-class" and data.metric == "accuracy"
    interval = None
    if counts_images and value is not None:
        interval = exact_share(round(value * n), n)
    elif logits is not None and value is not None:
        interval = metric_interval(data.metric, logits.numpy(), data.test.labels.cpu().numpy())
    bounds = interval.fields() if interval else {}
    return Measurement(metric=name, value=value, unit="fraction", n=n, flag=flag, **bounds)


def _loss(name: str, row: Mapping[str, float | None], n: int) -> Measurement:
    flag = DIVERGED if row[name] is None else None
    return Measurement(metric=name, value=row[name], unit="nats", n=n, flag=flag)
