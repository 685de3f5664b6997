"""The mean-var initialization: a source network's weights known by their mean and variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench.specs import InitializationContext, InitializationSpec
from transferbench_plugins.initializations._statistics_params import StatisticsParams, checkpoint_of

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

__all__ = ["MEAN_VAR", "normal_like"]


def normal_like(values: Tensor, generator: Generator) -> Tensor:
    """Independent draws of N(mean, variance) of ``values``, of the same shape.

    Error: mean and variance are kept in expectation; with n elements the drawn mean is off by a
    standard error of std / sqrt(n).
    """
    import torch

    noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
    return values.mean() + values.std(correction=0) * noise


def _initialize(params: StatisticsParams, net: Module, context: InitializationContext) -> None:
    from transferbench.networks.modules import body_names
    from transferbench_plugins.initializations._source_weights import copy_source, redraw

    body = body_names(context.modules)
    copy_source("mean-var", net, context, params.checkpoint, body)
    redraw(net, body, params.norms, lambda _, values: normal_like(values, context.generator))


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
