"""Weights from local files, read without executing code, and loaded into a network."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from transferbench.errors import DataError
from transferbench.identity import file_digest
from transferbench.networks.modules import load_state

__all__ = ["is_file", "load_weights", "read_weights", "renamed", "with_own_heads"]

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
NESTS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
"""Keys of the weights in checkpoints of training scripts."""


def is_file(weights: str) -> bool:
    """Whether ``weights`` names a file rather than a tag."""
    return Path(weights.partition("#")[0]).suffix in SUFFIXES


def read_weights(file: str) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a torch checkpoint that holds tensors only.

    ``file`` may end in ``#sha256=`` and 64 hexadecimal digits, the digest to be checked.

    Raises: ``DataError`` where the file is missing, has another digest or holds no weights.
    """
    name, _, fragment = file.partition("#")
    path = Path(name)
    if path.suffix not in SUFFIXES:
        raise DataError(f"{name} is not a weights file; give one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"no weights file {name}; give the path of an existing file")
    _check_digest(path, fragment)
    try:
        content = _read(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        # The first sentence only: torch then advises to unpickle the file, which may run its code.
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise DataError(
            f"{path} cannot be read as weights ({reason}); give a file of tensors alone, saved"
            " with safetensors or torch.save(net.state_dict())"
        ) from error
    return _state(path, content)


def _check_digest(path: Path, fragment: str) -> None:
    if not fragment:
        return
    algorithm, _, expected = fragment.partition("=")
    if algorithm != "sha256":
        raise DataError(f"{path}#{fragment}: only sha256=DIGEST may follow the name of a file")
    if (digest := file_digest(path)) != expected:
        raise DataError(
            f"{path} has sha256 {digest}, not {expected}; it is truncated or another file: get it"
            " again"
        )


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _state(path: Path, content: Any) -> dict[str, Tensor]:
    nest = next((key for key in NESTS if isinstance(content, Mapping) and key in content), None)
    state = content if nest is None else content[nest]
    if not isinstance(state, Mapping) or not state:
        raise DataError(
            f"{path} holds {type(state).__name__}, not named tensors; give a state dict"
        )
    # DataParallel and DistributedDataParallel add this prefix to all names.
    wrapped = all(str(name).startswith("module.") for name in state)
    tensors = {
        str(name).removeprefix("module.") if wrapped else str(name): state[name] for name in state
    }
    if invalid := [name for name, tensor in tensors.items() if not isinstance(tensor, Tensor)]:
        raise DataError(f"{path}: {invalid[0]} is not a tensor; give the state dict alone")
    return tensors


def renamed(file: str, state: dict[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with the names of ``like``, where only the names differ.

    That is, with no name in common, and the same kinds of tensors in the order of the file. Shapes
    are checked when the state is loaded. Safetensors files have no order.
    """
    only_names_differ = not state.keys() & like.keys() and _kinds(state) == _kinds(like)
    if not only_names_differ or ".safetensors" in file:
        return state
    return dict(zip(like, state.values(), strict=True))


def _kinds(state: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    return [(name.rpartition(".")[2], tensor.ndim) for name, tensor in state.items()]


def load_weights(net: nn.Module, state: Mapping[str, Tensor], heads: Sequence[str]) -> None:
    """Load ``state`` into ``net``; the layers ``heads`` keep their weights where shapes differ.

    Raises: ``DataError`` with the tensors that are missing, unexpected or of another shape in the
    body.
    """
    load_state(net, with_own_heads(state, net.state_dict(), heads))


def with_own_heads(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: Sequence[str]
) -> dict[str, Tensor]:
    """``state`` with the tensors of the layers ``heads`` of ``own``, unless all of its own fit."""
    names = [name for name in own if name.startswith(tuple(f"{head}." for head in heads))]
    fits = all(name in state and state[name].shape == own[name].shape for name in names)
    return dict(state) if fits else {**state, **{name: own[name] for name in names}}
