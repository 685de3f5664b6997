"""CheXpert: chest radiographs with findings that may be uncertain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field

from transferbench.data.folders import is_folder, listed, printable
from transferbench.errors import DataError
from transferbench.specs import DatasetItems, DatasetSpec, Params
from transferbench_plugins.datasets._binary_labels import Policy, binary_labels
from transferbench_plugins.datasets._hash_split import hashed_test
from transferbench_plugins.datasets._paths import content_of_folder, refuse_missing, required
from transferbench_plugins.datasets._radiographs import prepared_radiograph
from transferbench_plugins.datasets._tables import Table, read_table

__all__ = ["CHEXPERT", "CheXpertParams"]

NAME = "chexpert"
FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)
Finding: TypeAlias = Literal[
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
]  # fmt: skip
PAPERS_POLICY: Mapping[str, Policy] = {"Edema": "one", "Atelectasis": "one"}
"""An uncertain value of any other finding counts as zero."""
SPLIT_SEED, SPLIT_SIZE = 1234, 50_000
"""Of the paper's split: rows permuted by ``RandomState(1234)``, 50,000 for training, 50,000 for
testing."""
VIEWS = {
    "AP": ("AP/PA", "AP"),
    "PA": ("AP/PA", "PA"),
    "frontal": ("Frontal/Lateral", "Frontal"),
    "lateral": ("Frontal/Lateral", "Lateral"),
}
"""A view -> a column and its value."""
BATCH = "CheXpert-v1.0 batch"
"""How the folders begin in which the complete version is given out."""
PATIENT = re.compile(r"/(patient\d+)/")
LEAK = (
    "the paper's code splits by picture, so that in the complete table 61% of the test pictures "
    "are of a patient who is also in the training split"
)


class CheXpertParams(Params):
    """The version, the views, the findings, and the split.

    ``findings``: the labels; by default the five of the competition and of the paper.
    ``uncertain``: finding -> what -1 counts as: ``zero``, ``one``, ``ignore`` (this label is
    unknown: left out of loss and metric) or ``drop`` (the picture is left out). Without an entry it
    is the paper's: one for Edema and Atelectasis, zero for the others.
    ``blank``: what an empty value counts as. A picture of which no label is known is left out.
    ``split``: ``patient``, a hash selects ``test_share`` of the patients of ``train.csv`` for
    testing; ``official``, ``valid.csv`` is for testing; ``paper``, as released with the paper: rows
    of ``train.csv`` at random, so that patients are in both.
    ``repeated``: training pictures with one of these findings count once more; the paper has
    Cardiomegaly and Consolidation.
    ``preprocessing``: ``paper`` equalises the histogram, blurs and pads to a square with 128 below
    and to the right, as the paper's code does, which blurs once the picture is resized.
    """

    version: Literal["v1.0", "v1.0-small"] = "v1.0-small"
    view: Literal["all", "frontal", "lateral", "AP", "PA"] = "all"
    findings: Annotated[tuple[Finding, ...], Field(min_length=1)] = (
        "Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion",
    )  # fmt: skip
    uncertain: dict[Finding, Policy] = Field(default={})
    blank: Policy = "zero"
    split: Literal["patient", "official", "paper"] = "patient"
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    repeated: tuple[Finding, ...] = ()
    preprocessing: Literal["none", "paper"] = "none"


class _Radiographs(NamedTuple):
    """The pictures of one split: paths, labels float32 (N, L) and patients, str (N,) each."""

    paths: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


# --- the spec's functions -----------------------------------------------------------------------


def _items(params: CheXpertParams, split: str, root: Path | None) -> DatasetItems:
    root = _required(root)
    content = _radiographs(params, split, root)
    files = [root / path for path in content.paths.tolist()]
    refuse_missing(NAME, files, f"unpack {_folder(params)}.zip again")
    if params.preprocessing == "paper":
        return DatasetItems(
            content.labels, content.patients, lambda i: prepared_radiograph(files[i])
        )
    return DatasetItems(content.labels, content.patients, files.__getitem__)


def _by_params(params: CheXpertParams) -> dict[str, Any]:
    return {"shared_between_splits": LEAK} if params.split == "paper" else {}


def _notes(params: CheXpertParams, root: Path | None) -> list[str]:
    """How many pictures of how many patients each split has."""
    root = _required(root)
    sizes = []
    for split in ("train", "test"):
        content = _radiographs(params, split, root)
        patients = len(np.unique(content.patients))
        sizes.append(f"{len(content.paths):,} for {split}, of {patients:,} patients")
    return [f"CheXpert-{params.version}: {'; '.join(sizes)}"]


# --- rows ---------------------------------------------------------------------------------------


def _folder(params: CheXpertParams) -> str:
    return f"CheXpert-{params.version}"


def _required(root: Path | None) -> Path:
    return required(root, NAME, "the folder CheXpert-v1.0-small or CheXpert-v1.0")


def _radiographs(params: CheXpertParams, split: str, root: Path) -> _Radiographs:
    table = _rows_of(params, split, root)
    if params.view != "all":
        column, value = VIEWS[params.view]
        table = table.rows(table.column(column) == value)
    uncertain = {name: PAPERS_POLICY.get(name, "zero") for name in FINDINGS} | params.uncertain
    labels, retained = binary_labels(table, params.findings, uncertain, ("-1",), params.blank)
    positions = np.flatnonzero(retained)
    if not len(positions):
        raise DataError(f"dataset {NAME!r}: no row of {table} is in the split {split!r} with the "
                        "chosen views and policies: choose others")  # fmt: skip
    if split == "train" and params.repeated:
        again, _ = binary_labels(table, params.repeated, uncertain, ("-1",), "zero")
        positive = retained & (again == 1).any(axis=1)
        positions = np.repeat(positions, 1 + positive[positions])
    paths = table.column("Path")[positions]
    return _Radiographs(paths, labels[positions], _patients(table)[positions])


def _rows_of(params: CheXpertParams, split: str, root: Path) -> Table:
    """The rows of a split, before views and policies."""
    if params.split == "official":
        return _table(params, "train" if split == "train" else "valid", root)
    table = _table(params, "train", root)
    if params.split == "paper":
        order = np.random.RandomState(SPLIT_SEED).permutation(len(table.lines))
        size = min(SPLIT_SIZE, len(order) // 2)
        return table.rows(order[:size] if split == "train" else order[size : 2 * size])
    testing = hashed_test(_patients(table).tolist(), params.test_share)
    return table.rows(testing == (split == "test"))


def _table(params: CheXpertParams, name: str, root: Path) -> Table:
    """One of the published tables. Raises: ``DataError`` where it is not there or not as said."""
    folder = root / _folder(params)
    file = folder / f"{name}.csv"
    if not file.is_file():
        raise DataError(f"dataset {NAME!r}: {_where_it_is(params, root, file)}")
    table = read_table(file)
    if absent := [name for name in COLUMNS if name not in table.columns]:
        raise DataError(
            f"dataset {NAME!r}: {table} has no column {', '.join(map(repr, absent))}: get it again "
            "from the dataset's page"
        )
    prefix = f"{_folder(params)}/"
    outside = ~np.char.startswith(table.column("Path"), prefix)
    if outside.any():
        row = outside.argmax()
        raise DataError(
            f"dataset {NAME!r}: line {table.lines[row]} of {table} has the path "
            f"{str(table.column('Path')[row])!r}, expected {prefix}...: it is the table of another "
            "version; give the parameter version"
        )
    return table


def _where_it_is(params: CheXpertParams, root: Path, file: Path) -> str:
    missing = f"there is no {printable(str(file))}"
    if (root / file.name).is_file():
        return (f"{missing}, but {printable(str(root / file.name))}: put all of it into a folder "
                f"{_folder(params)} there")  # fmt: skip
    others = [version for version in ("v1.0", "v1.0-small")
              if (root / f"CheXpert-{version}" / file.name).is_file()]  # fmt: skip
    if others:
        return (f"{missing}, but version {others[0]}: set the parameter version to {others[0]}, "
                "or add the other")  # fmt: skip
    names = [entry.name for entry in listed(str(root)) if is_folder(entry)]
    if any(name.startswith(BATCH) for name in names):
        return (
            f"{missing}, but the batches of the complete version: put the folders of patients into "
            f"{_folder(params)}/train and /valid, and the tables beside these"
        )
    inside = [name for name in names if (root / name / _folder(params) / file.name).is_file()]
    if inside:
        return f"{missing}, but one in {printable(inside[0])}/: move {_folder(params)} one level up"
    return f"{missing}; {content_of_folder(root)}, expected {_folder(params)}/"


def _patients(table: Table) -> np.ndarray:
    """The patient of each row, as in its path."""
    patients = [PATIENT.search(path) for path in table.column("Path").tolist()]
    for match, line in zip(patients, table.lines.tolist(), strict=True):
        if match is None:
            raise DataError(f"dataset {NAME!r}: line {line} of {table} has a path without a "
                            "patient, expected .../patient00001/...: get it again")  # fmt: skip
    return np.array([match[1] for match in patients if match], str)


CHEXPERT = DatasetSpec(
    name=NAME,
    version=2,
    summary="CheXpert: 224,316 chest radiographs of 65,240 patients, findings as several labels",
    source="Irvin et al., CheXpert, AAAI 2019, arXiv 1901.07031; files, after registration, at "
    "https://stanfordmlgroup.github.io/competitions/chexpert/",
    license="Stanford University Dataset Research Use Agreement",
    params=CheXpertParams,
    items=_items,
    classes=lambda params, root: params.findings,
    task="multi-label",
    metric="auc",
    channels=3,
    grouping="patient",
    pictured=False,
    needs_root=True,
    by_params=_by_params,
    notes=_notes,
)
