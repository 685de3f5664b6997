"""Weights from local files, read as data: nothing is executed, sizes are bounded beforehand."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from transferbench.errors import DataError, listing
from transferbench.networks.weight_paths import WeightPaths, read_index
from transferbench_plugins.backbones._pickle_sizes import refused_call

__all__ = ["is_ordered", "read_content"]

ZIP = b"PK\x03\x04"
PICKLE = b"\x80"
TAR = b"ustar"
TAR_OFFSET = 257
HEAD_BYTES = 512
FOREIGN = {
    b"version https://git-lfs": "a pointer of git-lfs, not the file itself: git lfs pull gets it",
    b"<": "a page of HTML or XML, not the file itself: download it again, logged in",
    b"{": "JSON; give the weights that it describes",
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"BZh": "compressed by bzip2; unpack it",
    b"\xfd7zXZ": "compressed by xz; unpack it",
    b"(\xb5/\xfd": "compressed by zstd; unpack it",
    b"\x89HDF": "an HDF5 file; load it where it comes from, and save the tensors with safetensors",
    b"\x93NUMPY": "one array of numpy; give named tensors",
}
"""First bytes of files that are not weights: what they are, and what to do."""

MAX_HEADER_BYTES = 2**24
"""Of a safetensors file: room for 100,000 tensors."""
MAX_INFLATION = 8
"""The most by which a zip may inflate; torch stores without compression."""
LISTED = 4

NETWORKS = "torch.nn.modules."
"""The module of classes that a pickled network holds."""
NETWORK_ADVICE = (
    "save the state dict of the network instead; where you trust this file, load it with"
    " torch.load(FILE, weights_only=False), and save torch.save(net.state_dict(), NEW_FILE)"
)
UNSAFE_ADVICE = (
    "give a file of tensors alone; where you trust this one, make it with"
    " torch.save(torch.load(FILE, weights_only=False)[KEY], NEW_FILE)"
)
ADVICE = (
    "give a file of tensors alone, saved with safetensors or torch.save(net.state_dict(), FILE)"
)


def is_ordered(located: WeightPaths) -> bool:
    """Whether the file keeps the order of the network's tensors; safetensors sorts them."""
    return located.index_file is None and not _is_safetensors(_head(located.files[0]))


def read_content(located: WeightPaths) -> Any:
    """All that is in the files: tensors by name, or nested mappings that hold some.

    Raises: ``DataError`` where a file is no weights, or is damaged.
    """
    if located.index_file is None:
        return _read(located.files[0])
    shards = read_index(located.index_file)
    names: dict[str, list[str]] = defaultdict(list)
    for name, shard in shards.items():
        names[shard].append(name)
    state: dict[str, Any] = {}
    for file in located.files:
        content = _read(file)
        for name in names[file.name]:
            if not isinstance(content, Mapping) or name not in content:
                raise DataError(
                    f"{located.index_file} says that {file.name} holds {name}, and it does not; get"
                    " both again"
                )
            state[name] = content[name]
    return {name: state[name] for name in shards}


def _read(path: Path) -> Any:
    try:
        head = _head(path)
        if _is_safetensors(head):
            return _read_safetensors(path)
        _refuse_foreign(path, head)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own storages of rare tensors
            return torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    # Damaged bytes raise any exception of the parsers: errors of keys, types, values, memory ...
    except Exception as error:
        reason, advice = _explained(path, error)
        raise DataError(f"{path} cannot be read as weights ({reason}); {advice}") from error


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEAD_BYTES)


def _is_safetensors(head: bytes) -> bool:
    # The length of the header, then the header, which is JSON.
    return head[8:9] == b"{"


def _refuse_foreign(path: Path, head: bytes) -> None:
    """Raise an error that says what the file is, where it is not what torch wrote."""
    if not head:
        raise DataError(f"{path} is empty; get it again")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, kind in FOREIGN.items():
        if text.startswith(start):
            raise DataError(f"{path} is {kind}")
    if head[TAR_OFFSET:].startswith(TAR):
        raise DataError(f"{path} is a tar archive; unpack it and give the weights file inside")
    if head.startswith(ZIP):
        _refuse_archive(path)
    elif head.startswith(PICKLE):
        with path.open("rb") as stream:
            _refuse_calls(path, stream, path.stat().st_size)
    else:
        raise DataError(
            f"{path} cannot be read as weights (it begins as no file of safetensors or torch);"
            f" {ADVICE}"
        )


def _refuse_archive(path: Path) -> None:
    """Refuse a zip that torch.save did not write, that is damaged, or that would inflate.

    The checksums of 1 GB take 0.5 s, a third of what torch takes to read it.
    """
    with zipfile.ZipFile(path) as archive:
        _refuse_other_archives(path, archive.infolist())
        # torch, which may be told to write no checksums, checks none.
        if any(entry.CRC for entry in archive.infolist()) and (damaged := archive.testzip()):
            raise DataError(
                f"{path} is damaged: the content of {damaged} in it has another checksum than was"
                " written; get it again"
            )
        for entry in archive.infolist():
            if entry.filename.endswith("data.pkl"):
                with archive.open(entry) as stream:
                    _refuse_calls(path, stream, entry.file_size)


def _refuse_calls(path: Path, stream: IO[bytes], size_bytes: int) -> None:
    if call := refused_call(stream, size_bytes):
        raise DataError(f"{path} cannot be read as weights (it calls {call}); {ADVICE}")


def _refuse_other_archives(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    names = [entry.filename.rpartition("/")[2] for entry in entries]
    if any(name.endswith(".npy") for name in names):
        raise DataError(
            f"{path} is an archive of numpy arrays (.npz), as of JAX; load it with"
            " timm.create_model(MODEL, checkpoint_path=FILE), and save net.state_dict() with"
            " safetensors"
        )
    if "constants.pkl" in names or "data.pkl" not in names:
        kind = "a TorchScript archive" if "constants.pkl" in names else "a zip of something else"
        raise DataError(f"{path} is {kind}, not saved with torch.save; {ADVICE}")
    declared, size = sum(entry.file_size for entry in entries), path.stat().st_size
    # Torch reads another directory of the archive than zipfile where something stands before it.
    if declared > MAX_INFLATION * size or min(entry.header_offset for entry in entries):
        raise DataError(
            f"{path} declares {declared:,} bytes in a file of {size:,}, which torch.save never"
            " does; get it again from where you trust it"
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    length = int.from_bytes(_head(path)[:8], "little")
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise DataError(
            f"{path} cannot be read as weights (its header has {length:,} bytes in a file of"
            f" {size:,}); it is truncated or damaged: get it again"
        )
    with safe_open(path, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  # no mapping
        shared = stream.metadata() or {}
    # safetensors.torch.save_model writes shared tensors once, and notes their other names.
    return tensors | {
        name: tensors[kept_name]
        for name, kept_name in shared.items()
        if kept_name in tensors and name not in tensors
    }


def _explained(path: Path, error: Exception) -> tuple[str, str]:
    """Why torch or safetensors refuse a file, in a line, and what to do."""
    if culprits := _refused_classes(path, str(error)):
        network = any(name.startswith(NETWORKS) for name in culprits)
        held = "it holds a pickled network, of" if network else "beside tensors it holds"
        reason = f"{held} {listing(culprits, LISTED)}, and reading that could run code"
        return reason, NETWORK_ADVICE if network else UNSAFE_ADVICE
    if isinstance(error, (zipfile.BadZipFile, EOFError, IndexError)):
        return "it is truncated or damaged", "get it again"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it", ADVICE
    # Without the first lines: torch advises to unpickle the file, which may run its code.
    text = str(error).rpartition("WeightsUnpickler error: ")[2]
    first = next(iter(text.splitlines()), "").partition(". ")[0].rstrip(".")
    return first or type(error).__name__, ADVICE


def _refused_classes(path: Path, message: str) -> list[str]:
    """What torch will not build from a pickle: classes and functions that are not tensors."""
    named = re.findall(r"GLOBAL (\S+)", message)
    if not named:
        return []
    with suppress(Exception):  # the first culprit is named where the rest cannot be listed
        return sorted(get_unsafe_globals_in_checkpoint(path))
    return named
