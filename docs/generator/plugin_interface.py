"""The pages of hooks and of specs: the interface of plugins."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from generator.fields import fields_of
from generator.markdown import code, prose, table
from transferbench import hookspecs, records, specs
from transferbench.registry import discovery
from transferbench.registry.discovery import SPECS

__all__ = ["CLASSES", "HOOKS", "hooks_page", "specs_page"]

HOOKS = [name for name in hookspecs.__all__ if name.startswith(f"{hookspecs.PROJECT}_")]

CLASSES: dict[str, tuple[type, ...]] = {
    "Every plugin": (specs.Spec, specs.Params),
    "Datasets": (
        specs.DatasetSpec,
        specs.ListItems,
        specs.DatasetItems,
        specs.LoadDataset,
        specs.DatasetSplit,
        specs.DataFile,
    ),
    "Perturbations": (specs.PerturbationSpec, specs.BuildIndex, specs.BuildTransform),
    "Backbones": (
        specs.BackboneSpec,
        specs.BuildBackbone,
        specs.Preprocessing,
        specs.Weights,
        specs.RateFactor,
    ),
    "Initializations": (
        specs.InitializationSpec,
        specs.Initialize,
        specs.InitializationContext,
    ),
    "Diagnostics": (
        specs.DiagnosticSpec,
        specs.Measure,
        specs.Subject,
        specs.DiagnosticContext,
        specs.Memoize,
        records.Measurement,
        records.Record,
    ),
}
"""The classes on the page of specs, by kind."""

HOOKS_HEAD = f"""# Hooks

A plugin is a module whose functions carry `hookimpl` and return specs: lists, tuples or generators.
Hooks take no arguments. Hook wrappers are refused, so that no plugin can change the results of
another.

Three ways to be loaded, in this order:

1. an entry point of the group `{hookspecs.PROJECT}` in an installed distribution;
2. `--plugin FILE.py` on the command line, `plugins=[...]` in Python;
3. the files named in `{discovery.ENVIRONMENT_VARIABLE}`, separated as in `PATH`.

A file named twice is loaded once. The order does not matter: lists are sorted, and two plugins with
the same name are an error that names both. A broken plugin is reported in one line and does not
affect others; only a run that needs it stops. A file that is not there, or is not a Python file, is
an error where it is named with `--plugin` or `plugins`; named in the variable, it is an error for
`plan`, `prepare` and `run`, and reported by the other commands.

| hook | returns | built-in plugins |
| --- | --- | --- |
"""

SPECS_HEAD = """# Specs

A spec is a frozen pydantic model that declares a plugin and holds its functions. Unknown fields and
values of the wrong type are refused when the plugin is loaded. `version` is incremented when the
plugin's numbers change; it is part of every id, so that old and new numbers never mix.

Shape letters: N images, H height, W width, C channels, K classes, L labels, D features.

"""


def hooks_page() -> str:
    """The page of hooks."""
    rows = "\n".join(
        f"| [`{hook}`](#{hook}) | [`{spec.__name__}`](specs.md#{spec.__name__.lower()}) "
        f"| [{kind}s]({kind}s.md) |"
        for hook, (kind, spec) in zip(sorted(HOOKS), sorted(SPECS.items()), strict=True)
    )
    return HOOKS_HEAD + rows + "\n\n" + "\n".join(map(_hook, sorted(HOOKS)))


def _hook(name: str) -> str:
    first, _, example = inspect.getdoc(getattr(hookspecs, name)).partition("::")  # type: ignore[union-attr]  # every hook has one
    return f"## {name}\n\n{first}:\n\n```text\n{inspect.cleandoc(example)}\n```\n"


def specs_page() -> str:
    """The page of specs."""
    parts = [SPECS_HEAD]
    for kind, classes in CLASSES.items():
        parts += [f"## {kind}\n", *map(_class, classes)]
    return "\n".join(parts)


def _class(cls: type) -> str:
    parts = [f"### {cls.__name__}", prose(inspect.getdoc(cls))]
    if rows := list(_rows(cls)):
        parts.append(table(["field", "type", "default", ""], rows))
    if members := list(_members(cls)):
        parts.append(table(["member", ""], members))
    return "\n\n".join(parts) + "\n"


def _rows(cls: type) -> Iterator[tuple[str, str, str, str]]:
    for field in fields_of(cls):
        default = code(field.default) if field.default else "required"
        yield code(field.name), code(field.annotation), default, prose(field.description)


def _members(cls: type) -> Iterator[tuple[str, str]]:
    """The methods and properties of a protocol."""
    if not getattr(cls, "_is_protocol", False):
        return
    members = {key: value for base in reversed(cls.__mro__) for key, value in vars(base).items()}
    for name, member in members.items():
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function) and (name == "__call__" or not name.startswith("_")):
            yield code(_signature(name, function, member)), prose(_doc(function))


def _signature(name: str, function: Any, member: Any) -> str:
    signature = str(inspect.signature(function)).replace("'", "").replace("self, ", "")
    if isinstance(member, property):
        return f"{name}{signature.removeprefix('(self)')}"
    return signature if name == "__call__" else f"{name}{signature.replace('(self)', '()')}"


def _doc(function: Any) -> str | None:
    # A protocol's own docstring describes its properties.
    return inspect.getdoc(function) if function.__name__ != "__call__" else None
