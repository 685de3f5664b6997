"""Plugins in words: what they declare, and the values that a JSON Schema allows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

    from transferbench.specs import Spec

__all__ = ["declared", "default_of", "docs_of", "parameters", "words"]

DECLARED = (
    "task", "metric", "splits", "channels", "grouping", "shared_between_splits", "needs_root",
    "requires", "stage", "applies_to", "member", "needs", "touches", "draw", "subjects",
)  # fmt: skip
"""Fields of specs that are shown, in this order."""

Schema = dict[str, Any]
PLAIN = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
}
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} long",
    "maxLength": "at most {} long",
    "pattern": "like {}",
}


def words(schema: Schema) -> str:
    """The type of a value with its bounds."""
    kind = _kind(schema)
    bounds = [text.format(_value(schema[key])) for key, text in BOUNDS.items() if key in schema]
    return ", ".join([kind, *bounds])


def _kind(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[-1])
    if "enum" in schema or "const" in schema:
        return " or ".join(map(_value, schema.get("enum", [schema.get("const")])))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(words, schema["anyOf"])))
    if schema.get("type") == "array":
        return _list(schema)
    if schema.get("type") == "object":
        return _mapping(schema)
    return PLAIN.get(schema.get("type", ""), "anything")


def _list(schema: Schema) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(map(words, schema['prefixItems']))}]"
    return f"list of {words(schema.get('items', {}))}"


def _mapping(schema: Schema) -> str:
    patterns = list(schema.get("patternProperties", {}).values())
    inner = next(iter(patterns), schema.get("additionalProperties"))
    of = f" to {words(inner)}" if isinstance(inner, dict) and inner else ""
    return f"label{of}" if of else "mapping"


def _value(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else str(value)


def default_of(schema: Schema, *, required: bool) -> str:
    """The default as a suite file would write it; ``required`` where there is none."""
    if required:
        return "required"
    value = schema.get("default")
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if value not in ({}, []) else "none"


def declared(spec: Spec) -> Iterator[tuple[str, str]]:
    """What a spec declares beside its name, source and parameters: field and value."""
    for name in DECLARED:
        value = getattr(spec, name, None)
        if value not in (None, "", (), frozenset()):
            yield name.replace("_", " "), _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    listed = isinstance(value, (tuple, frozenset))
    return ", ".join(sorted(map(str, value))) if listed else str(value)


def parameters(params: type[BaseModel]) -> Iterator[tuple[str, list[tuple[str, str, str]], str]]:
    """Of a model of parameters, and of each that it holds: name, rows and description.

    A row is a parameter, the values that it takes and its default.
    """
    from pydantic.errors import PydanticInvalidForJsonSchema

    try:
        schema = params.model_json_schema()
    except PydanticInvalidForJsonSchema:  # a type of the plugin's own
        fields = params.model_fields
        required = [name for name, field in fields.items() if field.is_required()]
        schema = {"properties": {name: {} for name in fields}, "required": required}
    inner = schema.get("$defs", {})
    yield "", _rows(schema), "\n\n".join(docs_of(params))
    for name, held in inner.items():
        yield name, _rows(held), held.get("description", "")


def _rows(schema: Schema) -> list[tuple[str, str, str]]:
    required = schema.get("required", ())
    return [(name, words(field), default_of(field, required=name in required))
            for name, field in schema.get("properties", {}).items()]  # fmt: skip


def docs_of(model: type[BaseModel]) -> Iterator[str]:
    """The docstrings of a model of parameters and of its bases."""
    from pydantic import BaseModel

    from transferbench.specs import Params

    for cls in model.__mro__:
        if cls in {Params, BaseModel, object}:
            return
        if cls.__doc__:
            yield inspect.cleandoc(cls.__doc__)
