"""A suite times its entries: the graph of jobs to run, each with the id of what it computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from transferbench.errors import SuiteError
from transferbench.identity import derive_seed, digest
from transferbench.plan.external_weights import left_out_arms
from transferbench.registry import Registry, blamed, identity
from transferbench.specs import ImageShape, InitializationSpec, Preprocessing, Weights
from transferbench.suite import (
    SOURCE,
    Diagnosis,
    Grid,
    Image,
    InitializationUse,
    Pairing,
    Recipe,
    Source,
    Suite,
    Target,
)

__all__ = [
    "ENGINE_VERSION",
    "Cell",
    "DatasetFacts",
    "Entry",
    "Job",
    "Measured",
    "Plan",
    "Work",
    "job_id",
    "make_plan",
]

ENGINE_VERSION = 1
"""Part of every id: bumped when the same payload would give other numbers."""

Kind = Literal["pretrain", "trial", "diagnosis"]


class DatasetFacts(NamedTuple):
    """What a plan needs to know of a decoded dataset."""

    fingerprint: str
    classes: int
    task: str
    metric: str
    train_size: int
    test_size: int


@dataclass(frozen=True)
class Entry:
    """What a suite compares: a backbone with its weights (None: pre-trained by the suite)."""

    name: str
    backbone: dict[str, Any]
    license: str
    source: str
    weights: Weights | None = None
    preprocessing: Preprocessing | None = None


class Work(NamedTuple):
    """How much a job computes, in images: forward and backward, and forward alone."""

    trained: float
    evaluated: float


Together: TypeAlias = tuple[list[tuple[str, int | None]], int]
"""Arms and replicates that are measured together, and how many of them there must be."""


class Job(NamedTuple):
    """One node of the plan. ``payload`` is all that can move its numbers; its hash is ``id``."""

    id: str
    kind: Kind
    payload: dict[str, Any]
    requires: tuple[str, ...]
    title: str
    work: Work


class Cell(NamedTuple):
    """A place in the suite's grid, and the trial that fills it."""

    job: str
    entry: str
    target: str
    perturbation: str
    initialization: str
    replicate: int


class Measured(NamedTuple):
    """A diagnosis of one cell, or of two, under its label in the suite."""

    job: str
    diagnostic: str
    a: Cell
    b: Cell | None


@dataclass
class Plan:
    """The graph of jobs; shared work stands in it once, however many cells need it."""

    suite: Suite
    entries: tuple[Entry, ...]
    jobs: dict[str, Job] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)

    def of_kind(self, kind: Kind) -> list[Job]:
        """The jobs of one kind, in the order they were planned."""
        return [job for job in self.jobs.values() if job.kind == kind]


def job_id(kind: str, payload: Mapping[str, Any]) -> str:
    """The id of a job: the sha256 of the canonical JSON of its kind and payload."""
    return digest({"kind": kind, "payload": dict(payload)})


def make_plan(
    suite: Suite, entries: Sequence[Entry], registry: Registry, facts: Mapping[str, DatasetFacts]
) -> Plan:
    """Every job that ``suite`` asks of ``entries``, without arms that their weights cannot start.

    ``facts`` describe the decoded datasets under ``source:LABEL`` and ``target:LABEL``.
    """
    return _Planner(suite, registry, facts).plan(entries)


class _Planner:
    """Builds one plan; holds what every job of it shares."""

    def __init__(self, suite: Suite, registry: Registry, facts: Mapping[str, DatasetFacts]) -> None:
        self.suite = suite
        self.registry = registry
        self.facts = facts
        image = suite.image
        self.shape: ImageShape = (image.size, image.size, image.channels)

    def plan(self, entries: Sequence[Entry]) -> Plan:
        plan = Plan(self.suite, tuple(entries))
        for entry in entries:
            left_out = left_out_arms(self.suite, entry.weights, self.registry)
            for (target, perturbation, arm), kept in self._grid().items():
                if arm in left_out:
                    continue
                for replicate in range(self.suite.replicates):
                    job = self._trial(plan, entry, target, perturbation, arm, replicate, kept)
                    plan.cells.append(
                        Cell(job.id, entry.name, target, perturbation, arm, replicate)
                    )
            self._diagnoses(plan, entry)
        return plan

    def _grid(self) -> dict[tuple[str, str, str], set[int]]:
        """The cells of all grids of the suite in its order, and the epochs to keep of each."""
        found: dict[tuple[str, str, str], set[int]] = {}
        for grid in self.suite.trials:
            for cell in self._cells(grid):
                found.setdefault(cell, set()).update(grid.checkpoints)
        return found

    def _cells(self, grid: Grid) -> Iterator[tuple[str, str, str]]:
        for target in _chosen(grid.targets, self.suite.targets):
            for perturbation in _chosen(grid.perturbations, self.suite.perturbations):
                for arm in _chosen(grid.initializations, self.suite.initializations):
                    yield target, perturbation, arm

    # --- pre-training -------------------------------------------------------------------------

    def _pretraining(self, plan: Plan, entry: Entry, label: str) -> Job:
        source: Source = self.suite.sources[label]
        recipe = self.suite.recipes[source.recipe]
        facts = self.facts[f"source:{label}"]
        payload = self._training(entry, source.dataset.name, source.dataset.params, facts, recipe)
        payload |= {
            "selection": {"validation": source.validation, "seed": _seed("selection", "source")},
            "shuffle_labels": source.shuffle_labels,
            "checkpoints": sorted({t for t in source.checkpoints if t <= recipe.epochs}),
            "seeds": _seeds("source"),
        }
        n_train = facts.train_size * (1 - source.validation)
        work = _work(recipe, n_train, facts.test_size)
        return _add(plan, "pretrain", payload, (), f"pre-train {entry.name} on {label}", work)

    def _training(
        self,
        entry: Entry,
        dataset: str,
        params: Mapping[str, Any],
        facts: DatasetFacts,
        recipe: Recipe,
    ) -> dict[str, Any]:
        """What the payloads of pre-trainings and trials have in common."""
        spec = self.registry.dataset(dataset)
        image = self.suite.image
        mean, std = _constants(entry.preprocessing or image, image.channels)
        return {
            "engine": ENGINE_VERSION,
            "backbone": entry.backbone,
            "dataset": identity(spec, spec.parse(params))
            | {
                "fingerprint": facts.fingerprint,
                "classes": facts.classes,
                "task": facts.task,
                "metric": facts.metric,
            },
            "image": {
                "size": image.size,
                "channels": image.channels,
                "mean": mean,
                "std": std,
            },
            "recipe": recipe.model_dump(mode="json", exclude={"tuned_over"}),
        }

    # --- trials -------------------------------------------------------------------------------

    def _trial(
        self,
        plan: Plan,
        entry: Entry,
        target: str,
        perturbation: str,
        arm: str,
        replicate: int,
        kept: Iterable[int],
    ) -> Job:
        use = self.suite.initializations[arm]
        aim: Target = self.suite.targets[target]
        facts = self.facts[f"target:{target}"]
        recipe = self.suite.recipes[use.recipes.get(target, use.recipe)]
        initialization, requires = self._initialization(plan, entry, use)
        seeds = _seeds(replicate) | _drawn(self.registry.initialization(use.name), replicate)
        payload = self._training(entry, aim.dataset.name, aim.dataset.params, facts, recipe)
        payload |= {
            "selection": {
                "labels_per_class": aim.labels_per_class,
                "validation": aim.validation,
                "validation_limit": aim.validation_limit,
                "test_limit": aim.test_limit,
                "seed": _seed("selection", replicate),
            },
            "shuffle_labels": aim.shuffle_labels,
            "perturbation": self._perturbation(perturbation, replicate),
            "initialization": initialization,
            "frozen": use.frozen,
            "checkpoints": sorted(t for t in kept if t <= recipe.epochs),
            "seeds": seeds,
        }
        title = f"{arm} of {entry.name} on {target}, {perturbation}, replicate {replicate}"
        work = _work(recipe, _budget(aim, facts), self._test_size(target))
        return _add(plan, "trial", payload, requires, title, work)

    def _test_size(self, target: str) -> int:
        size = self.facts[f"target:{target}"].test_size
        return min(size, self.suite.targets[target].test_limit or size)

    def _initialization(
        self, plan: Plan, entry: Entry, use: InitializationUse
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        spec = self.registry.initialization(use.name)
        params = spec.parse(use.params)
        described: dict[str, Any] = identity(spec, params)
        if "source_weights" not in spec.needs:
            return described, ()
        with blamed(f"initialization {spec.name!r}"):
            checkpoint = spec.checkpoint(params)
        if entry.weights is not None:
            if checkpoint is not None:
                raise SuiteError(
                    f"{use.name} asks for pre-training checkpoint {checkpoint}, but the external "
                    f"weights of {entry.name} have only their final state; use --weights suite"
                )
            given = entry.weights
            return described | {"weights": {"tag": given.tag, "sha256": given.sha256}}, ()
        source = self._pretraining(plan, entry, use.source)
        return described | {"source": source.id, "checkpoint": checkpoint}, (source.id,)

    def _perturbation(self, label: str, replicate: int) -> dict[str, Any] | None:
        """What an id says of a perturbation: nothing where it is the identity."""
        use = self.suite.perturbations[label]
        spec = self.registry.perturbation(use.name)
        params = spec.parse(use.params)
        with blamed(f"perturbation {spec.name!r}"):
            unchanged = spec.severity(params, self.shape) == 0
        if unchanged:
            return None
        return identity(spec, params) | {
            "apply": use.apply,
            "seed": _seed("perturbation", replicate),
        }

    # --- diagnoses ----------------------------------------------------------------------------

    def _diagnoses(self, plan: Plan, entry: Entry) -> None:
        cells = {cell[1:]: cell for cell in plan.cells if cell.entry == entry.name}
        cells |= {cell[1:]: cell for cell in self._source_cells(plan, entry, cells)}
        for label, diagnosis in self.suite.diagnostics.items():
            for target, perturbation in _places(cells.values(), diagnosis.on):
                place = (entry.name, target, perturbation)
                for group in self._groups(cells, place, diagnosis):
                    self._diagnosis(plan, label, diagnosis, group)

    def _source_cells(
        self, plan: Plan, entry: Entry, cells: Mapping[tuple[Any, ...], Cell]
    ) -> list[Cell]:
        """P itself beside every trial, where the suite pre-trained it."""
        use = self.suite.initializations[self.suite.scoring.initialization]
        needs = self.registry.initialization(use.name).needs
        if entry.weights is not None or "source_weights" not in needs:
            return []
        job = self._pretraining(plan, entry, use.source).id
        places = {(cell.target, cell.perturbation, cell.replicate) for cell in cells.values()}
        return [
            Cell(job, entry.name, target, perturbation, SOURCE, k)
            for target, perturbation, k in sorted(places)
        ]

    def _groups(
        self,
        cells: Mapping[tuple[Any, ...], Cell],
        place: tuple[str, str, str],
        diagnosis: Diagnosis,
    ) -> Iterator[list[Cell]]:
        """The cells measured together: one, two and their references, or the arms of a group."""
        subjects = self.registry.diagnostic(diagnosis.name).subjects
        together = {"one": self._singles, "pair": self._couples, "group": self._gatherings}
        for members, needed in together[subjects](diagnosis):
            keys = [(*place, arm, k) for arm, k in members]
            if all(key in cells for key in keys[:needed]):
                yield [cells[key] for key in keys if key in cells]

    def _singles(self, diagnosis: Diagnosis) -> Iterator[Together]:
        for arm in _chosen(diagnosis.of, self.suite.initializations):
            for k in range(1 if arm == SOURCE else self.suite.replicates):
                yield [(arm, k)], 1

    def _couples(self, diagnosis: Diagnosis) -> Iterator[Together]:
        n = self.suite.replicates
        for pairing in diagnosis.pairs:
            for i, j in _pairs(pairing, n):
                others = [(arm, _other(i, j, n)) for arm in pairing.references]
                yield [(pairing.a, i), (pairing.b, j), *others], 2

    def _gatherings(self, diagnosis: Diagnosis) -> Iterator[Together]:
        for arms in diagnosis.groups:
            for k in range(self.suite.replicates):
                yield [(arm, k) for arm in arms], len(arms)

    def _diagnosis(
        self, plan: Plan, label: str, diagnosis: Diagnosis, group: Sequence[Cell]
    ) -> None:
        spec = self.registry.diagnostic(diagnosis.name)
        params = spec.parse(diagnosis.params)
        subjects = [cell.job for cell in group]
        payload = {
            "engine": ENGINE_VERSION,
            "diagnostic": identity(spec, params),
            "subjects": subjects,
            "seed": derive_seed("diagnostic", {"subjects": subjects, "name": spec.name}),
        }
        size = self._test_size(group[0].target)
        with blamed(f"diagnostic {spec.name!r}"):
            work = Work(0, spec.cost(params) * min(size, spec.limit(params) or size))
        title = f"{label} of {' and '.join(plan.jobs[job].title for job in subjects[:2])}"
        job = _add(plan, "diagnosis", payload, tuple(dict.fromkeys(subjects)), title, work)
        b = group[1] if spec.subjects == "pair" else None
        plan.measured.append(Measured(job.id, label, group[0], b))


def _add(
    plan: Plan,
    kind: Kind,
    payload: dict[str, Any],
    requires: tuple[str, ...],
    title: str,
    work: Work,
) -> Job:
    job = Job(job_id(kind, payload), kind, payload, requires, title, work)
    return plan.jobs.setdefault(job.id, job)


def _chosen(wanted: tuple[str, ...] | None, known: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(known) if wanted is None else wanted


def _places(cells: Any, on: Grid) -> list[tuple[str, str]]:
    """The (target, perturbation) places of ``cells`` that ``on`` allows, each once."""
    return list(
        dict.fromkeys(
            (cell.target, cell.perturbation)
            for cell in cells
            if (on.targets is None or cell.target in on.targets)
            and (on.perturbations is None or cell.perturbation in on.perturbations)
        )
    )


def _pairs(pairing: Pairing, n: int) -> list[tuple[int, int]]:
    if pairing.replicates == "same":
        return [(k, k) for k in range(n)]
    if pairing.replicates == "next":
        return [(k, (k + 1) % n) for k in range(n if n > 1 else 0)]
    ordered = pairing.a != pairing.b
    return [(i, j) for i in range(n) for j in range(n) if i < j or (ordered and i != j)]


def _other(i: int, j: int, n: int) -> int | None:
    """The next replicate, counting round, that is neither i nor j; None where there is none."""
    return next((k % n for k in range(j + 1, j + 1 + n) if k % n not in {i, j}), None)


def _seed(purpose: str, replicate: int | str) -> int:
    # The replicate is the only axis: at replicate k every backbone and every arm sees the same
    # draws, which is what makes their differences paired.
    return derive_seed(purpose, {"replicate": replicate})


def _drawn(spec: InitializationSpec, replicate: int) -> dict[str, int]:
    """The seed of the network's random draw, where it is not the replicate's own."""
    seeds = {
        "shared": _seed("init", "shared"),
        "second": _seed("second-init", replicate),
    }
    return {"init": seeds[spec.draw]} if spec.draw in seeds else {}


def _seeds(replicate: int | str) -> dict[str, int]:
    purposes = ("init", "head", "data", "augmentation", "initialization", "labels")
    return {purpose: _seed(purpose, replicate) for purpose in purposes}


def _budget(target: Target, facts: DatasetFacts) -> float:
    """How many images a trial trains on."""
    if target.labels_per_class is not None:
        return target.labels_per_class * facts.classes
    return facts.train_size * (1 - target.validation)


def _constants(wanted: Preprocessing | Image, channels: int) -> tuple[list[float], list[float]]:
    """Mean and std, one a channel; for grey images the average of a colour backbone's three."""
    mean, std = list(wanted.mean), list(wanted.std)
    if channels == 1 and len(mean) > 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    return mean, std


def _work(recipe: Recipe, n_train: float, n_test: float) -> Work:
    evaluations = {"every": recipe.epochs + 1.0, "sparse": 8.0, "last": 1.0}
    evaluated = (
        evaluations[recipe.evaluate_train] * n_train + evaluations[recipe.evaluate_test] * n_test
    )
    return Work(recipe.epochs * n_train, evaluated)
