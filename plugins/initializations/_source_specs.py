"""Parameters and specs of the initializations from a source network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from transferbench.specs import InitializationContext, InitializationSpec, Initialize, Params

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

__all__ = ["SourceParams", "StatisticsParams", "redrawing_spec", "source_spec"]


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


def source_spec(
    name: str,
    summary: str,
    source: str,
    initialize: Initialize,
    params: type[SourceParams] = SourceParams,
    *,
    tiny: dict[str, Any] | None = None,
    images: bool = False,
) -> InitializationSpec:
    """The spec of an initialization of the body from the source's weights, and from ``images``."""
    return InitializationSpec(
        name=name,
        version=1,
        summary=summary,
        source=source,
        license="Apache-2.0",
        params=params,
        tiny=tiny or {},
        initialize=initialize,
        needs=frozenset({"source_weights", "images"} if images else {"source_weights"}),
        touches="body",
        checkpoint=lambda params: params.checkpoint,
    )


def redrawing_spec(
    name: str,
    summary: str,
    source: str,
    draw: Callable[[Tensor, Any, Generator], Tensor],
    params: type[StatisticsParams] = StatisticsParams,
    *,
    tiny: dict[str, Any] | None = None,
) -> InitializationSpec:
    """The spec of an initialization that redraws each tensor of the source by itself.

    ``draw(values, params, generator)`` maps the float64 values of a tensor to new ones.
    """

    def initialize(params: StatisticsParams, net: Module, context: InitializationContext) -> None:
        from transferbench_plugins.initializations._source_weights import redraw_source

        def redraw(_: str, values: Tensor) -> Tensor:
            return draw(values, params, context.generator)

        redraw_source(name, net, context, params.checkpoint, params.norms, redraw)

    return source_spec(name, summary, source, initialize, params, tiny=tiny)
