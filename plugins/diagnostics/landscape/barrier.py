"""The performance barrier: what happens to loss and metric on the line between two networks.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Section 3.3 and Figures 4, 12, 16; Frankle et al.
2020, arXiv 1912.05671, for the height as the largest excess over the chord.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Subject
from transferbench_plugins.diagnostics.landscape._line_params import BARRIERS, GridParams

__all__ = ["BARRIER", "BarrierParams"]


class BarrierParams(GridParams):
    """``extrapolation``: how far the curve goes on with the same spacing, such as (-1, 2)."""

    extrapolation: tuple[
        Annotated[float, Field(ge=-10, le=0)], Annotated[float, Field(ge=1, le=11)]
    ] = (0.0, 1.0)


def measure(
    params: BarrierParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The curve, and its height over the chord between its ends, in [0, 1].

    B_sup = max over lambda of L(lambda) - [(1 - lambda) L(0) + lambda L(1)], B_mid the same at 1/2;
    of the metric with the sign turned, so that a barrier is positive, and also as a share of the
    mean of the metric at the ends. Whole networks are interpolated, heads included; batch
    statistics are recomputed at every point, the ends included.
    Units: nats and fractions. Error: none of its own; replicates tell.
    """
    from transferbench.analysis.landscape import lerp_state
    from transferbench_plugins.diagnostics.landscape._curve import (
        curve_measurements,
        grid,
        no_barrier,
    )
    from transferbench_plugins.diagnostics.landscape._line import line_between, misfit

    if why := misfit(*(s.state(e) for s, e in zip(subjects, params.endpoints, strict=True))):
        for name in params.splits:
            yield from no_barrier(why, {"split": name})
        return
    line = line_between(subjects, params, params.splits, context)
    weights = grid(params.points, params.extrapolation)
    found = line.evaluate(lerp_state(line.a, line.b, weight) for weight in weights)
    for split, examples in line.splits.items():
        curve = [at[split] for at in found]
        yield from curve_measurements(weights, curve, len(examples.targets), {"split": split})


def _cost(params: BarrierParams) -> float:
    low, high = params.extrapolation
    return (high - low) * (params.points - 1) * len(params.splits)


BARRIER = DiagnosticSpec(
    name="barrier",
    version=1,
    summary="Loss and metric on the line between two networks, and how high its barrier is",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Section 3.3",
    license="Apache-2.0",
    params=BarrierParams,
    tiny={"points": 3, "limit": 16, "calibration": 16},
    measure=measure,
    subjects="pair",
    needs=frozenset({"images"}),
    cost=_cost,
    limit=lambda params: params.limit,
    identical=dict.fromkeys(BARRIERS, 0),
    answers_within=1e-5,
)
