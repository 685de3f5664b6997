"""External weights loaded into a network, and what had to be undone in their file for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from transferbench.errors import DataError
from transferbench.networks.modules import load_state
from transferbench.networks.weight_paths import locate_weights
from transferbench_plugins.backbones._weight_files import is_ordered, read_content
from transferbench_plugins.backbones._weight_names import MatchedWeights, match_names

__all__ = ["head_classes", "load_weights", "read_weights", "with_own_heads"]


def read_weights(file: str, own: Mapping[str, Tensor], heads: Sequence[str]) -> MatchedWeights:
    """The tensors in ``file`` that belong to a network with the tensors ``own``.

    ``heads``: the names of the layers of its head.

    ``file`` may end in ``#sha256=`` and 64 hexadecimal digits, the digest to be checked.

    Raises: ``DataError`` where the file is missing, has another digest or holds no such weights.
    """
    located = locate_weights(file)
    if located is None:
        raise DataError(f"no weights file {file}; give the path of an existing file")
    matched = match_names(
        str(located.path), read_content(located), own, heads, ordered=is_ordered(located)
    )
    for name, tensor in matched.state.items():
        if problem := next(_problems(tensor, own.get(name)), None):
            raise DataError(
                f"{located.path}: {name} is {problem}; give the weights as plain tensors of floats"
            )
    return matched


def _problems(tensor: Tensor, own: Tensor | None) -> Iterator[str]:
    """Why a tensor cannot be copied into a network, or would be copied with other values."""
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        yield "on the meta device, which holds no values"
    elif tensor.is_quantized:
        yield f"quantised ({kind})"
    elif tensor.layout != torch.strided:
        yield f"not dense ({str(tensor.layout).removeprefix('torch.')})"
    elif tensor.nbytes > tensor.untyped_storage().nbytes() and _differ(tensor, own):
        yield f"of shape {tuple(tensor.shape)}, more than the file holds"
    elif own is not None and not _fits(tensor, own):
        yield f"{kind} where the network has {str(own.dtype).removeprefix('torch.')}"
    elif tensor.is_complex():
        yield f"complex ({kind})"


def _differ(tensor: Tensor, own: Tensor | None) -> bool:
    return own is None or tensor.shape != own.shape


def _fits(tensor: Tensor, own: Tensor) -> bool:
    """Whether values of the tensor's type are values of the network's, up to rounding."""
    if own.is_floating_point():
        return tensor.is_floating_point()
    if tensor.is_floating_point():  # counters, in files whose tensors were all converted
        return bool((tensor == tensor.round()).all())
    return tensor.is_complex() == own.is_complex()


def head_classes(state: Mapping[str, Tensor], heads: Sequence[str]) -> int | None:
    """The classes that the layers ``heads`` of ``state`` put out; None where they are not there."""
    names = [f"{head}.weight" for head in heads]
    sizes = {len(state[name]) if name in state and state[name].ndim > 1 else None for name in names}
    return sizes.pop() if len(sizes) == 1 else None


def load_weights(
    net: nn.Module, state: Mapping[str, Tensor], heads: Sequence[str], source: str
) -> None:
    """Load ``state`` into ``net``; the layers ``heads`` keep their weights where shapes differ.

    Raises: ``DataError`` with ``source``, the file or tag, and the tensors that are missing,
    unexpected or of another shape in the body.
    """
    own = with_own_heads(state, net.state_dict(), heads)
    load_state(net, own, origin=f"the weights {source}")


def with_own_heads(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: Sequence[str]
) -> dict[str, Tensor]:
    """``state`` with ``own`` tensors of the layers ``heads``, unless all of its own fit."""
    names = [name for name in own if name.startswith(tuple(f"{head}." for head in heads))]
    fits = all(name in state and state[name].shape == own[name].shape for name in names)
    return dict(state) if fits else {**state, **{name: own[name] for name in names}}
