"""What there is in a folder, or a table, of one's own pictures: classes, counts, sizes, colour."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError
from ruamel.yaml import YAML

from transferbench.data.pictures import PictureError, PictureSource, decode
from transferbench.errors import DataError, listing
from transferbench.registry import Registry, blamed
from transferbench.specs import DatasetItems, DatasetSpec
from transferbench.suite.loading import suite_path

__all__ = ["LEAST_PER_CLASS", "Look", "look_at", "template"]

LEAST_PER_CLASS = 6
"""Pictures of a class: two to train on, two to validate on and two to test on."""
LEAST_OF_SPLIT = {"train": 4, "test": 2}
SHARES = (0.3, 0.25, 0.35, 0.4, 0.2, 0.5)
"""Shares of the pictures for testing, the first that gives each class enough is taken."""
SAMPLED = 64
"""Pictures that are opened for their size and colour."""
COLOURFUL = 4.0
"""Mean difference of the channels, of 255, from which a picture is one in colour."""
LISTED = 5

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
"""What folders and values of splits are called, in any case; the first that is there is taken."""
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "picture"),
    "label": ("label", "class", "category", "target", "species", "diagnosis"),
    "split": ("split", "subset", "fold", "set"),
    "group": ("group", "patient", "patient_id", "subject", "person"),
}
"""What columns of a table are usually called."""


class Look(NamedTuple):
    """What was read of the pictures.

    ``dataset``: its plugin and parameters, for a suite. ``counts``: split -> pictures of each
    class. ``short_side``: median of the pictures, in pixels. ``channels``: 1 where all are grey.
    ``groups``: how many there are, where the pictures are grouped.
    """

    name: str
    data_root: Path
    dataset: dict[str, Any]
    classes: tuple[str, ...]
    counts: Mapping[str, np.ndarray]
    short_side: int
    channels: int
    groups: int | None = None

    def size_of(self, split: str) -> int:
        """The pictures of a split."""
        return int(self.counts[split].sum())

    @property
    def imbalance(self) -> float:
        """The largest class over the smallest, of the training pictures."""
        train = self.counts["train"]
        return float(train.max() / max(train.min(), 1))

    def __str__(self) -> str:
        total = self.counts["train"] + self.counts["test"]
        counts = [f"{name} {count}" for name, count in zip(self.classes, total, strict=True)]
        colour = "grey" if self.channels == 1 else "in colour"
        grouped = f" in {self.groups} groups" if self.groups is not None else ""
        return (
            f"{total.sum()} pictures {colour}{grouped}, {len(self.classes)} classes "
            f"({listing(counts, LISTED)}), {self.size_of('train')} to train on and "
            f"{self.size_of('test')} to test on; short side {self.short_side} px (median)"
        )


@cache
def template() -> dict[str, Any]:
    """The bundled suite to be filled, as the content of its file, and the plugins it may use."""
    text = resources.files(__package__).joinpath("template.yaml").read_text("utf-8")
    content: dict[str, Any] = YAML(typ="safe").load(text)
    content["suite"] = YAML(typ="safe").load(suite_path(content["suite"]))
    return content


def look_at(path: Path, registry: Registry, group: str | None = None) -> Look:
    """Look at the pictures in class folders below ``path``, or in a table.

    ``group``: what tells the group of a picture, no group being in two splits: a regular expression
    whose first group matches its key in the name of a file, or a column of the table.

    Raises: ``DataError`` where there are none, one class alone, or too few of a class.
    """
    if not path.exists():
        raise DataError(
            f"there is no {path}; give a folder of class folders, or a table of pictures"
        )
    kind = "folder" if path.is_dir() else "table"
    spec = registry.dataset(template()["datasets"][kind])
    root = path if path.is_dir() else path.parent
    tried = _folder_params(path) if path.is_dir() else _table_params(path)
    problem = ""
    for params in tried:
        if group is not None:
            params["group"] = group
        classes, items = _items(spec, params, root)
        counts = {
            split: np.bincount(part.labels, minlength=len(classes)) for split, part in items.items()
        }
        problem = _too_few(path, classes, counts)
        if not problem:
            short, channels = _looked(path, items["train"])
            dataset = {"name": spec.name, "params": params}
            name = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-") or "pictures"
            groups = {key for part in items.values() for key in part.groups.tolist()}
            grouped = len(groups) if "group" in params else None
            return Look(name[:40], root, dataset, classes, counts, short, channels, grouped)
    raise DataError(problem)


def _items(
    spec: DatasetSpec, params: dict[str, Any], root: Path
) -> tuple[tuple[str, ...], dict[str, DatasetItems]]:
    list_items = spec.items
    if list_items is None:
        raise DataError(f"dataset {spec.name!r} lists no pictures; update its plugin")
    try:
        parsed = spec.parse(params)
    except ValidationError as error:
        reasons = "; ".join(detail["msg"] for detail in error.errors())
        raise DataError(f"the pictures cannot be read with {params}: {reasons}") from error
    with blamed(f"dataset {spec.name!r}"):
        spec = spec.with_params(parsed)
        classes = tuple(spec.classes(parsed, root))
        items = {split: list_items(parsed, split, root) for split in ("train", "test")}
    return classes, items


def _folder_params(folder: Path) -> list[dict[str, Any]]:
    """Parameters of the layouts: folders of the splits, or one that is divided."""
    splits = _splits_among(path.name for path in sorted(folder.iterdir()) if path.is_dir())
    return [splits] if splits else [{"test_share": share} for share in SHARES]


def _splits_among(names: Iterable[str]) -> dict[str, Any]:
    """Split -> its name among ``names``; none where one of them is not there."""
    spelled = {name.strip().lower(): name for name in names}
    splits = {
        split: next((spelled[alias] for alias in aliases if alias in spelled), None)
        for split, aliases in SPLITS.items()
    }
    return {} if None in splits.values() else splits


def _too_few(path: Path, classes: Sequence[str], counts: Mapping[str, np.ndarray]) -> str:
    """Why the pictures do not allow a comparison; empty where they do."""
    if len(classes) < 2:
        return (
            f"{path} has one class, {classes[0]!r}: nothing is told apart; give each class a"
            " folder, or a value of its own in the table"
        )
    total = counts["train"] + counts["test"]
    least = int(total.argmin())
    if total[least] < LEAST_PER_CLASS:
        return (
            f"class {classes[least]!r} in {path} has {total[least]} pictures, and each class needs "
            f"{LEAST_PER_CLASS} or more: add pictures, or leave the class out"
        )
    for split, fewest in LEAST_OF_SPLIT.items():
        least = int(counts[split].argmin())
        if counts[split][least] < fewest:
            return (
                f"class {classes[least]!r} in {path} has {counts[split][least]} pictures to "
                f"{split} on, and needs {fewest}: add pictures, or divide them otherwise"
            )
    return ""


# --- tables -------------------------------------------------------------------------------------


def _table_params(table: Path) -> list[dict[str, Any]]:
    """Parameters of the table's columns, by what columns are usually called.

    Raises: ``DataError`` where it is no table, or it does not tell paths and labels.
    """
    head, rows = _first_rows(table)
    chosen = {
        role: next((name for name in head if name.strip().lower() in names), None)
        for role, names in COLUMNS.items()
    }
    if chosen["path"] is None or chosen["label"] is None:
        raise DataError(
            f"{table} has the columns {listing(head, 10)}: call that of the files 'path' and that"
            " of the classes 'label', and give paths relative to the table's folder"
        )
    params = {role: name for role, name in chosen.items() if name and role != "split"}
    values = [row[head.index(chosen["split"])] for row in rows] if chosen["split"] else []
    if splits := _splits_among(values):
        named = {f"{split}_values": (name,) for split, name in splits.items()}
        return [{"table": table.name, **params, "split": chosen["split"], **named}]
    if values:
        raise DataError(
            f"column {chosen['split']!r} of {table} has {listing(sorted(set(values)), LISTED)}, "
            "expected train and test; change the values, or rename the column if it is of no split"
        )
    return [{"table": table.name, **params, "test_share": share} for share in SHARES]


def _first_rows(table: Path) -> tuple[list[str], list[list[str]]]:
    tabs = ".tsv" in table.suffixes
    opened = gzip.open if table.suffix == ".gz" else open
    try:
        with opened(table, "rt", encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream, delimiter="\t" if tabs else ","))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a table of text ({error}); give a .csv or .tsv "
                        "file with a header") from error  # fmt: skip
    lines = [line for line in lines if line]
    if len(lines) < 2 or len(lines[0]) < 2:
        raise DataError(
            f"{table} has no header with two columns and a row below it; give a .csv or .tsv file"
            " with columns 'path' and 'label'"
        )
    width = len(lines[0])
    return lines[0], [line for line in lines[1:] if len(line) == width]


# --- pictures -----------------------------------------------------------------------------------


def _looked(path: Path, items: DatasetItems) -> tuple[int, int]:
    """The median short side, and 1 or 3 channels, of a sample.

    Raises: ``DataError`` where no picture of it can be read.
    """
    positions = np.unique(np.linspace(0, len(items.labels) - 1, SAMPLED).astype(int))
    sides, colourful, faults = [], False, []
    for position in positions.tolist():
        source = items.read(position)
        try:
            pixels = decode(source, 32).pixels.astype(np.int16)
            sides.append(_short_side(source))
        except PictureError as error:
            faults.append(f"{source if isinstance(source, Path) else 'a picture'}: {error}")
            continue
        colourful |= bool(np.abs(np.diff(pixels, axis=2)).mean() > COLOURFUL)
    if not sides:
        raise DataError(f"no picture in {path} can be read: {listing(faults, LISTED, '; ')}")
    return int(np.median(sides)), 3 if colourful else 1


def _short_side(source: PictureSource) -> int:
    from PIL import Image  # slow to import

    if isinstance(source, np.ndarray):
        return int(min(source.shape[:2]))
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
        return int(min(picture.size))
