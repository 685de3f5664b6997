"""Data-dependent initialization: each channel of all layers has mean 0 and variance 1 on the data.

This is the within-layer step of the paper (Algorithm 1) with Gaussian weights; the second step,
equal rates of change between layers, is omitted. A layer without a bias only gets the variance.
Norm layers, scalars and embeddings are those of the backbone's random initialization.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench.errors import PluginError
from transferbench.specs import InitializationContext, InitializationSpec, NoParams

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

    from transferbench_plugins.initializations._layer_outputs import LayerCall

__all__ = ["DATA_DEPENDENT"]

ROUNDING = 1e-6
"""A standard deviation below this fraction of a channel's mean is rounding of a constant."""


def _standardise(call: LayerCall) -> None:
    import torch

    variance_F, mean_F = torch.var_mean(call.filters(), dim=1, correction=0)
    deviation_F = variance_F.sqrt()
    varied = deviation_F > ROUNDING * mean_F.abs()
    if not bool(varied.all()):
        raise PluginError(
            f"initialization 'data-dependent': {int((~varied).sum())} of {len(varied)} channels of"
            f" {call.name} are constant on all images, so that no factor gives them variance 1;"
            " use more, different images, or another initialization"
        )
    call.scale(1 / deviation_F)
    if call.layer.bias is not None:
        call.layer.get_parameter("bias").copy_(-mean_F / deviation_F)


def _initialize(_: NoParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations._layer_outputs import adjust_layers

    def draw(weight: Tensor, generator: Generator) -> None:
        weight.normal_(generator=generator)

    adjust_layers("data-dependent", net, context, draw, _standardise)


DATA_DEPENDENT = InitializationSpec(
    name="data-dependent",
    version=1,
    summary="No statistic of P: each channel of mean 0 (given a bias), variance 1 on images",
    source="Krähenbühl et al., Data-dependent Initializations of CNNs, ICLR 2016,"
    " https://arxiv.org/abs/1511.06856",
    license="Apache-2.0",
    initialize=_initialize,
    needs=frozenset({"images"}),
    touches="body",
)
