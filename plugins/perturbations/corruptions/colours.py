"""Contrast, brightness, saturation and grayscale.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from transferbench.specs import ImageShape, NoParams, PerturbationSpec
from transferbench_plugins.perturbations.corruptions._severities import (
    SeverityParams,
    constant,
    corruption,
    needs_colour,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["BRIGHTNESS", "CONTRAST", "GRAYSCALE", "SATURATE", "luma"]


def luma(images: Tensor) -> Tensor:
    """Luma of each pixel; grey images are returned unchanged.

    Shapes: (N, C, H, W) to (N, 1, H, W).
    Source: ITU-R BT.601, as in Pillow and OpenCV.
    """
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _grayscale(
    params: NoParams,  # noqa: ARG001  # fixed signature
    image_shape: ImageShape,  # noqa: ARG001  # fixed signature
    seed: int,  # noqa: ARG001  # fixed signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    return lambda images, image_ids: luma(images).clamp(0, 1).repeat(1, images.shape[1], 1, 1)


def _contrast(
    params: SeverityParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # fixed signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    """Interpolate between the mean of each channel and the image."""
    small, large = (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)
    contrast = constant(params, image_shape, small, large)

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        del image_ids  # nothing is drawn
        return images.mean(dim=(2, 3), keepdim=True).lerp(images, contrast).clamp_(0, 1)

    return apply


def _brightness(
    params: SeverityParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # fixed signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    """Raise the value of HSV: channels in proportion, black becomes grey."""
    small, large = (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)
    added = constant(params, image_shape, small, large)

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        del image_ids  # nothing is drawn
        value = images.amax(dim=1, keepdim=True)
        raised = (value + added).clamp(0, 1)
        # The quotient is not finite for black pixels, where it is not used.
        return (images * (raised / value)).where(value > 0, raised).clamp_(0, 1)

    return apply


def _saturate(
    params: SeverityParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # fixed signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    """Scale and raise the saturation of HSV; severities 1 and 2 reduce it.

    Grey pixels have hue 0 in HSV: they turn red where the saturation is raised.
    """
    small = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))
    large = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))
    factor, added = constant(params, image_shape, small, large)

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        del image_ids  # nothing is drawn
        value = images.amax(dim=1, keepdim=True)
        chroma = value - images.amin(dim=1, keepdim=True)
        saturation = (chroma / value).where(value > 0, 0)
        new_chroma = (saturation * factor + added).clamp(0, 1) * value
        # Distance of each channel to the largest, as a share of the chroma.
        red = images.new_tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1)
        below = ((value - images) / chroma).where(chroma > 0, red)
        return (value - below * new_chroma).clamp_(0, 1)

    return apply


GRAYSCALE = PerturbationSpec(
    name="grayscale",
    version=1,
    summary="no colour: the luma in all channels",
    source="ITU-R BT.601; as a cue removed: Geirhos et al. 2018, arXiv 1808.08750",
    license="Apache-2.0",
    build=_grayscale,
    stage="pixels",
    check=needs_colour,
    severity=lambda params, image_shape: 1.0,
)
CONTRAST = corruption("contrast", "channels interpolated towards their means", _contrast)
BRIGHTNESS = corruption("brightness", "brighter: the value of HSV raised", _brightness)
# Severities 1 and 2 reduce the saturation, 3 to 5 raise it.
SATURATE = corruption(
    "saturate",
    "less saturated at severities 1 and 2, more from 3",
    _saturate,
    needs_colour,
    ordered=False,
)
