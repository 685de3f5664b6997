"""DomainNet: six domains of pictures with the same 345 classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from transferbench.data.folders import is_folder, listed, printable
from transferbench.errors import DataError
from transferbench.specs import DatasetItems, DatasetSpec, Params
from transferbench_plugins.datasets._domainnet_classes import CLASSES
from transferbench_plugins.datasets._paths import content_of_folder, required
from transferbench_plugins.datasets._tables import read_table

__all__ = ["DOMAINNET", "DomainNetParams"]

NAME = "domainnet"
SUBSAMPLE_SEED = 2020
"""Of the paper's subsample: ``libdata/domain_net.py`` of its published code."""
SIZES = {
    "infograph": (36_023, 15_582),
    "quickdraw": (120_750, 51_750),
    "real": (120_906, 52_041),
    "sketch": (48_212, 20_916),
}
"""Lines of the lists for training and testing of the domains that have only one version."""
DIGESTS = {
    "clipart_test.txt": "62c8e36aaba1c41ad9e249099739707220a44c08f167b37ef420f34a31628a6b",
    "clipart_train.txt": "affdadf5f95a7583e6b98030a3d35007e2613ee4dd942393c5a705ec2b429312",
    "quickdraw_test.txt": "2a00a60650a453c65c356da748fec54084a197272137c440e7d52d08947357bf",
    "quickdraw_train.txt": "3a5edd3bc215772010eebc87f158707703dd7e48091d13b816af81326a9d1c0f",
    "real_test.txt": "2b3f75bcde309aeb5931292084b2162e936b5f189e3bb1ad716f0f74c460864c",
    "real_train.txt": "19d483256d24aef19e581b65eda8333fd918aef3eb733fe499ff384120e3a289",
}
"""sha256 of lists in the log of a published run. Which version of clipart it used is not said."""
CLEANED = "cleaned"
TREE = "{domain}_train.txt, {domain}_test.txt and the folder {domain}/ with the folders of classes"


class DomainNetParams(Params):
    """The domain, which lists to use, and the paper's subsample.

    ``lists``: ``official``, the lists beside the folders of the domains, or ``cleaned``, those in a
    folder ``cleaned`` there. They differ for clipart and painting.
    ``at_most``: this many pictures of each split, the ones that the paper draws. The paper has
    50,000.
    """

    domain: Literal["clipart", "infograph", "painting", "quickdraw", "real", "sketch"] = "real"
    lists: Literal["official", "cleaned"] = "official"
    at_most: Annotated[int, Field(ge=1)] | None = None


class _Listed(NamedTuple):
    """A list: its file, and the path and the number of each picture, str and int64 (N,)."""

    file: Path
    paths: np.ndarray
    labels: np.ndarray


# --- the spec's functions -----------------------------------------------------------------------


def _items(params: DomainNetParams, split: str, root: Path | None) -> DatasetItems:
    root = _required(root)
    content = _listed(params, split, root)
    chosen = _subsample(len(content.labels), params.at_most)
    files = [root / path for path in content.paths[chosen].tolist()]
    _refuse_missing(params, root, files)
    return DatasetItems(content.labels[chosen], content.paths[chosen], files.__getitem__)


def _notes(params: DomainNetParams, root: Path | None) -> list[str]:
    """How the lists differ from those of published runs."""
    root = _required(root)
    notes = []
    for index, split in enumerate(("train", "test")):
        content = _listed(params, split, root)
        size = SIZES.get(params.domain, (0, 0))[index]
        if size and len(content.labels) != size:
            notes.append(f"{content.file.name} lists {len(content.labels):,} pictures, the "
                         f"published one {size:,}")  # fmt: skip
        digest = DIGESTS.get(content.file.name)
        if digest and hashlib.sha256(content.file.read_bytes()).hexdigest() != digest:
            notes.append(f"{content.file.name} is not the list of a published run, whose sha256 is "
                         f"{digest[:12]}...: numbers may not compare with it")  # fmt: skip
    return notes


# --- lists --------------------------------------------------------------------------------------


def _required(root: Path | None) -> Path:
    return required(root, NAME, "the folders and lists of DomainNet")


def _subsample(count: int, at_most: int | None) -> np.ndarray:
    """The positions of the paper's subsample, sorted."""
    if at_most is None or count <= at_most:
        return np.arange(count)
    drawn = np.random.RandomState(SUBSAMPLE_SEED).choice(count, at_most, replace=False)
    return np.sort(drawn)


def _listed(params: DomainNetParams, split: str, root: Path) -> _Listed:
    """One list. Raises: ``DataError`` where it is not there or its numbers are no labels."""
    folder = root / CLEANED if params.lists == "cleaned" else root
    file = folder / f"{params.domain}_{split}.txt"
    if not file.is_file():
        raise DataError(f"dataset {NAME!r}: {_where_lists_are(params, folder, file)}")
    table = read_table(file, ("path", "label"))
    numbers = table.column("label").tolist()
    paths = table.column("path").tolist()
    for path, number, line in zip(paths, numbers, table.lines.tolist(), strict=True):
        if fault := _fault(params.domain, path, number):
            raise DataError(f"dataset {NAME!r}: line {line} of {table} {fault}")
    return _Listed(file, table.column("path"), np.array(numbers, np.int64))


def _fault(domain: str, path: str, number: str) -> str | None:
    """Why a line of a list is none; None for a sound one."""
    if not (number.isascii() and number.isdigit() and int(number) < len(CLASSES)):
        return f"has the label {number!r}, expected a number from 0 to {len(CLASSES) - 1}"
    parts = PurePosixPath(path).parts
    if len(parts) != 3 or parts[0] != domain:
        return f"has the path {path!r}, expected {domain}/CLASS/FILE"
    if (name := parts[1]) in CLASSES and CLASSES[int(number)] != name:
        return (
            f"gives {name!r} the label {number}, which is {CLASSES[int(number)]!r} in the "
            "published lists: get the list again; sorted folders have other numbers"
        )
    return None


# --- wrong levels -------------------------------------------------------------------------------


def _where_lists_are(params: DomainNetParams, folder: Path, file: Path) -> str:
    """That a list is missing, and where it is instead, as far as that is near."""
    expected = TREE.format(domain=params.domain)
    missing = f"there is no {printable(str(file))}"
    if folder.name == CLEANED:
        return f"{missing}: put the cleaned lists into this folder, or use the official ones"
    around = [folder.parent, *_folders(folder), *_folders(folder.parent)]
    if near := next((other for other in around if (other / file.name).is_file()), None):
        return (
            f"{missing}, but {printable(str(near / file.name))}: lists and folders of domains lie "
            f"side by side; move them, or make {NAME} a link to {printable(str(near))}"
        )
    return f"{missing}; {content_of_folder(folder)}, expected {expected}"


def _refuse_missing(params: DomainNetParams, root: Path, files: Sequence[Path]) -> None:
    absent = [file for file in files if not file.is_file()]
    if not absent:
        return
    inside = absent[0].relative_to(root)
    nested = root / params.domain / inside
    way_on = f"unpack {params.domain}.zip into {printable(str(root))}"
    if nested.is_file():
        way_on = f"it is {printable(str(nested))}: move the folders of classes one level up"
    elif (root / Path(*inside.parts[1:])).is_file():
        way_on = (
            f"it is {printable(str(root / Path(*inside.parts[1:])))}: put the folders of classes "
            f"into a folder {params.domain}"
        )
    raise DataError(
        f"dataset {NAME!r}: {len(absent)} of {len(files)} pictures are not there, such as "
        f"{printable(str(absent[0]))}: {way_on}"
    )


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [Path(entry.path) for entry in listed(str(folder)) if is_folder(entry)]


DOMAINNET = DatasetSpec(
    name=NAME,
    version=1,
    summary="DomainNet: photos, clipart, drawings of 345 classes in six domains",
    source="Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019, arXiv "
    "1812.01754; files and lists at http://ai.bu.edu/M3SDA/",
    license="for research and education; the copyright of the pictures is their owners'",
    params=DomainNetParams,
    items=_items,
    classes=lambda params, root: CLASSES,
    channels=3,
    grouping="picture",
    shared_between_splits="the web pages that it was collected from have some pictures twice, and "
    "they are in both published lists",
    absent_classes="lists need not name all 345 classes; the cleaned ones of painting lack syringe "
    "for testing and t-shirt for training",
    needs_root=True,
    notes=_notes,
)
