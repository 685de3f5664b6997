"""Parameters of the line between two networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from transferbench.specs import Params

__all__ = ["LineParams"]

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
