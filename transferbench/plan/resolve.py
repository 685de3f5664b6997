"""What a plan needs of the plugins that a suite names: looked up once, plain data afterwards."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from transferbench.plan.seeds import Start
from transferbench.registry import Registry, blamed, identity
from transferbench.specs import DatasetSpec, Params, SourceNeed, Weights
from transferbench.suite import SOURCE, Diagnosis, InitializationUse, Suite, Use
from transferbench.suite.starts import networks_behind

__all__ = [
    "PluginIdentity",
    "ResolvedArm",
    "ResolvedDataset",
    "ResolvedDiagnosis",
    "ResolvedSuite",
    "left_out_arms",
    "reasons_text",
    "resolve_suite",
    "unmeasured_diagnoses",
    "unmeasured_of_source",
    "unstartable_arms",
]

PluginIdentity: TypeAlias = dict[str, Any]
"""Name, version and parameters of a plugin, as ids contain them."""


class ResolvedDataset(NamedTuple):
    """A dataset, with what it takes to decode it."""

    identity: PluginIdentity
    spec: DatasetSpec
    params: Params


class ResolvedArm(NamedTuple):
    """How the networks of an arm start, replicate k from network k % ``networks``."""

    identity: PluginIdentity
    needs_source: bool
    checkpoint: int | None
    draw: Start
    networks: int


class ResolvedDiagnosis(NamedTuple):
    """What a diagnostic measures, in ``passes`` over at most ``limit`` images."""

    identity: PluginIdentity
    subjects: Literal["one", "pair", "group"]
    passes: float
    limit: int | None
    needs_of_source: SourceNeed = "training"


class ResolvedSuite(NamedTuple):
    """A suite with every use of a plugin resolved, by the labels of the suite.

    ``datasets`` stand under ``source:LABEL`` and ``target:LABEL``. A perturbation that leaves
    images unchanged is None.
    """

    suite: Suite
    datasets: dict[str, ResolvedDataset]
    perturbations: dict[str, PluginIdentity | None]
    arms: dict[str, ResolvedArm]
    diagnoses: dict[str, ResolvedDiagnosis]


def _dataset_uses(suite: Suite) -> Iterator[tuple[str, Use]]:
    """The datasets of the targets and of the sources that an arm names, with their labels."""
    used = {use.source for use in suite.initializations.values()}
    for label, source in suite.sources.items():
        if label in used:
            yield f"source:{label}", source.dataset
    for label, target in suite.targets.items():
        yield f"target:{label}", target.dataset


def resolve_suite(
    suite: Suite, registry: Registry, datasets: Container[str] | None = None
) -> ResolvedSuite:
    """Every plugin that a plan of ``suite`` uses; of its datasets those in ``datasets``, or all.

    Raises: ``UnknownNameError`` where a plugin is not installed, ``PluginError`` where it fails.
    """
    return ResolvedSuite(
        suite,
        {
            label: _dataset(use, registry)
            for label, use in _dataset_uses(suite)
            if datasets is None or label in datasets
        },
        {label: _perturbation(suite, label, registry) for label in suite.perturbations},
        {label: _arm(suite, use, registry) for label, use in suite.initializations.items()},
        {label: _diagnosis(use, registry) for label, use in suite.diagnostics.items()},
    )


def _dataset(use: Use, registry: Registry) -> ResolvedDataset:
    spec = registry.dataset(use.name)
    params = spec.parse(use.params)
    with blamed(f"dataset {spec.name!r}"):
        return ResolvedDataset(identity(spec, params), spec.with_params(params), params)


def _perturbation(suite: Suite, label: str, registry: Registry) -> PluginIdentity | None:
    use, image = suite.perturbations[label], suite.image
    spec = registry.perturbation(use.name)
    params = spec.parse(use.params)
    with blamed(f"perturbation {spec.name!r}"):
        unchanged = spec.severity(params, (image.size, image.size, image.channels)) == 0
    return None if unchanged else identity(spec, params) | {"apply": use.apply}


def _arm(suite: Suite, use: InitializationUse, registry: Registry) -> ResolvedArm:
    """How the networks of one arm start. Raises: as ``resolve_suite``."""
    spec = registry.initialization(use.name)
    params = spec.parse(use.params)
    with blamed(f"initialization {spec.name!r}"):
        checkpoint = spec.checkpoint(params)
    needs_source = "source_weights" in spec.needs
    networks = networks_behind(suite, use, spec)
    return ResolvedArm(identity(spec, params), needs_source, checkpoint, spec.draw, networks)


def _diagnosis(use: Diagnosis, registry: Registry) -> ResolvedDiagnosis:
    spec = registry.diagnostic(use.name)
    params = spec.parse(use.params)
    with blamed(f"diagnostic {spec.name!r}"):
        passes, limit = spec.cost(params), spec.limit(params)
        applied = sorted(set(spec.perturbations(params)))
    described = identity(spec, params)
    if applied:
        described["perturbations"] = [
            {"name": name, "version": registry.perturbation(name).version} for name in applied
        ]
    return ResolvedDiagnosis(described, spec.subjects, passes, limit, spec.needs_of_source)


# --- external weights -------------------------------------------------------------------------


def left_out_arms(suite: Suite, weights: Weights | None, registry: Registry) -> dict[str, str]:
    """The arms that an entry with ``weights`` goes without, each with what it needs instead.

    Raises: ``UnknownNameError`` where the plugin of an arm is not installed.
    """
    if weights is None:
        return {}
    scored = suite.scoring.initialization
    uses = {label: use for label, use in suite.initializations.items() if label != scored}
    return unstartable_arms(
        suite, {label: _arm(suite, use, registry) for label, use in uses.items()}
    )


def unstartable_arms(suite: Suite, arms: Mapping[str, ResolvedArm]) -> dict[str, str]:
    """Those of ``arms`` that external weights cannot start, each with what it needs instead.

    External weights are one final state, and stand for the source of the scored arm alone. That
    arm is never left out: what it cannot start from is an error of the plan.
    """
    scored = suite.scoring.initialization
    source = suite.initializations[scored].source
    needs: dict[str, str] = {}
    for label, arm in arms.items():
        if label == scored or not arm.needs_source:
            continue
        own = suite.initializations[label].source
        if own != source:
            needs[label] = f"needs weights of the suite's {own}"
        elif arm.checkpoint is not None:
            needs[label] = f"needs checkpoint {arm.checkpoint} of the suite's {source}"
    return needs


# --- the source network of external weights -----------------------------------------------------

NO_TRAINING = "needs the training of P, and external weights are a final state alone"
NO_HEAD = "needs the classifier of P, and none is known of these weights"


def unmeasured_diagnoses(
    suite: Suite, weights: Weights | None, registry: Registry
) -> dict[str, str]:
    """As ``unmeasured_of_source``, of the plugins in ``registry``; none without ``weights``.

    Raises: ``UnknownNameError`` where the plugin of a diagnosis is not installed.
    """
    if weights is None:
        return {}
    uses = {label: use for label, use in suite.diagnostics.items() if _arms_with_source(use)}
    needs = {label: registry.diagnostic(use.name).needs_of_source for label, use in uses.items()}
    return unmeasured_of_source(suite, weights, needs)


def unmeasured_of_source(
    suite: Suite, weights: Weights, needs: Mapping[str, SourceNeed]
) -> dict[str, str]:
    """The diagnoses of P that external weights do not allow, by label, each with the reason.

    ``needs``: what each diagnosis reads of a source network that is its last subject.
    """
    reasons = {}
    for label, use in suite.diagnostics.items():
        for arms in _arms_with_source(use):
            need = needs[label] if SOURCE not in arms[:-1] else "training"
            if need == "training":
                reasons[label] = NO_TRAINING
            elif need == "head" and weights.classes is None:
                reasons.setdefault(label, NO_HEAD)
    return reasons


def reasons_text(reasons: Mapping[str, str]) -> str:
    """The labels of each reason, then the reason."""
    labels: dict[str, list[str]] = {}
    for label, why in reasons.items():
        labels.setdefault(why, []).append(label)
    return "; ".join(f"{', '.join(names)} ({why})" for why, names in labels.items())


def _arms_with_source(use: Diagnosis) -> list[tuple[str, ...]]:
    """The arms of each diagnosis that has the source network among its subjects."""
    members: list[tuple[str, ...]] = [(arm,) for arm in use.of or ()]
    members += [(pair.a, pair.b) for pair in use.pairs]
    members += [tuple(group) for group in use.groups]
    return [arms for arms in members if SOURCE in arms]
