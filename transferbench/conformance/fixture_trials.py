"""Small finished trials for diagnostics: pre-trained and trained by the engine, once per process.

Each network of the kit is pre-trained on one synthetic task and fine-tuned on the other: P, two
replicates of P-T and two of RI-T, and a trial that diverges; the same on a target with several
labels an image. The store is temporary.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transferbench.conformance.fixtures import (
    COPIED,
    DATASET,
    DRAWN,
    NETWORKS,
    SEVERAL,
    SIZE,
    UNPERTURBED,
)
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.engine.jobs import Engine, single_threaded
from transferbench.engine.resources import Machine, WorkerResources
from transferbench.plan import Entry, Plan, plan_resolved
from transferbench.plan.resolve import resolve_suite
from transferbench.registry import Registry, identity
from transferbench.registry.discovery import SPECS, Discovery, Offer, Origin, discover
from transferbench.runner.datasets import count_copies, facts_of, prepare_datasets
from transferbench.runner.options import Options
from transferbench.specs import DiagnosticSpec, NoParams, Spec
from transferbench.store import Store
from transferbench.suite import Diagnosis, Suite, TrialGrid

__all__ = ["Trials", "finished_trials", "fixture_plan"]

USES: dict[str, dict[str, Any]] = {
    "one": {},
    "pair": {
        "pairs": [
            {"a": "P-T", "b": "P-T", "replicates": "different"},
            {"a": "RI-T", "b": "RI-T", "replicates": "different"},
            {"a": "P-T", "b": "RI-T", "replicates": "same"},
            {"a": "RI-T", "b": "P-T", "replicates": "same", "references": ["RI-T"]},
            {"a": "P-T", "b": "P", "replicates": "same"},
        ],
    },
    "group": {"groups": [["P-T", "RI-T"]]},
}
"""The trials that a diagnostic measures in the suite, by its ``subjects``."""
ORIGIN = Origin("conformance", "transferbench", "", "transferbench.conformance")

SUITE = Suite.model_validate({
    "name": "conformance",
    "version": "1.0",
    "summary": "Trials for the checks of diagnostics.",
    "backbones": [spec.name for spec in NETWORKS.values()],
    "image": {"size": SIZE, "channels": 1, "mean": [0.5], "std": [0.25]},
    "sources": {
        "source": {
            "dataset": {"name": DATASET.name, "params": {"period": 8}},
            "recipe": "short", "checkpoints": [0, 1],
        },
    },
    "targets": {
        "target": {"dataset": {"name": DATASET.name}, "validation": 0.2},
        "several": {"dataset": {"name": SEVERAL.name}, "validation": 0.2},
    },
    "perturbations": {"none": {"name": UNPERTURBED.name}},
    "recipes": {
        "short": {
            "optimizer": "adamw", "learning_rate": 0.003, "epochs": 3, "batch_size": 16,
            "evaluate_test": "every",
        },
        "diverging": {
            "optimizer": "sgd", "learning_rate": 1e18, "epochs": 2, "batch_size": 16,
        },
    },
    "initializations": {
        "P-T": {"name": COPIED.name, "recipe": "short"},
        "RI-T": {"name": DRAWN.name, "recipe": "short"},
        "diverged": {"name": DRAWN.name, "recipe": "diverging"},
    },
    "replicates": 2,
    "trials": [{}],
    "diagnostics": {},
    "scoring": {
        "initialization": "P-T", "baseline": "RI-T", "perturbation": "none",
        "chance": {"target": 0.25, "several": 0.5}, "reference": {"target": 1.0, "several": 1.0},
    },
})  # fmt: skip


class Trials(NamedTuple):
    """The finished trainings of a network: the source network and two trials per initialization.

    ``diverged``: from random weights at a learning rate at which every network diverges.
    """

    source: FinishedTrial
    pretrained: tuple[FinishedTrial, ...]
    random: tuple[FinishedTrial, ...]
    diverged: FinishedTrial


@cache
def finished_trials(
    network: str, device: str, target: Literal["target", "several"] = "target"
) -> Trials:
    """The trials of the network described as ``network`` in ``fixtures.NETWORKS``."""
    resources = _resources(device)
    planned = _plan(resources, network, target, SUITE, resources.registry)
    engine = Engine(resources)
    with single_threaded():  # results must not depend on the number of cores
        for job in planned.jobs.values():
            engine(job)

    def of(arm: str) -> tuple[FinishedTrial, ...]:
        return tuple(FinishedTrial(resources, cell.job) for cell in planned.cells
                     if cell.initialization == arm)  # fmt: skip

    (source,) = planned.of_kind("pretrain")
    return Trials(FinishedTrial(resources, source.id), of("P-T"), of("RI-T"), of("diverged")[0])


def fixture_plan(spec: DiagnosticSpec, params: Any, device: str) -> tuple[Plan, WorkerResources]:
    """A run of the first network with the diagnostic under check, which has not measured yet."""
    network = next(iter(NETWORKS))
    finished_trials(network, device)
    use = {"name": spec.name, "params": identity(spec, params)["params"], **USES[spec.subjects]}
    suite = SUITE.model_copy(update={"diagnostics": {"checked": Diagnosis.model_validate(use)}})
    resources = _resources(device)
    return _plan(resources, network, "target", suite, _registry(spec)), resources


@cache
def _resources(device: str) -> WorkerResources:
    store = Store(Path(tempfile.mkdtemp(prefix="transferbench-conformance-")))
    atexit.register(shutil.rmtree, store.root, ignore_errors=True)
    store.prepare()
    machine = Machine(store.root, store.datasets, None, device)
    return WorkerResources(_registry(), store, machine)


def _registry(*checked: DiagnosticSpec) -> Registry:
    """The installed plugins, since a diagnostic may use perturbations, and the kit's own.

    ``checked``: a diagnostic that replaces an installed one of its name.
    """
    installed = discover((), {})
    own: list[Spec] = [DATASET, SEVERAL, UNPERTURBED, COPIED, DRAWN, *NETWORKS.values(), *checked]
    offers = [Offer(kind, spec, ORIGIN) for kind, of in SPECS.items() for spec in own
              if isinstance(spec, of)]  # fmt: skip
    replaced = {(offer.kind, offer.spec.name) for offer in offers}
    others = [offer for offer in installed.offers if (offer.kind, offer.spec.name) not in replaced]
    return Registry(Discovery((*others, *offers), installed.problems, installed.files))


def _plan(
    resources: WorkerResources, network: str, target: str, suite: Suite, registry: Registry
) -> Plan:
    spec = NETWORKS[network]
    entry = Entry(spec.name, identity(spec, NoParams()), spec.license, spec.source)
    suite = suite.model_copy(update={"trials": (TrialGrid(targets=(target,)),)})
    resolved = resolve_suite(suite, registry)
    datasets = prepare_datasets(resolved, resources.store, Options(), registry)
    facts = facts_of(resolved, datasets, count_copies(datasets.values()))
    return plan_resolved(resolved, [entry], facts)
