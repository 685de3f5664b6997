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

    def seed(self, purpose: str, replicate: int | str, network: int = 0) -> int:
        """The seed of one purpose, in [0, 2**32)."""
        return _seed(purpose, replicate, network, self.draw)

    def pretraining(self, network: int) -> dict[str, int]:
        """Purpose -> seed of the training of a source network."""
        return {purpose: self.seed(purpose, SOURCE_RUN, network) for purpose in PURPOSES}

    def training(self, replicate: int | str, start: Start, network: int) -> dict[str, int]:
        """Purpose -> seed of a training whose initialization receives the network ``start``.

        ``network``: which one of those that replicates share, if there are several.
        """
        seeds = {purpose: self.seed(purpose, replicate) for purpose in PURPOSES}
        if start == "shared":
            seeds["init"] = self.seed("init", "shared", network)
        elif start == "second":
            seeds["init"] = self.seed("second-init", replicate)
        return seeds

    def diagnosis(self, name: str, subjects: list[str]) -> int:
        """The seed of a diagnostic of these jobs."""
        axes = {"subjects": subjects, "name": name}
        return derive_seed("diagnostic", axes | _drawn(self.draw))


@cache
def _seed(purpose: str, replicate: int | str, network: int, draw: str) -> int:
    # The first network has the seeds of the only one, so that more of them add jobs and move none.
    several = {"network": network} if network else {}
    return derive_seed(purpose, {"replicate": replicate} | several | _drawn(draw))


def _drawn(draw: str) -> dict[str, str]:
    # Without a draw the seeds are those of suites from before draws existed.
    return {"draw": draw} if draw else {}
