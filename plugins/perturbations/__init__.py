"""The perturbations that come with transferbench: this kind's table of contents."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl
from transferbench.specs import PerturbationSpec
from transferbench_plugins.perturbations.bands import CUE_CONFLICT, HIGH_PASS, LOW_PASS
from transferbench_plugins.perturbations.block_shuffle import BLOCK_SHUFFLE
from transferbench_plugins.perturbations.blurs import (
    DEFOCUS_BLUR,
    GAUSSIAN_BLUR,
    MOTION_BLUR,
    ZOOM_BLUR,
)
from transferbench_plugins.perturbations.channel_shuffle import CHANNEL_SHUFFLE
from transferbench_plugins.perturbations.colours import BRIGHTNESS, CONTRAST, GRAYSCALE, SATURATE
from transferbench_plugins.perturbations.elastic import ELASTIC
from transferbench_plugins.perturbations.glass_blur import GLASS_BLUR
from transferbench_plugins.perturbations.identity import IDENTITY
from transferbench_plugins.perturbations.jpeg import JPEG
from transferbench_plugins.perturbations.noises import (
    GAUSSIAN_NOISE,
    IMPULSE_NOISE,
    SHOT_NOISE,
    SPECKLE_NOISE,
)
from transferbench_plugins.perturbations.phase_amplitude import (
    AMPLITUDE_MIX,
    AMPLITUDE_ONLY,
    PHASE_NOISE,
    PHASE_ONLY,
)
from transferbench_plugins.perturbations.pixel_shuffle import PIXEL_SHUFFLE
from transferbench_plugins.perturbations.pixelate import PIXELATE
from transferbench_plugins.perturbations.weather import FOG, SNOW

__all__ = ["transferbench_perturbations"]


@hookimpl
def transferbench_perturbations() -> list[PerturbationSpec]:
    """Every built-in of this kind, one a line."""
    return [
        AMPLITUDE_MIX,
        AMPLITUDE_ONLY,
        BLOCK_SHUFFLE,
        BRIGHTNESS,
        CHANNEL_SHUFFLE,
        CONTRAST,
        CUE_CONFLICT,
        DEFOCUS_BLUR,
        ELASTIC,
        FOG,
        GAUSSIAN_BLUR,
        GAUSSIAN_NOISE,
        GLASS_BLUR,
        GRAYSCALE,
        HIGH_PASS,
        IDENTITY,
        IMPULSE_NOISE,
        JPEG,
        LOW_PASS,
        MOTION_BLUR,
        PHASE_NOISE,
        PHASE_ONLY,
        PIXEL_SHUFFLE,
        PIXELATE,
        SATURATE,
        SHOT_NOISE,
        SNOW,
        SPECKLE_NOISE,
        ZOOM_BLUR,
    ]
