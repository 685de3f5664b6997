"""The cache of decoded datasets, shared by all workers.

A dataset is decoded by its plugin, validated, written to ``cache/<key>/`` and memory-mapped from
there. The key is a digest of the request (plugin, parameters, files, image size); the fingerprint
is a digest of the result (pixels, labels, groups). Only the fingerprint is part of a trial's id.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from transferbench.data.decoded import (
    FORMAT,
    UNREADABLE,
    OtherFormatError,
    PreparedSplit,
    SplitContent,
    content_of,
    discard,
    faults_of,
    map_split,
    read_manifest,
    write_manifest,
    write_split,
)
from transferbench.data.files import (
    changed_since,
    content_key,
    missing,
    read_file,
    root_of,
    verify_files,
)
from transferbench.data.folders import printable
from transferbench.data.items import decoded_blocks, decoded_split
from transferbench.data.pictures import Fit
from transferbench.data.promises import (
    SharedContent,
    check_form,
    content_error,
    name_faults,
    shared_content,
    split_faults,
)
from transferbench.errors import DataError, StoreError, listing
from transferbench.files import advice_on
from transferbench.identity import digest
from transferbench.registry import blamed
from transferbench.specs import DatasetSpec, DatasetSplit, Metric, Params, Task
from transferbench.store.draft import (
    ABANDONED_SECONDS,
    draft_name,
    host_name,
    is_abandoned,
    newest_change,
)

__all__ = [
    "DamagedFolder",
    "PreparedDataset",
    "PreparedSplit",
    "StoredForm",
    "decoded_folders",
    "discard",
    "missing",
    "other_formats",
    "prepare",
    "prepared_as",
    "read_file",
    "root_of",
    "stored_form",
    "verify_cache",
]

REHASH_LIMIT_BYTES = 2**30
"""Larger arrays of images are checked as they are read: hashing takes more than half a second."""
ATTEMPTS = 3
LISTED = 5
UNFINISHED = "unfinished"
"""The folder of a cache that holds what is being written."""
KEY_PATTERN = re.compile("[0-9a-f]{64}")


class PreparedDataset(NamedTuple):
    """A decoded dataset and its task.

    ``shared``: what is in two of its splits. ``notes``: what its plugin says of the files.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, PreparedSplit]
    fingerprint: str
    task: Task
    metric: Metric
    shared: tuple[SharedContent, ...] = ()
    notes: tuple[str, ...] = ()


class StoredForm(NamedTuple):
    """How images are stored: squares of side ``side``.

    ``fit``: how pictures become squares; a dataset that decodes itself gives them.
    """

    side: int
    channels: int
    fit: Fit = "crop"


def stored_form(image: Mapping[str, Any]) -> StoredForm:
    """That of the images that the payload of a job, or a suite, describes."""
    side = image.get("stored") or image["size"]
    return StoredForm(side, image["channels"], image.get("fit", "crop"))


class _Request(NamedTuple):
    """What is decoded."""

    spec: DatasetSpec
    params: Params
    root: Path | None
    form: StoredForm
    code: str


def prepare(
    spec: DatasetSpec,
    params: Params | Mapping[str, Any],
    form: StoredForm,
    *,
    cache: Path,
    data_root: Path | None,
    code: str = "",
) -> PreparedDataset:
    """The decoded dataset, from the cache if it contains an intact copy.

    Grey images are repeated to three channels; three become one by ITU-R BT.601 luma, rounded.
    Any number of processes may prepare a dataset at the same time. ``code``: the digest of the file
    that offers it, which is decoded again where it changed.

    Raises: ``DataError`` for missing or wrong files and for a folder of the user's that lacks
    images of a class or has one image in two splits, ``PluginError`` for a plugin whose output is
    not what it declares.
    """
    try:
        parsed = spec.parse(dict(params))
    except ValidationError as error:
        raise DataError(f"parameters of dataset {spec.name!r}: {error}") from error
    with blamed(f"dataset {spec.name!r}"):
        spec = spec.with_params(parsed)
    if lacking := missing(spec, data_root):
        raise DataError("\n".join(lacking))
    root = root_of(spec, data_root) if spec.needs_root and data_root else None
    if root is not None:
        verify_files(spec, root, cache)
    if spec.items is None:
        form = form._replace(fit="crop")
    request = _Request(spec, parsed, root, form, code)
    folder = cache / _key(request, cache)
    for _ in range(ATTEMPTS):  # another process may replace the folder in between
        if prepared := _open(spec, folder):
            _refuse_shared(request, prepared.shared)
            return prepared
        with _explained(cache):
            _build(request, folder)
    raise StoreError(f"{folder} is corrupt right after it was written: check the disk")


def prepared_as(spec: DatasetSpec, fingerprint: str, cache: Path) -> PreparedDataset | None:
    """The decoded data of ``spec`` with this fingerprint, if the cache has an intact copy.

    For workers: the files it was decoded from need not be looked at again.
    """
    for folder in _folders(cache):
        with suppress(*UNREADABLE):
            manifest = read_manifest(folder)
            named = (manifest["dataset"]["name"], manifest["fingerprint"])
            if named == (spec.name, fingerprint) and (prepared := _open(spec, folder)):
                return prepared
    return None


def _folders(cache: Path) -> list[Path]:
    try:
        return sorted(path for path in cache.iterdir() if KEY_PATTERN.fullmatch(path.name))
    except FileNotFoundError:
        return []


@contextmanager
def _explained(cache: Path) -> Iterator[None]:
    """Turn errors of the disk into advice."""
    try:
        yield
    except OSError as error:
        way_on = "make room there, or choose another folder with --out or --store"
        raise StoreError(
            f"cannot write decoded images to {cache}: {error.strerror or error}; "
            f"{advice_on(error.errno) or way_on}"
        ) from error


def _key(request: _Request, cache: Path) -> str:
    spec, root = request.spec, request.root
    content: Any = [file.sha256 for file in spec.files]
    if root is not None and spec.reads_users_folder:
        content = content_key(root, cache)
    code = {"code": request.code} if request.code else {}
    return digest({"format": FORMAT, "content": content, **code, **_described(request)})


def _described(request: _Request) -> dict[str, Any]:
    form = request.form
    return {
        "name": request.spec.name,
        "version": request.spec.version,
        "params": request.params.model_dump(mode="json"),
        "image_size": form.side,
        "channels": form.channels,
        **({} if form.fit == "crop" else {"fit": form.fit}),
    }


def _open(spec: DatasetSpec, folder: Path) -> PreparedDataset | None:
    """The dataset in ``folder``, None where it is absent, incomplete or changed."""
    try:
        manifest = read_manifest(folder)
        if next(faults_of(folder, manifest, REHASH_LIMIT_BYTES), None):
            return None
        splits = {
            name: map_split(folder, name, manifest["splits"][name], REHASH_LIMIT_BYTES)
            for name in spec.splits
        }
        shared = tuple(SharedContent(**entry) for entry in manifest["shared"])
    except UNREADABLE:
        return None
    classes, fingerprint = tuple(manifest["classes"]), manifest["fingerprint"]
    notes = tuple(manifest["notes"])
    return PreparedDataset(classes, splits, fingerprint, spec.task, spec.metric, shared, notes)


def _build(request: _Request, folder: Path) -> None:
    """Decode, validate and write to a draft, then rename it."""
    cache = folder.parent
    started_ns = time.time_ns()
    with _draft(request, folder) as draft:
        _decode(request, draft)
        if request.root is not None and _key(request, cache) != folder.name:
            raise _changed(request.root, cache, started_ns)
        _publish(request.spec, draft, folder)


@contextmanager
def _draft(request: _Request, folder: Path) -> Iterator[Path]:
    """A folder of this process to decode into, with what a process that has ended left in its own.

    It is removed at the end, but where decoding item by item was interrupted, so that the next
    process goes on.
    """
    drafts, host = folder.parent / UNFINISHED, host_name()
    drafts.mkdir(parents=True, exist_ok=True)
    draft = drafts / draft_name(folder.name, host)
    left = [path for path in drafts.glob(f"{folder.name}.*") if is_abandoned(path, host)]
    for path in left:
        with suppress(OSError):  # another process was first
            path.rename(draft)
            break
    for path in set(drafts.iterdir()) - {draft}:
        if is_abandoned(path, host) and newest_change(path) < time.time() - ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    draft.mkdir(exist_ok=True)
    os.utime(draft)
    try:
        yield draft
    except (KeyboardInterrupt, OSError):
        if request.spec.items is None:
            shutil.rmtree(draft, ignore_errors=True)
        raise
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(draft, ignore_errors=True)


def _changed(root: Path, cache: Path, moment_ns: int) -> DataError:
    names = changed_since(moment_ns, root, cache)
    listed = f" ({listing([printable(name) for name in names], LISTED)})" if names else ""
    return DataError(
        f"files below {root} changed while they were decoded{listed}: wait until nothing writes "
        "there, and run the command again"
    )


def _decode(request: _Request, draft: Path) -> None:
    """Write the splits and their manifest. Raises: as ``prepare``, with all faults of content."""
    spec, params, root, (side, channels, _), _ = request
    with blamed(f"dataset {spec.name!r}"):
        classes = tuple(spec.classes(params, root))
        notes = [*map(printable, spec.notes(params, root))] if spec.notes else []
    written: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    for name in spec.splits:
        with blamed(f"dataset {spec.name!r}", part=f", split {name!r},"):
            content = _content(request, name, classes)
            faults += [
                f", split {name!r}: {fault}" for fault in split_faults(spec, classes, content)
            ]
        if not faults:
            written[name] = write_split(draft, name, content, (side, side, channels))
    with blamed(f"dataset {spec.name!r}"):
        faults = [*(f": {fault}" for fault in name_faults(classes, spec.task)), *faults]
    if faults:
        raise content_error(spec, faults, root)
    splits = {name: map_split(draft, name, facts, math.inf) for name, facts in written.items()}
    shared = tuple(shared_content(splits))
    _refuse_shared(request, shared)
    fingerprints = {name: facts["fingerprint"] for name, facts in written.items()}
    write_manifest(
        draft,
        {
            "dataset": _described(request),
            "classes": list(classes),
            "notes": notes,
            "fingerprint": digest(fingerprints),
            "splits": written,
            "shared": [entry._asdict() for entry in shared],
        },
    )


def _content(request: _Request, name: str, classes: tuple[str, ...]) -> SplitContent:
    """The content of a split; pictures are decoded when it is written."""
    spec, params, root, (side, _, fit), _ = request
    if spec.items is None:
        split = decoded_split(spec, params, name, root, side)
        check_form(spec, name, split, classes, side)
        return content_of(split)
    items = spec.items(params, name, root)
    shape = (len(items.labels), side, side, spec.channels)
    promised = np.broadcast_to(np.uint8(0), shape)
    check_form(spec, name, DatasetSplit(promised, items.labels, items.groups), classes, side)
    blocks = partial(decoded_blocks, spec, name, items, side, fit)
    return SplitContent(items.labels, items.groups, blocks, distorted=fit == "whole")


def _refuse_shared(request: _Request, shared: Iterable[SharedContent]) -> None:
    """Raises: as ``prepare``, unless the dataset declares that it is published so."""
    spec, root = request.spec, request.root
    faults = [f": {entry.text(spec.grouping)}" for entry in shared if entry.images or entry.keys]
    if not faults or spec.shared_between_splits:
        return
    faults[-1] += ": keep one copy of an image, and all images of a group in one split"
    if not spec.reads_users_folder:
        faults[-1] += ", or declare in shared_between_splits why the dataset is published so"
    raise content_error(spec, faults, root)


def _publish(spec: DatasetSpec, draft: Path, folder: Path) -> None:
    if folder.exists() and _open(spec, folder) is None:
        broken = draft.with_name(draft_name(folder.name, host_name()))
        folder.rename(broken)
        shutil.rmtree(broken, ignore_errors=True)
    try:
        draft.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        # Another process was first, and wrote the same.


# --- verification -----------------------------------------------------------------------------


class DamagedFolder(NamedTuple):
    """A folder of the cache that is not what was written: ``problem`` says what of which data."""

    folder: Path
    problem: str


def decoded_folders(cache: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The folders of decoded images that can be read, each with its manifest."""
    folders = []
    for folder in _folders(cache):
        with suppress(*UNREADABLE):
            folders.append((folder, read_manifest(folder)))
    return folders


def other_formats(cache: Path) -> list[Path]:
    """The sound folders of another version's format; ``prepare`` decodes their data again."""
    others = []
    for folder in _folders(cache):
        try:
            read_manifest(folder)
        except OtherFormatError:
            others.append(folder)
        except UNREADABLE:
            continue
    return others


def verify_cache(cache: Path) -> list[DamagedFolder]:
    """What is damaged in the cache of decoded images, which is read in full.

    ``prepare`` decodes a damaged dataset again: small files by itself, a large array of images
    when it is read or after ``discard(folder)``. [] where there is no cache.
    """
    damaged: list[DamagedFolder] = []
    for folder in _folders(cache):
        name = ""
        try:
            manifest = read_manifest(folder)
            data = manifest["dataset"]
            name = f"dataset {data['name']!r} at {data['image_size']} px: "
            problems = faults_of(folder, manifest, math.inf)
            damaged.extend(DamagedFolder(folder, f"{name}{problem}") for problem in problems)
        except OtherFormatError:
            continue
        except UNREADABLE as error:
            damaged.append(DamagedFolder(folder, f"{name}cannot be read ({error})"))
    return damaged
