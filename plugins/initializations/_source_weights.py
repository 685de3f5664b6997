"""A source network's weights as what statistics are taken of: filters, matrices and the rest.

Every tensor of the body is one of three:

- of a norm layer (any BatchNorm, LayerNorm, GroupNorm, RMSNorm): set to the identity, or kept;
- constant: one element (Fixup's scalars; a statistic of one number is that number), or a buffer
  (an index of positions): the source's value is kept, whatever the initialization;
- redrawn: all other parameters, biases, tokens and position embeddings included.

Shape letters: F filters (outputs), C channels (inputs), S positions of a kernel, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from transferbench.errors import PluginError
from transferbench.networks.modules import load_state
from transferbench.specs import InitializationContext

__all__ = ["as_filters", "as_matrix", "copy_source", "redraw"]

Redraw = Callable[[str, Tensor], Tensor]
"""A new tensor for the name and float64 values of an old one, of as many elements."""

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
    names: Iterable[str],
) -> None:
    """Give ``net`` the source's tensors called ``names``.

    Raises: ``PluginError`` where there is no source, ``DataError`` where it does not fit.
    """
    if context.source_state is None:
        which = "" if checkpoint is None else f" of epoch {checkpoint}"
        raise PluginError(
            f"initialization {plugin!r} needs the source network's weights{which} and was given"
            " none; name a source in the suite, or weights that the backbone can load"
        )
    load_state(net, context.source_state, names)


def redraw(
    net: nn.Module, names: Iterable[str], norms: Literal["identity", "source"], draw: Redraw
) -> None:
    """Replace what ``net`` holds under ``names``, in their order, as this module's head says."""
    of_norms = _norm_names(net)
    parameters = {name for name, _ in net.named_parameters(remove_duplicate=False)}
    own = net.state_dict()
    with torch.no_grad():
        for name in names:
            values = own[name]
            if name in of_norms:
                if norms == "identity":
                    _neutralise(name, values)
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
    # timm has norm layers of its own beside torch's, all called so; a container is none, nor is
    # ConvNeXt's global response norm, which is a gain beside a shortcut.
    kind = type(layer).__name__.lower()
    holds_layers = any(list(child.parameters()) for child in layer.children())
    return "norm" in kind and "responsenorm" not in kind and not holds_layers


def _neutralise(name: str, values: Tensor) -> None:
    # A rarer parameter (EvoNorm's v) keeps the source's value: its neutral value is not known.
    if (leaf := name.rpartition(".")[2]) in IDENTITY:
        values.fill_(IDENTITY[leaf])


def as_filters(values: Tensor) -> Tensor:
    """A tensor as its filters, (F, C, S).

    A kernel (F, C, H, W) has S = H W; a linear weight (F, C) has S = 1; a bias has C = S = 1.
    Tokens and position embeddings, (1, N, D), are one filter of N D channels.
    """
    if _is_table(values):
        return values.reshape(1, -1, 1)
    if values.ndim == 1:
        return values.reshape(-1, 1, 1)
    return values.flatten(2) if values.ndim > 2 else values[..., None]


def as_matrix(values: Tensor) -> Tensor:
    """A tensor as the matrix whose spectrum counts: a kernel is (F, C H W), as stored.

    A bias (F,) is a matrix of one column, whose one singular value is its norm; tokens and
    position embeddings (1, N, D) are (N, D). Grouped kernels and fused queries, keys and values
    are one matrix.
    """
    values = values.squeeze(0) if _is_table(values) else values
    return values.flatten(1) if values.ndim > 1 else values[:, None]


def _is_table(values: Tensor) -> bool:
    return values.ndim in {2, 3} and values.shape[0] == 1
