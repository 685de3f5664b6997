"""Where external weights lie: a file, or shards with their index; and the digest of their bytes."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from transferbench.errors import DataError, listing
from transferbench.identity import digest, file_digest

__all__ = ["WeightPaths", "existing_path", "is_path", "locate_weights", "read_index"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""What a folder of weights holds, the preferred first."""
OTHER_SUFFIXES = (".ckpt", ".json", ".npz", ".h5", ".onnx", ".msgpack", ".pkl", ".tar", ".zip")
"""What else a path of weights that is not there may end in."""
INDEX_SUFFIX = ".index.json"
MAX_INDEX_BYTES = 2**25
MAX_SHARDS = 10_000
MAGIC_BYTES = 16
"""Of these some are not 0 in every format: a magic number, or the length of a header."""
LISTED = 4


class WeightPaths(NamedTuple):
    """The files of external weights: one, or ``index_file`` and its shards.

    ``path``: as it was requested, without ``#sha256=``.
    """

    path: Path
    files: tuple[Path, ...]
    index_file: Path | None = None

    @property
    def sha256(self) -> str:
        """The digest of the file, or of the digests of all files by name.

        Read once in a process, as long as the files do not change. Raises: ``DataError``.
        """
        if self.index_file is None:
            return _digest_of(self.files[0])
        return digest({file.name: _digest_of(file) for file in (self.index_file, *self.files)})

    @property
    def name(self) -> str:
        """The name of the file without its last suffix, or of the folder."""
        path = Path(os.path.abspath(self.path))  # noqa: PTH100  # links keep their names
        return path.name if path.is_dir() else path.stem


def locate_weights(text: str) -> WeightPaths | None:
    """The files that ``text`` names; None where there is nothing of that name.

    ``text`` may end in ``#sha256=`` and 64 hexadecimal digits, the digest to be checked. Raises:
    ``DataError`` for another digest, a part that is missing, or what is no file.
    """
    path, (_, fragment) = existing_path(text), _split_fragment(text)
    if path is None:
        return None
    try:
        located = _located(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; make it readable") from error
    if fragment:
        _check_digest(located, fragment)
    return located


def _split_fragment(text: str) -> tuple[str, str]:
    """The path and the fragment of ``text``. What exists under the whole text has no fragment."""
    name, mark, fragment = text.rpartition("#")
    if not mark or os.path.exists(text) or "=" not in fragment or os.sep in fragment:  # noqa: PTH110
        return text, ""
    return name, fragment


def existing_path(text: str) -> Path | None:
    """The path in ``text``, without ``#sha256=``; None where there is nothing.

    Raises: ``DataError`` where this user may not look.
    """
    name, _ = _split_fragment(text)
    try:
        os.stat(name)  # noqa: PTH116  # of any text
    except PermissionError as error:
        raise DataError(f"cannot read {name}: {error.strerror}; make it readable") from error
    except (OSError, ValueError):
        return None
    return Path(name)


def is_path(text: str) -> bool:
    """Whether ``text`` means a file: there is one, or it has a folder or the suffix of one."""
    name, fragment = _split_fragment(text)
    separated = bool(fragment) or os.sep in name or "/" in name
    known_suffix = name.lower().endswith((*SUFFIXES, *OTHER_SUFFIXES))
    return existing_path(text) is not None or separated or known_suffix


def _located(path: Path) -> WeightPaths:
    if path.is_dir():
        return _in_folder(path)
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path} is neither a file nor a folder; give a file of weights")
    if path.name.endswith(INDEX_SUFFIX):
        return WeightPaths(path, _shards(path), path)
    return WeightPaths(path, (path,))


def _in_folder(folder: Path) -> WeightPaths:
    """The one index in a folder, or its one file of the preferred kind."""
    names = sorted(path for path in folder.iterdir() if path.is_file())
    for suffix in (INDEX_SUFFIX, *SUFFIXES):
        files = [path for path in names if path.name.endswith(suffix)]
        if len(files) > 1:
            raise DataError(
                f"the folder {folder} holds {listing([path.name for path in files], LISTED)}; give"
                " one of them"
            )
        if files:
            return _located(files[0])._replace(path=folder)
    kinds = f"{', '.join(SUFFIXES)} or {INDEX_SUFFIX}"
    raise DataError(f"the folder {folder} holds no weights ({kinds}); give a file")


def _shards(index: Path) -> tuple[Path, ...]:
    names = sorted(set(read_index(index).values()))
    if len(names) > MAX_SHARDS:
        raise DataError(f"{index} names {len(names)} shards, more than {MAX_SHARDS}")
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{index} names the shard {name!r}, which is not in its folder")
    shards = tuple(index.with_name(name) for name in names)
    if missing := [path.name for path in shards if not path.is_file()]:
        raise DataError(
            f"{index} names {listing(missing, LISTED)}, which {index.parent} does not hold; get"
            " all shards"
        )
    return shards


def read_index(index: Path) -> dict[str, str]:
    """The shard of each tensor, by the tensor's name.

    Raises: ``DataError`` where the file is not an index.
    """
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise DataError(f"{index} has more than {MAX_INDEX_BYTES} bytes: it is not an index")
        content = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=_unique)
        shards: Any = content["weight_map"]
        pairs = [(str(name), shard) for name, shard in shards.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{index} is not an index of shards ({type(error).__name__}: {error}); it must map each"
            ' tensor to its file under "weight_map"'
        ) from error
    if not pairs or not all(isinstance(shard, str) and shard for _, shard in pairs):
        raise DataError(f'{index} maps no tensor to a file under "weight_map"; get the index again')
    return dict(pairs)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError("a name is there twice")
    return unique


def _check_digest(located: WeightPaths, fragment: str) -> None:
    algorithm, _, expected = fragment.partition("=")
    if algorithm != "sha256":
        raise DataError(
            f"{located.path}#{fragment}: only sha256=DIGEST may follow the name of a file"
        )
    if (own := located.sha256) != expected.lower():
        raise DataError(
            f"{located.path} has sha256 {own}, not {expected}; it is truncated or another file: get"
            " it again"
        )


def _digest_of(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            start = stream.read(MAGIC_BYTES)
        # Looked at first: hashing a large download that was only given its size takes minutes.
        if start and not any(start):
            raise DataError(f"{file} begins with zeros, as no file of weights does: get it again")
        status = file.stat()
        return _digest_at(file.resolve(), status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; make it readable") from error


@cache
def _digest_at(file: Path, *_version: int) -> str:
    """Cached: a worker checks the same file before each trial."""
    return file_digest(file)
