"""The cache of decoded datasets, shared by all workers.

A dataset is decoded by its plugin, validated, written to ``cache/<key>/`` and memory-mapped from
there. The key is a digest of the request (plugin, parameters, files, image size); the fingerprint
is a digest of the result (pixels, labels, groups). Only the fingerprint is part of a trial's id.

Shape letters: N images, H height, W width, C channels, L labels.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import itertools
import json
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from transferbench.data.folders import entries_below, printable
from transferbench.errors import DataError, PluginError, StoreError
from transferbench.identity import canonical_json, digest, file_digest
from transferbench.registry import blamed
from transferbench.specs import DataFile, DatasetSpec, DatasetSplit, Metric, Params, Task

__all__ = ["PreparedDataset", "PreparedSplit", "missing", "prepare", "read_file", "root_of"]

REHASH_LIMIT_BYTES = 2**30
"""Larger cached files are checked by size alone; hashing takes more than half a second."""

BLOCK_BYTES = 2**20
BLOCK_IMAGES = 1024
ATTEMPTS = 3
MANIFEST = "manifest.json"


class PreparedSplit(NamedTuple):
    """One decoded split, read-only.

    Shapes: images uint8 (N, H, W, C), memory-mapped; labels int64 (N,) or float32 (N, L);
    groups int64 or str (N,).
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fingerprint: str


class PreparedDataset(NamedTuple):
    """A decoded dataset and its task. ``notes``: what its plugin says of the files."""

    classes: tuple[str, ...]
    splits: Mapping[str, PreparedSplit]
    fingerprint: str
    task: Task
    metric: Metric
    notes: tuple[str, ...] = ()


# --- files a dataset reads --------------------------------------------------------------------


def missing(spec: DatasetSpec, data_root: Path | None) -> list[str]:
    """What is missing on this machine to load ``spec``, each with instructions; [] for nothing."""
    lacking = [_how_to_install(spec, name) for name in spec.requires if not _installed(name)]
    if not spec.needs_root:
        return lacking
    if data_root is None:
        return [*lacking, _how_to_get(spec, "no data root was given")]
    root = root_of(spec, data_root)
    if not root.is_dir():
        return [*lacking, _how_to_get(spec, f"there is no folder {root}")]
    absent = [file.path for file in spec.files if _locate(root, file) is None]
    if absent:
        lacking.append(_how_to_get(spec, f"{root} has no {', '.join(absent)}"))
    return lacking


def read_file(root: Path, file: DataFile) -> bytes:
    """The verified content of a declared file, read from ``<path>`` or from ``<path>.gz``.

    Raises: ``DataError`` where it is absent, unreadable or has other content than declared.
    """
    return b"".join(_verified_blocks(root, file))


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _how_to_install(spec: DatasetSpec, distribution: str) -> str:
    pattern = rf"{re.escape(distribution)}\b.*extra == ['\"](?!test)([\w-]+)['\"]"
    requirements = importlib.metadata.requires("transferbench") or []
    extras = [match[1] for line in requirements if (match := re.match(pattern, line))]
    target = f"'transferbench[{extras[0]}]'" if extras else distribution
    return (
        f"dataset {spec.name!r} needs the distribution {distribution!r}, which is not installed: "
        f"pip install {target}"
    )


def _how_to_get(spec: DatasetSpec, problem: str) -> str:
    origins = "; ".join(dict.fromkeys(file.origin for file in spec.files)) or spec.source
    return (
        f"dataset {spec.name!r} reads files that are not shipped, and {problem}: get them from "
        f"{origins}; put them in FOLDER/{spec.name} and pass --data-root FOLDER"
    )


def root_of(spec: DatasetSpec, data_root: Path) -> Path:
    """``data_root/<name>``, or ``data_root`` itself if that is absent and the files are here."""
    named = data_root / spec.name
    if named.is_dir() or not data_root.is_dir():
        return named
    has_files = all(_locate(data_root, file) is not None for file in spec.files)
    return data_root if has_files else named


def _locate(root: Path, file: DataFile) -> Path | None:
    plain = root / file.path
    packed = plain.with_name(plain.name + ".gz")
    return next((path for path in (plain, packed) if path.is_file()), None)


def _located(root: Path, file: DataFile) -> Path:
    path = _locate(root, file)
    if path is None:
        raise DataError(f"no file {root / file.path}: get it from {file.origin}")
    return path


def _verified_blocks(root: Path, file: DataFile) -> Iterator[bytes]:
    """The decompressed content of a declared file; raises at its end where it is another."""
    path = _located(root, file)
    size_bytes, sha = 0, hashlib.sha256()
    try:
        with path.open("rb") if path == root / file.path else gzip.open(path) as stream:
            # Reads at most one byte more than declared.
            while block := stream.read(min(BLOCK_BYTES, file.size_bytes + 1 - size_bytes)):
                size_bytes += len(block)
                sha.update(block)
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({error}): get it again from {file.origin}"
        ) from error
    if (size_bytes, sha.hexdigest()) != (file.size_bytes, file.sha256):
        size = f"{size_bytes} bytes" if size_bytes <= file.size_bytes else "more"
        raise DataError(
            f"{path} is not the declared content: expected {file.size_bytes} bytes "
            f"with sha256 {file.sha256}, found {size} with sha256 {sha.hexdigest()}: "
            f"get it again from {file.origin}"
        )


def _verify(root: Path, file: DataFile, cache: Path) -> None:
    """Check a declared file, unless it was checked before and has not changed since."""
    path = _located(root, file)
    stat = path.stat()
    facts = [str(path), str(stat.st_size), str(stat.st_mtime_ns), file.sha256]
    mark = cache / "verified" / digest(facts)
    if not mark.exists():
        for _ in _verified_blocks(root, file):
            pass
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


# --- the cache --------------------------------------------------------------------------------


def prepare(
    spec: DatasetSpec,
    params: Params | Mapping[str, Any],
    *,
    image_size: int,
    channels: int,
    cache: Path,
    data_root: Path | None,
) -> PreparedDataset:
    """The decoded dataset, from the cache if it contains an intact copy.

    Grey images are repeated to three channels; three become one by ITU-R BT.601 luma, rounded.
    Any number of processes may prepare a dataset at the same time.

    Raises: ``DataError`` for missing or wrong files, ``PluginError`` for a plugin whose output is
    not what it declares.
    """
    try:
        parsed = spec.parse(dict(params))
    except ValidationError as error:
        raise DataError(f"parameters of dataset {spec.name!r}: {error}") from error
    if lacking := missing(spec, data_root):
        raise DataError("\n".join(lacking))
    root = root_of(spec, data_root) if spec.needs_root and data_root else None
    if root is not None:
        with _explained(cache):
            for file in spec.files:
                _verify(root, file, cache)
    folder = cache / _key(spec, parsed, root, image_size, channels)
    for _ in range(ATTEMPTS):  # another process may replace the folder in between
        if prepared := _open(spec, folder):
            return prepared
        with _explained(cache):
            _build(spec, parsed, root, (image_size, channels), folder)
    raise StoreError(f"{folder} is corrupt right after it was written: check the disk")


@contextmanager
def _explained(cache: Path) -> Iterator[None]:
    """Turn errors of the disk into advice."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write decoded images to {cache}: {error.strerror or error}; make room there, "
            "or choose another folder with --out or --store"
        ) from error


def _key(
    spec: DatasetSpec, params: Params, root: Path | None, image_size: int, channels: int
) -> str:
    content = [file.sha256 for file in spec.files] or (_listing(root) if root else [])
    return digest(
        {
            "name": spec.name,
            "version": spec.version,
            "params": params.model_dump(mode="json"),
            "image_size": image_size,
            "channels": channels,
            "content": content,
        }
    )


def _listing(root: Path) -> list[list[str]]:
    """Every file below ``root``, which identifies a folder without declared files."""
    files = sorted(path for entry in entries_below(root) if (path := Path(entry.path)).is_file())
    stats = [(printable(path.relative_to(root).as_posix()), path.stat()) for path in files]
    # as text: nanoseconds do not fit the integers of canonical JSON
    return [[name, str(stat.st_size), str(stat.st_mtime_ns)] for name, stat in stats]


def _open(spec: DatasetSpec, folder: Path) -> PreparedDataset | None:
    """The dataset in ``folder``, None where it is absent, incomplete or changed."""
    try:
        sealed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = sealed["manifest"]
        intact = sealed["sha256"] == digest(manifest) and all(
            _intact(folder / name, **facts) for name, facts in manifest["files"].items()
        )
        if not intact:
            return None
        splits = {name: _map_split(folder, name, manifest) for name in spec.splits}
        # Where they are absent, an earlier version decoded the files.
        notes = tuple(manifest["notes"]) if spec.notes else ()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    classes = tuple(manifest["classes"])
    fingerprint = manifest["fingerprint"]
    return PreparedDataset(classes, splits, fingerprint, spec.task, spec.metric, notes)


def _intact(path: Path, *, size_bytes: int, sha256: str) -> bool:
    if path.stat().st_size != size_bytes:
        return False
    return size_bytes > REHASH_LIMIT_BYTES or file_digest(path) == sha256


def _map_split(folder: Path, name: str, manifest: dict[str, Any]) -> PreparedSplit:
    images, labels, groups = (
        np.load(folder / f"{name}.{array}.npy", mmap_mode="r", allow_pickle=False)
        for array in ("images", "labels", "groups")
    )
    return PreparedSplit(images, labels, groups, manifest["fingerprints"][name])


def _build(
    spec: DatasetSpec, params: Params, root: Path | None, image: tuple[int, int], folder: Path
) -> None:
    """Decode, validate and write to a temporary folder, then rename it."""
    image_size, channels = image
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unfinished-") as scratch:
        staged = Path(scratch) / "new"
        staged.mkdir()
        with blamed(f"dataset {spec.name!r}"):
            classes = tuple(spec.classes(params, root))
            notes = [*map(printable, spec.notes(params, root))] if spec.notes else []
        groups: dict[str, np.ndarray] = {}
        fingerprints: dict[str, str] = {}
        for name in spec.splits:
            with blamed(f"dataset {spec.name!r}, split {name!r},"):
                split = spec.load(params, name, root, image_size)
                _check_split(spec, name, split, classes, image_size)
            groups[name] = split.groups
            fingerprints[name] = _write_split(staged, name, split, channels)
        _check_groups(spec, groups)
        _write_manifest(staged, classes, fingerprints, notes)
        _publish(spec, staged, folder)


def _publish(spec: DatasetSpec, staged: Path, folder: Path) -> None:
    if folder.exists() and _open(spec, folder) is None:
        folder.rename(staged.with_name("broken"))
    try:
        staged.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        # Another process was first, and wrote the same.


def _write_split(folder: Path, name: str, split: DatasetSplit, channels: int) -> str:
    shape = (*split.images.shape[:3], channels)
    path = folder / f"{name}.images.npy"
    # Not through a memory map, where a full disk kills the process instead of raising.
    with path.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(split.images), BLOCK_IMAGES):
            block = split.images[start : start + BLOCK_IMAGES]
            stream.write(_with_channels(block, channels).tobytes())
    images = np.load(path, mmap_mode="r")
    groups = split.groups if split.groups.dtype.kind == "U" else split.groups.astype(np.int64)
    np.save(folder / f"{name}.labels.npy", split.labels, allow_pickle=False)
    np.save(folder / f"{name}.groups.npy", groups, allow_pickle=False)
    return _fingerprint(images, split.labels, groups)


def _write_manifest(
    folder: Path, classes: tuple[str, ...], fingerprints: Mapping[str, str], notes: Sequence[str]
) -> None:
    manifest = {
        "classes": list(classes),
        "notes": list(notes),
        "fingerprints": dict(fingerprints),
        "fingerprint": digest(dict(fingerprints)),
        "files": {
            path.name: {"size_bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in sorted(folder.iterdir())
        },
    }
    sealed = {"manifest": manifest, "sha256": digest(manifest)}
    (folder / MANIFEST).write_text(json.dumps(sealed, indent=1), encoding="utf-8")


def _with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Images (N, H, W, C) with C = ``channels``.

    Source: ITU-R BT.601-7, section 2.5.1: E'Y = 0.299 E'R + 0.587 E'G + 0.114 E'B.
    """
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    thousandths = images.astype(np.uint32) @ np.array([299, 587, 114], np.uint32)
    luma: np.ndarray = ((thousandths + 500) // 1000).astype(np.uint8)[..., None]
    return luma


def _fingerprint(images: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> str:
    """The sha256 of a header of types and shapes, followed by the decoded values."""
    header = {
        "images": ["uint8", list(images.shape)],
        "labels": [labels.dtype.name, list(labels.shape)],
        "groups": groups.tolist(),
    }
    sha = hashlib.sha256(canonical_json(header))
    sha.update(np.ascontiguousarray(images).data)
    sha.update(np.ascontiguousarray(labels, dtype=labels.dtype.newbyteorder("<")).data)
    return sha.hexdigest()


# --- validation of decoded splits ---------------------------------------------------------------


def _check_split(
    spec: DatasetSpec, name: str, split: DatasetSplit, classes: tuple[str, ...], image_size: int
) -> None:
    faults = itertools.chain(
        _array_faults(split, (image_size, image_size, spec.channels)),
        _label_faults(split.labels, classes, spec.task, train=name == "train"),
    )
    if fault := next(faults, None):
        raise PluginError(f"dataset {spec.name!r}, split {name!r}: {fault}")


def _array_faults(split: DatasetSplit, shape: tuple[int, int, int]) -> Iterator[str]:
    images, _, groups = split
    if images.dtype != np.uint8:
        yield f"images are {images.dtype}, expected uint8"
    if images.ndim != 4 or images.shape[1:] != shape:
        yield f"images have shape {images.shape}, expected (N, {', '.join(map(str, shape))})"
    if not len(images):
        yield "there are no images"
    lengths = [len(array) for array in split]
    if len(set(lengths)) > 1:
        yield f"images, labels and groups have different lengths: {lengths}"
    if groups.ndim != 1 or groups.dtype.kind not in "Uiu":
        yield f"groups are {groups.dtype}, expected one string or integer per image"


def _label_faults(
    labels: np.ndarray, classes: tuple[str, ...], task: Task, *, train: bool
) -> Iterator[str]:
    count = len(classes)
    if task == "multi-class":
        dtype, ndim = "int64", 1
        valid = bool(np.all((labels >= 0) & (labels < count)))
        values = f"0 to {count - 1}"
    else:
        dtype, ndim = "float32", 2
        valid = bool(np.all((labels == 0) | (labels == 1)))
        values = "0 and 1"
    if labels.dtype != dtype or labels.ndim != ndim:
        yield f"labels are {labels.dtype} of {labels.ndim} axes, expected {dtype} of {ndim}"
    if not valid:
        yield f"labels are not all in range: expected {values} for {count} classes"
    if task == "multi-label" and labels.shape[1] != count:
        yield f"labels have {labels.shape[1]} columns, expected one for each of {count} classes"
    if len(set(classes)) != count:
        yield f"two classes have one name: {sorted(classes)}"
    if count < (2 if task == "multi-class" else 1):
        yield f"it has {count} class(es), too few to classify"
    if train and task == "multi-class":
        empty = [
            classes[index] for index in np.flatnonzero(np.bincount(labels, minlength=count) == 0)
        ]
        if empty:
            yield f"there are {count} classes, but no image of {', '.join(empty)}"


def _check_groups(spec: DatasetSpec, groups: Mapping[str, np.ndarray]) -> None:
    for a, b in itertools.combinations(groups, 2):
        shared = np.intersect1d(groups[a].astype(str), groups[b].astype(str))
        if len(shared):
            raise PluginError(
                f"dataset {spec.name!r}: splits {a!r} and {b!r} share {len(shared)} "
                f"group(s) by {spec.grouping}, the first is {str(shared[0])!r}"
            )
