"""The data-aligned initialization: the first layer's covariance has the data's eigenvectors.

Its filters are Gaussian with mean 0; its bias and all other layers are those of the backbone's
random initialization.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from transferbench.errors import PluginError
from transferbench.specs import InitializationContext
from transferbench_plugins.initializations._source_specs import SourceParams, source_spec

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["DATA_ALIGNED"]


class AlignedParams(SourceParams):
    """``variances``: the variance of the filters along each eigenvector of the data.

    ``source``: the mean square of the source's filters. ``data``: proportional to the variance of
    the data, with the mean squared norm of the backbone's random initialization.
    """

    variances: Literal["source", "data"] = "source"


def _initialize(params: AlignedParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations._first_layer import (
        draw_filters,
        first_convolution,
        patch_eigenvectors,
    )
    from transferbench_plugins.initializations._layer_outputs import target_images
    from transferbench_plugins.initializations._source_weights import copy_source

    images = target_images("data-aligned", context)
    name, layer = first_convolution("data-aligned", net, context)
    variance_E, basis_EE = patch_eigenvectors(layer, images)
    if params.variances == "source":
        copy_source("data-aligned", net, context, params.checkpoint, [f"{name}.weight"])
    filters_FE = layer.weight.detach().flatten(1).double()
    if params.variances == "source":
        variance_E = (filters_FE @ basis_EE).square().mean(0)
    elif not variance_E.any():
        raise PluginError(
            "initialization 'data-aligned': the target's images are of one value, so that no"
            " direction has a variance; use other images, or variances: source"
        )
    else:
        variance_E = variance_E * (filters_FE.square().sum(1).mean() / variance_E.sum())
    draw_filters(layer.weight, variance_E, basis_EE, context.generator)


DATA_ALIGNED = source_spec(
    "data-aligned",
    "Keeps P's first-layer mean square along each principal component of target patches",
    "Maennel et al., NeurIPS 2020, https://arxiv.org/abs/2006.10455",
    _initialize,
    AlignedParams,
    images=True,
)
