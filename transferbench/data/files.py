"""The files that a dataset reads: which are missing, whether they are as declared, what they hold.

A dataset declares its files with their digests, or reads a folder of the user's. Reading either in
full takes long; what was read once is not read again while its inode, size and both times stay.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from pathlib import Path
from stat import S_IFMT, S_ISDIR, S_ISREG
from typing import NamedTuple

from transferbench.data.folders import identity, walk
from transferbench.errors import DataError
from transferbench.interrupts import thread_pool
from transferbench.specs import DataFile, DatasetSpec

__all__ = [
    "changed_since",
    "content_key",
    "forget",
    "missing",
    "read_file",
    "root_of",
    "verify_files",
]

BLOCK_BYTES = 2**20
LARGE_BYTES = 2**31
"""Larger files of a folder are identified by their inode, size and times, and not read for it."""
MARKS = "verified"
"""The folder of a cache that holds what was read before."""


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
        f"{origins}; put them in FOLDER/{_folder(spec)} and pass --data-root FOLDER"
    )


def _folder(spec: DatasetSpec) -> str:
    return spec.folder or spec.name


def root_of(spec: DatasetSpec, data_root: Path) -> Path:
    """``data_root/<folder>``, or ``data_root`` itself if that is absent and the files are here."""
    named = data_root / _folder(spec)
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


def verify_files(spec: DatasetSpec, root: Path, cache: Path) -> None:
    """Check the declared files, but for those that were checked and have not changed since."""
    for file in spec.files:
        path = _located(root, file)
        mark = _mark(cache, str(path), _state(path.stat()), file.sha256)
        if not mark.exists():
            for _ in _verified_blocks(root, file):
                pass
            _note(mark, "")


# --- folders without declared files ---------------------------------------------------------------


def content_key(root: Path, cache: Path) -> str:
    """A digest of all that lies below ``root``, but for the store that ``cache`` lies in.

    It holds the names and contents of files, where links lead that were not followed, and the names
    of empty folders. Files are read only where an inode, a size, or the time of a modification or
    of a change is new: a copy that preserves sizes and modification times has other inodes and
    times of change. Of a file that grows meanwhile no more is read than it had.
    """
    files, others = _below(root, cache)
    states = ((name, _state(stat)) for name, _, stat in files)
    mark = _mark(cache, str(root), _combined(chain(states, others)))
    with suppress(OSError, ValueError):
        text = mark.read_text(encoding="ascii")
        if len(bytes.fromhex(text)) == hashlib.sha256().digest_size:
            return text
    with thread_pool() as pool:  # hashes outside the interpreter's lock
        contents = pool.map(lambda file: _content(file[1], file[2]), files)
        names = (name for name, _, _ in files)
        key = _combined(chain(zip(names, contents, strict=True), others))
    _note(mark, key)
    return key


class _BelowRoot(NamedTuple):
    """The names, paths and states of all files; the names of all else, and what each is.

    Both are sorted by name. Of folders ``others`` has those that are empty or were not entered.
    """

    files: list[tuple[str, str, os.stat_result]]
    others: list[tuple[str, str]]


def _below(root: Path, cache: Path) -> _BelowRoot:
    start = len(str(root))
    # A root may contain the store, which is written to meanwhile.
    contains = root.absolute() in cache.parent.absolute().parents
    without = cache.parent if contains else cache
    files, rest = list[tuple[str, str, os.stat_result]](), list[os.DirEntry[str]]()
    folders, filled = [str(root)], set[str]()
    for entry, entered in walk(root, without):
        filled.add(entry.path[: -len(entry.name) - 1])
        if entered:
            folders.append(entry.path)
        elif stat := _state_of_file(entry):
            files.append((entry.path[start:], entry.path, stat))
        elif entry.is_symlink() or not _is_folder(entry, without):
            rest.append(entry)
    others = [(path[start:], "empty") for path in folders if path not in filled]
    names = {identity(Path(path)): path[start:] for path in folders} if rest else {}
    others += [(entry.path[start:], _what(entry, names)) for entry in rest]
    return _BelowRoot(sorted(files, key=itemgetter(1)), sorted(others))


def _state_of_file(entry: os.DirEntry[str]) -> os.stat_result | None:
    with suppress(OSError):  # a link to nothing
        if S_ISREG((stat := entry.stat()).st_mode):
            return stat
    return None


def _is_folder(entry: os.DirEntry[str], folder: Path) -> bool:
    return entry.name == folder.name and folder.is_dir() and folder.samefile(entry)


def _what(entry: os.DirEntry[str], names: Mapping[tuple[int, int], str]) -> str:
    """What an entry is that is no file. ``names`` has those of the folders that were entered."""
    try:
        stat = entry.stat()
    except OSError as error:
        with suppress(OSError):
            return f"{error.errno} of a link to {Path(entry.path).readlink()}"
        return f"unreadable: {error.errno}"
    if not S_ISDIR(stat.st_mode):
        return f"of the type {S_IFMT(stat.st_mode)}"
    same = names.get((stat.st_dev, stat.st_ino))
    return f"the folder {os.path.realpath(entry.path) if same is None else same}"


def changed_since(moment_ns: int, root: Path, cache: Path) -> list[str]:
    """The names below ``root`` of what was written or replaced after ``moment_ns``."""
    files, others = _below(root, cache)
    states = [(name, stat) for name, _, stat in files]
    for name, _ in others:
        with suppress(OSError):  # it has gone
            states.append((name, os.lstat(str(root) + name)))
    return [name.lstrip("/") for name, stat in sorted(states)
            if max(stat.st_mtime_ns, stat.st_ctime_ns) >= moment_ns]  # fmt: skip


def _content(path: str, stat: os.stat_result) -> str:
    if stat.st_size > LARGE_BYTES:
        return _state(stat)
    sha, left = hashlib.sha256(), stat.st_size
    try:
        with Path(path).open("rb") as stream:
            while left and (block := stream.read(min(BLOCK_BYTES, left))):
                sha.update(block)
                left -= len(block)
    except OSError as error:
        return f"unreadable: {error.errno}"  # an error where the dataset reads it
    return sha.hexdigest()


def _state(stat: os.stat_result) -> str:
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _combined(parts: Iterable[tuple[str, str]]) -> str:
    sha = hashlib.sha256()
    for name, text in parts:
        sha.update(os.fsencode(name) + b"\0" + os.fsencode(text) + b"\0")
    return sha.hexdigest()


# --- what was read before -------------------------------------------------------------------------


def forget(cache: Path) -> None:
    """Read all files again when they are needed next, whether they seem unchanged or not."""
    shutil.rmtree(cache / MARKS, ignore_errors=True)


def _mark(cache: Path, name: str, *facts: str) -> Path:
    return cache / MARKS / _combined((name, fact) for fact in facts)


def _note(mark: Path, text: str) -> None:
    with suppress(OSError):  # without it the files are read again
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(text, encoding="ascii")
