"""The pages of built-in plugins: summary, declarations, parameters, source and licence."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache

from generator.markdown import code, prose, table
from transferbench.cli.words import declared, parameters
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
    yield from declared(spec)
    for file in getattr(spec, "files", ()):
        yield f"file {code(file.path)}", f"{file.size_bytes:,} bytes, sha256 {code(file.sha256)}"


def _parameters(params: type[Params]) -> Iterator[str]:
    if not params.model_fields:
        yield "It takes no parameters."
        return
    for name, rows, about in parameters(params):
        yield f"**Parameters ({name or params.__name__}).** {prose(about)}"
        named = [(code(field), values, default) for field, values, default in rows]
        yield table(["parameter", "value", "default"], named)
