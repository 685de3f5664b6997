"""The data-aligned initialization: the first layer's covariance has the data's eigenvectors.

Its filters are Gaussian with mean 0; its bias and all other layers are those of the backbone's
random initialization.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from transferbench.specs import InitializationContext, InitializationSpec
from transferbench_plugins.initializations._statistics_params import SourceParams, checkpoint_of

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["DATA_ALIGNED"]


class AlignedParams(SourceParams):
    """``variances``: the variance of the filters along each eigenvector of the data.

    ``source``: the mean square of the source's filters. ``data``: proportional to the variance of
    the data, with the mean squared norm of the backbone's random initialization; without a source.
    """

    variances: Literal["source", "data"] = "source"


def _initialize(params: AlignedParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations import _first_layer as first_layer
    from transferbench_plugins.initializations._source_weights import copy_source

    images = first_layer.target_images("data-aligned", context)
    name, layer = first_layer.first_convolution("data-aligned", net, context)
    variance_E, basis_EE = first_layer.patch_eigenvectors(layer, images)
    if params.variances == "source":
        copy_source("data-aligned", net, context, params.checkpoint, [f"{name}.weight"])
        variance_E = first_layer.mean_squares(layer.weight, basis_EE)
    else:
        variance_E = first_layer.proportional(variance_E, layer.weight)
    first_layer.draw(layer.weight, variance_E, basis_EE, context.generator)


DATA_ALIGNED = InitializationSpec(
    name="data-aligned",
    version=1,
    summary="Keeps P's first-layer mean square along each principal component of target patches",
    source="Maennel et al., NeurIPS 2020, https://arxiv.org/abs/2006.10455",
    license="Apache-2.0",
    params=AlignedParams,
    initialize=_initialize,
    needs=frozenset({"source_weights", "images"}),
    touches="body",
    checkpoint=checkpoint_of,
)
