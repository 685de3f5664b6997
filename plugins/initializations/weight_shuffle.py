"""The weight-shuffle initialization: the entries of the source's tensors, permuted.

Shape letters: F filters (outputs), C channels (inputs), S positions of a kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from transferbench.specs import InitializationContext
from transferbench_plugins.initializations._source_specs import StatisticsParams, source_spec

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

__all__ = ["WEIGHT_SHUFFLE"]

Variant = Literal["all", "within-filter", "across-filters", "spatial", "channel"]


class ShuffleParams(StatisticsParams):
    """``variant``: what is permuted, and so which statistic is preserved.

    ``all``: the entries of a tensor; preserves its histogram.
    ``within-filter``: the entries of each filter; preserves each filter's histogram and norm.
    ``across-filters``: filters with their biases; preserves the set of filters.
    ``spatial``: the positions in each kernel; preserves each kernel's sum and histogram, and copies
    weights without positions (linear, 1x1).
    ``channel``: the kernels of each filter; preserves the set of kernels of each filter.

    The last three do not separate biases from their filters; tokens and position embeddings are a
    single filter of kernels with one entry.
    """

    variant: Variant = "all"


def _initialize(params: ShuffleParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations._source_weights import redraw_source

    orders: dict[tuple[str, int], Tensor] = {}

    def shuffle(name: str, values: Tensor) -> Tensor:
        if params.variant != "across-filters":
            return _shuffled(values, params.variant, context.generator)
        layer = (name.rpartition(".")[0], len(values))
        if layer not in orders:
            orders[layer] = _orders(1, len(values), context.generator)[0]
        return values[orders[layer]]

    redraw_source("weight-shuffle", net, context, params.checkpoint, params.norms, shuffle)


def _shuffled(values: Tensor, variant: Variant, generator: Generator) -> Tensor:
    """The entries of ``values``, permuted.

    Each row is permuted independently: a row is the tensor (``all``), a filter, a kernel, or the
    kernels of a filter.
    """
    from transferbench_plugins.initializations._source_weights import as_filters

    filters_FCS = as_filters(values)
    if variant == "channel":
        order = _orders(filters_FCS.shape[0], filters_FCS.shape[1], generator)
        return filters_FCS.take_along_dim(order[..., None], 1)
    axes = {"all": 0, "within-filter": 1, "spatial": 2}[variant]
    rows = filters_FCS.reshape(filters_FCS.shape[:axes].numel(), -1)
    return rows.take_along_dim(_orders(len(rows), rows.shape[1], generator), 1)


def _orders(rows: int, length: int, generator: Generator) -> Tensor:
    """``rows`` independent uniform permutations of range(length): (rows, length).

    With float64 keys the probability of equal keys in a row is below 1e-7 at a million entries.
    """
    import torch

    return torch.rand(rows, length, generator=generator, dtype=torch.float64).argsort(1)


WEIGHT_SHUFFLE = source_spec(
    "weight-shuffle",
    "Keeps the entries of each tensor, filter or kernel of P (variant), permuted",
    "Matsoukas et al., CVPR 2022, https://arxiv.org/abs/2203.01825 (released code)",
    _initialize,
    ShuffleParams,
)
