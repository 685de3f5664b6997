"""Small finished trials for diagnostics: pre-trained and trained by the engine, once a process.

Each network of the kit is pre-trained on one drawn task and fine-tuned on the other: P, two
replicates of P-T and two of RI-T, in a store that goes when the process does. Beside them one that
diverged, and the same on a target with several labels an image.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transferbench.conformance.fixtures import (
    DATASET,
    INITIALIZATIONS,
    NETWORKS,
    SEVERAL,
    SIZE,
    UNPERTURBED,
)
from transferbench.data.cache import prepare
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.engine.jobs import Engine, threads_of_a_worker
from transferbench.engine.resources import Machine, Workbench
from transferbench.plan import DatasetFacts, Entry, Plan, make_plan
from transferbench.registry import Registry, identity
from transferbench.registry.discovery import SPECS, Discovery, Offer, Origin, discover
from transferbench.specs import DatasetSpec, NoParams, Spec
from transferbench.store import Store
from transferbench.suite import Suite, TrialGrid

__all__ = ["Trials", "finished_trials"]

ORIGIN = Origin("conformance", "transferbench", "", "transferbench.conformance")

SUITE = Suite.model_validate({
    "name": "conformance",
    "version": "1.0",
    "summary": "Trials that a diagnostic is tried on.",
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
        "P-T": {"name": INITIALIZATIONS[0].name, "recipe": "short"},
        "RI-T": {"name": INITIALIZATIONS[1].name, "recipe": "short"},
        "diverged": {"name": INITIALIZATIONS[1].name, "recipe": "diverging"},
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
    """What one network's trainings left: the source network, two trials from each start.

    ``diverged``: from a random start at a learning rate that no network survives.
    """

    source: FinishedTrial
    pretrained: tuple[FinishedTrial, ...]
    random: tuple[FinishedTrial, ...]
    diverged: FinishedTrial


@cache
def finished_trials(
    network: str, device: str, target: Literal["target", "several"] = "target"
) -> Trials:
    """The trials of the network called ``network`` in ``stand_ins.NETWORKS``."""
    bench, planned = _bench(device), _plan(device, network, target)
    engine = Engine(bench)
    with threads_of_a_worker():  # what is checked must not depend on how many cores there are
        for job in planned.jobs.values():
            engine.run(job)

    def of(arm: str) -> tuple[FinishedTrial, ...]:
        return tuple(FinishedTrial(bench, cell.job) for cell in planned.cells
                     if cell.initialization == arm)  # fmt: skip

    (source,) = planned.of_kind("pretrain")
    return Trials(FinishedTrial(bench, source.id), of("P-T"), of("RI-T"), of("diverged")[0])


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="transferbench-conformance-")


@cache
def _bench(device: str) -> Workbench:
    store = Store(Path(_folder().name) / device)
    store.prepare()
    machine = Machine(store.root, store.root / "datasets", None, device)
    return Workbench(_registry(), store, machine)


@cache
def _registry() -> Registry:
    """What is installed, since a diagnostic may ask for perturbations, and the kit's own."""
    found = discover((), {})
    own: list[Spec] = [DATASET, SEVERAL, UNPERTURBED, *INITIALIZATIONS, *NETWORKS.values()]
    offers = [Offer(kind, spec, ORIGIN) for kind, of in SPECS.items() for spec in own
              if isinstance(spec, of)]  # fmt: skip
    return Registry(Discovery((*found.offers, *offers), found.problems, found.files))


def _plan(device: str, network: str, target: str) -> Plan:
    spec = NETWORKS[network]
    entry = Entry(spec.name, identity(spec, NoParams()), spec.license, spec.source)
    suite = SUITE.model_copy(update={"trials": (TrialGrid(targets=(target,)),)})
    facts = {
        "source:source": _facts(device, DATASET, SUITE.sources["source"].dataset.params),
        "target:target": _facts(device, DATASET, {}),
        "target:several": _facts(device, SEVERAL, {}),
    }
    return make_plan(suite, [entry], _registry(), facts)


def _facts(device: str, spec: DatasetSpec, params: dict[str, Any]) -> DatasetFacts:
    found = prepare(spec, params, image_size=SIZE, channels=1,
                    cache=_bench(device).machine.cache, data_root=None)  # fmt: skip
    train, test = found.splits["train"], found.splits["test"]
    return DatasetFacts(found.fingerprint, len(found.classes), found.task, found.metric,
                        len(train.labels), len(test.labels))  # fmt: skip
