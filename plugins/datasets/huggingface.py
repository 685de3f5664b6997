"""Datasets of Hugging Face: parquet files, saved folders, or the hub at a revision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from transferbench.errors import DataError, listing, suggestion
from transferbench.specs import DatasetItems, DatasetSpec, Params
from transferbench_plugins.datasets._arrow_tables import ArrowRows, local_rows, rows_of_table
from transferbench_plugins.datasets._paths import (
    BelowRoot,
    content_of_folder,
    group_text,
    required,
)

__all__ = ["HUGGINGFACE", "HuggingFaceParams"]

NAME = "huggingface"
LISTED = 10
PICTURES, LABELS = ("image", "img", "picture"), ("label", "labels", "class", "fine_label")


class HuggingFaceParams(Params):
    """The dataset, its splits and columns.

    ``dataset``: a folder below the root, ``FOLDER`` in ``huggingface/FOLDER``; with ``revision``
    the name of a repository on the hub. ``revision``: the commit, or tag, to download; needs the
    extra ``huggingface``. ``configuration``: of the repository, where it has several; of a folder
    the one below it to read.
    ``train``, ``test``: names of splits, ``train`` of ``train-00000-of-00002.parquet``.
    ``image``, ``label``, ``group``: columns; the first two are found where they are left out.
    """

    dataset: BelowRoot
    revision: Annotated[str, Field(min_length=1)] | None = None
    configuration: Annotated[BelowRoot, Field(min_length=1)] | None = None
    train: Annotated[BelowRoot, Field(min_length=1)] = "train"
    test: Annotated[BelowRoot, Field(min_length=1)] = "test"
    image: str | None = None
    label: str | None = None
    group: str | None = None


# --- the spec's functions -----------------------------------------------------------------------


def _classes(params: HuggingFaceParams, root: Path | None) -> tuple[str, ...]:
    rows = {split: _rows(params, split, root) for split in ("train", "test")}
    column = _label_column(params, rows["train"])
    declared = {split: _declared(part, column) for split, part in rows.items()}
    if all(declared.values()) and declared["train"] != declared["test"]:
        names = (listing(part, LISTED) for part in declared.values())
        raise DataError(
            f"dataset {NAME!r}: splits {params.train!r} and {params.test!r} declare other classes "
            f"in column {column!r}, {' and '.join(names)}: take both from one version"
        )
    if declared["train"]:
        return declared["train"]
    values = {value for part in rows.values() for value in _values(part, column)}
    if all(isinstance(value, int) for value in values):
        return tuple(map(str, range(1 + max(values))))
    return tuple(sorted(map(str, values)))


def _items(params: HuggingFaceParams, split: str, root: Path | None) -> DatasetItems:
    rows = _rows(params, split, root)
    labels = _indices(_values(rows, _label_column(params, rows)), _classes(params, root))
    if params.group is None:
        name = params.train if split == "train" else params.test
        groups = [f"{name}-{i}" for i in range(len(labels))]
    else:
        groups = [group_text(str(key)) for key in _values(rows, params.group)]
    column = _picture_column(params, rows)
    return DatasetItems(labels, np.array(groups, str), lambda i: _picture(rows.cell(column, i)))


def _by_params(params: HuggingFaceParams) -> dict[str, Any]:
    if params.revision is not None:
        published = "the splits of the hub are taken as they are, with any equal pictures in both"
        return {"needs_root": False, "shared_between_splits": published}
    return {"folder": f"{NAME}/{params.dataset}"}


# --- rows ---------------------------------------------------------------------------------------


def _rows(params: HuggingFaceParams, split: str, root: Path | None) -> ArrowRows:
    names = (params.train, params.test) if split == "train" else (params.test, params.train)
    if params.revision is not None:
        return _of_hub(params, names[0])
    expected = "parquet files or a folder of save_to_disk; for the hub give revision"
    folder = required(root, NAME, expected, f"{NAME}/{params.dataset}")
    return local_rows(_configured(params, folder), *names)


def _configured(params: HuggingFaceParams, folder: Path) -> Path:
    if params.configuration is None or (folder / params.configuration).is_dir():
        return folder / (params.configuration or "")
    raise DataError(
        f"dataset {NAME!r}: there is no folder {params.configuration!r} of a configuration; "
        f"{content_of_folder(folder)}: name one of its folders, or leave configuration out"
    )


def _of_hub(params: HuggingFaceParams, split: str) -> ArrowRows:
    """A split from the hub, which the library keeps in its own cache."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"dataset '{NAME}/{params.dataset}' at revision {params.revision!r} is read from the "
            "hub with the distribution 'datasets', which is not installed: pip install "
            "'transferbench[huggingface]', or download its parquet files and leave revision out"
        ) from error
    try:
        loaded = datasets.load_dataset(
            params.dataset, params.configuration, revision=params.revision, split=split
        )
    except Exception as error:  # the library raises many kinds
        raise DataError(
            f"dataset '{NAME}/{params.dataset}': the hub gave no split {split!r} of revision "
            f"{params.revision!r} ({str(error) or type(error).__name__}): check its name, and the "
            "connection"
        ) from error
    return rows_of_table(loaded.data.table)


def _values(rows: ArrowRows, column: str) -> list[Any]:
    values = rows.column(column)
    for position, value in enumerate(values):
        named = isinstance(value, str) and value.strip()
        if not named and (not isinstance(value, int) or isinstance(value, bool)):
            raise DataError(
                f"dataset {NAME!r}: row {position} has {value!r} in column {column!r}, expected a "
                "number or a name: give another column, or leave the row out"
            )
    return values


def _indices(values: Sequence[Any], classes: Sequence[str]) -> np.ndarray:
    index = {name: position for position, name in enumerate(classes)}
    labels = [value if isinstance(value, int) else index.get(value, -1) for value in values]
    for position, label in enumerate(labels):
        if not 0 <= label < len(classes):
            raise DataError(
                f"dataset {NAME!r}: row {position} has the label {values[position]!r}, which is "
                f"none of {len(classes)} classes; rows without labels, such as -1, are to be left "
                "out: choose another split"
            )
    return np.array(labels, np.int64)


# --- columns ------------------------------------------------------------------------------------


def _picture_column(params: HuggingFaceParams, rows: ArrowRows) -> str:
    return _column(rows, "image", params.image, "Image", PICTURES)


def _declared(rows: ArrowRows, column: str) -> tuple[str, ...]:
    """The classes that the dataset names itself; none where it does not."""
    feature = rows.features.get(column)
    return tuple(map(str, feature.get("names") or ())) if isinstance(feature, dict) else ()


def _label_column(params: HuggingFaceParams, rows: ArrowRows) -> str:
    return _column(rows, "label", params.label, "ClassLabel", LABELS)


def _column(rows: ArrowRows, role: str, chosen: str | None, kind: str, usual: Sequence[str]) -> str:
    """The column of a role: the one that is named, the only one of its kind, or the usual name."""
    if chosen is not None:
        if chosen not in rows.names:
            raise DataError(f"dataset {NAME!r} has no column {chosen!r}; "
                            f"{suggestion(chosen, list(rows.names))}")  # fmt: skip
        return chosen
    of_kind = [name for name in rows.names if _kind(rows.features, name) == kind]
    named = [name for name in usual if name in rows.names]
    candidates = of_kind if len(of_kind) == 1 else [n for n in named if n in of_kind or not of_kind]
    if not candidates:
        raise DataError(
            f"dataset {NAME!r} has the columns {', '.join(rows.names)}: say with the parameter "
            f"{role} which is the {role}"
        )
    return candidates[0]


def _kind(features: Mapping[str, Any], name: str) -> str:
    feature = features.get(name)
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _picture(value: Any) -> bytes | Path:
    """What a cell of pictures holds: its bytes, or the path of a file."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    path = value.get("path") if isinstance(value, dict) else value
    if isinstance(path, str) and path:
        return Path(path)
    raise OSError("it has neither bytes nor a path")


HUGGINGFACE = DatasetSpec(
    name=NAME,
    version=2,
    summary="A dataset of Hugging Face, as huggingface/FOLDER or, at a revision, huggingface/REPO",
    source="your own files, or https://huggingface.co/datasets",
    license="that of the dataset",
    params=HuggingFaceParams,
    tiny={"dataset": "folder"},
    items=_items,
    classes=_classes,
    channels=3,
    grouping="row, or the value of the column that the parameter group names",
    needs_root=True,
    by_params=_by_params,
    member="dataset",
)
