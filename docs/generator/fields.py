"""The fields of a class as its source declares them, with what is said of each.

A field is described where it is declared (a string below it), in its class's docstring, or, where
its name says nearly all, in ``fields.yaml`` beside this file.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

__all__ = ["Field", "described_elsewhere", "fields_of", "undocumented"]

TEXTS = Path(__file__).with_name("fields.yaml")


class Field(NamedTuple):
    """Annotation and default are source text; no default: it must be given."""

    name: str
    annotation: str
    default: str
    text: str


@cache
def described_elsewhere() -> dict[str, dict[str, str]]:
    """Class -> field -> text, from ``fields.yaml``."""
    found: dict[str, dict[str, str]] = YAML(typ="safe").load(TEXTS.read_text(encoding="utf-8"))
    return found


def fields_of(cls: type) -> list[Field]:
    """The fields that ``cls`` itself declares, in their order."""
    tree: Any = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    texts = described_elsewhere().get(cls.__name__, {})
    found = []
    for statement, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            if name == "model_config" or "ClassVar" in ast.unparse(statement.annotation):
                continue
            default = "" if statement.value is None else ast.unparse(statement.value)
            text = _string(after) or texts.get(name, "")
            found.append(Field(name, ast.unparse(statement.annotation), default, text))
    return found


def undocumented(cls: type) -> list[str]:
    """The fields of ``cls`` of which nothing is said."""
    said = inspect.getdoc(cls) or ""
    return [
        field.name
        for field in fields_of(cls)
        if not field.text and not re.search(rf"``{field.name}``|^{field.name}:", said, re.MULTILINE)
    ]


def _string(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return str(statement.value.value)
    return ""
