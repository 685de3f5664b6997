"""Your own images listed in a table: a CSV or TSV file, or a list of paths and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from transferbench.errors import DataError, listing
from transferbench.specs import DatasetItems, DatasetSpec, Params
from transferbench_plugins.datasets._binary_labels import Policy, binary_labels
from transferbench_plugins.datasets._hash_split import hashed_test
from transferbench_plugins.datasets._paths import BelowRoot, group_text, refuse_missing, required
from transferbench_plugins.datasets._tables import Table, read_table

__all__ = ["IMAGE_TABLE", "ImageTableParams"]

NAME = "image-table"
LISTED = 10


class ImageTableParams(Params):
    """The table, its columns, and which of its rows are which split.

    ``table``: the file below the root; ``.csv`` (commas), ``.tsv`` (tabs), or a list with spaces;
    each also as ``.gz``. ``test``: another table of the same form, for testing.
    ``columns``: names of the columns, where the table has no header.
    ``path``: the column of the pictures' paths; ``prefix`` and ``suffix``: text before and after
    each path, such as ``images/`` and ``.jpg``; the result is below the root.
    ``label``: the column of the class. ``labels``: instead of it several columns of 0 and 1.
    ``classes``: the classes in the order of their indices, if not all that are found, sorted.
    ``group``: the column of the group; without it each file is a group of its own.
    ``split``: the column of the split; ``train_values``, ``test_values``: what it says of each.
    ``test_share``: without ``split`` and ``test``, the share of the groups for testing, selected by
    a hash of their keys.
    ``where``: column -> the value, or values, of the rows to use.
    ``uncertain``: column of ``labels`` -> what one of ``uncertain_values`` counts as: ``zero``,
    ``one``, ``ignore`` (this label is unknown: left out of loss and metric) or ``drop`` (the
    picture is left out). ``blank``: what an empty value counts as. A picture of which no label is
    known is left out.
    """

    table: BelowRoot = "labels.csv"
    test: BelowRoot | None = None
    columns: tuple[str, ...] = ()
    path: str = "path"
    prefix: str = ""
    suffix: str = ""
    label: str = "label"
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    group: str | None = None
    split: str | None = None
    train_values: Annotated[tuple[str, ...], Field(min_length=1)] = ("train",)
    test_values: Annotated[tuple[str, ...], Field(min_length=1)] = ("test",)
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    where: dict[str, str | tuple[str, ...]] = Field(default={})
    uncertain: dict[str, Policy] = Field(default={})
    uncertain_values: tuple[str, ...] = ("-1",)
    blank: Policy | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.test is not None and self.split is not None:
            raise ValueError("test (a table) and split (a column) both say which rows are for "
                             "testing: give one of them")  # fmt: skip
        if self.labels and self.classes:
            raise ValueError("labels are named by their columns: leave classes out")
        if others := sorted(self.uncertain.keys() - set(self.labels)):
            raise ValueError(f"uncertain names {', '.join(others)}, which labels does not")
        if both := sorted(set(self.train_values) & set(self.test_values)):
            raise ValueError(f"train_values and test_values both have {', '.join(both)}")
        return self


class _Pictures(NamedTuple):
    """The pictures of one split: paths below the root, labels and keys of groups."""

    paths: list[str]
    labels: np.ndarray
    groups: list[str]


# --- the spec's functions -----------------------------------------------------------------------


def _classes(params: ImageTableParams, root: Path | None) -> tuple[str, ...]:
    """The names of the labels, or those of the classes in both splits, sorted."""
    return _named_classes(params, _tables(params, _required(root)))


def _items(params: ImageTableParams, split: str, root: Path | None) -> DatasetItems:
    root = _required(root)
    tables = _tables(params, root)
    paths, labels, groups = _pictures(params, tables[split], _named_classes(params, tables))
    files = [root / path for path in paths]
    refuse_missing(NAME, files, "add them, remove their rows, or correct prefix and suffix")
    return DatasetItems(labels, np.array(groups, str), files.__getitem__)


def _by_params(params: ImageTableParams) -> dict[str, Any]:
    return {"task": "multi-label", "metric": "auc"} if params.labels else {}


def _notes(params: ImageTableParams, root: Path | None) -> list[str]:
    """How many rows each split has, and how many were left out."""
    root = _required(root)
    names = [params.table] if params.test is None else [params.table, params.test]
    count = sum(len(read_table(root / name, params.columns).lines) for name in names)
    tables = _tables(params, root)
    classes = _named_classes(params, tables)
    sizes = {split: len(_pictures(params, table, classes).paths) for split, table in tables.items()}
    used = ", ".join(f"{size} for {split}" for split, size in sizes.items())
    return [f"{' and '.join(map(repr, names))}: {count} rows, of which {used}"]


# --- rows ---------------------------------------------------------------------------------------


def _required(root: Path | None) -> Path:
    return required(root, NAME, "a folder with a table of pictures")


def _tables(params: ImageTableParams, root: Path) -> dict[str, Table]:
    """The rows of each split that fit ``where``. Raises: ``DataError`` where none do."""
    table = _selected(params, read_table(root / params.table, params.columns))
    if params.test is not None:
        test = _selected(params, read_table(root / params.test, params.columns))
        return {"train": table, "test": test}
    if params.split is not None:
        return _by_column(params, table)
    testing = hashed_test(_groups(params, table), params.test_share)
    parts = {"train": table.rows(~testing), "test": table.rows(testing)}
    if empty := [split for split, rows in parts.items() if not len(rows.lines)]:
        raise DataError(
            f"dataset {NAME!r}: with test_share {params.test_share} no group of {table} is in the "
            f"split {empty[0]!r}: choose another share, or give a column of splits"
        )
    return parts


def _selected(params: ImageTableParams, table: Table) -> Table:
    selected = np.ones(len(table.lines), bool)
    for name, values in params.where.items():
        accepted = [values] if isinstance(values, str) else list(values)
        selected &= np.isin(table.column(name), accepted)
        if not selected.any():
            raise DataError(
                f"no row of {table} has {' or '.join(map(repr, accepted))} in column {name!r} and "
                f"fits what else where asks for; it has {_values_of(table, name)}"
            )
    return table.rows(selected)


def _by_column(params: ImageTableParams, table: Table) -> dict[str, Table]:
    column = params.split or ""
    values = table.column(column)
    parts = {}
    for split, accepted in (("train", params.train_values), ("test", params.test_values)):
        selected = np.isin(values, accepted)
        if not selected.any():
            raise DataError(
                f"no row of {table} has {' or '.join(map(repr, accepted))} in column {column!r}, "
                f"which has {_values_of(table, column)}: give {split}_values"
            )
        parts[split] = table.rows(selected)
    return parts


def _values_of(table: Table, name: str) -> str:
    return listing([repr(value) for value in np.unique(table.column(name)).tolist()], LISTED)


# --- pictures -----------------------------------------------------------------------------------


def _named_classes(params: ImageTableParams, tables: Mapping[str, Table]) -> tuple[str, ...]:
    if params.labels or params.classes:
        return params.labels or params.classes
    columns = [_filled(table, params.label, "class") for table in tables.values()]
    values = np.unique(np.concatenate(columns))
    names: list[str] = values.tolist()
    numeric = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=int) if numeric else names)


def _pictures(params: ImageTableParams, table: Table, classes: Sequence[str]) -> _Pictures:
    if params.labels:
        labels, retained = binary_labels(
            table, params.labels, params.uncertain, params.uncertain_values, params.blank
        )
        if not retained.any():
            raise DataError(f"every row of {table} that is used is dropped as uncertain, or has no "
                            "known label: choose another policy")  # fmt: skip
        labels, table = labels[retained], table.rows(retained)
    else:
        labels = _class_indices(params, table, classes)
    return _Pictures(_paths(params, table), labels, _groups(params, table))


def _class_indices(params: ImageTableParams, table: Table, classes: Sequence[str]) -> np.ndarray:
    names, codes = np.unique(_filled(table, params.label, "class"), return_inverse=True)
    indices = {name: index for index, name in enumerate(classes)}
    if others := [name for name in names.tolist() if name not in indices]:
        line = table.lines[codes == names.tolist().index(others[0])][0]
        raise DataError(
            f"line {line} of {table} has the class {others[0]!r} in column {params.label!r}, which "
            f"classes does not name: add {listing(list(map(repr, others)), LISTED)}, or leave "
            "classes out"
        )
    return np.array([indices[name] for name in names.tolist()], np.int64)[codes]


def _paths(params: ImageTableParams, table: Table) -> list[str]:
    """The paths below the root. Raises: ``DataError`` for others, and for a path in two rows."""
    column = table.column(params.path).tolist()
    paths = [f"{params.prefix}{path}{params.suffix}" for path in column]
    lines: dict[str, int] = {}
    for path, line in zip(paths, table.lines.tolist(), strict=True):
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise DataError(
                f"line {line} of {table} has the path {path!r}, which does not lie below the root: "
                "give paths relative to it"
            )
        if path in lines:
            raise DataError(
                f"lines {lines[path]} and {line} of {table} have one path, {path!r}: give each "
                "picture one row"
            )
        lines[path] = line
    return paths


def _groups(params: ImageTableParams, table: Table) -> list[str]:
    if params.group is None:
        keys = table.column(params.path)
    else:
        keys = _filled(table, params.group, "group")
    return [group_text(key) for key in keys.tolist()]


def _filled(table: Table, column: str, content: str) -> np.ndarray:
    """The values of a column. Raises: ``DataError`` for one that is empty."""
    values = table.column(column)
    if not (filled := np.char.strip(values) != "").all():
        raise DataError(
            f"line {table.lines[~filled][0]} of {table} has no {content} in column {column!r}: "
            "give each row one, or choose rows with the parameter where"
        )
    return values


IMAGE_TABLE = DatasetSpec(
    name=NAME,
    version=1,
    summary="Your own images in a table of paths and labels: CSV, TSV or a list",
    source="your own files",
    license="that of your files",
    params=ImageTableParams,
    items=_items,
    classes=_classes,
    channels=3,
    grouping="file, or the value of the column that the parameter group names",
    needs_root=True,
    by_params=_by_params,
    notes=_notes,
)
