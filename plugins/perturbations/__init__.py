"""The perturbations that come with transferbench: this kind's table of contents."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl
from transferbench.specs import PerturbationSpec
from transferbench_plugins.perturbations.block_shuffle import BLOCK_SHUFFLE
from transferbench_plugins.perturbations.channel_shuffle import CHANNEL_SHUFFLE
from transferbench_plugins.perturbations.identity import IDENTITY
from transferbench_plugins.perturbations.pixel_shuffle import PIXEL_SHUFFLE

__all__ = ["transferbench_perturbations"]


@hookimpl
def transferbench_perturbations() -> list[PerturbationSpec]:
    """Every built-in of this kind, one a line."""
    return [
        BLOCK_SHUFFLE,
        CHANNEL_SHUFFLE,
        IDENTITY,
        PIXEL_SHUFFLE,
    ]
