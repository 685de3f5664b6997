"""Low-pass and high-pass filters, and cue conflicts: one image's layout, a texture's details.

Frequencies are in cycles per image, so that a radius means the same at every image size.

Shape letters: N images, C channels, H height, W width, F = W // 2 + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.specs import ImageShape, Params, PerturbationSpec
from transferbench_plugins.perturbations.frequency._spectra import (
    corner,
    radii,
    rescaled,
    respectrum,
    texture_amplitude,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["CUE_CONFLICT", "HIGH_PASS", "LOW_PASS"]


class BandParams(Params):
    """The cut-off radius in cycles per image."""

    radius: Annotated[float, Field(ge=0)]


class ConflictParams(BandParams):
    """``exponent``: the texture's amplitude falls as 1 / f**exponent."""

    exponent: Annotated[float, Field(ge=0, le=4)] = 1.0


def _low_pass(
    params: BandParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # fixed signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    low = radii(image_shape) <= params.radius
    return _filter(low, is_identity=bool(low.all()))


def _high_pass(
    params: BandParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # fixed signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    high = radii(image_shape) > params.radius
    return _filter(high, is_identity=params.radius < 1)


def _filter(band: Tensor, *, is_identity: bool) -> Callable[[Tensor, np.ndarray], Tensor]:
    """Keep the frequencies in ``band`` and the mean. Shapes: band bool (H, F)."""

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        del image_ids  # nothing is drawn
        if is_identity:
            return images.clone()
        mask = band.to(images.device)
        return respectrum(images, lambda spectra: spectra * mask)

    return apply


def _cue_conflict(
    params: ConflictParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    """Low frequencies of the image, high frequencies of a texture of equal energy."""
    high = radii(image_shape) > params.radius

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        if not high.any():
            return images.clone()
        outside = high.to(images.device)
        texture = texture_amplitude(image_shape, params.exponent, seed, image_ids, images)

        def change(spectra: Tensor) -> Tensor:
            fine = (texture.abs() * outside).expand(spectra.shape)
            fine = rescaled(fine, spectra * outside, image_shape[1]) * texture.sgn()
            return spectra * ~outside + fine

        return respectrum(images, change)

    return apply


def _removed_above(params: BandParams, image_shape: ImageShape) -> float:
    return max(0.0, 1 - params.radius / corner(image_shape))


def _removed_below(params: BandParams, image_shape: ImageShape) -> float:
    # Below one cycle per image there is only the mean.
    return 0.0 if params.radius < 1 else min(1.0, params.radius / corner(image_shape))


LOW_PASS = PerturbationSpec(
    name="low-pass",
    version=1,
    summary="low-pass filter: frequencies up to a radius, the coarse layout",
    source="Yin et al. 2019, arXiv 1906.08988, section 4",
    license="Apache-2.0",
    params=BandParams,
    tiny={"radius": 2},
    build=_low_pass,
    severity=_removed_above,
)

HIGH_PASS = PerturbationSpec(
    name="high-pass",
    version=1,
    summary="high-pass filter: frequencies beyond a radius and the mean, edges and texture",
    source="Yin et al. 2019, arXiv 1906.08988, section 4",
    license="Apache-2.0",
    params=BandParams,
    tiny={"radius": 2},
    build=_high_pass,
    severity=_removed_below,
)

CUE_CONFLICT = PerturbationSpec(
    name="cue-conflict",
    version=1,
    # Geirhos et al. transfer the style of another image. Here the other is a random texture without
    # a class, so that an image depends on its own id alone.
    summary="coarse layout of the image, details of a random texture; labelled by shape",
    source="after Geirhos et al. 2019, arXiv 1811.12231; hybrids as Oliva et al. 2006",
    license="Apache-2.0",
    params=ConflictParams,
    tiny={"radius": 2},
    build=_cue_conflict,
    severity=_removed_above,
)
