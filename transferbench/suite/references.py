"""Labels and plugins that a suite names: that they exist, and that parameters fit the plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from transferbench.errors import TransferbenchError, UnknownNameError, suggestion
from transferbench.registry import Kind, Registry, blamed
from transferbench.specs import (
    DiagnosticSpec,
    InitializationSpec,
    Params,
    PerturbationSpec,
    Spec,
)
from transferbench.suite.document import Location, Mistake
from transferbench.suite.mistakes import reason_of
from transferbench.suite.schema import SOURCE, TRIAL, Image

__all__ = ["PLUGINS", "label_mistakes", "member_mistakes", "plugin_mistakes", "plugin_names"]

# Path of a field -> the table whose labels it refers to.
REFERENCES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("sources", "*", "recipe"), "recipes"),
    (("initializations", "*", "recipe"), "recipes"),
    (("initializations", "*", "recipes", "*"), "recipes"),
    (("initializations", "*", "rate_of"), "initializations"),
    *(((*path, kind, "*"), kind)
      for path in (("trials", "*"), ("diagnostics", "*", "on"))
      for kind in ("targets", "perturbations", "initializations")),
    (("diagnostics", "*", "of", "*"), "initializations"),
    (("diagnostics", "*", "pairs", "*", "a"), "initializations"),
    (("diagnostics", "*", "pairs", "*", "b"), "initializations"),
    (("diagnostics", "*", "pairs", "*", "references", "*"), "initializations"),
    (("diagnostics", "*", "groups", "*", "*"), "initializations"),
    *(((*path, field), table)
      for path in (("claims", "*", "terms", "*"), ("claims", "*", "relative_to", "*"),
                   ("claims", "*", "order", "*", "*"), ("claims", "*", "against", "*", "*"))
      for field, table in (("diagnostic", "diagnostics"), ("target", "targets"),
                           ("perturbation", "perturbations"),
                           ("initialization", "initializations"),
                           ("other_initialization", "initializations"))),
    (("scoring", "initialization"), "initializations"),
    (("scoring", "baseline"), "initializations"),
    (("scoring", "perturbation"), "perturbations"),
    (("scoring", "statistics"), "perturbations"),
    (("scoring", "columns", "*", "diagnostic"), "diagnostics"),
)  # fmt: skip

# Path of a table whose keys are labels of targets.
BY_TARGET = (("scoring", "chance"), ("scoring", "reference"), ("initializations", "*", "recipes"))

# Table and a label in it that means something else already.
RESERVED = {
    ("initializations", SOURCE): "the source network itself",
    ("diagnostics", TRIAL): "the measurements of the trials themselves",
}

MEMBER = "/"
"""Between a family of backbones and a member of it."""

# Path of a plugin -> its kind.
PLUGINS: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("sources", "*", "dataset"), "dataset"),
    (("targets", "*", "dataset"), "dataset"),
    (("perturbations", "*"), "perturbation"),
    (("initializations", "*"), "initialization"),
    (("diagnostics", "*"), "diagnostic"),
)


def _at(raw: Any, pattern: Sequence[str], start: Location = ()) -> Iterator[tuple[Location, Any]]:
    """The values of ``raw`` at ``pattern``, where ``*`` matches any key or index."""
    if not pattern:
        yield start, raw
        return
    values = dict(enumerate(raw)) if isinstance(raw, list) else raw
    for key in values if isinstance(values, dict) else ():
        if pattern[0] in {"*", key}:
            yield from _at(values[key], pattern[1:], (*start, key))


# --- labels -----------------------------------------------------------------------------------


def label_mistakes(raw: dict[str, Any]) -> Iterator[Mistake]:
    """Labels that are named and not defined, and those that mean something else."""
    for pattern, table in REFERENCES:
        labels = _labels(raw, table)
        if labels is None:
            continue  # reported by the schema
        if table == "diagnostics":
            labels |= {TRIAL: None}
        if table == "initializations" and pattern[0] in {"diagnostics", "claims"}:
            labels |= {SOURCE: None}
        names = tuple(labels)
        for location, label in _at(raw, pattern):
            if isinstance(label, str) and label not in labels:
                yield Mistake(location, f"{table} has no {label!r}", near=(label, names))
    yield from _key_mistakes(raw)


def _key_mistakes(raw: dict[str, Any]) -> Iterator[Mistake]:
    """Keys that are no labels of targets, and labels that mean something else."""
    targets = _labels(raw, "targets")
    names = tuple(targets or ())
    for pattern in BY_TARGET if targets is not None else ():
        for location, _ in _at(raw, (*pattern, "*")):
            if targets is not None and location[-1] not in targets:
                near = str(location[-1]), names
                yield Mistake(location, f"targets has no {location[-1]!r}", near=near)
    for (table, label), meaning in RESERVED.items():
        if label in (_labels(raw, table) or ()):
            yield Mistake((table, label), f"{label} means {meaning}; choose another label")


def _labels(raw: dict[str, Any], table: str) -> dict[str, None] | None:
    """The labels of a table, in order; None where it is none."""
    labels = raw.get(table)
    return dict.fromkeys(labels) if isinstance(labels, dict) else None


# --- plugins ----------------------------------------------------------------------------------


def plugin_names(raw: dict[str, Any]) -> Iterator[tuple[Kind, str]]:
    """The kind and name of each plugin that a valid suite uses, but for its backbones."""
    for pattern, kind in PLUGINS:
        for _, use in _at(raw, pattern):
            yield kind, use["name"]


def plugin_mistakes(raw: dict[str, Any], registry: Registry) -> Iterator[Mistake]:
    """Plugins that nothing offers, and parameters that do not fit them; families are apart."""
    for pattern, kind in PLUGINS:
        for location, use in _at(raw, pattern):
            if isinstance(use, dict) and isinstance(use.get("name"), str):
                yield from _use_mistakes(location, kind, use, raw, registry)
    yield from _backbone_mistakes(raw, registry, lambda name: MEMBER not in name)


def member_mistakes(raw: dict[str, Any], registry: Registry) -> Iterator[Mistake]:
    """Backbones of families that nothing offers: to list one imports its package, for seconds."""
    yield from _backbone_mistakes(raw, registry, lambda name: MEMBER in name)


def _backbone_mistakes(
    raw: dict[str, Any], registry: Registry, chosen: Callable[[str], bool]
) -> Iterator[Mistake]:
    for location, name in _at(raw, ("backbones", "*")):
        if isinstance(name, str) and chosen(name):
            try:
                registry.resolve_backbone(name)
            except TransferbenchError as error:
                yield _plugin_mistake(location, error)


def _plugin_mistake(location: Location, error: TransferbenchError) -> Mistake:
    if isinstance(error, UnknownNameError):
        return Mistake(location, error.reason, error.advice)
    return Mistake(location, str(error))


def _use_mistakes(
    location: Location, kind: str, use: dict[str, Any], raw: dict[str, Any], registry: Registry
) -> Iterator[Mistake]:
    try:
        spec = getattr(registry, kind)(use["name"])
    except TransferbenchError as error:
        yield _plugin_mistake((*location, "name"), error)
        return
    values = use.get("params", {})
    if not isinstance(values, dict):
        return  # reported by the schema
    below = (*location, "params")
    plugin = f"{kind} {spec.name!r}"
    try:
        with blamed(plugin):
            params, invalid = _parsed(spec, values)
        for entry in invalid:
            yield Mistake((*below, *entry["loc"]), _param_reason(spec, entry))
        if params is not None:
            with blamed(plugin):
                mistakes = _unfit(location, spec, params, use, raw)
            yield from mistakes
            if isinstance(spec, DiagnosticSpec):
                yield from _perturbation_mistakes(below, plugin, spec, params, raw, registry)
    except TransferbenchError as error:
        yield _plugin_mistake(below, error)


def _parsed(spec: Spec, values: dict[str, Any]) -> tuple[Params | None, list[ErrorDetails]]:
    try:
        return spec.parse(values), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _param_reason(spec: Spec, entry: ErrorDetails) -> str:
    if entry["type"] != "extra_forbidden":
        return f"{spec.name}: {reason_of(entry)}"
    hint = suggestion(str(entry["loc"][-1]), sorted(spec.params.model_fields))
    return f"{spec.name} has no such parameter; {hint}"


def _unfit(
    location: Location, spec: Spec, params: Params, use: dict[str, Any], raw: dict[str, Any]
) -> list[Mistake]:
    """What does not fit the suite; a plan asks the plugin the same, without the location."""
    if isinstance(spec, InitializationSpec):
        spec.checkpoint(params)
    if isinstance(spec, DiagnosticSpec):
        spec.cost(params)
        spec.limit(params)
    if not isinstance(spec, PerturbationSpec):
        return []
    mistakes = []
    applied = use.get("apply", "train-and-test")
    if isinstance(applied, str) and applied not in spec.applies_to:
        reason = f"{spec.name} is for {' or '.join(sorted(spec.applies_to))}, not {applied!r}"
        mistakes.append(Mistake((*location, "apply"), reason))
    if fault := _fault(spec, params, raw):
        mistakes.append(Mistake((*location, "params"), f"{spec.name}: {fault}"))
    return mistakes


def _fault(spec: PerturbationSpec, params: Params, raw: dict[str, Any]) -> str | None:
    """Why the parameters do not fit the images of the suite."""
    shape = _shape(raw.get("image"))
    fault = spec.check(params, shape) if shape else None
    if shape and not fault:
        spec.severity(params, shape)
    return fault


def _shape(image: Any) -> tuple[int, int, int] | None:
    """The shape of images; None where the schema refuses it, and a plugin cannot be asked."""
    try:
        Image.model_validate(image)
    except ValidationError as error:
        wrong_fields = {entry["loc"][:1] for entry in error.errors()}
        if not isinstance(image, dict) or wrong_fields & {("size",), ("channels",)}:
            return None
    return image["size"], image["size"], image["channels"]


def _perturbation_mistakes(
    location: Location,
    plugin: str,
    diagnostic: DiagnosticSpec,
    params: Params,
    raw: dict[str, Any],
    registry: Registry,
) -> Iterator[Mistake]:
    """Perturbations that a diagnostic applies itself, and their parameters."""
    with blamed(plugin):
        names, settings = list(diagnostic.perturbations(params)), list(diagnostic.settings(params))
    for name in dict.fromkeys([*names, *(name for name, _ in settings)]):
        try:
            spec = registry.perturbation(name)
        except TransferbenchError as error:
            yield _plugin_mistake(location, error)
            continue
        for values in (values for used, values in settings if used == name):
            with blamed(f"perturbation {name!r}"):
                own, invalid = _parsed(spec, dict(values))
                fault = own and _fault(spec, own, raw)
            reasons = [_param_reason(spec, entry) for entry in invalid]
            for reason in [*reasons, *([f"{name}: {fault}"] if fault else [])]:
                yield Mistake(location, reason)
