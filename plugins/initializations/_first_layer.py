"""The first convolution of a network, and the covariance of the image patches that it reads.

Shape letters: N images, E entries of a patch and of a filter (channels x height x width of the
kernel), P patches, F filters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # the usual name
from torch import Generator, Tensor, nn

from transferbench.errors import PluginError
from transferbench.specs import InitializationContext
from transferbench_plugins.initializations._layer_outputs import body_layers

__all__ = ["draw_filters", "first_convolution", "patch_eigenvectors"]

BATCH_SIZE = 8
"""The patches of 8 images of 224 px are some 100 MB."""


def first_convolution(
    plugin: str, net: nn.Module, context: InitializationContext
) -> tuple[str, nn.Conv2d]:
    """The name of the first layer, and the layer.

    Raises: ``PluginError`` where it is no convolution over all channels.
    """
    name, layer = next(iter(body_layers(net, context).items()), ("", net))
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or isinstance(layer.padding, str):
        raise PluginError(
            f"initialization {plugin!r} aligns a first convolution with the patches it reads, and"
            f" this backbone begins with {name or 'no layer'} ({type(layer).__name__}); choose a"
            " backbone whose first layer is an ungrouped Conv2d with numeric padding"
        )
    return name, layer


def patch_eigenvectors(layer: nn.Conv2d, images: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of the covariance of the patches of ``layer``, with padding.

    Shapes: variances (E,), ascending; eigenvectors (E, E), one per column; float64.
    """
    size = layer.weight[0].numel()
    padding = tuple(int(side) for side in layer.padding)
    total_E = torch.zeros(size, dtype=torch.float64)
    squares_EE, count = torch.zeros(size, size, dtype=torch.float64), 0
    for batch in torch.split(images, BATCH_SIZE):
        patches = F.unfold(batch, layer.kernel_size, layer.dilation, padding, layer.stride)
        flat_PE = patches.transpose(1, 2).reshape(-1, size).double()
        total_E += flat_PE.sum(0)
        squares_EE += flat_PE.T @ flat_PE
        count += len(flat_PE)
    mean_E = total_E / count
    variance_E, basis_EE = torch.linalg.eigh(squares_EE / count - torch.outer(mean_E, mean_E))
    return variance_E.clamp(min=0), basis_EE


def draw_filters(
    weight: Tensor, variance_E: Tensor, basis_EE: Tensor, generator: Generator
) -> None:
    """Fill ``weight`` with filters of N(0, basis diag(variance) basis^T)."""
    noise_FE = torch.randn(len(weight), len(variance_E), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        weight.copy_((noise_FE * variance_E.sqrt() @ basis_EE.T).reshape(weight.shape))
