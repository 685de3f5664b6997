"""Low-pass and high-pass filters, and cue conflicts: one image's layout, a texture's details.

Frequencies are in cycles per image, so that a radius means the same at every image size.

Shape letters: N images, C channels, H height, W width, F = W // 2 + 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.specs import ImageShape, Params, PerturbationSpec
from transferbench_plugins.perturbations._image_random import ImageRandom, on_batches
from transferbench_plugins.perturbations.frequency._spectra import (
    radii,
    rescaled,
    respectrum,
    texture_spectrum,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BANDS"]


class BandParams(Params):
    """The cut-off radius in cycles per image."""

    radius: Annotated[float, Field(ge=0)]


class ConflictParams(BandParams):
    """``exponent``: the texture's amplitude falls as 1 / f**exponent."""

    exponent: Annotated[float, Field(ge=0, le=4)] = 1.0


def _low_pass(images: Tensor, params: BandParams, _: ImageRandom) -> Tensor:
    low = radii(*images.shape[2:]) <= params.radius
    return images.clone() if low.all() else _filtered(images, low)


def _high_pass(images: Tensor, params: BandParams, _: ImageRandom) -> Tensor:
    # Below one cycle per image there is only the mean.
    if params.radius < 1:
        return images.clone()
    return _filtered(images, radii(*images.shape[2:]) > params.radius)


def _filtered(images: Tensor, band: Tensor) -> Tensor:
    """The frequencies in ``band`` and the mean. Shapes: band bool (H, F)."""
    mask = band.to(images.device)
    return respectrum(images, lambda spectra: spectra * mask)


def _cue_conflict(images: Tensor, params: ConflictParams, random: ImageRandom) -> Tensor:
    """Low frequencies of the image, high frequencies of a texture of equal energy."""
    high = (radii(*images.shape[2:]) > params.radius).to(images.device)
    if not high.any():
        return images.clone()
    texture = texture_spectrum(images, params.exponent, random)

    def change(spectra: Tensor) -> Tensor:
        fine = (texture.abs() * high).expand(spectra.shape)
        fine = rescaled(fine, spectra * high, images.shape[3]) * texture.sgn()
        return spectra * ~high + fine

    return respectrum(images, change)


def _relative(params: BandParams, image_shape: ImageShape) -> float:
    """The radius as a fraction of the highest frequency."""
    return params.radius / math.hypot(image_shape[0] // 2, image_shape[1] // 2)


def _removed_above(params: BandParams, image_shape: ImageShape) -> float:
    return max(0.0, 1 - _relative(params, image_shape))


def _removed_below(params: BandParams, image_shape: ImageShape) -> float:
    return 0.0 if params.radius < 1 else min(1.0, _relative(params, image_shape))


BANDS = (
    PerturbationSpec(
        name="low-pass",
        version=1,
        summary="low-pass filter: frequencies up to a radius, the coarse layout",
        source="Yin et al. 2019, arXiv 1906.08988, section 4",
        license="Apache-2.0",
        params=BandParams,
        tiny={"radius": 2},
        build=on_batches(_low_pass),
        severity=_removed_above,
    ),
    PerturbationSpec(
        name="high-pass",
        version=1,
        summary="high-pass filter: frequencies beyond a radius and the mean, edges and texture",
        source="Yin et al. 2019, arXiv 1906.08988, section 4",
        license="Apache-2.0",
        params=BandParams,
        tiny={"radius": 2},
        build=on_batches(_high_pass),
        severity=_removed_below,
    ),
    PerturbationSpec(
        name="cue-conflict",
        version=1,
        # Geirhos et al. transfer the style of another image. Here the other is a random texture
        # without a class, so that an image depends on its own id alone.
        summary="coarse layout of the image, details of a random texture; labelled by shape",
        source="after Geirhos et al. 2019, arXiv 1811.12231; hybrids as Oliva et al. 2006",
        license="Apache-2.0",
        params=ConflictParams,
        tiny={"radius": 2},
        build=on_batches(_cue_conflict),
        severity=_removed_above,
    ),
)
