"""The parameters that initializations made of a source network's statistics share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from transferbench.specs import Params

__all__ = ["SourceParams", "StatisticsParams", "checkpoint_of"]


class SourceParams(Params):
    """``checkpoint``: the pre-training epoch whose weights are taken (None: the last one)."""

    checkpoint: Annotated[int, Field(ge=0)] | None = None


class StatisticsParams(SourceParams):
    """``norms``: what norm layers become.

    ``identity``: scale 1, shift 0, running mean 0 and variance 1, as in Matsoukas et al. 2022;
    statistics of activations say nothing of a network with other weights. ``source``: the source
    network's own.
    """

    norms: Literal["identity", "source"] = "identity"


def checkpoint_of(params: SourceParams) -> int | None:
    """The pre-training epoch that an initialization needs."""
    return params.checkpoint
