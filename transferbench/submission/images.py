"""The images of a submission, as digests: those trained on before, and those tested on.

From them anyone sees which test images, or groups of them, were in the pre-training, without the
datasets. Blank images are left out: that two are equal says nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transferbench.data.cache import prepared_as
from transferbench.data.decoded import PreparedSplit
from transferbench.data.duplicates import is_blank
from transferbench.errors import SubmissionError
from transferbench.registry import Registry
from transferbench.submission.limits import Caps, opened_table

__all__ = ["ImageSet", "ImageSets", "differing", "image_sets", "read_images", "write_images"]

SCHEMA = pa.schema(
    [
        ("data", pa.dictionary(pa.int32(), pa.string())),
        ("test", pa.bool_()),
        ("item", pa.int64()),
        ("image", pa.uint64()),
        ("hash", pa.uint64()),
        ("group", pa.uint64()),
    ]
)
CAPS = Caps(rows=2_000_000, values=12_000_000, names_bytes=2**16, name="data", what="datasets")
DIGEST = np.dtype("<u8")
"""Part of a sha256: of 10,000 and a million images two differ and agree with p < 1e-9."""


class ImageSet(NamedTuple):
    """The images of one split of a dataset that are not blank.

    ``items``: int64 (N,), positions in the split, increasing. ``images``: uint64 (N,), digests of
    the decoded values. ``hashes``: uint64 (N,), perceptual ones. ``groups``: uint64 (N,), digests
    of the names of the plugin and the group; None where groups have no names.
    """

    items: np.ndarray
    images: np.ndarray
    hashes: np.ndarray
    groups: np.ndarray | None


ImageSets: TypeAlias = Mapping[tuple[str, bool], ImageSet]
"""The fingerprint of the data, and whether it is its test split."""


def image_sets(
    sources: Iterable[Mapping[str, Any]],
    tested: Mapping[str, tuple[Mapping[str, Any], np.ndarray]],
    cache: Path,
    registry: Registry,
) -> ImageSets | None:
    """The training images of datasets, and those items of others that were tested on.

    ``sources``: datasets as the payloads of jobs have them. ``tested``: by fingerprint such a
    dataset and its items. None where one is not decoded in ``cache``, or there are too many images.
    """
    requests: dict[tuple[str, bool], tuple[Mapping[str, Any], np.ndarray | None]] = {}
    requests |= {(data["fingerprint"], False): (data, None) for data in sources}
    requests |= {(name, True): pair for name, pair in tested.items()}
    sets: dict[tuple[str, bool], ImageSet] = {}
    for (fingerprint, test), (data, items) in sorted(requests.items(), key=lambda row: row[0]):
        spec = registry.dataset(data["name"])
        spec = spec.with_params(spec.parse(data["params"]))
        dataset = prepared_as(spec, fingerprint, cache)
        if dataset is None:
            return None
        split = dataset.splits["test" if test else "train"]
        sets[fingerprint, test] = _image_set(split, spec.name, items)
    total = sum(len(each.items) for each in sets.values())
    return sets if total <= CAPS.rows else None


def _image_set(split: PreparedSplit, plugin: str, items: np.ndarray | None) -> ImageSet:
    items = np.arange(len(split.labels)) if items is None else np.unique(items)
    items = items[~is_blank(split.digests[items], split.images.shape[1:])]
    heads = split.digests[items].tobytes()
    padded = np.frombuffer(heads, DIGEST)[:: split.digests.dtype.itemsize // DIGEST.itemsize]
    names = split.groups[items]
    groups = _group_digests(plugin, names) if names.dtype.kind == "U" else None
    return ImageSet(items, padded.copy(), split.perceptual_hashes()[items], groups)


def _group_digests(plugin: str, names: np.ndarray) -> np.ndarray:
    """Equal for equal names of one plugin: groups of another have nothing to do with them."""
    distinct, index = np.unique(names, return_inverse=True)
    sums = (hashlib.sha256(f"{plugin}\0{name}".encode()).digest() for name in distinct.tolist())
    digests = np.frombuffer(b"".join(each[: DIGEST.itemsize] for each in sums), DIGEST)
    return digests[index]


def write_images(sets: ImageSets, path: Path) -> None:
    """Write all sets as one parquet table."""
    tables = [_table(data, test, each) for (data, test), each in sorted(sets.items())]
    with path.open("wb") as stream:  # pyarrow refuses paths that are not UTF-8
        table = pa.concat_tables(tables).unify_dictionaries()
        # Digests do not repeat: a dictionary of them would be larger than they are.
        pq.write_table(table, stream, compression="zstd", use_dictionary=["data", "test", "group"])


def _table(data: str, test: bool, images: ImageSet) -> pa.Table:
    count = len(images.items)
    codes = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([data]))
    groups = pa.nulls(count, pa.uint64()) if images.groups is None else pa.array(images.groups)
    numbers = (pa.array(values) for values in images[:3])
    columns = (codes, pa.array(np.full(count, test)), *numbers, groups)
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)


def read_images(path: Path) -> ImageSets:
    """The sets of a file. Raises: ``SubmissionError`` for another schema or beyond the caps."""
    with path.open("rb") as stream:
        table = opened_table(stream, SCHEMA, CAPS).read(use_threads=False)
    return dict(_sets(table))


def _sets(table: pa.Table) -> Iterator[tuple[tuple[str, bool], ImageSet]]:
    columns = {name: table.column(name).combine_chunks() for name in SCHEMA.names}
    if any(columns[name].null_count for name in SCHEMA.names[:-1]):
        raise SubmissionError("a row has an empty column")
    names, codes = columns["data"].dictionary.to_pylist(), columns["data"].indices.to_numpy()
    test = columns["test"].to_numpy(zero_copy_only=False)
    items, images, hashes = (columns[name].to_numpy() for name in ("item", "image", "hash"))
    groups, unnamed = columns["group"].fill_null(0).to_numpy(), columns["group"].is_null()
    without_name = unnamed.to_numpy(zero_copy_only=False)
    splits = 2 * codes.astype(np.int64) + test
    order = np.argsort(splits, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(splits[order])) + 1):
        if not len(rows):  # of a table without any
            continue
        if not (np.diff(items[rows], prepend=-1) > 0).all():
            raise SubmissionError("the items of a dataset are not in order, or one is twice")
        named = groups[rows] if not without_name[rows].any() else None
        key = names[codes[rows[0]]], bool(test[rows[0]])
        yield key, ImageSet(items[rows], images[rows], hashes[rows], named)


def differing(first: ImageSets, second: ImageSets) -> list[str]:
    """The fingerprints of the data of which two submissions hold other images at one position."""
    return sorted({key[0] for key in first.keys() & second.keys()
                   if not _agree(first[key], second[key])})  # fmt: skip


def _agree(first: ImageSet, second: ImageSet) -> bool:
    _, here, there = np.intersect1d(first.items, second.items, return_indices=True)
    return all(
        np.array_equal(a[here], b[there])
        for a, b in zip(first[1:], second[1:], strict=True)
        if a is not None and b is not None
    )
