"""Copying of a source network's weights, and redrawing of them from their statistics.

Each tensor of the body is one of three kinds:

- of a norm layer (any BatchNorm, LayerNorm, GroupNorm, RMSNorm): set to the identity, or copied;
- constant: a single element (Fixup's scalars), or a buffer (an index of positions): copied;
- redrawn: all other parameters, including biases, tokens and position embeddings.

Shape letters: F filters (outputs), C channels (inputs), S positions of a kernel, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from transferbench.errors import PluginError
from transferbench.networks.modules import body_names, load_state
from transferbench.specs import InitializationContext

__all__ = ["as_filters", "as_matrix", "copy_source", "redraw", "redraw_source"]

Norms = Literal["identity", "source"]
Redraw = Callable[[str, Tensor], Tensor]
"""Maps the name and the float64 values of a tensor to new values, of as many elements."""

IDENTITY = {
    "weight": 1.0,
    "bias": 0.0,
    "running_mean": 0.0,
    "running_var": 1.0,
    "num_batches_tracked": 0.0,
}


def copy_source(
    plugin: str,
    net: nn.Module,
    context: InitializationContext,
    checkpoint: int | None,
    names: Iterable[str] | None = None,
) -> None:
    """Copy the tensors ``names`` of the source (None: its body) into ``net``.

    Raises: ``PluginError`` where there is no source, ``DataError`` where it does not fit.
    """
    if context.source_state is None:
        which = "" if checkpoint is None else f" of epoch {checkpoint}"
        raise PluginError(
            f"initialization {plugin!r} needs the source network's weights{which}, and the context"
            " has none; name a source in the suite, or weights that the backbone can load"
        )
    load_state(net, context.source_state, body_names(context.modules) if names is None else names)


def redraw_source(
    plugin: str,
    net: nn.Module,
    context: InitializationContext,
    checkpoint: int | None,
    norms: Norms,
    draw: Redraw,
) -> None:
    """Copy the source's body into ``net``, and ``redraw`` it. Raises: as ``copy_source``."""
    copy_source(plugin, net, context, checkpoint)
    redraw(net, body_names(context.modules), norms, draw)


def redraw(net: nn.Module, names: Iterable[str], norms: Norms, draw: Redraw) -> None:
    """Redraw the tensors ``names`` of ``net`` in order, by the rules of this module."""
    of_norms = _norm_names(net)
    # Once each: a weight with several names stands under the first.
    parameters = {name for name, _ in net.named_parameters()}
    own = net.state_dict()
    with torch.no_grad():
        for name in names:
            values = own[name]
            if name in of_norms:
                if norms == "identity":
                    _set_identity(name, values)
            elif name in parameters and values.numel() > 1:
                values.copy_(draw(name, values.double()).reshape(values.shape))


def _norm_names(net: nn.Module) -> set[str]:
    return {
        f"{path}.{leaf}".lstrip(".")
        for path, module in net.named_modules()
        if _is_norm(module)
        for leaf in module.state_dict()
    }


def _is_norm(layer: nn.Module) -> bool:
    # By name, since timm has its own norm layers. Containers are excluded, and ConvNeXt's global
    # response norm, which is a gain next to a shortcut.
    kind = type(layer).__name__.lower()
    holds_layers = any(list(child.parameters()) for child in layer.children())
    return "norm" in kind and "responsenorm" not in kind and not holds_layers


def _set_identity(name: str, values: Tensor) -> None:
    # Other parameters (EvoNorm's v) keep the source's value, as their identity is unknown.
    if (leaf := name.rpartition(".")[2]) in IDENTITY:
        values.fill_(IDENTITY[leaf])


def as_filters(values: Tensor) -> Tensor:
    """A tensor as its filters, (F, C, S).

    A kernel (F, C, H, W) has S = H W; a linear weight (F, C) has S = 1; a bias has C = S = 1.
    Tokens and position embeddings, (1, N, D), are a single filter of N D channels.
    """
    if _is_table(values):
        return values.reshape(1, -1, 1)
    if values.ndim == 1:
        return values.reshape(-1, 1, 1)
    return values.flatten(2) if values.ndim > 2 else values[..., None]


def as_matrix(values: Tensor) -> Tensor:
    """A tensor as the matrix of which singular values are computed: a kernel is (F, C H W).

    A bias (F,) is a matrix of one column, whose singular value is its norm; tokens and position
    embeddings (1, N, D) are (N, D). Grouped kernels and fused queries, keys and values are a
    single matrix.
    """
    values = values.squeeze(0) if _is_table(values) else values
    return values.flatten(1) if values.ndim > 1 else values[:, None]


def _is_table(values: Tensor) -> bool:
    return values.ndim in {2, 3} and values.shape[0] == 1
