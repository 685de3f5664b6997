"""Data-dependent initialization: every channel of every layer of mean 0 and variance 1 on the data.

This is the paper's within-layer step (its Algorithm 1) with Gaussian weights; its second step,
equal rates of change between layers, is left out. A layer without a bias cannot move its mean and
gets the variance alone. Norm layers, scalars and embeddings stay as built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench.errors import PluginError
from transferbench.specs import InitializationContext, InitializationSpec, NoParams

if TYPE_CHECKING:
    from torch.nn import Module

    from transferbench_plugins.initializations._layer_outputs import LayerCall

__all__ = ["DATA_DEPENDENT"]

ROUNDING = 1e-6
"""A deviation below this share of a channel's mean is float32 rounding of a constant."""


def _standardise(call: LayerCall) -> None:
    import torch

    variance_F, mean_F = torch.var_mean(call.filters(), dim=1, correction=0)
    deviation_F = variance_F.sqrt()
    varied = deviation_F > ROUNDING * mean_F.abs()
    if not bool(varied.all()):
        raise PluginError(
            f"initialization 'data-dependent': {int((~varied).sum())} of {len(varied)} channels of"
            f" {call.name} give one value on all images, which no factor brings to variance 1;"
            " give more images that differ, or another initialization"
        )
    call.scale(1 / deviation_F)
    if call.layer.bias is not None:
        call.layer.get_parameter("bias").copy_(-mean_F / deviation_F)


def _initialize(_: NoParams, net: Module, context: InitializationContext) -> None:
    import torch

    from transferbench_plugins.initializations._layer_outputs import (
        adjust_layers,
        body_layers,
        target_images,
    )

    target_images("data-dependent", context)
    with torch.no_grad():
        for layer in body_layers(net, context).values():
            layer.get_parameter("weight").normal_(generator=context.generator)
            if layer.bias is not None:
                layer.get_parameter("bias").zero_()
    adjust_layers("data-dependent", net, context, _standardise)


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
