"""LSUV: orthonormal weights, scaled layer by layer to outputs of unit variance on the data.

All convolutions and linear layers of the body, including those that a backbone initializes to
zero; their biases become zero. Norm layers, scalars and embeddings are those of the backbone's
random initialization.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.errors import PluginError
from transferbench.specs import InitializationContext, InitializationSpec, Params

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

    from transferbench_plugins.initializations._layer_outputs import LayerCall

__all__ = ["LSUV"]


class LsuvParams(Params):
    """The paper's Algorithm 1: tolerance of the standard deviation, and maximum number of tries."""

    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.1
    tries: Annotated[int, Field(ge=1, le=1000)] = 10


def _orthonormalise(weight: Tensor, generator: Generator) -> None:
    """Make the rows or columns of the weight, whichever are fewer, orthonormal."""
    from transferbench_plugins.initializations._directions import orthonormal

    filters, entries = weight.shape[0], weight[0].numel()
    columns = orthonormal(max(filters, entries), min(filters, entries), generator)
    weight.copy_((columns if filters >= entries else columns.T).reshape(weight.shape))


def _to_unit_deviation(params: LsuvParams, call: LayerCall) -> None:
    """A single standard deviation over images, positions and filters, as in the paper."""
    for _ in range(params.tries):
        deviation = call.filters().std(correction=0)
        if abs(float(deviation) - 1) <= params.tolerance:
            return
        call.scale(1 / deviation)
    deviation = call.filters().std(correction=0)
    # Also raises for NaN.
    if not abs(float(deviation) - 1) <= params.tolerance:
        raise PluginError(
            f"initialization 'lsuv' could not bring the output of {call.name} to a standard"
            f" deviation of 1 in {params.tries} tries (it is {float(deviation):g}); use different"
            " images, or another initialization"
        )


def _initialize(params: LsuvParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations._layer_outputs import adjust_layers

    adjust_layers("lsuv", net, context, _orthonormalise, partial(_to_unit_deviation, params))


LSUV = InitializationSpec(
    name="lsuv",
    version=1,
    summary="No statistic of P: orthonormal weights, scaled to unit output variance on images",
    source="Mishkin, Matas, All you need is a good init, ICLR 2016,"
    " https://arxiv.org/abs/1511.06422",
    license="Apache-2.0",
    params=LsuvParams,
    initialize=_initialize,
    needs=frozenset({"images"}),
    touches="body",
)
