"""2-D Fourier spectra of images, shared by the perturbations of this folder.

All functions commute with the normalisation of channels: they preserve the mean of a channel, and
scale with its energy.

Shape letters: N images, C channels, H height, W width, F = W // 2 + 1 (half of a real spectrum).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferbench_plugins.perturbations._image_random import ImageRandom

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

__all__ = ["phases", "radii", "rescaled", "respectrum", "texture_spectrum"]

# Relative to the strongest amplitude; below it is float32 rounding noise, without a phase.
_ROUNDING = 1e-6


def radii(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """The radius of each frequency in cycles per image. Shapes: float64 (H, F)."""
    import torch

    down = torch.fft.fftfreq(height, 1 / height, dtype=torch.float64, device=device)
    across = torch.fft.rfftfreq(width, 1 / width, dtype=torch.float64, device=device)
    # Rounding removes the error of dividing by 1 / n.
    radius: Tensor = torch.hypot(down.round()[:, None], across.round())
    return radius


def respectrum(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply ``change`` to the spectra of images; their means are preserved.

    The mean is removed first: in float32, rounding noise of a large mean would spread over all
    frequencies.

    Shapes: images float32 (N, C, H, W); ``change`` maps complex64 (N, C, H, F) to a new tensor.
    """
    import torch

    mean = images.mean(dim=(-2, -1), keepdim=True)
    changed = change(torch.fft.rfft2(images - mean))
    changed[..., 0, 0] = 0
    inverse: Tensor = torch.fft.irfft2(changed, s=images.shape[-2:])
    return inverse + mean


def phases(spectra: Tensor) -> Tensor:
    """Spectra with amplitude 1, or 0 where the amplitude is rounding noise.

    Shapes: complex (N, C, H, F).
    """
    amplitude = spectra.abs()
    above = amplitude > _ROUNDING * amplitude.amax(dim=(-2, -1), keepdim=True)
    return spectra.sgn() * above


def rescaled(amplitude: Tensor, spectra: Tensor, width: int) -> Tensor:
    """``amplitude`` scaled to the energy of ``spectra`` of images of ``width``.

    Shapes: (N, C, H, F).
    """
    energy = _energy(amplitude, width).clamp_min(1e-30)
    return amplitude * (_energy(spectra.abs(), width) / energy).sqrt()


def _energy(amplitude: Tensor, width: int) -> Tensor:
    """The sum of squared amplitudes over all frequencies but the mean.

    Shapes: float (N, C, H, F) to (N, C, 1, 1).
    """
    import torch

    # A real spectrum omits the mirrored half; columns 0 and W / 2 mirror themselves.
    twice = torch.full((amplitude.shape[-1],), 2.0, device=amplitude.device)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    power = amplitude.square() * twice
    return power.sum(dim=(-2, -1), keepdim=True) - power[..., :1, :1]


def texture_spectrum(images: Tensor, exponent: float, random: ImageRandom) -> Tensor:
    """The spectrum of a random texture per image, shared by its channels.

    White noise with amplitudes multiplied by 1 / f**exponent, which is about 1 for natural images.

    Shapes: images (N, C, H, W); returns complex64 (N, 1, H, F).
    Source: Field 1987, doi:10.1364/JOSAA.4.002379.
    """
    import torch

    height, width = images.shape[2:]
    white = torch.fft.rfft2(random.normal(1, height, width))
    falling = radii(height, width, images.device).clamp_min(1).pow(-exponent)
    texture: Tensor = white * falling.float()
    return texture
