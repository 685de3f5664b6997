"""Columns of 0 and 1, one for each label, and what becomes of uncertain and empty values.

Shape letters: N rows, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from transferbench.errors import DataError
from transferbench_plugins.datasets._tables import Table

__all__ = ["BinaryLabels", "Policy", "binary_labels"]

DROPPED = np.inf
VALUES: Mapping[str, float] = {"zero": 0.0, "one": 1.0, "ignore": np.nan, "drop": DROPPED}

Policy: TypeAlias = Literal["zero", "one", "ignore", "drop"]
"""What an uncertain value counts as.

``ignore``: the label is unknown, and left out of loss and metric; ``drop`` leaves the picture out.
"""


class BinaryLabels(NamedTuple):
    """Labels float32 (N, L), NaN where unknown, and the rows bool (N,) to use.

    Rows that a policy drops are not used, nor those of which no label is known.
    """

    values: np.ndarray
    retained: np.ndarray


def binary_labels(
    table: Table,
    names: Sequence[str],
    uncertain: Mapping[str, Policy],
    marks: Sequence[str],
    blank: Policy | None,
) -> BinaryLabels:
    """The columns ``names``. ``marks``: values that are uncertain. ``blank``: of empty values.

    Raises: ``DataError`` for a value that is neither 0, 1 nor covered by a policy.
    """
    columns = [_values(table, name, uncertain.get(name), marks, blank) for name in names]
    values = np.stack(columns, axis=1)
    retained = ~(values == DROPPED).any(axis=1) & ~np.isnan(values).all(axis=1)
    return BinaryLabels(values.astype(np.float32), retained)


def _values(
    table: Table, name: str, uncertain: Policy | None, marks: Sequence[str], blank: Policy | None
) -> np.ndarray:
    texts, codes = np.unique(np.char.strip(table.column(name)), return_inverse=True)
    meanings = np.empty(len(texts))
    for code, text in enumerate(texts.tolist()):
        policy = blank if not text else uncertain if _is_mark(text, marks) else None
        value = VALUES[policy] if policy else _number(text)
        if value is None or (not policy and value not in {0.0, 1.0}):
            line = table.lines[np.flatnonzero(codes == code)[0]]
            raise DataError(
                f"line {line} of {table} has {text!r} in column {name!r}, expected 0 or 1: "
                f"{_way_on(name, text, marks)}"
            )
        meanings[code] = value
    return meanings[codes]


def _way_on(name: str, text: str, marks: Sequence[str]) -> str:
    if not text:
        return ("say with the parameter blank what an empty value counts as (zero, one, ignore or "
                "drop)")  # fmt: skip
    if _is_mark(text, marks):
        return (f"say what it counts as, such as uncertain: {{{name}: zero}} (or one, ignore, or "
                "drop)")  # fmt: skip
    return "correct it, or add it to uncertain_values"


def _is_mark(text: str, marks: Sequence[str]) -> bool:
    number = _number(text)
    return any(text == mark or (number is not None and number == _number(mark)) for mark in marks)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
