"""The bootstrap initialization: entries of each source tensor, resampled with replacement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench.specs import InitializationContext, InitializationSpec
from transferbench_plugins.initializations._statistics_params import StatisticsParams, checkpoint_of

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

__all__ = ["BOOTSTRAP"]


def _resample(values: Tensor, generator: Generator) -> Tensor:
    import torch

    return values.flatten()[torch.randint(values.numel(), (values.numel(),), generator=generator)]


def _initialize(params: StatisticsParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations._source_weights import redraw_source

    def draw(_: str, values: Tensor) -> Tensor:
        return _resample(values, context.generator)

    redraw_source("bootstrap", net, context, params, draw)


BOOTSTRAP = InitializationSpec(
    name="bootstrap",
    version=1,
    summary="Keeps each tensor's distribution of entries: drawn from P's own, with replacement",
    source="Matsoukas et al., CVPR 2022, https://arxiv.org/abs/2203.01825 (released code)",
    license="Apache-2.0",
    params=StatisticsParams,
    initialize=_initialize,
    needs=frozenset({"source_weights"}),
    touches="body",
    checkpoint=checkpoint_of,
)
