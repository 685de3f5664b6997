"""Decoded splits on the disk: how they are written, mapped, and checked against their digests.

    manifest.json          what was decoded, and the facts of the other files
    <split>.images.npy     uint8 (N, H, W, C)
    <split>.digests        a digest of each image
    <split>.labels.npy, <split>.groups.npy
    <split>.hashes.npy     a perceptual hash of each image, uint64 (N,)
    <split>.aspects        width over height of what each image shows, where images are distorted

Files are hashed when they are opened. A large array of images is not: its images are checked when a
process reads them for the first time.

Shape letters: N images, H height, W width, C channels, L labels.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from transferbench.data.duplicates import DIGEST_BYTES, image_digests
from transferbench.data.perceptual import difference_hashes
from transferbench.errors import DamagedImagesError
from transferbench.identity import canonical_json, digest, file_digest
from transferbench.specs import DatasetSplit, ImageShape

__all__ = [
    "FORMAT",
    "UNREADABLE",
    "ImageBlock",
    "ImageReader",
    "OtherFormatError",
    "PreparedSplit",
    "SplitContent",
    "content_of",
    "discard",
    "faults_of",
    "map_split",
    "read_manifest",
    "with_channels",
    "write_manifest",
    "write_split",
]

FORMAT = 2
"""Of the files of a decoded dataset; part of the name of its folder."""
BLOCK_IMAGES = 1024
BLOCK_BYTES = 2**24
ASPECT = np.dtype("<f4")
MANIFEST = "manifest.json"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a folder that holds anything raises."""


class OtherFormatError(ValueError):
    """A sound folder that another version wrote, and that this one does not read."""


class PreparedSplit(NamedTuple):
    """One decoded split, read-only.

    ``read(positions)`` copies images and checks them; ``images`` is the memory map itself.

    ``aspects``: width over height of what each image shows, where they are distorted. ``hashes``:
    perceptual ones; None where an earlier version decoded the images.

    Shapes: images uint8 (N, H, W, C); labels int64 (N,) or float32 (N, L); groups int64 or str
    (N,); digests bytes (N,); aspects float32 (N,); hashes uint64 (N,).
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fingerprint: str
    digests: np.ndarray
    read: ImageReader
    aspects: np.ndarray | None = None
    hashes: np.ndarray | None = None

    def perceptual_hashes(self) -> np.ndarray:
        """``hashes``, computed where they were not stored. Shapes: uint64 (N,)."""
        if self.hashes is not None:
            return self.hashes
        return _hashes(self.images[first : first + BLOCK_IMAGES]
                       for first in range(0, len(self.images), BLOCK_IMAGES))  # fmt: skip


class ImageReader:
    """Copies images of a memory map.

    Where they are more than ``hashed_bytes``, each is checked when this process first reads it.
    """

    def __init__(
        self, path: Path, images: np.ndarray, digests: np.ndarray, hashed_bytes: float
    ) -> None:
        self._path = path
        self._file = path.stat()
        self._images = images
        self._digests = digests
        self._unchecked = np.full(len(images), images.nbytes > hashed_bytes)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The images at ``positions``.

        Shapes: int64 (M,) to uint8 (M, H, W, C). Raises: ``DamagedImagesError`` where an image is
        not what was written; the next ``prepare`` decodes all of them again.
        """
        images: np.ndarray = self._images[positions]
        first_time = self._unchecked[positions]
        if first_time.any():
            new = positions[first_time]
            copies = images if first_time.all() else images[first_time]
            damaged = new[image_digests(copies) != self._digests[new]]
            if len(damaged):
                discard(self._path.parent, self._file)
                raise DamagedImagesError(
                    f"{self._path} changed since it was written ({len(damaged)} of {len(new)} "
                    f"images differ, such as number {damaged[0]}): run the command again, which "
                    "decodes them again, and check the disk"
                )
            self._unchecked[new] = False
        return images


def discard(folder: Path, opened: os.stat_result | None = None) -> None:
    """Make the next ``prepare`` decode again what ``folder`` holds.

    ``opened``: the state of a file of images that was mapped; where another is there now, another
    process has repaired the folder, which stays.
    """
    with suppress(OSError):  # nothing can be repaired where nothing can be written
        if opened is None or any(
            os.path.samestat(path.stat(), opened) for path in folder.glob("*.images.npy")
        ):
            (folder / MANIFEST).unlink()


# --- writing ----------------------------------------------------------------------------------


class ImageBlock(NamedTuple):
    """Some images in order, and the width over the height of what each shows.

    Shapes: images uint8 (M, H, W, C); aspects float32 (M,).
    """

    images: np.ndarray
    aspects: np.ndarray


class SplitContent(NamedTuple):
    """One split to be written. ``blocks(i)`` gives its images from position i on, in order.

    ``distorted``: the images show what is not square, so that their aspects are stored.

    Shapes: labels and groups as of ``DatasetSplit``.
    """

    labels: np.ndarray
    groups: np.ndarray
    blocks: Callable[[int], Iterable[ImageBlock]]
    distorted: bool = False


def content_of(split: DatasetSplit) -> SplitContent:
    """A split that is in memory."""

    def blocks(start: int) -> Iterator[ImageBlock]:
        for first in range(start, len(split.images), BLOCK_IMAGES):
            images = split.images[first : first + BLOCK_IMAGES]
            yield ImageBlock(images, np.ones(len(images), np.float32))

    return SplitContent(split.labels, split.groups, blocks)


def write_split(
    folder: Path, name: str, content: SplitContent, image_shape: ImageShape
) -> dict[str, Any]:
    """Write one split, its images converted to ``image_shape``; returns its facts.

    Where ``folder`` has the first images of the same split, writing goes on after them.
    """
    labels, shape = content.labels, (len(content.labels), *image_shape)
    if labels.ndim == 2:  # one NaN of the many, since labels are hashed
        labels = np.where(np.isnan(labels), np.float32(np.nan), labels)
    groups = content.groups
    groups = groups if groups.dtype.kind == "U" else groups.astype(np.int64)
    path = folder / f"{name}.images.npy"
    _write_images(folder, name, content, shape)
    aspects = _aspects(folder, name) if content.distorted else None
    _save(folder / f"{name}.labels.npy", labels)
    _save(folder / f"{name}.groups.npy", groups)
    _save(folder / f"{name}.hashes.npy", _hashes(_image_blocks(path, shape)))
    return {
        "fingerprint": _fingerprint(path, shape, labels, groups, aspects),
        "shape": list(shape),
        "size_bytes": path.stat().st_size,
    }


def _hashes(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Shapes: blocks of uint8 (M, H, W, C) to uint64 (N,)."""
    each = [difference_hashes(with_channels(images, 1)[..., 0]) for images in blocks]
    return np.concatenate([np.empty(0, np.uint64), *each])


def _save(path: Path, array: np.ndarray) -> None:
    """Through bytes: written by numpy itself, a full disk would be an error without a reason."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    path.write_bytes(content.getvalue())


def _write_images(
    folder: Path, name: str, content: SplitContent, shape: tuple[int, int, int, int]
) -> None:
    """Each block before its digests, which tell a later process what is complete."""
    path, digests = folder / f"{name}.images.npy", folder / f"{name}.digests"
    aspects = folder / f"{name}.aspects"
    header = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)
    if not content.distorted:
        aspects.unlink(missing_ok=True)  # of an earlier version
    files = (path, digests, aspects) if content.distorted else (path, digests)
    for file in files:
        file.touch()
    # Not through a memory map, where a full disk kills the process instead of raising.
    with ExitStack() as stack:
        stream, marks, *ratios = (stack.enter_context(file.open("r+b")) for file in files)
        written = _written(stream, marks, header.getvalue(), shape)
        if content.distorted:
            written = min(written, aspects.stat().st_size // ASPECT.itemsize)
        stream.seek(0)
        stream.write(header.getvalue())
        stream.seek(stream.tell() + written * math.prod(shape[1:]))
        marks.seek(written * DIGEST_BYTES)
        for opened in ratios:
            opened.seek(written * ASPECT.itemsize)
        for opened in (stream, marks, *ratios):
            opened.truncate()
        for block in content.blocks(written):
            images = with_channels(block.images, shape[-1])
            stream.write(images.tobytes())
            stream.flush()
            for opened in ratios:
                opened.write(block.aspects.astype(ASPECT).tobytes())
                opened.flush()
            marks.write(image_digests(images).tobytes())
            marks.flush()


def _written(
    stream: BinaryIO, marks: BinaryIO, header: bytes, shape: tuple[int, int, int, int]
) -> int:
    """How many images from the first on are what their digests say."""
    if stream.read(len(header)) != header:
        return 0
    image_bytes, count = math.prod(shape[1:]), 0
    while expected := marks.read(BLOCK_IMAGES * DIGEST_BYTES):
        values = np.frombuffer(stream.read(len(expected) // DIGEST_BYTES * image_bytes), np.uint8)
        images = values[: len(values) // image_bytes * image_bytes].reshape(-1, *shape[1:])
        same = image_digests(images) == np.frombuffer(
            expected[: len(images) * DIGEST_BYTES], f"S{DIGEST_BYTES}"
        )
        count += len(same) if same.all() else int(same.argmin())
        if not same.all() or len(images) < len(expected) // DIGEST_BYTES:
            break
    return count


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Seal the folder with its manifest: ``facts`` and the digests of the small files."""
    # A process that was killed after this has left a manifest.
    files = [path for path in sorted(folder.iterdir())
             if path.name != MANIFEST and not path.name.endswith(".images.npy")]  # fmt: skip
    manifest = {
        "format": FORMAT,
        **facts,
        "files": {
            path.name: {"size_bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in files
        },
    }
    sealed = {"manifest": manifest, "sha256": digest(manifest)}
    (folder / MANIFEST).write_text(json.dumps(sealed, indent=1), encoding="utf-8")


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
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


def _aspects(folder: Path, name: str) -> np.ndarray | None:
    path = folder / f"{name}.aspects"
    return np.fromfile(_plain(path), ASPECT) if path.exists() else None


def _fingerprint(
    images: Path,
    shape: tuple[int, ...],
    labels: np.ndarray,
    groups: np.ndarray,
    aspects: np.ndarray | None,
) -> str:
    """The sha256 of a header of types and shapes, followed by the decoded values."""
    header: dict[str, Any] = {
        "images": ["uint8", list(shape)],
        "labels": [labels.dtype.name, list(labels.shape)],
        "groups": groups.tolist(),
    }
    if aspects is not None:
        header["aspects"] = aspects.tolist()
    sha = hashlib.sha256(canonical_json(header))
    for block in _image_blocks(images, shape):
        sha.update(block.data)
    sha.update(np.ascontiguousarray(labels, dtype=labels.dtype.newbyteorder("<")).data)
    return sha.hexdigest()


# --- reading ----------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of ``folder``. Raises: one of UNREADABLE where it is not what was written."""
    sealed = json.loads(_plain(folder / MANIFEST).read_text(encoding="utf-8"))
    manifest: dict[str, Any] = sealed["manifest"]
    if sealed["sha256"] != digest(manifest):
        raise ValueError(f"{MANIFEST} does not have the digest that it was sealed with")
    if manifest.get("format") != FORMAT:
        raise OtherFormatError
    return manifest


def _plain(path: Path) -> Path:
    """``path``, which is a file: opening a pipe would wait for a writer."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    return path


def map_split(
    folder: Path, name: str, facts: Mapping[str, Any], hashed_bytes: float
) -> PreparedSplit:
    """One split of ``folder``, with its facts in the manifest.

    ``hashed_bytes``: larger arrays of images are checked as they are read. Raises: one of
    UNREADABLE.
    """
    images, labels, groups = (
        np.load(_plain(folder / f"{name}.{array}.npy"), mmap_mode="r", allow_pickle=False)
        for array in ("images", "labels", "groups")
    )
    digests = np.memmap(_plain(folder / f"{name}.digests"), f"S{DIGEST_BYTES}", mode="r")
    reader = ImageReader(folder / f"{name}.images.npy", images, digests, hashed_bytes)
    stored = folder / f"{name}.hashes.npy"
    hashes = np.load(_plain(stored), allow_pickle=False) if stored.exists() else None
    return PreparedSplit(images, labels, groups, facts["fingerprint"], digests, reader,
                         _aspects(folder, name), hashes)  # fmt: skip


def faults_of(folder: Path, manifest: Mapping[str, Any], hashed_bytes: float) -> Iterator[str]:
    """How the files of ``folder`` differ from its manifest; of larger arrays the size alone.

    Raises: one of UNREADABLE.
    """
    for name, facts in manifest["files"].items():
        path = folder / name
        if path.stat().st_size != facts["size_bytes"] or file_digest(path) != facts["sha256"]:
            yield f"{name} is not what was written"
    for name, facts in manifest["splits"].items():
        path = folder / f"{name}.images.npy"
        split = map_split(folder, name, facts, hashed_bytes)
        form = (split.images.dtype.str, list(split.images.shape), path.stat().st_size)
        if form != ("|u1", facts["shape"], facts["size_bytes"]):
            yield f"{path.name} has another size than what was written"
            continue
        hashed = split.images.nbytes <= hashed_bytes
        if hashed and (count := _damaged(path, split.images.shape, split.digests)):
            yield f"{count} images of {path.name} are not what was written"


def _damaged(path: Path, shape: tuple[int, ...], digests: np.ndarray) -> int:
    """How many images of a file differ from their digests."""
    count, start = 0, 0
    for images in _image_blocks(path, shape):
        count += int((image_digests(images) != digests[start : start + len(images)]).sum())
        start += len(images)
    return count


def _image_blocks(path: Path, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The images of a file, some at a time.

    Read, not mapped: a map that is read in full counts as memory of the process.
    Shapes: uint8 (M, H, W, C).
    """
    image_bytes = math.prod(shape[1:])
    step = max(BLOCK_BYTES // image_bytes, 1)
    with path.open("rb") as stream:
        stream.seek(path.stat().st_size - image_bytes * shape[0])
        for first in range(0, shape[0], step):
            count = min(step, shape[0] - first)
            values = np.frombuffer(stream.read(count * image_bytes), np.uint8)
            yield values.reshape(count, *shape[1:])
