"""The mean-var initialization: normal draws with the mean and variance of each source tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench.specs import InitializationContext, InitializationSpec
from transferbench_plugins.initializations._statistics_params import StatisticsParams, checkpoint_of

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

__all__ = ["MEAN_VAR", "normal_like"]


def normal_like(values: Tensor, generator: Generator) -> Tensor:
    """Independent draws from N(mean, variance) of ``values``, of the same shape.

    Error: mean and variance are equal in expectation; with n elements the standard error of the
    mean is std / sqrt(n).
    """
    import torch

    noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
    return values.mean() + values.std(correction=0) * noise


def _initialize(params: StatisticsParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations._source_weights import redraw_source

    def draw(_: str, values: Tensor) -> Tensor:
        return normal_like(values, context.generator)

    redraw_source("mean-var", net, context, params, draw)


MEAN_VAR = InitializationSpec(
    name="mean-var",
    version=1,
    summary="Keeps each tensor's mean and variance: entries drawn from N(mean, variance) of P's",
    source="Raghu et al., Transfusion, NeurIPS 2019, https://arxiv.org/abs/1902.07208",
    license="Apache-2.0",
    params=StatisticsParams,
    initialize=_initialize,
    needs=frozenset({"source_weights"}),
    touches="body",
    checkpoint=checkpoint_of,
)
