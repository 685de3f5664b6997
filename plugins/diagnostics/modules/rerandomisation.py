"""Module re-randomisation: what a network loses when one module is drawn anew.

Rewinding keeps the very draw that training started from; a fresh draw keeps only its distribution.

Source: Zhang, Bengio, Singer 2019, "Are all layers created equal?", arXiv 1902.01996.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.identity import derive_seed
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench_plugins.diagnostics.modules._module_swaps import cost_of, measurements, swapped

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RERANDOMISATION", "RerandomisationParams"]


class RerandomisationParams(Params):
    """``draws``: fresh networks, each gives every module. ``limit``: test images (None: all)."""

    draws: Annotated[int, Field(ge=1)] = 3
    limit: Annotated[int, Field(ge=1)] | None = None


def measure(
    params: RerandomisationParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Metric, loss and drop on test images with each module from a fresh network.

    The draw is the backbone's own, for a fine-tuned network too: not from P. Coordinates, units,
    summaries and error as in rewinding, with ``draw`` for the fresh network.
    """
    (subject,) = subjects
    states: dict[str | int, Mapping[str, Tensor]] = {
        draw: subject.fresh(derive_seed("re-randomisation", {"seed": context.seed, "draw": draw}))
        for draw in range(params.draws)
    }
    n = len(subject.targets("test", params.limit))
    yield from measurements(swapped(subject, states, params.limit), "draw", subject, n)


RERANDOMISATION = DiagnosticSpec(
    name="re-randomisation",
    version=2,
    summary="Metric and loss with each module drawn anew from its initial distribution",
    source="Zhang, Bengio, Singer 2019, arXiv 1902.01996",
    license="Apache-2.0",
    params=RerandomisationParams,
    tiny={"draws": 1, "limit": 8},
    measure=measure,
    subjects="one",
    needs=frozenset({"images"}),
    cost=lambda params: cost_of(params.draws),
    limit=lambda params: params.limit,
)
