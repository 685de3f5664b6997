"""The reference page of the suite file: every key with its path, values and description."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from generator.markdown import code, prose, table
from transferbench.cli.words import default_of, words
from transferbench.suite import Suite

__all__ = ["inner_models", "models", "page"]

HEAD = """# The suite file

A suite is a YAML 1.2 file that fixes everything but the entry. Nothing is coerced: unknown keys,
duplicate keys and values of the wrong type are refused, with file, line and field; all mistakes are
reported at once.

- `transferbench validate SUITE.yaml` checks a file and the plugins that it names.
- `transferbench schema` prints its JSON Schema, for editors. With the YAML extension of an editor:
  save it as `suite.schema.json` and begin the suite with
  `# yaml-language-server: $schema=suite.schema.json`.
- In YAML 1.2 only `true` and `false` are booleans, so that `no` and `on` are text; `1e-3` is a
  number. Anchors (`&name`, `*name`, `<<: *name`) save repetition.
- A version is text: `"1.0"`, in quotes.

[How to write a suite](../how-to/suite.md) goes through one; [the bundled ones](suites.md) are
examples. A label in angle brackets is yours to choose; `[]` stands for each element of a list.

"""


def page() -> str:
    """The page."""
    return HEAD + "\n".join(_section(model, places) for model, places in models().items())


def models() -> dict[type[BaseModel], list[str]]:
    """Model -> the paths at which the file contains it ('' for the file itself)."""
    paths: dict[type[BaseModel], list[str]] = {}
    for path, model in _walk(Suite, ""):
        paths.setdefault(model, []).append(path)
    return paths


def _walk(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        for below, inner in inner_models(field.annotation, f"{path}.{name}".lstrip(".")):
            yield from _walk(inner, below)


def inner_models(annotation: Any, path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models inside an annotation, with their paths."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield path, annotation
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict:
        yield from inner_models(arguments[1], f"{path}.<label>")
    elif origin is tuple:
        yield from inner_models(arguments[0], f"{path}[]")
    else:
        for argument in arguments:
            yield from inner_models(argument, path)


def _section(model: type[BaseModel], paths: list[str]) -> str:
    listed = ", ".join(map(code, sorted(set(paths)))) if any(paths) else "the file itself"
    parts = [f"## {model.__name__}", f"Path: {listed}.", prose(inspect.getdoc(model))]
    return "\n\n".join([*parts, table(["key", "value", "default", ""], _rows(model))]) + "\n"


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        default = default_of(properties[name], required=field.is_required())
        yield code(name), _linked(words(properties[name])), default, prose(field.description)


def _linked(text: str) -> str:
    """``text`` with the names of models linked to their sections."""
    return re.sub(r"\b([A-Z][A-Za-z]+)\b", lambda match: f"[{match[1]}](#{match[1].lower()})", text)
