"""Where things are (phase) against how much of each frequency there is (amplitude).

The phase of the 2-D spectrum carries the layout of an image, its amplitude the statistics of its
texture (Oppenheim and Lim 1981, doi:10.1109/PROC.1981.12022). Each perturbation keeps one and
replaces the other, a channel at a time; the mean of every channel stays.

Shape letters: N images, C channels, H height, W width, F = W // 2 + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.specs import ImageShape, NoParams, Params, PerturbationSpec
from transferbench_plugins.perturbations._image_random import normal
from transferbench_plugins.perturbations.frequency._spectra import (
    phases,
    rescaled,
    respectrum,
    texture_amplitude,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

__all__ = ["AMPLITUDE_MIX", "AMPLITUDE_ONLY", "PHASE_NOISE", "PHASE_ONLY"]


class MixParams(Params):
    """How much of the amplitude is the texture's, and how fast the texture's amplitude falls."""

    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    exponent: Annotated[float, Field(ge=0, le=4)] = 1.0


class NoiseParams(Params):
    """The widest turn of a phase, as a fraction of half a circle: 1 leaves no phase at all."""

    level: Annotated[float, Field(ge=0, le=1)]


def _phase_only(
    params: NoParams,  # noqa: ARG001  # the seam's signature
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # the seam's signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    """Every frequency gets the root mean square amplitude of its channel: a white spectrum."""

    def change(spectra: Tensor) -> Tensor:
        unit = phases(spectra)
        return unit * rescaled(unit.abs(), spectra, image_shape[1])

    return lambda images, image_ids: respectrum(images, change)


def _amplitude_only(
    params: NoParams,  # noqa: ARG001  # the seam's signature
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # the seam's signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    """All phases zero: what is left of every image is a blob, moved from the corner to the middle.

    The middle, because a network that pads with zeros sees little at a corner.
    """
    middle = (image_shape[0] // 2, image_shape[1] // 2)

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        del image_ids  # nothing is drawn
        return respectrum(images, _without_phase).roll(middle, dims=(-2, -1))

    return apply


def _without_phase(spectra: Tensor) -> Tensor:
    return spectra.abs().to(spectra.dtype)


def _amplitude_mix(
    params: MixParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        if params.share == 0:
            return images.clone()
        texture = texture_amplitude(image_shape, params.exponent, seed, image_ids, images).abs()

        def change(spectra: Tensor) -> Tensor:
            other = rescaled(texture.expand(spectra.shape), spectra, image_shape[1])
            return phases(spectra) * spectra.abs().lerp(other, params.share)

        return respectrum(images, change)

    return apply


def _phase_noise(
    params: NoiseParams, image_shape: ImageShape, seed: int
) -> Callable[[Tensor, np.ndarray], Tensor]:
    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        import torch

        if params.level == 0:
            return images.clone()
        # The phases of real white noise: uniform, and mirrored as a real image needs them.
        shape = (1, *image_shape[:2])
        angle = torch.fft.rfft2(normal(seed, image_ids, shape, images.device)).angle()
        angle = angle.masked_fill(_own_mirror(image_shape, images.device), 0) * params.level
        turn = torch.polar(torch.ones_like(angle), angle)
        return respectrum(images, lambda spectra: spectra * turn)

    return apply


def _own_mirror(image_shape: ImageShape, device: torch.device) -> Tensor:
    """The frequencies that are real in a real image: turned, they would lose amplitude.

    Shapes: bool (H, F).
    """
    import torch

    height, width = image_shape[:2]
    down = torch.arange(height, device=device)
    across = torch.arange(width // 2 + 1, device=device)
    return (2 * down % height == 0)[:, None] & (2 * across % width == 0)


PHASE_ONLY = PerturbationSpec(
    name="phase-only",
    version=1,
    summary="the phase of every frequency, all amplitudes equal; mean and variance kept",
    source="Oppenheim and Lim 1981, doi:10.1109/PROC.1981.12022",
    license="Apache-2.0",
    build=_phase_only,
    severity=lambda params, image_shape: 1.0,
)

AMPLITUDE_ONLY = PerturbationSpec(
    name="amplitude-only",
    version=1,
    summary="the amplitude of every frequency, all phases zero; mean and variance kept",
    source="Oppenheim and Lim 1981, doi:10.1109/PROC.1981.12022",
    license="Apache-2.0",
    build=_amplitude_only,
    severity=lambda params, image_shape: 1.0,
)

AMPLITUDE_MIX = PerturbationSpec(
    name="amplitude-mix",
    version=1,
    # Chen and Xu take the amplitude of another image of the batch. An image would then depend on
    # its neighbours, so the other image is a random texture that the image's id determines.
    summary="the phase of the image with the amplitude of a random 1/f texture of equal energy",
    source="after Chen et al. 2021 (APR), arXiv 2108.08487; Xu et al. 2021 (FACT), 2105.11120",
    license="Apache-2.0",
    params=MixParams,
    tiny={"share": 0.5},
    build=_amplitude_mix,
    severity=lambda params, image_shape: params.share,
)

PHASE_NOISE = PerturbationSpec(
    name="phase-noise",
    version=1,
    summary="phases turned by uniform noise of a given width, each image by its own",
    source="Geirhos et al. 2018, arXiv 1808.08750: phase noise",
    license="Apache-2.0",
    params=NoiseParams,
    tiny={"level": 0.5},
    build=_phase_noise,
    severity=lambda params, image_shape: params.level,
)
