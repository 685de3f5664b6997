"""Parameters shared by the initializations from a source network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from transferbench.specs import Params

__all__ = ["SourceParams", "StatisticsParams", "checkpoint_of"]


class SourceParams(Params):
    """``checkpoint``: the pre-training epoch whose weights are used (None: the last one)."""

    checkpoint: Annotated[int, Field(ge=0)] | None = None


class StatisticsParams(SourceParams):
    """``norms``: the parameters and statistics of norm layers.

    ``identity``: scale 1, shift 0, running mean 0 and variance 1, as in Matsoukas et al. 2022:
    activation statistics are meaningless for other weights. ``source``: those of the source
    network.
    """

    norms: Literal["identity", "source"] = "identity"


def checkpoint_of(params: SourceParams) -> int | None:
    """The pre-training epoch whose weights an initialization needs."""
    return params.checkpoint
