"""What every diagnostic along the line between two networks lets a suite choose."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from transferbench.specs import Params

__all__ = ["BARRIERS", "GridParams", "LineParams"]

BARRIERS = tuple(
    f"barrier_{of}_{at}" for of in ("loss", "metric", "metric_relative") for at in ("sup", "mid")
)
"""The heights over the chord: none where both ends are one network."""

Which = Literal["final", "best"]
Count = Annotated[int, Field(ge=1)]


class LineParams(Params):
    """``endpoints``: the state of the first and of the second network.

    ``limit``: so many images of each split, a random subset drawn by the diagnostic's seed (None:
    all). ``calibration``: so many training images recompute batch statistics at every point.
    ``precision``: of the forward passes; bf16 where the effects are far larger than 1e-3, ``fast``
    for bf16 with batch normalisations folded into convolutions.
    """

    endpoints: tuple[Which, Which] = ("final", "final")
    limit: Count | None = None
    calibration: Count = 1000
    precision: Literal["f32", "bf16", "fast"] = "f32"


class GridParams(LineParams):
    """``points``: of the grid in [0, 1], its ends included; odd, so that it has a midpoint.

    ``splits``: the images on which it is measured.
    """

    points: Annotated[int, Field(ge=3, le=1001)] = 11
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")

    @model_validator(mode="after")
    def _has_a_midpoint(self) -> Self:
        if self.points % 2 == 0:
            raise ValueError(f"points must be odd, so that one is the midpoint, not {self.points}")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise ValueError("splits names train, test or both, each once")
        return self
