"""The graph of jobs that a suite asks for of its entries, each with the id of what it computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from transferbench.errors import SuiteError
from transferbench.plan.jobs import (
    ENGINE_VERSION,
    DatasetFacts,
    DiagnosisCell,
    Entry,
    Job,
    JobKind,
    Plan,
    TrialCell,
    Work,
    job_id,
)
from transferbench.plan.pairs import paired_replicates, reference_of
from transferbench.plan.resolve import (
    PluginIdentity,
    ResolvedSuite,
    resolve_suite,
    unmeasured_of_source,
    unstartable_arms,
)
from transferbench.plan.seeds import SOURCE_RUN, Seeds
from transferbench.plan.tuning import required_jobs
from transferbench.registry import Registry
from transferbench.specs import Preprocessing, Weights
from transferbench.suite import (
    SOURCE,
    WHOLE_IMAGES,
    Augmentation,
    Image,
    Pairing,
    Recipe,
    Suite,
    Target,
)

__all__ = ["make_plan", "plan_resolved"]

SELECTION = {"labels_per_class", "validation", "validation_limit", "test_limit", "stratify"}
"""The fields of a target that decide which of its images a trial sees."""

TunedRate: TypeAlias = dict[str, Any]
"""A learning rate and the ids of the ``jobs`` that try it, as the payload of a trial."""

Members: TypeAlias = tuple[list[tuple[str, int | None]], int]
"""Arms and replicates that are measured together, and how many of them must be there."""


def make_plan(
    suite: Suite, entries: Sequence[Entry], registry: Registry, facts: Mapping[str, DatasetFacts]
) -> Plan:
    """Every job that ``suite`` asks of ``entries``, without arms that their weights cannot start.

    ``facts`` describe the decoded datasets under ``source:LABEL`` and ``target:LABEL``.
    """
    return plan_resolved(resolve_suite(suite, registry, facts), entries, facts)


def plan_resolved(
    resolved: ResolvedSuite,
    entries: Sequence[Entry],
    facts: Mapping[str, DatasetFacts],
    engine: int = ENGINE_VERSION,
) -> Plan:
    """As ``make_plan``, of a suite whose plugins are resolved, and in a version of the engine."""
    unstartable = unstartable_arms(resolved.suite, resolved.arms)
    left_out = {entry.name: unstartable if entry.weights else {} for entry in entries}
    needs = {label: use.needs_of_source for label, use in resolved.diagnoses.items()}
    unmeasured = {
        entry.name: unmeasured_of_source(resolved.suite, entry.weights, needs)
        if entry.weights
        else {}
        for entry in entries
    }
    networks = {entry.name: _several_networks(resolved, entry) for entry in entries}
    scored = resolved.arms[resolved.suite.scoring.initialization]
    arms = resolved.arms | {SOURCE: scored}
    sourced = {label for label, arm in arms.items() if arm.needs_source}
    single_source = {
        name: frozenset(sourced - several.keys()) for name, several in networks.items()
    }
    plan = Plan(resolved.suite, tuple(entries), left_out, unmeasured, networks, single_source)
    planner = _Planner(plan, resolved, facts, engine)
    for entry in entries:
        planner.add(entry)
    return plan


def _several_networks(resolved: ResolvedSuite, entry: Entry) -> dict[str, int]:
    """The arms of an entry whose replicates start from several networks, and how many."""
    scored = resolved.arms[resolved.suite.scoring.initialization]
    arms = resolved.arms | ({SOURCE: scored} if scored.needs_source else {})
    return {
        label: arm.networks
        for label, arm in arms.items()
        # External weights are one network.
        if arm.networks > 1 and not (entry.weights and arm.needs_source)
    }


class _Planner:
    """Adds the jobs of entries to one plan."""

    def __init__(
        self, plan: Plan, resolved: ResolvedSuite, facts: Mapping[str, DatasetFacts], engine: int
    ) -> None:
        self.plan = plan
        self.engine = engine
        self.suite = plan.suite
        self.resolved = resolved
        self.facts = facts
        self.seeds = Seeds(plan.suite.draw)
        self.cells = plan.suite.cells()
        self.sources: dict[tuple[str, str, int], Job] = {}
        self.tunings: dict[tuple[str, str, str], list[TunedRate]] = {}

    def add(self, entry: Entry) -> None:
        """The entry's trainings, then its diagnoses."""
        started = {axes: epochs for axes, epochs in self.cells.items()
                   if axes[-1] not in self.plan.left_out[entry.name]}  # fmt: skip
        # First, since all trials of an arm wait for its rate.
        for target, _, arm in started:
            self._tuning(entry, target, arm)
        cells = [
            self._trial(entry, axes, replicate, epochs)
            for axes, epochs in started.items()
            for replicate in range(self.suite.replicates_in(*axes))
        ]
        self.plan.cells += cells
        sources = self._source_cells(entry, cells)
        self._add_diagnoses(entry, cells + sources)
        required = {need for job in self.plan.jobs.values() for need in job.requires}
        for job in {cell.job for cell in sources} - required:
            del self.plan.jobs[job]  # external weights of which nothing is measured

    # --- pre-training -------------------------------------------------------------------------

    def _pretraining(self, entry: Entry, label: str, replicate: int) -> Job:
        """The training of the source network that a replicate starts from."""
        source = self.suite.sources.get(label)
        if source is None:
            raise SuiteError(
                f"{self.suite.id} has no source to pre-train {entry.name} on; give its weights with"
                " --weights TAG|FILE"
            )
        network = replicate % source.networks
        if job := self.sources.get((entry.name, label, network)):
            return job
        recipe = self.suite.recipes[source.recipe]
        facts = self.facts[f"source:{label}"]
        seed = self.seeds.seed("selection", SOURCE_RUN, network)
        payload = self._training(entry, f"source:{label}", recipe)
        payload |= {
            "selection": {"validation": source.validation, "seed": seed}
            | _copies(facts, source.validation),
            "shuffle_labels": source.shuffle_labels,
            "checkpoints": sorted({t for t in source.checkpoints if t <= recipe.epochs}),
            "seeds": self.seeds.pretraining(network),
        }
        work = _work(recipe, facts.train_size * (1 - source.validation), facts.test_size)
        title = f"pre-train {entry.name} on {label}"
        title += f", network {network}" if source.networks > 1 else ""
        job = self._job("pretrain", payload, title, work)
        self.sources[entry.name, label, network] = job
        return job

    def _training(self, entry: Entry, dataset: str, recipe: Recipe) -> dict[str, Any]:
        """What the payloads of pre-trainings and trials have in common."""
        facts, image = self.facts[dataset], self.suite.image_of(dataset)
        target = self.suite.targets.get(dataset.removeprefix("target:"))
        mean, std = _constants(entry.preprocessing or image, image.channels)
        content = {
            name: getattr(facts, name) for name in ("fingerprint", "classes", "task", "metric")
        }
        if target is not None and target.metric is not None:
            content["metric"] = target.metric
        return {
            "engine": self.engine,
            "backbone": entry.backbone,
            "dataset": self.resolved.datasets[dataset].identity | content,
            "image": image.model_dump(mode="json") | {"mean": mean, "std": std},
            "recipe": recipe.model_dump(mode="json", exclude={"tuned_over", "tune"}),
        }

    # --- tuning -------------------------------------------------------------------------------

    def _tuning(self, entry: Entry, label: str, arm: str) -> list[TunedRate]:
        """Each rate of the arm's grid on a target, with the jobs that try it; none without one."""
        arm = self.suite.initializations[arm].rate_of or arm
        recipe = self.suite.recipes[self.suite.initializations[arm].recipe_on(label)]
        key = entry.name, label, arm
        if recipe.tune is not None and key not in self.tunings:
            self.tunings[key] = [
                {
                    "learning_rate": rate,
                    "jobs": [
                        self._tuning_job(entry, label, arm, recipe, rate, r)
                        for r in range(recipe.tune.replicates)
                    ],
                }
                for rate in sorted(recipe.tune.learning_rate)
            ]
        return self.tunings.get(key, [])

    def _tuning_job(
        self, entry: Entry, label: str, arm: str, recipe: Recipe, rate: float, replicate: int
    ) -> str:
        """A training at one rate, without perturbation and without test images."""
        target, facts = self.suite.targets[label], self.facts[f"target:{label}"]
        initialization, start = self._initialization(entry, arm, replicate), self.resolved.arms[arm]
        payload = self._training(entry, f"target:{label}", recipe)
        # Train images are not evaluated, so how often they would be moves no number.
        del payload["recipe"]["evaluate_train"]
        payload["recipe"]["learning_rate"] = rate
        draws = f"tuning-{replicate}"
        payload |= {
            "selection": target.model_dump(include=SELECTION - {"test_limit"})
            | {"seed": self.seeds.seed("selection", draws)}
            | _copies(facts, target.validation),
            "shuffle_labels": target.shuffle_labels,
            "initialization": initialization,
            "frozen": self.suite.initializations[arm].frozen,
            "seeds": self.seeds.training(draws, start.draw, replicate % start.networks),
        }
        title = f"{arm} of {entry.name} on {label} at rate {rate:g}, tuning replicate {replicate}"
        held_out = facts.train_size * target.validation
        evaluated = _passes(recipe, "evaluate_test") * min(
            held_out, target.validation_limit or held_out
        )
        work = Work(recipe.epochs * _train_size(target, facts), evaluated)
        job = self._job("tuning", payload, title, work)
        self.plan.tuned.append(TrialCell(job.id, entry.name, label, WHOLE_IMAGES, arm, replicate))
        return job.id

    # --- trials -------------------------------------------------------------------------------

    def _trial(
        self, entry: Entry, axes: tuple[str, str, str], replicate: int, epochs: Iterable[int]
    ) -> TrialCell:
        label, perturbation, arm = axes
        use = self.suite.initializations[arm]
        target = self.suite.targets[label]
        recipe = self.suite.recipes[use.recipe_on(label)]
        initialization = self._initialization(entry, arm, replicate)
        start = self.resolved.arms[arm]
        payload = self._training(entry, f"target:{label}", recipe)
        payload |= {
            "selection": target.model_dump(include=SELECTION)
            | {"seed": self.seeds.seed("selection", replicate)}
            | _copies(self.facts[f"target:{label}"], target.validation),
            "shuffle_labels": target.shuffle_labels,
            "perturbation": self._perturbation(perturbation, replicate),
            "initialization": initialization,
            "frozen": use.frozen,
            "checkpoints": sorted(t for t in epochs if t <= recipe.epochs),
            "seeds": self.seeds.training(replicate, start.draw, replicate % start.networks),
        }
        if not self.suite.perturbations[perturbation].augment:
            payload["recipe"]["augmentation"] = Augmentation().model_dump(mode="json")
        if tuning := self._tuning(entry, label, arm):
            payload["tuning"] = tuning
        title = f"{arm} of {entry.name} on {label}, {perturbation}, replicate {replicate}"
        n_train = _train_size(target, self.facts[f"target:{label}"])
        work = _work(recipe, n_train, self._test_size(label))
        job = self._job("trial", payload, title, work)
        return TrialCell(job.id, entry.name, *axes, replicate)

    def _test_size(self, target: str) -> int:
        size = self.facts[f"target:{target}"].test_size
        return min(size, self.suite.targets[target].test_limit or size)

    def _initialization(self, entry: Entry, label: str, replicate: int) -> PluginIdentity:
        use, arm = self.suite.initializations[label], self.resolved.arms[label]
        if not arm.needs_source:
            return arm.identity
        weights = entry.weights
        if weights is None:
            source = self._pretraining(entry, use.source, replicate)
            starts = {"source": source.id, "checkpoint": arm.checkpoint}
            return arm.identity | starts
        if arm.checkpoint is not None:
            raise SuiteError(
                f"{use.name} asks for pre-training checkpoint {arm.checkpoint}, but the external "
                f"weights of {entry.name} have only their final state; use --weights suite"
            )
        return arm.identity | {"weights": {"tag": weights.tag, "sha256": weights.sha256}}

    def _perturbation(self, label: str, replicate: int) -> PluginIdentity | None:
        perturbation = self.resolved.perturbations[label]
        seed = self.seeds.seed("perturbation", replicate)
        return perturbation and perturbation | {"seed": seed}

    # --- diagnoses ----------------------------------------------------------------------------

    def _add_diagnoses(self, entry: Entry, cells: Sequence[TrialCell]) -> None:
        by_axes = {cell[2:]: cell for cell in cells}
        inputs = list(dict.fromkeys((cell.target, cell.perturbation) for cell in cells))
        unmeasured = self.plan.unmeasured[entry.name]
        for label, diagnosis in self.suite.diagnostics.items():
            targets, perturbations, _ = self.suite.axes(diagnosis.on)
            allowed = [axes for axes in inputs if axes[0] in targets and axes[1] in perturbations]
            for axes in allowed:
                for members, needed in self._members(entry.name, label, axes):
                    if label in unmeasured and any(arm == SOURCE for arm, _ in members):
                        continue
                    keys = [(*axes, arm, replicate) for arm, replicate in members]
                    if all(key in by_axes for key in keys[:needed]):
                        self._diagnosis(label, [by_axes[key] for key in keys if key in by_axes])

    def _source_cells(self, entry: Entry, cells: Sequence[TrialCell]) -> list[TrialCell]:
        """The pre-trained network in the cells of its trials, or the external weights."""
        scored = self.suite.scoring.initialization
        if not self.resolved.arms[scored].needs_source:
            return []
        source = self.suite.initializations[scored].source
        axes = {(cell.target, cell.perturbation, cell.replicate) for cell in cells}
        return [
            TrialCell(
                (self._pretraining(entry, source, k) if entry.weights is None
                 else self._weights(entry, entry.weights)).id,
                entry.name, target, perturbation, SOURCE, k,
            )
            for target, perturbation, k in sorted(axes)
        ]  # fmt: skip

    def _weights(self, entry: Entry, weights: Weights) -> Job:
        """The network with the external weights of an entry, with their head where it is known."""
        image = self.suite.image
        payload = {
            "engine": self.engine,
            "backbone": entry.backbone,
            "image": {"size": image.size, "channels": image.channels},
            "weights": {"tag": weights.tag, "sha256": weights.sha256},
            "classes": weights.classes,
            "seeds": self.seeds.pretraining(0),
        }
        return self._job("weights", payload, f"weights of {entry.name}", Work(0, 0))

    def _members(self, entry: str, label: str, axes: tuple[str, str]) -> Iterator[Members]:
        """What is measured together: one arm, a pair and its references, or a group of arms."""
        diagnosis, suite = self.suite.diagnostics[label], self.suite
        subjects = self.resolved.diagnoses[label].subjects
        if subjects == "one":
            for arm in suite.initializations if diagnosis.of is None else diagnosis.of:
                n = suite.replicates_in(*axes, arm)
                for k in range(self.plan.networks_of(entry, [arm]) if arm == SOURCE else n):
                    yield [(arm, k)], 1
        elif subjects == "pair":
            for pairing in diagnosis.pairs:
                yield from self._pairs(entry, pairing, axes)
        else:
            for arms in diagnosis.groups:
                for k in range(min((suite.replicates_in(*axes, arm) for arm in arms), default=0)):
                    yield [(arm, k) for arm in arms], len(arms)

    def _pairs(self, entry: str, pairing: Pairing, axes: tuple[str, str]) -> Iterator[Members]:
        a, b = pairing.a, pairing.b
        n_a, n_b = (self.suite.replicates_in(*axes, arm) for arm in (a, b))
        counts = {arm: self.suite.replicates_in(*axes, arm) for arm in pairing.references}
        networks = self.plan.networks_of(entry, [a, b])
        pairs = paired_replicates(pairing.replicates, n_a, n_b, ordered=a != b, networks=networks)
        for i, j in pairs:
            references = [(arm, reference_of(i, j, n, networks)) for arm, n in counts.items()]
            yield [(a, i), (b, j), *references], 2

    def _diagnosis(self, label: str, group: Sequence[TrialCell]) -> None:
        diagnosis = self.resolved.diagnoses[label]
        subjects = [cell.job for cell in group]
        payload = {
            "engine": self.engine,
            "diagnostic": diagnosis.identity,
            "subjects": subjects,
            "seed": self.seeds.diagnosis(diagnosis.identity["name"], subjects),
        }
        size = self._test_size(group[0].target)
        work = Work(0, diagnosis.passes * min(size, diagnosis.limit or size))
        title = f"{label} of {' and '.join(self.plan.jobs[job].title for job in subjects[:2])}"
        job = self._job("diagnosis", payload, title, work)
        b = group[1] if diagnosis.subjects == "pair" else None
        first, arms = group[0], [cell.initialization for cell in group]
        network = self.plan.network_of(first.entry, arms, first.replicate)
        self.plan.measured.append(DiagnosisCell(job.id, label, first, b, network))

    def _job(self, kind: JobKind, payload: dict[str, Any], title: str, work: Work) -> Job:
        requires = required_jobs(kind, payload)
        job = Job(job_id(kind, payload), kind, payload, requires, title, work)
        return self.plan.jobs.setdefault(job.id, job)


def _copies(facts: DatasetFacts, validation: float) -> dict[str, str]:
    """Part of an id only where it moves a number."""
    return {"copies": "together"} if facts.joins_copies and validation else {}


def _train_size(target: Target, facts: DatasetFacts) -> float:
    """How many images a trial trains on."""
    if target.labels_per_class is not None:
        return target.labels_per_class * facts.classes
    return facts.train_size * (1 - target.validation)


def _constants(source: Preprocessing | Image, channels: int) -> tuple[list[float], list[float]]:
    """Mean and std, one a channel; for grey images the average of a colour backbone's three."""
    mean, std = list(source.mean), list(source.std)
    if channels == 1 and len(mean) > 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    return mean, std


def _work(recipe: Recipe, n_train: float, n_test: float) -> Work:
    evaluated = _passes(recipe, "evaluate_train") * n_train
    return Work(recipe.epochs * n_train, evaluated + _passes(recipe, "evaluate_test") * n_test)


def _passes(recipe: Recipe, field: Literal["evaluate_train", "evaluate_test"]) -> float:
    """How often images are evaluated in a training, at most."""
    return {"every": recipe.epochs + 1.0, "sparse": 8.0, "last": 1.0}[getattr(recipe, field)]
