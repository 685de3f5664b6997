"""Values that a JSON Schema allows, in words."""

from __future__ import annotations

from typing import Any

__all__ = ["default_of", "words"]

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
