"""The seeds of a suite's jobs, hashed from what their randomness may depend on."""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

from transferbench.identity import derive_seed

__all__ = ["SOURCE_RUN", "Seeds", "Start"]

Start = Literal["replicate", "shared", "second"]
"""Which random network an initialization receives."""

SOURCE_RUN = "source"
"""In the place of a replicate: the pre-training."""

PURPOSES = ("init", "head", "data", "augmentation", "initialization", "labels")


class Seeds(NamedTuple):
    """The seeds of one suite: ``draw`` is part of each of them, unless it is empty.

    The replicate and the source network are the only other axes: at replicate k every backbone and
    every arm sees the same draws, which is what makes their differences paired.
    """

    draw: str = ""

    def seed(self, purpose: str, replicate: int | str) -> int:
        """The seed of one purpose, in [0, 2**32)."""
        return _seed(purpose, replicate, self.draw)

    def training(self, replicate: int | str, start: Start = "replicate") -> dict[str, int]:
        """Purpose -> seed of a training whose initialization receives the network ``start``."""
        seeds = {purpose: self.seed(purpose, replicate) for purpose in PURPOSES}
        if start == "shared":
            seeds["init"] = self.seed("init", "shared")
        elif start == "second":
            seeds["init"] = self.seed("second-init", replicate)
        return seeds

    def diagnosis(self, name: str, subjects: list[str]) -> int:
        """The seed of a diagnostic of these jobs."""
        axes = {"subjects": subjects, "name": name}
        return derive_seed("diagnostic", axes | _drawn(self.draw))


@cache
def _seed(purpose: str, replicate: int | str, draw: str) -> int:
    return derive_seed(purpose, {"replicate": replicate} | _drawn(draw))


def _drawn(draw: str) -> dict[str, str]:
    # Without a draw the seeds are those of suites from before draws existed.
    return {"draw": draw} if draw else {}
