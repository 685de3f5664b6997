"""The weight-shuffle initialization: a source network's entries, in another order.

Shape letters: F filters (outputs), C channels (inputs), S positions of a kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from transferbench.specs import InitializationContext, InitializationSpec
from transferbench_plugins.initializations._statistics_params import StatisticsParams, checkpoint_of

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

__all__ = ["WEIGHT_SHUFFLE"]

Variant = Literal["all", "within-filter", "across-filters", "spatial", "channel"]


class ShuffleParams(StatisticsParams):
    """``variant``: what changes places, and so which statistic is kept.

    ``all``: every entry of a tensor; its histogram is kept.
    ``within-filter``: the entries of each filter; each filter's histogram and norm are kept.
    ``across-filters``: whole filters, each with its bias; the set of filters is kept, not which
    reads which.
    ``spatial``: the positions inside each kernel; each kernel's sum and histogram are kept, and a
    weight without positions (linear, 1x1) is the source's.
    ``channel``: the kernels inside each filter; each kernel is kept, not which channel it reads.

    The last three leave biases their filters; tokens and position embeddings are one filter of
    one-entry kernels.
    """

    variant: Variant = "all"


def _initialize(params: ShuffleParams, net: Module, context: InitializationContext) -> None:
    from transferbench.networks.modules import body_names
    from transferbench_plugins.initializations._source_weights import copy_source, redraw

    orders: dict[tuple[str, int], Tensor] = {}

    def shuffle(name: str, values: Tensor) -> Tensor:
        if params.variant != "across-filters":
            return _shuffled(values, params.variant, context.generator)
        layer = (name.rpartition(".")[0], len(values))
        if layer not in orders:
            orders[layer] = _orders(1, len(values), context.generator)[0]
        return values[orders[layer]]

    body = body_names(context.modules)
    copy_source("weight-shuffle", net, context, params.checkpoint, body)
    redraw(net, body, params.norms, shuffle)


def _shuffled(values: Tensor, variant: Variant, generator: Generator) -> Tensor:
    """The entries of ``values`` in another order.

    The free axis, last, is what each row permutes for itself: one row is the whole tensor
    (``all``), a filter, a kernel, or a filter's kernels.
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

    float64 keys: two of one row are equal with a chance of below 1e-7 at a million entries.
    """
    import torch

    return torch.rand(rows, length, generator=generator, dtype=torch.float64).argsort(1)


WEIGHT_SHUFFLE = InitializationSpec(
    name="weight-shuffle",
    version=1,
    summary="Keeps the entries of each tensor, filter or kernel of P (variant), in another order",
    source="Matsoukas et al., CVPR 2022, https://arxiv.org/abs/2203.01825 (released code)",
    license="Apache-2.0",
    params=ShuffleParams,
    initialize=_initialize,
    needs=frozenset({"source_weights"}),
    touches="body",
    checkpoint=checkpoint_of,
)
