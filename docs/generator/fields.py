"""The fields of a class as its source declares them, with their descriptions.

A field is described by a string below it or in the docstring of its class.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any, NamedTuple

__all__ = ["Field", "fields_of", "undocumented"]


class Field(NamedTuple):
    """A field; annotation and default are source text, "" for a field without a default."""

    name: str
    annotation: str
    default: str
    description: str


def fields_of(cls: type) -> list[Field]:
    """The fields that ``cls`` itself declares, in order."""
    tree: Any = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    fields = []
    for statement, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            if name == "model_config" or "ClassVar" in ast.unparse(statement.annotation):
                continue
            default = "" if statement.value is None else ast.unparse(statement.value)
            fields.append(Field(name, ast.unparse(statement.annotation), default, _string(after)))
    return fields


def undocumented(cls: type) -> list[str]:
    """The fields of ``cls`` without a description."""
    docstring = inspect.getdoc(cls) or ""
    return [
        field.name
        for field in fields_of(cls)
        if not field.description
        and not re.search(rf"``{field.name}``|^{field.name}:", docstring, re.MULTILINE)
    ]


def _string(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return str(statement.value.value)
    return ""
