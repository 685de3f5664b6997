"""What a suite trains and measures: arms have sources, claims and scores have measurements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

from transferbench.errors import listing, suggestion
from transferbench.registry import Registry, blamed
from transferbench.specs import METRICS, DiagnosticSpec
from transferbench.suite.bounds import terms_of
from transferbench.suite.document import Location, Mistake
from transferbench.suite.schema import (
    SOURCE,
    TRIAL,
    TRIAL_METRICS,
    Cells,
    Diagnosis,
    InitializationUse,
    Suite,
)
from transferbench.suite.starts import networks_behind

__all__ = ["coverage_mistakes", "coverage_notes"]

MAX_JOBS = 100_000
"""Jobs of one run: a plan keeps 2.3 kB of each, and takes up to half a minute for so many."""

NAMED = 5
"""Claims that a note names."""

Inputs: TypeAlias = frozenset[tuple[str, str]]
"""Targets and perturbations that an arm is trained on."""


class _Subjects(NamedTuple):
    """Arms that a diagnosis measures together, and how many diagnoses of them there are."""

    location: Location
    arms: tuple[str, ...]
    inputs: Inputs
    replicates: str
    diagnoses: int = 0

    @property
    def second(self) -> str | None:
        return self.arms[1] if self.replicates in {"same", "different", "next"} else None


def coverage_mistakes(suite: Suite, registry: Registry) -> Iterator[Mistake]:
    """What is named and not trained or measured; the labels of ``suite`` exist.

    Raises: ``PluginError`` where a plugin fails.
    """
    if suite.most_trials > MAX_JOBS:
        yield _too_many(suite, suite.most_trials)
        return
    yield from _Coverage(suite, registry).mistakes()


def coverage_notes(suite: Suite, registry: Registry) -> list[str]:
    """What a suite measures, judges or scores and does not train.

    Its claims and diagnoses may name arms that it lacks.
    """
    return list(_Coverage(suite, registry).notes())


def _too_many(suite: Suite, trials: int, tuning: int = 0, diagnoses: int = 0) -> Mistake:
    counts = {"trainings to tune learning rates": tuning, "diagnoses": diagnoses}
    measured = "".join(f" and {count:,} {noun}" for noun, count in counts.items() if count)
    by_row = suite.replicates == 1 or any(grid.replicates for grid in suite.trials)
    return Mistake(
        ("trials",) if by_row else ("replicates",),
        f"{trials:,} trials{measured} for each backbone, and a run holds at most {MAX_JOBS:,} "
        "jobs; ask for fewer, or divide the suite into several that share a store",
    )


class _Coverage:
    """What each arm is trained on, and each diagnosis measures."""

    def __init__(self, suite: Suite, registry: Registry) -> None:
        self.suite = suite
        self.registry = registry
        self.cells = suite.cells()

    def mistakes(self) -> Iterator[Mistake]:
        yield from self._tables()
        yield from self._target_metrics()
        for label, use in self.suite.initializations.items():
            yield from self._arm(label, use)
        for label, diagnosis in self.suite.diagnostics.items():
            yield from self._diagnosis(label, diagnosis)
        diagnoses = sum(s.diagnoses for group in self.subjects.values() for s in group)
        trials = sum(self.suite.replicates_in(*cell) for cell in self.cells)
        tuning = self._tuning_jobs()
        if (trials + tuning + diagnoses) * max(len(self.suite.backbones), 1) > MAX_JOBS:
            yield _too_many(self.suite, trials, tuning, diagnoses)
        yield from self._claims()
        yield from self._scoring()

    # --- what is trained ----------------------------------------------------------------------

    @cached_property
    def trained(self) -> dict[str, Inputs]:
        """The inputs of each arm, and of the source network: those of all arms."""
        inputs: dict[str, set[tuple[str, str]]] = {arm: set() for arm in self.suite.initializations}
        for target, perturbation, arm in self.cells:
            inputs[arm].add((target, perturbation))
        scored = self.suite.initializations[self.suite.scoring.initialization]
        every = set().union(*inputs.values()) if self._needs_source(scored) else set()
        return {arm: frozenset(values) for arm, values in (inputs | {SOURCE: every}).items()}

    def _target_metrics(self) -> Iterator[Mistake]:
        """Metrics of targets that their task does not have."""
        for label, target in self.suite.targets.items():
            dataset = self.registry.dataset(target.dataset.name)
            task = dataset.with_params(dataset.parse(target.dataset.params)).task
            if target.metric is not None and target.metric not in METRICS[task]:
                reason = (
                    f"{target.dataset.name} is {task}, and {target.metric} is no metric of such a "
                    f"task; choose of {', '.join(METRICS[task])}"
                )
                yield Mistake(("targets", label, "metric"), reason)

    def _needs_source(self, use: InitializationUse) -> bool:
        return "source_weights" in self.registry.initialization(use.name).needs

    def _tables(self) -> Iterator[Mistake]:
        for table in ("targets", "perturbations", "initializations", "trials"):
            if not getattr(self.suite, table):
                yield Mistake((table,), "is empty, so that nothing is trained")
        grids = [(("trials", i), grid) for i, grid in enumerate(self.suite.trials)]
        on = [(("diagnostics", name, "on"), d.on) for name, d in self.suite.diagnostics.items()]
        for location, grid in (*grids, *on):
            for axis in ("targets", "perturbations", "initializations"):
                if getattr(grid, axis) == ():
                    yield Mistake((*location, axis), "is empty; leave it out for all of them")

    def _arm(self, label: str, use: InitializationUse) -> Iterator[Mistake]:
        """Where the weights of an arm come from."""
        suite, needed = self.suite, self._needs_source(use)
        if use.source not in suite.sources:
            default = InitializationUse.model_fields["source"].default
            needed = needed and bool(suite.sources)  # without any, entries bring weights
            if needed or use.source != default:
                reason = f"sources has no {use.source!r}, where {label} starts from"
                hint = suggestion(use.source, list(suite.sources))
                yield Mistake(("initializations", label, "source"), f"{reason}; {hint}")
            return
        spec = self.registry.initialization(use.name)
        with blamed(f"initialization {spec.name!r}"):
            checkpoint = spec.checkpoint(spec.parse(use.params))
        if needed and checkpoint is not None:
            source = suite.sources[use.source]
            stored = _stored(source.checkpoints, suite.recipes[source.recipe].epochs)
            if checkpoint not in stored:
                reason = (
                    f"{label} starts from epoch {checkpoint} of {use.source}, which stores "
                    f"{_listed(stored)}; add it to the source's checkpoints"
                )
                yield Mistake(("initializations", label, "params"), reason)

    def _tuning_jobs(self) -> int:
        """The trainings that learning rates are chosen from."""
        suite = self.suite
        tuned = {
            (suite.initializations[arm].rate_of or arm, target) for target, _, arm in self.cells
        }
        grids = [
            suite.recipes[suite.initializations[arm].recipe_on(target)].tune
            for arm, target in tuned
        ]
        return sum(len(grid.learning_rate) * grid.replicates for grid in grids if grid)

    # --- what is measured ---------------------------------------------------------------------

    @cached_property
    def subjects(self) -> dict[str, list[_Subjects]]:
        """What each diagnosis measures together."""
        return {
            label: list(self._subjects_of(label, diagnosis))
            for label, diagnosis in self.suite.diagnostics.items()
        }

    def _spec(self, diagnosis: Diagnosis) -> DiagnosticSpec:
        return self.registry.diagnostic(diagnosis.name)

    def _subjects_of(self, label: str, diagnosis: Diagnosis) -> Iterator[_Subjects]:
        kind, at = self._spec(diagnosis).subjects, ("diagnostics", label)
        if kind == "one":
            arms = self.suite.initializations if diagnosis.of is None else diagnosis.of
            for i, arm in enumerate(arms):
                named = at if diagnosis.of is None else (*at, "of", i)
                yield self._together(named, (arm,), diagnosis, "one")
        elif kind == "pair":
            for i, pair in enumerate(diagnosis.pairs):
                arms = (pair.a, pair.b)
                yield self._together((*at, "pairs", i), arms, diagnosis, pair.replicates)
        else:
            for i, group in enumerate(diagnosis.groups):
                yield self._together((*at, "groups", i), group, diagnosis, "group")

    def _together(
        self, at: Location, arms: tuple[str, ...], diagnosis: Diagnosis, kind: str
    ) -> _Subjects:
        targets, perturbations, _ = self.suite.axes(diagnosis.on)
        trained = [self.trained.get(arm, frozenset()) for arm in arms]
        inputs = frozenset(
            (target, perturbation)
            for target, perturbation in (frozenset.intersection(*trained) if trained else ())
            if target in targets and perturbation in perturbations
        )
        counts = [self._count(axes, arms, kind) for axes in inputs]
        return _Subjects(at, arms, inputs, kind, sum(counts))

    def _count(self, axes: tuple[str, str], arms: Sequence[str], kind: str) -> int:
        """Diagnoses of these arms on one input."""
        networks = max((self._networks(arm) for arm in arms), default=1)
        if kind == "one" and arms[0] == SOURCE:
            return networks
        counts = [self.suite.replicates_in(*axes, arm) for arm in arms]
        fewest = min(counts, default=0)
        if kind == "next":
            return fewest if fewest > networks else 0
        if kind != "different":
            return fewest
        of_networks = [[len(range(m, n, networks)) for m in range(networks)] for n in counts]
        ordered = sum(map(math.prod, zip(*of_networks, strict=True))) - fewest
        return ordered // 2 if arms[0] == arms[1] else ordered

    def _networks(self, arm: str) -> int:
        """The networks that an arm's replicates start from; of the source network, itself."""
        label = self.suite.scoring.initialization if arm == SOURCE else arm
        use = self.suite.initializations[label]
        return networks_behind(self.suite, use, self.registry.initialization(use.name))

    def _diagnosis(self, label: str, diagnosis: Diagnosis) -> Iterator[Mistake]:
        spec, groups, at = self._spec(diagnosis), self.subjects[label], ("diagnostics", label)
        own = {"one": "of", "pair": "pairs", "group": "groups"}[spec.subjects]
        for field in {"of", "pairs", "groups"} - {own}:
            if getattr(diagnosis, field):
                noun = {"one": "one network", "pair": "a pair", "group": "a group"}[spec.subjects]
                reason = f"{spec.name} measures {noun}: name its arms in {own}"
                yield Mistake((*at, field), reason)
        if not groups:
            yield Mistake((*at, own), f"{spec.name} measures nothing: {own} is empty")
        for subjects in groups:
            if not subjects.arms:
                yield Mistake(subjects.location, "a group without arms")
            yield from self._unpaired(subjects)
        yield from _twice(groups)
        yield from self._epochs(at, spec, diagnosis, groups)

    def _unpaired(self, subjects: _Subjects) -> Iterator[Mistake]:
        """Pairs that are to stay within one source network, of which each has one replicate."""
        networks = max((self._networks(arm) for arm in subjects.arms), default=1)
        of_two = subjects.replicates in {"different", "next"}
        if networks > 1 and of_two and subjects.inputs and not subjects.diagnoses:
            arms = " and ".join(dict.fromkeys(subjects.arms))
            reason = (
                f"pairs two replicates of {arms} that start from one source network, and each of "
                f"the {networks} networks has one; ask for {2 * networks} replicates"
            )
            yield Mistake((*subjects.location, "replicates"), reason)

    def _epochs(
        self, at: Location, spec: DiagnosticSpec, use: Diagnosis, groups: Sequence[_Subjects]
    ) -> Iterator[Mistake]:
        """Epochs whose states a diagnostic reads and the trainings do not store."""
        with blamed(f"diagnostic {spec.name!r}"):
            needed = sorted(set(spec.epochs(spec.parse(use.params))))
        if not needed:
            return
        networks = {
            (arm, *cell) for group in groups for arm in group.arms[:2] for cell in group.inputs
        }
        for arm, target, perturbation in sorted(networks):
            stored = self._stored(arm, target, perturbation)
            if missing := [epoch for epoch in needed if epoch not in stored]:
                reason = (
                    f"reads epoch {missing[0]} of {arm} on {target}, which stores "
                    f"{_listed(stored)}; add it to the checkpoints"
                )
                yield Mistake((*at, "params"), reason)
                return

    def _stored(self, arm: str, target: str, perturbation: str) -> list[int]:
        suite = self.suite
        if arm == SOURCE:
            source = suite.sources.get(suite.initializations[suite.scoring.initialization].source)
            if source is None:
                return []
            return _stored(source.checkpoints, suite.recipes[source.recipe].epochs)
        recipe = suite.recipes[suite.initializations[arm].recipe_on(target)]
        return _stored(sorted(self.cells[target, perturbation, arm]), recipe.epochs)

    # --- claims and scores --------------------------------------------------------------------

    def _claims(self) -> Iterator[Mistake]:
        for location, term in terms_of(self.suite):
            yield from self._metric((*location, "metric"), term.diagnostic, term.metric)
            if not self._measured_by(term):
                arms = " and ".join(filter(None, (term.initialization, term.other_initialization)))
                reason = f"{term.diagnostic} does not measure {arms}"
                yield Mistake(location, f"{reason}; correct the term, or let the diagnosis do it")

    def _measured_by(self, term: Cells) -> Sequence[_Subjects]:
        """What the diagnosis of ``term`` measures of its arms."""
        arm, other = term.initialization, term.other_initialization
        if term.diagnostic == TRIAL:
            alone = arm != SOURCE and other is None
            inputs = self.trained.get(arm, frozenset())
            return [_Subjects((), (arm,), inputs, "one")] if alone else []
        groups = self._by_arm.get(term.diagnostic, {}).get(arm, ())
        return [group for group in groups if other in {None, group.second}]

    @cached_property
    def _by_arm(self) -> dict[str, dict[str, list[_Subjects]]]:
        """What each diagnosis measures, by the first arm."""
        index: dict[str, dict[str, list[_Subjects]]] = {}
        for label, groups in self.subjects.items():
            arms = index.setdefault(label, {})
            for group in groups:
                for arm in group.arms[:1]:
                    arms.setdefault(arm, []).append(group)
        return index

    def _scoring(self) -> Iterator[Mistake]:
        scoring = self.suite.scoring
        yield from self._metric(("scoring", "metric"), TRIAL, scoring.metric)
        for i, column in enumerate(scoring.columns):
            at = ("scoring", "columns", i, "metric")
            yield from self._metric(at, column.diagnostic, column.metric)
            yield from self._several(("scoring", "columns", i, "diagnostic"), column.diagnostic)

    def _several(self, location: Location, label: str) -> Iterator[Mistake]:
        """A column whose diagnosis has several values of a network.

        Values of pairs that share networks are no sample, and an arm with itself and with another
        one are two quantities.
        """
        for arm, groups in self._by_arm.get(label, {}).items():
            if len(groups) > 1 or groups[0].replicates in {"different", "next"}:
                reason = (
                    f"a column shows one value a network, and those of {arm} are in several pairs"
                    f" of {label}; judge it by a claim, or name a diagnosis with one pair whose"
                    " replicates are the same"
                )
                yield Mistake(location, reason)
                return

    def _metric(self, location: Location, label: str, metric: str) -> Iterator[Mistake]:
        """A metric that the trials, or the diagnosis ``label``, do not measure."""
        of, metrics = "trials have", set(TRIAL_METRICS)
        if label != TRIAL:
            name = self.suite.diagnostics[label].name
            of, metrics = f"{name} has", set(self.registry.diagnostic(name).metrics)
        if metrics and metric not in metrics:
            hint = suggestion(metric, sorted(metrics))
            yield Mistake(location, f"{of} no metric {metric!r}; {hint}")

    # --- what is left untrained ---------------------------------------------------------------

    def notes(self) -> Iterator[str]:
        for label, groups in self.subjects.items():
            if not any(group.inputs for group in groups):
                yield f"diagnosis {label} measures nothing: its arms are not trained where it looks"
        undecided = dict.fromkeys(
            str(location[1])
            for location, term in terms_of(self.suite)
            if not any(_holds(group, term) for group in self._measured_by(term))
        )
        if undecided:
            names = listing(list(undecided), NAMED)
            yield f"claims stay undecided, since not all that they compare is trained: {names}"
        yield from self._beyond_the_end()
        scoring = self.suite.scoring
        for arm in dict.fromkeys((scoring.initialization, scoring.baseline)):
            for target in scoring.chance:
                if (target, scoring.perturbation) not in self.trained[arm]:
                    yield f"no score: {arm} is not trained on {target}, {scoring.perturbation}"

    def _beyond_the_end(self) -> Iterator[str]:
        """Checkpoints after the last epoch of every training that would store them."""
        suite = self.suite
        lengths = {label: recipe.epochs for label, recipe in suite.recipes.items()}
        stored = [(f"sources.{label}", source.checkpoints, lengths[source.recipe])
                  for label, source in suite.sources.items()]  # fmt: skip
        for i, grid in enumerate(suite.trials):
            targets, _, arms = suite.axes(grid)
            uses = [suite.initializations[arm] for arm in arms]
            epochs = [lengths[use.recipe_on(target)] for use in uses for target in targets]
            stored.append((f"trials.{i}", grid.checkpoints, max(epochs, default=0)))
        for field, checkpoints, last in stored:
            if late := [str(epoch) for epoch in checkpoints if epoch > last]:
                listed = listing(late, NAMED)
                yield f"{field}: no training reaches checkpoint {listed}, the longest has {last}"


def _holds(group: _Subjects, term: Cells) -> bool:
    """Whether some input of ``group`` is one of ``term``."""
    if term.target and term.perturbation:
        return (term.target, term.perturbation) in group.inputs
    return any(
        term.target in {None, target} and term.perturbation in {None, perturbation}
        for target, perturbation in group.inputs
    )


def _stored(checkpoints: Sequence[int], epochs: int) -> list[int]:
    return sorted({epoch for epoch in checkpoints if epoch <= epochs})


def _listed(epochs: Sequence[int]) -> str:
    return f"epochs {', '.join(map(str, epochs))}" if epochs else "none"


def _twice(groups: Sequence[_Subjects]) -> Iterator[Mistake]:
    """Networks that one diagnosis would measure twice: their records could not be told apart."""
    measured: set[tuple[str | None, ...]] = set()
    for group in groups:
        # ``next`` gives pairs that ``different`` gives too.
        replicates = "different" if group.replicates == "next" else group.replicates
        key = (*group.arms[:1], group.second, replicates)
        if key in measured:
            names = " and ".join(filter(None, (*group.arms[:1], group.second)))
            yield Mistake(group.location, f"{names} would be measured twice; take one out")
        measured.add(key)
