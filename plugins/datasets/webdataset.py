"""Pictures in tar files, as WebDataset shards them: read in place, by their offsets."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import AfterValidator

from transferbench.data.folders import printable
from transferbench.data.picture_formats import picture_endings
from transferbench.errors import DataError, listing
from transferbench.specs import DatasetItems, DatasetSpec, Params
from transferbench_plugins.datasets._paths import BelowRoot, content_of_folder, required

__all__ = ["WEBDATASET", "WebDatasetParams"]

NAME = "webdataset"
LISTED = 5
LARGEST_SIDECAR_BYTES = 2**20
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def _shards(pattern: str) -> str:
    if len(BRACES.findall(pattern)) > 1:
        raise ValueError(f"{pattern!r} has several ranges {{000..009}}: give one")
    return pattern


def _field_or_ending(text: str) -> str:
    return _field(text) if ":" in text else text


def _field(text: str) -> str:
    ending, _, name = text.partition(":")
    if ending != "json" or not name:
        raise ValueError(f"{text!r} must be json:FIELD, a field of the sample's .json")
    return text


Shards = Annotated[BelowRoot, AfterValidator(_shards)]


class WebDatasetParams(Params):
    """The shards of each split, and where labels and groups stand.

    ``train``, ``test``: shards below the root, with ``*`` or a range, such as
    ``train-{000..009}.tar``.
    ``label``: the ending of the file with the label: ``cls`` holds an index or a name; or
    ``json:FIELD``, a field of the sample's ``.json``.
    ``group``: ``json:FIELD``, the field that is the key of the group; without it each sample is
    its own.
    ``classes``: names in the order of the indices, for labels that are indices; where labels are
    names, the classes in an order, if not all that are found, sorted.
    """

    train: Shards = "train-*.tar"
    test: Shards = "test-*.tar"
    label: Annotated[str, AfterValidator(_field_or_ending)] = "cls"
    group: Annotated[str, AfterValidator(_field)] | None = None
    classes: tuple[str, ...] = ()


class _Member(NamedTuple):
    """A file inside a shard, by where its content begins."""

    shard: Path
    offset: int
    size: int

    def content(self) -> bytes:
        """Its bytes, read without the rest of the shard."""
        with self.shard.open("rb") as stream:
            data = os.pread(stream.fileno(), self.size, self.offset)
        if len(data) < self.size:
            raise OSError(
                f"{printable(str(self.shard))} ends before byte {self.offset + self.size}"
            )
        return data


class _Sample(NamedTuple):
    """A picture with its key, its label and its group."""

    key: str
    picture: _Member
    label: str
    group: str


# --- the spec's functions -----------------------------------------------------------------------


def _classes(params: WebDatasetParams, root: Path | None) -> tuple[str, ...]:
    root = _required(root)
    if params.classes:
        return params.classes
    samples = [*_samples(params, "train", root), *_samples(params, "test", root)]
    labels = sorted({sample.label for sample in samples})
    # -1 marks an unknown label where the others are indices: it is refused as no index of a class.
    if all(label.isascii() and label.removeprefix("-").isdigit() for label in labels):
        return tuple(map(str, range(1 + max(map(int, labels)))))
    return tuple(labels)


def _items(params: WebDatasetParams, split: str, root: Path | None) -> DatasetItems:
    root = _required(root)
    samples = _samples(params, split, root)
    labels = _indices(samples, _classes(params, root))
    groups = np.array([sample.group for sample in samples], str)
    return DatasetItems(labels, groups, lambda i: samples[i].picture.content())


def _indices(samples: Sequence[_Sample], classes: Sequence[str]) -> np.ndarray:
    positions = {name: index for index, name in enumerate(classes)}
    numbers = {str(index): index for index in range(len(classes))}
    labels = []
    for sample in samples:
        index = positions.get(sample.label, numbers.get(sample.label))
        if index is None:
            raise DataError(
                f"dataset {NAME!r}: sample {sample.key!r} of {printable(str(sample.picture.shard))}"
                f" has the label {sample.label!r}, which is none of {len(classes)} classes, nor an "
                "index of one"
            )
        labels.append(index)
    return np.array(labels, np.int64)


# --- shards -------------------------------------------------------------------------------------


def _required(root: Path | None) -> Path:
    return required(root, NAME, "a folder of tar files")


def _samples(params: WebDatasetParams, split: str, root: Path) -> list[_Sample]:
    pattern = params.train if split == "train" else params.test
    samples = [sample for shard in _paths(pattern, root)
               for sample in _in_shard(params, split, shard)]  # fmt: skip
    keys = [sample.key for sample in samples]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"dataset {NAME!r}: the key {twice!r} is in {pattern} twice: give each "
                        "sample a key of its own")  # fmt: skip
    return samples


def _paths(pattern: str, root: Path) -> list[Path]:
    """The shards, sorted. Raises: ``DataError`` where one is missing."""
    bounds = BRACES.search(pattern)
    if bounds is None:
        paths = sorted(root.glob(pattern))
    else:
        first, last = bounds.groups()
        names = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
        paths = [root / BRACES.sub(name, pattern) for name in names]
    absent = [path.name for path in paths if not path.is_file()]
    if absent or not paths:
        raise DataError(
            f"dataset {NAME!r}: there is no {absent[0] if absent else pattern}; "
            f"{content_of_folder((root / pattern).parent)}"
        )
    return paths


def _in_shard(params: WebDatasetParams, split: str, shard: Path) -> Iterator[_Sample]:
    """The samples of a shard: files whose names are equal up to the first dot of the last part."""
    files: dict[str, dict[str, _Member]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:  # packed ones cannot be read in place
            for member in archive:
                if member.isfile():
                    key, ending = _key(member.name)
                    content = _Member(shard, member.offset_data, member.size)
                    if files.setdefault(key, {}).setdefault(ending, content) is not content:
                        raise DataError(
                            f"dataset {NAME!r}: {printable(str(shard))} has a second "
                            f"{printable(member.name)}: give each sample a key of its own"
                        )
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"dataset {NAME!r}: {printable(str(shard))} cannot be read as a tar file ({error}): "
            "get it again; packed ones (.tar.gz) are to be unpacked first"
        ) from error
    pictures = [ending[1:] for ending in picture_endings()]
    for key, parts in files.items():
        name = next((ending for ending in parts if ending in pictures), None)
        if name is None:
            raise DataError(
                f"dataset {NAME!r}: sample {key!r} of {printable(str(shard))} has no picture, only "
                f"{listing([f'.{ending}' for ending in sorted(parts)], LISTED)}"
            )
        label = _text(shard, key, parts, params.label)
        group = params.group and _text(shard, key, parts, params.group)
        # Keys of samples are unique in a split alone: they often restart at 0 in each.
        yield _Sample(key, parts[name], label, group or f"{split}/{key}")


def _key(name: str) -> tuple[str, str]:
    """``a/b.seg.png`` is the key ``a/b`` and the ending ``seg.png``."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.parent / stem), ending.lower()


def _text(shard: Path, key: str, parts: Mapping[str, _Member], source: str) -> str:
    """What ``cls`` or ``json:FIELD`` of a sample says."""
    ending, _, field = source.partition(":")
    sample = f"dataset {NAME!r}: sample {key!r} of {printable(str(shard))}"
    if ending not in parts:
        present = listing([f".{name}" for name in sorted(parts)], LISTED)
        raise DataError(f"{sample} has no .{ending}, only {present}: name another in label")
    if parts[ending].size > LARGEST_SIDECAR_BYTES:
        raise DataError(f"{sample}: .{ending} has {parts[ending].size} bytes, too many for a label")
    try:
        text = parts[ending].content().decode("utf-8")
        content: Any = json.loads(text) if field else text.strip()
    except ValueError as error:
        raise DataError(f"{sample}: .{ending} cannot be read ({error})") from error
    value = content
    if field:
        value = content.get(field) if isinstance(content, dict) else None
    if value is not None and not str(value).strip():
        at = f" at {field!r}" if field else ""
        raise DataError(f"{sample}: .{ending} is empty{at}: fill it, or leave the sample out")
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        fields = listing(sorted(content), LISTED) if isinstance(content, dict) else "none"
        raise DataError(f"{sample}: .json has no text or number {field!r}; its fields are {fields}")
    return str(value)


WEBDATASET = DatasetSpec(
    name=NAME,
    version=2,
    summary="Your own images in tar files, as WebDataset shards them",
    source="your own files; the format: https://github.com/webdataset/webdataset",
    license="that of your files",
    params=WebDatasetParams,
    items=_items,
    classes=_classes,
    channels=3,
    grouping="sample, or the field that the parameter group names",
    needs_root=True,
)
