"""The pages of built-in plugins: summary, declarations, parameters, source and licence."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from generator.markdown import code, prose, table
from generator.words import default_of, words
from transferbench.registry import Registry, load_registry
from transferbench.registry.discovery import Kind
from transferbench.specs import DiagnosticSpec, Params, Spec

__all__ = ["KINDS", "built_in", "page"]

KINDS: tuple[Kind, ...] = (
    "dataset",
    "perturbation",
    "backbone",
    "initialization",
    "diagnostic",
)

SCIENCE = {
    "dataset": "",
    "backbone": "",
    "perturbation": "What each removes: [perturbations](../science/perturbations.md).",
    "initialization": "What each keeps: [initializations](../science/initializations.md).",
    "diagnostic": "Formulas, and how to read each: [diagnostics](../science/diagnostics.md).",
}

FACTS = (
    "task", "metric", "splits", "channels", "grouping", "needs_root", "requires", "stage",
    "applies_to", "member", "needs", "touches", "draw", "subjects",
)  # fmt: skip
"""Fields of specs that the pages show, in this order."""


@cache
def _registry() -> Registry:
    return load_registry()


def built_in(kind: Kind) -> Mapping[str, Spec]:
    """Name -> spec of the built-in plugins of a kind, sorted."""
    specs: Mapping[str, Spec] = getattr(_registry(), f"{kind}s")
    return {name: spec for name, spec in specs.items()
            if _registry().origin(kind, name).startswith("transferbench ")}  # fmt: skip


def page(kind: Kind) -> str:
    """The page of a kind."""
    specs = built_in(kind)
    rows = [(f"[`{name}`](#{_anchor(name)})", spec.summary) for name, spec in specs.items()]
    head = [
        f"# Built-in {kind}s",
        SCIENCE[kind],
        f"`transferbench list {kind}s` lists them with those you have installed.",
        table(["name", ""], rows),
    ]
    return "\n\n".join([*filter(None, head), *map(_section, specs.values())])


def _anchor(name: str) -> str:
    return name.replace(".", "")


def _section(spec: Spec) -> str:
    parts = [f"## {spec.name}", f"{spec.summary[0].upper()}{spec.summary[1:]}."]
    parts += [_about(spec), table(["declared", ""], _facts(spec)), *_parameters(spec.params)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _about(spec: Spec) -> str:
    """The docstring of a diagnostic's ``measure``, which describes its measurements."""
    return prose(inspect.getdoc(spec.measure)) if isinstance(spec, DiagnosticSpec) else ""


def _facts(spec: Spec) -> Iterator[tuple[str, str]]:
    yield "source", prose(spec.source)
    yield "license", spec.license
    yield "version", str(spec.version)
    for name in FACTS:
        value = getattr(spec, name, None)
        if value not in (None, (), frozenset()):
            yield name.replace("_", " "), _text(value)
    for file in getattr(spec, "files", ()):
        yield f"file {code(file.path)}", f"{file.size_bytes:,} bytes, sha256 {code(file.sha256)}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    listed = isinstance(value, (tuple, frozenset))
    return ", ".join(sorted(map(str, value))) if listed else str(value)


def _parameters(params: type[Params]) -> Iterator[str]:
    if not params.model_fields:
        yield "It takes no parameters."
        return
    schema = params.model_json_schema()
    yield from _described(params, schema)
    for name in schema.get("$defs", {}):
        inner = next(model for model in _models(params) if model.__name__ == name)
        yield from _described(inner, schema["$defs"][name])


def _described(model: type[BaseModel], schema: dict[str, Any]) -> Iterator[str]:
    about = "\n\n".join(_docs(model))
    yield f"**Parameters ({model.__name__}).** {prose(about)}"
    rows = [
        (code(name), words(schema["properties"][name]),
         default_of(schema["properties"][name], required=field.is_required()))
        for name, field in model.model_fields.items()
    ]  # fmt: skip
    yield table(["parameter", "value", "default"], rows)


def _docs(model: type[BaseModel]) -> Iterator[str]:
    """The docstrings of a model and of its bases."""
    for cls in model.__mro__:
        if cls in {Params, BaseModel, object}:
            return
        if cls.__doc__:
            yield inspect.cleandoc(cls.__doc__)


def _models(params: type[BaseModel]) -> Iterator[type[BaseModel]]:
    from generator.schema import inner_models

    for field in params.model_fields.values():
        for _, model in inner_models(field.annotation, ""):
            yield model
            yield from _models(model)
