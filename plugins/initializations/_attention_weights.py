"""Attention layers by their two weight products, and position embeddings.

In the row convention of the papers, x W_Q (x W_K)^T are the scores and x W_V W_proj is the output
of a layer, so the W are the transposes of torch's weights.

Shape letters: D width of the tokens, T tokens, h dimensions of one head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from transferbench.errors import PluginError
from transferbench.networks.modules import body_names
from transferbench.specs import InitializationContext

__all__ = [
    "Attention",
    "attention_layers",
    "set_positions",
    "set_query_key",
    "set_value_projection",
    "sinusoids",
]

TEMPERATURE = 10000.0

_NAMES = {False: ("qkv.weight", "proj.weight"), True: ("in_proj_weight", "out_proj.weight")}
"""The stacked queries, keys and values, and the projection, in timm's and in torch's layers."""


class Attention(NamedTuple):
    """A layer's weights, detached: stacked queries, keys, values (3 D, D), projection (D, D)."""

    qkv: Tensor
    proj: Tensor
    heads: int


def attention_layers(
    plugin: str, net: nn.Module, context: InitializationContext
) -> list[Attention]:
    """The attention layers outside the head.

    Raises: ``PluginError`` where there is none with square query, key and value matrices.
    """
    body = set(body_names(context.modules))
    layers = [
        layer
        for layer in _candidates(net, body)
        if tuple(layer.qkv.shape) == (3 * len(layer.proj), len(layer.proj))
    ]
    if not layers:
        raise PluginError(
            f"initialization {plugin!r} sets attention, and there are no attention layers in this"
            f" backbone ({type(net).__name__}) with queries, keys and values of the tokens' width"
            " in one weight; choose a vision transformer, such as timm/vit_tiny_patch16_224"
        )
    return layers


def _candidates(net: nn.Module, body: set[str]) -> Iterator[Attention]:
    for path, module in net.named_modules():
        stacked, out = _NAMES[isinstance(module, nn.MultiheadAttention)]
        own = dict(module.named_parameters())
        inside = f"{path}.{stacked}".lstrip(".") in body
        if inside and out in own and hasattr(module, "num_heads"):
            yield Attention(own[stacked].detach(), own[out].detach(), int(module.num_heads))


def set_query_key(layer: Attention, noise: float, identity: float, generator: Generator) -> None:
    """Set each head's W_Q W_K^T to the best rank-h approximation of ``noise`` Z + ``identity`` I.

    Error: the product to 1e-5 of its largest singular value (float32).
    """
    width = len(layer.proj)
    rank = width // layer.heads
    query_DD, key_DD = layer.qkv[:width], layer.qkv[width : 2 * width]
    for start in range(0, width - rank + 1, rank):
        left, right = _factors(width, noise, identity, generator)
        query_DD[start : start + rank] = left[:, :rank].T
        key_DD[start : start + rank] = right[:rank]


def set_value_projection(
    layer: Attention, noise: float, identity: float, generator: Generator
) -> None:
    """Set W_V W_proj, all heads together, to ``noise`` Z - ``identity`` I.

    Error: as ``set_query_key``.
    """
    width = len(layer.proj)
    left, right = _factors(width, noise, -identity, generator)
    layer.qkv[2 * width :] = left.T
    layer.proj.copy_(right.T)


def _factors(
    width: int, noise: float, identity: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """U S^1/2 and S^1/2 V^T of noise Z + identity I, Z with entries N(0, 1/D): (D, D) each."""
    gaussian = torch.randn(width, width, generator=generator) * width**-0.5
    u, s, vt = torch.linalg.svd(noise * gaussian + identity * torch.eye(width))
    root = s.sqrt()
    return u * root, root[:, None] * vt


def set_positions(net: nn.Module, context: InitializationContext) -> None:
    """Set the position embeddings of patches to sinusoids, those of class tokens to 0."""
    body = set(body_names(context.modules))
    for path, module in net.named_modules():
        embedding = getattr(module, "pos_embed", None)
        grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
        if f"{path}.pos_embed".lstrip(".") not in body or grid is None:
            continue
        rows, columns = grid
        values_TD = embedding.detach().view(-1, embedding.shape[-1])  # type: ignore[union-attr]  # its name is in the state
        values_TD.zero_()
        values_TD[-rows * columns :] = sinusoids(rows, columns, values_TD.shape[1])


def sinusoids(rows: int, columns: int, width: int) -> Tensor:
    """Position embeddings of a grid: sines and cosines of both coordinates, (T, width).

    Source: the 2-D form of Chen, Xie, He, ICCV 2021, https://arxiv.org/abs/2104.02057.
    Raises: ``PluginError`` for a width that is not a multiple of 4.
    """
    if width % 4:
        raise PluginError(
            f"sinusoidal position embeddings need a width that is a multiple of 4, and the tokens"
            f" have {width}; set sinusoidal: false"
        )
    rates = TEMPERATURE ** (-torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    across, down = x.reshape(-1, 1) * rates, y.reshape(-1, 1) * rates
    return torch.cat([across.sin(), across.cos(), down.sin(), down.cos()], dim=1)
