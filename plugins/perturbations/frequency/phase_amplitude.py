"""Perturbations of the phase or the amplitude of the Fourier spectrum.

The phase of the 2-D spectrum carries the layout of an image, its amplitude the statistics of its
texture (Oppenheim and Lim 1981, doi:10.1109/PROC.1981.12022). Each perturbation preserves one and
replaces the other, channel by channel; the mean of each channel is preserved.

Shape letters: N images, C channels, H height, W width, F = W // 2 + 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.specs import NoParams, Params, PerturbationSpec
from transferbench_plugins.perturbations._image_random import ImageRandom, on_batches
from transferbench_plugins.perturbations.frequency._spectra import (
    phases,
    rescaled,
    respectrum,
    texture_spectrum,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PHASE_AND_AMPLITUDE"]


class MixParams(Params):
    """``share``: weight of the texture's amplitude, which falls as 1 / f**exponent."""

    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    exponent: Annotated[float, Field(ge=0, le=4)] = 1.0


class NoiseParams(Params):
    """``level``: maximum rotation of a phase as a fraction of pi; 1 removes all phase."""

    level: Annotated[float, Field(ge=0, le=1)]


def _phase_only(images: Tensor, _: NoParams, __: ImageRandom) -> Tensor:
    """A white spectrum: all amplitudes are the root mean square of the channel."""

    def change(spectra: Tensor) -> Tensor:
        unit = phases(spectra)
        return unit * rescaled(unit.abs(), spectra, images.shape[3])

    return respectrum(images, change)


def _amplitude_only(images: Tensor, _: NoParams, __: ImageRandom) -> Tensor:
    """Set all phases to zero, which turns each image into a blob at its corner.

    The blob is moved to the centre, because networks with zero padding see little at a corner.
    """
    height, width = images.shape[2:]
    blob = respectrum(images, lambda spectra: spectra.abs().to(spectra.dtype))
    return blob.roll((height // 2, width // 2), dims=(-2, -1))


def _amplitude_mix(images: Tensor, params: MixParams, random: ImageRandom) -> Tensor:
    if params.share == 0:
        return images.clone()
    texture = texture_spectrum(images, params.exponent, random).abs()

    def change(spectra: Tensor) -> Tensor:
        other = rescaled(texture.expand(spectra.shape), spectra, images.shape[3])
        return phases(spectra) * spectra.abs().lerp(other, params.share)

    return respectrum(images, change)


def _phase_noise(images: Tensor, params: NoiseParams, random: ImageRandom) -> Tensor:
    import torch

    if params.level == 0:
        return images.clone()
    height, width = images.shape[2:]
    # Phases of real white noise are uniform, with the symmetry of a real image.
    angle = torch.fft.rfft2(random.normal(1, height, width)).angle()
    # These frequencies are real for real images; a rotation would reduce their amplitude.
    down = torch.arange(height, device=images.device)
    across = torch.arange(width // 2 + 1, device=images.device)
    real = (2 * down % height == 0)[:, None] & (2 * across % width == 0)
    angle = angle.masked_fill(real, 0) * params.level
    rotation = torch.polar(torch.ones_like(angle), angle)
    return respectrum(images, lambda spectra: spectra * rotation)


PHASE_AND_AMPLITUDE = (
    PerturbationSpec(
        name="phase-only",
        version=1,
        summary="phase alone: all amplitudes equal; mean and variance preserved",
        source="Oppenheim and Lim 1981, doi:10.1109/PROC.1981.12022",
        license="Apache-2.0",
        build=on_batches(_phase_only),
        severity=lambda params, image_shape: 1.0,
    ),
    PerturbationSpec(
        name="amplitude-only",
        version=1,
        summary="amplitude alone: all phases zero; mean and variance preserved",
        source="Oppenheim and Lim 1981, doi:10.1109/PROC.1981.12022",
        license="Apache-2.0",
        build=on_batches(_amplitude_only),
        severity=lambda params, image_shape: 1.0,
    ),
    PerturbationSpec(
        name="amplitude-mix",
        version=1,
        # Chen and Xu use the amplitude of another image of the batch, so that an image depends on
        # its batch. Here the other is a random texture, determined by the image's id.
        summary="phase of the image, amplitude of a random 1/f texture of equal energy",
        source="after Chen et al. 2021 (APR), arXiv 2108.08487; Xu et al. 2021 (FACT), 2105.11120",
        license="Apache-2.0",
        params=MixParams,
        tiny={"share": 0.5},
        build=on_batches(_amplitude_mix),
        severity=lambda params, image_shape: params.share,
    ),
    PerturbationSpec(
        name="phase-noise",
        version=1,
        summary="phases rotated by uniform noise of a given width, drawn for each image",
        source="Geirhos et al. 2018, arXiv 1808.08750: phase noise",
        license="Apache-2.0",
        params=NoiseParams,
        tiny={"level": 0.5},
        build=on_batches(_phase_noise),
        severity=lambda params, image_shape: params.level,
    ),
)
