"""Module re-randomisation: loss of performance when one module is initialized at random.

Rewinding restores the initial values themselves; re-randomisation only their distribution.

Source: Zhang, Bengio, Singer 2019, "Are all layers created equal?", arXiv 1902.01996.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.identity import derive_seed
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench_plugins.diagnostics.modules._module_swaps import (
    StateKey,
    forward_passes,
    measure_swaps,
)
from transferbench_plugins.diagnostics.modules._swaps_report import SWAP_PART

if TYPE_CHECKING:
    from transferbench.networks.modules import StateDict

__all__ = ["RERANDOMISATION", "RerandomisationParams"]


class RerandomisationParams(Params):
    """``draws``: fresh networks to take modules from. ``limit``: test images (None: all)."""

    draws: Annotated[int, Field(ge=1)] = 3
    limit: Annotated[int, Field(ge=1)] | None = None


def measure(
    params: RerandomisationParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Metric, loss and drop on test images with each module from a freshly initialized network.

    It is initialized by the backbone, for fine-tuned networks too (not from P). Coordinates,
    units, summaries and error as in rewinding; ``draw`` numbers the fresh networks.
    """
    (subject,) = subjects
    states: dict[StateKey, StateDict] = {
        draw: subject.fresh(derive_seed("re-randomisation", {"seed": context.seed, "draw": draw}))
        for draw in range(params.draws)
    }
    yield from measure_swaps(subject, states, params.limit, "draw")


RERANDOMISATION = DiagnosticSpec(
    name="re-randomisation",
    version=2,
    summary="Metric and loss with each module resampled from its initial distribution",
    source="Zhang, Bengio, Singer 2019, arXiv 1902.01996",
    license="Apache-2.0",
    params=RerandomisationParams,
    tiny={"draws": 1, "limit": 8},
    measure=measure,
    subjects="one",
    needs=frozenset({"images"}),
    cost=lambda params: forward_passes(params.draws),
    limit=lambda params: params.limit,
    report=SWAP_PART,
)
