"""Parameters shared by the diagnostics on the line between two networks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from transferbench.specs import Params

__all__ = ["BARRIERS", "GridParams", "LineParams"]

BARRIERS = tuple(
    f"barrier_{of}_{at}" for of in ("loss", "metric", "metric_relative") for at in ("sup", "mid")
)
"""The barrier metrics; all are 0 if both ends are the same network."""

Endpoint = Literal["final", "best"]
ImageCount = Annotated[int, Field(ge=1)]


class LineParams(Params):
    """``endpoints``: the state of the first and of the second network.

    ``limit``: images of each split, a random subset drawn with the diagnostic's seed (None: all).
    ``calibration``: training images from which batch statistics are recomputed at each point.
    ``precision`` of the forward passes: bf16 if effects are far larger than 1e-3; ``fast`` is bf16
    with batch normalisations folded into convolutions.
    """

    endpoints: tuple[Endpoint, Endpoint] = ("final", "final")
    limit: ImageCount | None = None
    calibration: ImageCount = 1000
    precision: Literal["f32", "bf16", "fast"] = "f32"


class GridParams(LineParams):
    """``points``: grid points in [0, 1], ends included; odd, so that there is a midpoint.

    ``splits``: the images to evaluate on.
    """

    points: Annotated[int, Field(ge=3, le=1001)] = 11
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")

    @model_validator(mode="after")
    def _has_midpoint(self) -> Self:
        if self.points % 2 == 0:
            raise ValueError(f"points must be odd, so that one is the midpoint, not {self.points}")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise ValueError("splits names train, test or both, each once")
        return self
