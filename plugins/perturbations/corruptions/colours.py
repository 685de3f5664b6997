"""Contrast, brightness, saturation and grayscale.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench.specs import NoParams, PerturbationSpec
from transferbench_plugins.perturbations._image_random import ImageRandom, on_batches
from transferbench_plugins.perturbations.corruptions._severities import corruption, needs_colour

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["COLOURS", "luma"]


def luma(images: Tensor) -> Tensor:
    """Luma of each pixel; grey images are returned unchanged.

    Shapes: (N, C, H, W) to (N, 1, H, W).
    Source: ITU-R BT.601, as in Pillow and OpenCV.
    """
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _grayscale(images: Tensor, _: NoParams, __: ImageRandom) -> Tensor:
    return luma(images).clamp(0, 1).repeat(1, images.shape[1], 1, 1)


def _contrast(images: Tensor, contrast: float, _: ImageRandom) -> Tensor:
    """Interpolate between the mean of each channel and the image."""
    return images.mean(dim=(2, 3), keepdim=True).lerp(images, contrast)


def _brightness(images: Tensor, added: float, _: ImageRandom) -> Tensor:
    """Raise the value of HSV: channels in proportion, black becomes grey."""
    value = images.amax(dim=1, keepdim=True)
    raised = (value + added).clamp(0, 1)
    # The quotient is not finite for black pixels, where it is not used.
    return (images * (raised / value)).where(value > 0, raised)


def _saturate(images: Tensor, constant: tuple[float, float], _: ImageRandom) -> Tensor:
    """Scale and raise the saturation of HSV.

    Grey pixels have hue 0 in HSV: they turn red where the saturation is raised.
    """
    factor, added = constant
    value = images.amax(dim=1, keepdim=True)
    chroma = value - images.amin(dim=1, keepdim=True)
    saturation = (chroma / value).where(value > 0, 0)
    new_chroma = (saturation * factor + added).clamp(0, 1) * value
    # Distance of each channel to the largest, as a share of the chroma.
    red = images.new_tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1)
    below = ((value - images) / chroma).where(chroma > 0, red)
    return value - below * new_chroma


COLOURS = (
    PerturbationSpec(
        name="grayscale",
        version=1,
        summary="no colour: the luma in all channels",
        source="ITU-R BT.601; as a cue removed: Geirhos et al. 2018, arXiv 1808.08750",
        license="Apache-2.0",
        build=on_batches(_grayscale),
        stage="pixels",
        check=needs_colour,
        severity=lambda params, image_shape: 1.0,
    ),
    corruption(
        "contrast",
        "channels interpolated towards their means",
        _contrast,
        {32: (0.75, 0.5, 0.4, 0.3, 0.15), 224: (0.4, 0.3, 0.2, 0.1, 0.05)},
    ),
    corruption(
        "brightness",
        "brighter: the value of HSV raised",
        _brightness,
        {32: (0.05, 0.1, 0.15, 0.2, 0.3), 224: (0.1, 0.2, 0.3, 0.4, 0.5)},
    ),
    corruption(
        "saturate",
        "less saturated at severities 1 and 2, more from 3",
        _saturate,
        {
            32: ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
            224: ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
        },
        needs_colour,
        ordered=False,
    ),
)
