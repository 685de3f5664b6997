"""The mistakes of a suite in words: fields that break the schema, and the report of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from transferbench.errors import suggestion
from transferbench.suite.document import At, Location, Mistake
from transferbench.suite.schema import Suite

__all__ = ["parsed", "reason_of", "report"]

MAX_LISTED = 50
"""Mistakes that are printed."""
SHORT = 60
MAX_STEPS = 12
LABEL = "a label begins with a letter or digit and has at most 60 letters, digits and . _ + * -"

KEY = "[key]"
"""The last step of pydantic's location where the key itself is wrong."""

SHOULD = "Input should be "
WORDS = {
    "string_type": "Input should be a text in quotes",
    "tuple_type": "Input should be a list",
    "model_type": "Input should be a mapping",
    "dict_type": "Input should be a mapping",
    "int_type": "Input should be an integer",
    "float_type": "Input should be a number",
    "bool_type": "Input should be true or false",
}
"""What pydantic calls by the names of Python's types."""


def parsed(raw: Any) -> tuple[Suite | None, list[Mistake]]:
    """The suite that ``raw`` describes, None with the fields that break the schema."""
    try:
        return Suite.model_validate(raw), []
    except ValidationError as error:
        return None, list(_schema_mistakes(error, raw))


def _schema_mistakes(error: ValidationError, raw: Any) -> Iterator[Mistake]:
    # Each member of a union has an error of its own at the same location.
    by_location: dict[Location, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_location.setdefault(_existing(detail["loc"], raw), []).append(detail)
    for location, (detail, *others) in by_location.items():
        if detail["loc"][-1:] == (KEY,):
            yield Mistake(location, f"{_value_text(detail['input'])} is not a label: {LABEL}")
        elif detail["type"] == "extra_forbidden":
            names = tuple(_fields_at(location[:-1]))
            yield Mistake(location, "no such field", near=(str(location[-1]), names))
        else:
            yield Mistake(location, reason_of(detail, *others))


def reason_of(detail: ErrorDetails, *alternatives: ErrorDetails) -> str:
    """One of pydantic's errors as a sentence, with the value that is there."""
    reason = WORDS.get(detail["type"], detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "missing" and isinstance(detail["loc"][-1], int):
        return f"Input should have a value more than {detail['loc'][-1]}"
    if detail["type"] in {"missing", "value_error", "assertion_error"}:
        return reason
    others = (WORDS.get(other["type"], other["msg"]) for other in alternatives)
    choices = dict.fromkeys(choice.removeprefix(SHOULD) for choice in (reason, *others))
    start = SHOULD if reason.startswith(SHOULD) else ""
    return f"{start}{' or '.join(choices)}, not {_value_text(detail['input'])}"


def _value_text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= SHORT else f"{text[:SHORT]}..."


def _existing(location: Location, raw: Any) -> Location:
    """``location`` without the steps by which pydantic tells the members of a union apart."""
    steps: list[str | int] = []
    for step in location:
        inside = isinstance(raw, list) and isinstance(step, int) and step < len(raw)
        if inside or (isinstance(raw, dict) and step in raw):
            raw = raw[step]
            steps.append(step)
        elif isinstance(raw, dict) and step != KEY:
            return (*steps, step)
    return tuple(steps)


@cache
def _schema() -> dict[str, Any]:
    return Suite.model_json_schema()


def _fields_at(location: Location) -> list[str]:
    """The names of the fields that the schema allows at a location."""
    root = _schema()
    node: dict[str, Any] = root
    for step in location:
        if "properties" in node:
            node = node["properties"].get(step, {})
        else:
            patterns = list(node.get("patternProperties", {}).values())
            inner = [node.get("additionalProperties"), node.get("items"), *patterns]
            node = next((schema for schema in inner if isinstance(schema, dict)), {})
        while "$ref" in node or "anyOf" in node:
            node = (
                root["$defs"][node["$ref"].rsplit("/", 1)[-1]]
                if "$ref" in node
                else node["anyOf"][0]
            )
    return sorted(node.get("properties", {}))


def report(
    mistakes: Sequence[Mistake], path: Path | None = None, locate: Callable[[Location], At] = len
) -> str:
    """All mistakes as one message, sorted by where they are in the file at ``path``.

    ``locate``: where a value is set. Without a path, the fields alone are named.
    """
    placed = [
        (mistake.at or (locate(mistake.location) if path else ""), mistake)
        for mistake in dict.fromkeys(mistakes)
    ]
    placed.sort(key=lambda item: (isinstance(item[0], str), item[0]))
    lines = [
        ": ".join(filter(None, (_prefix(at, path), _field(mistake.location), _text(mistake))))
        for at, mistake in placed[:MAX_LISTED]
    ]
    rest = len(placed) - len(lines)
    count = "one mistake" if len(placed) == 1 else f"{len(placed)} mistakes"
    advice = dict.fromkeys(mistake.advice for mistake in mistakes if mistake.advice)
    notes = [f"unknown names: {text}" for text in advice]
    listed = [*lines, *([f"and {rest} more"] if rest else []), *notes]
    return f"the suite has {count}:\n  " + "\n  ".join(listed)


def _text(mistake: Mistake) -> str:
    return f"{mistake.message}; {suggestion(*mistake.near)}" if mistake.near else mistake.message


def _field(location: Location) -> str:
    steps = [str(step) if str(step).isprintable() else repr(step) for step in location]
    return (
        ".".join(map(_short, [*steps[:MAX_STEPS], *["..."] * (len(steps) > MAX_STEPS)])) or "suite"
    )


def _prefix(at: At, path: Path | None) -> str:
    return f"{path}:{at}" if isinstance(at, int) else at
