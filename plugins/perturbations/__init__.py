"""The built-in perturbations."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl
from transferbench.specs import PerturbationSpec
from transferbench_plugins.perturbations.corruptions.blurs import (
    DEFOCUS_BLUR,
    GAUSSIAN_BLUR,
    MOTION_BLUR,
    ZOOM_BLUR,
)
from transferbench_plugins.perturbations.corruptions.colours import (
    BRIGHTNESS,
    CONTRAST,
    GRAYSCALE,
    SATURATE,
)
from transferbench_plugins.perturbations.corruptions.elastic import ELASTIC
from transferbench_plugins.perturbations.corruptions.glass_blur import GLASS_BLUR
from transferbench_plugins.perturbations.corruptions.jpeg import JPEG
from transferbench_plugins.perturbations.corruptions.noises import (
    GAUSSIAN_NOISE,
    IMPULSE_NOISE,
    SHOT_NOISE,
    SPECKLE_NOISE,
)
from transferbench_plugins.perturbations.corruptions.pixelate import PIXELATE
from transferbench_plugins.perturbations.corruptions.weather import FOG, SNOW
from transferbench_plugins.perturbations.frequency.bands import CUE_CONFLICT, HIGH_PASS, LOW_PASS
from transferbench_plugins.perturbations.frequency.phase_amplitude import (
    AMPLITUDE_MIX,
    AMPLITUDE_ONLY,
    PHASE_NOISE,
    PHASE_ONLY,
)
from transferbench_plugins.perturbations.identity import IDENTITY
from transferbench_plugins.perturbations.shuffles.block_shuffle import BLOCK_SHUFFLE
from transferbench_plugins.perturbations.shuffles.channel_shuffle import CHANNEL_SHUFFLE
from transferbench_plugins.perturbations.shuffles.pixel_shuffle import PIXEL_SHUFFLE

__all__ = ["transferbench_perturbations"]


@hookimpl
def transferbench_perturbations() -> list[PerturbationSpec]:
    """The built-in perturbations, by name."""
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
