"""The suite file: every key, where it stands and what may be written there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from generator.fields import fields_of
from generator.markdown import code, prose, table
from generator.words import default_of, words
from transferbench.suite import Suite

__all__ = ["inner_models", "models", "page"]

HEAD = """# The suite file

A suite is a YAML 1.2 file that fixes everything but the entry. Nothing is coerced: an unknown key,
a key given twice or a value of the wrong type is refused, with file, line and field; all mistakes
are told at once.

- `transferbench validate SUITE.yaml` checks a file and the plugins that it names.
- `transferbench schema` prints its JSON Schema, for editors. With the YAML extension of an editor:
  save it as `suite.schema.json` and begin the suite with
  `# yaml-language-server: $schema=suite.schema.json`.
- YAML 1.2 knows `true` and `false` alone as truths, so that `no` and `on` are words; `1e-3` is a
  number. Anchors (`&name`, `*name`, `<<: *name`) save repetition.
- A version is text: `"1.0"`, in quotes.

[How to write a suite](../how-to/suite.md) goes through one; [the bundled ones](suites.md) are
examples. A label in angle brackets is yours to choose; `[]` stands for each element of a list.

"""


def page() -> str:
    """The page."""
    return HEAD + "\n".join(_section(model, places) for model, places in models().items())


def models() -> dict[type[BaseModel], list[str]]:
    """Every model of the file, and the places where it stands ('' for the file itself)."""
    found: dict[type[BaseModel], list[str]] = {}
    for place, model in _walk(Suite, ""):
        found.setdefault(model, []).append(place)
    return found


def _walk(model: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield place, model
    for name, field in model.model_fields.items():
        for below, inner in inner_models(field.annotation, f"{place}.{name}".lstrip(".")):
            yield from _walk(inner, below)


def inner_models(annotation: Any, place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models inside an annotation, and where they stand."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield place, annotation
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict:
        yield from inner_models(arguments[1], f"{place}.<label>")
    elif origin is tuple:
        yield from inner_models(arguments[0], f"{place}[]")
    else:
        for argument in arguments:
            yield from inner_models(argument, place)


def _section(model: type[BaseModel], places: list[str]) -> str:
    shown = ", ".join(map(code, sorted(set(places)))) if any(places) else "the file itself"
    parts = [f"## {model.__name__}", f"Stands at: {shown}.", prose(inspect.getdoc(model))]
    return "\n\n".join([*parts, table(["key", "value", "default", ""], _rows(model))]) + "\n"


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    properties = model.model_json_schema()["properties"]
    texts = _texts(model)
    for name, field in model.model_fields.items():
        default = default_of(properties[name], required=field.is_required())
        yield code(name), _linked(words(properties[name])), default, prose(texts[name])


def _texts(model: type[BaseModel]) -> dict[str, str]:
    """What is said of each field, also of those that it has from another model of the file."""
    own = [cls for cls in reversed(model.__mro__) if cls.__module__ == model.__module__]
    return {field.name: field.text for cls in own for field in fields_of(cls)}


def _linked(text: str) -> str:
    """The names of models become links to their sections."""
    return re.sub(r"\b([A-Z][A-Za-z]+)\b", lambda found: f"[{found[1]}](#{found[1].lower()})", text)
