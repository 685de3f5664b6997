"""The built-in perturbations."""

from __future__ import annotations

from operator import attrgetter

from transferbench.hookspecs import hookimpl
from transferbench.specs import PerturbationSpec
from transferbench_plugins.perturbations.corruptions.blurs import BLURS
from transferbench_plugins.perturbations.corruptions.colours import COLOURS
from transferbench_plugins.perturbations.corruptions.elastic import ELASTIC
from transferbench_plugins.perturbations.corruptions.glass_blur import GLASS_BLUR
from transferbench_plugins.perturbations.corruptions.jpeg import JPEG
from transferbench_plugins.perturbations.corruptions.noises import NOISES
from transferbench_plugins.perturbations.corruptions.pixelate import PIXELATE
from transferbench_plugins.perturbations.corruptions.weather import WEATHER
from transferbench_plugins.perturbations.frequency.bands import BANDS
from transferbench_plugins.perturbations.frequency.phase_amplitude import PHASE_AND_AMPLITUDE
from transferbench_plugins.perturbations.identity import IDENTITY
from transferbench_plugins.perturbations.shuffles.block_shuffle import BLOCK_SHUFFLE
from transferbench_plugins.perturbations.shuffles.channel_shuffle import CHANNEL_SHUFFLE
from transferbench_plugins.perturbations.shuffles.pixel_shuffle import PIXEL_SHUFFLE

__all__ = ["transferbench_perturbations"]


@hookimpl
def transferbench_perturbations() -> list[PerturbationSpec]:
    """All built-in perturbations, by name."""
    specs = [
        *BANDS,
        *BLURS,
        *COLOURS,
        *NOISES,
        *PHASE_AND_AMPLITUDE,
        *WEATHER,
        BLOCK_SHUFFLE,
        CHANNEL_SHUFFLE,
        ELASTIC,
        GLASS_BLUR,
        IDENTITY,
        JPEG,
        PIXEL_SHUFFLE,
        PIXELATE,
    ]
    return sorted(specs, key=attrgetter("name"))
