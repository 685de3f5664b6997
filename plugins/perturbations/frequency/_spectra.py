"""The 2-D spectrum of each channel of each image, and what the Fourier perturbations share.

Everything here commutes with a normalisation of the channels: the mean of a channel is never
changed, and the rest is scaled by the channel's own energy.

Shape letters: N images, C channels, H height, W width, F = W // 2 + 1 (half of a real spectrum).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from transferbench_plugins.perturbations._image_random import normal

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch
    from torch import Tensor

    from transferbench.specs import ImageShape

__all__ = ["corner", "energy_of", "phases", "radii", "rescaled", "respectrum", "texture_amplitude"]

# A frequency this far below the strongest is rounding noise of float32: it has no phase.
_SILENT = 1e-6


def corner(image_shape: ImageShape) -> float:
    """The highest frequency an image holds, in cycles an image."""
    return math.hypot(image_shape[0] // 2, image_shape[1] // 2)


def radii(image_shape: ImageShape, device: torch.device | None = None) -> Tensor:
    """How far each frequency is from the mean, in cycles an image. Shapes: float64 (H, F)."""
    import torch

    height, width = image_shape[:2]
    down = torch.fft.fftfreq(height, 1 / height, dtype=torch.float64, device=device)
    across = torch.fft.rfftfreq(width, 1 / width, dtype=torch.float64, device=device)
    # Whole numbers, freed of what dividing by 1 / n left on them.
    radius: Tensor = torch.hypot(down.round()[:, None], across.round())
    return radius


def respectrum(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Images of the changed spectra, their means kept.

    The mean is taken out before: in float32 a large one would leave its rounding noise everywhere.
    Shapes: images float32 (N, C, H, W); ``change`` makes new complex64 ones (N, C, H, F).
    """
    import torch

    mean = images.mean(dim=(-2, -1), keepdim=True)
    changed = change(torch.fft.rfft2(images - mean))
    changed[..., 0, 0] = 0
    back: Tensor = torch.fft.irfft2(changed, s=images.shape[-2:])
    return back + mean


def phases(spectra: Tensor) -> Tensor:
    """Every frequency at amplitude 1, or 0 where there is none to speak of.

    Shapes: complex (N, C, H, F).
    """
    amplitude = spectra.abs()
    loud = amplitude > _SILENT * amplitude.amax(dim=(-2, -1), keepdim=True)
    return spectra.sgn() * loud


def energy_of(amplitude: Tensor, width: int) -> Tensor:
    """The sum of squares over all frequencies but the mean.

    Shapes: amplitude float (N, C, H, F), of images ``width`` wide; returns (N, C, 1, 1).
    """
    import torch

    # Half of the spectrum is left out because it mirrors the other; two columns are their own.
    twice = torch.full((amplitude.shape[-1],), 2.0, device=amplitude.device)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    power = amplitude.square() * twice
    return power.sum(dim=(-2, -1), keepdim=True) - power[..., :1, :1]


def rescaled(amplitude: Tensor, spectra: Tensor, width: int) -> Tensor:
    """``amplitude`` at the energy of ``spectra``. Shapes: (N, C, H, F)."""
    wanted = energy_of(spectra.abs(), width)
    given = energy_of(amplitude, width).clamp_min(1e-30)
    return amplitude * (wanted / given).sqrt()


def texture_amplitude(
    image_shape: ImageShape, exponent: float, seed: int, image_ids: np.ndarray, images: Tensor
) -> Tensor:
    """The spectrum of a random texture for each image, one for all its channels.

    White noise whose amplitudes are weighed by 1 / f**exponent: natural images have about 1.
    Source: Field 1987, doi:10.1364/JOSAA.4.002379.
    Shapes: complex64 (N, 1, H, F).
    """
    import torch

    height, width = image_shape[:2]
    white = torch.fft.rfft2(normal(seed, image_ids, (1, height, width), images.device))
    falling = radii(image_shape, images.device).clamp_min(1).pow(-exponent)
    texture: Tensor = white * falling.float()
    return texture
