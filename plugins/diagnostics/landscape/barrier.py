"""Performance barrier: loss and metric on the line between two networks.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Section 3.3 and Figures 4, 12, 16; Frankle et al.
2020, arXiv 1912.05671, for the height as the largest excess over the chord.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Subject
from transferbench_plugins.diagnostics.landscape._barrier_report import BARRIER_PART
from transferbench_plugins.diagnostics.landscape._line_params import BARRIERS, GridParams

__all__ = ["BARRIER", "BarrierParams"]


class BarrierParams(GridParams):
    """``extrapolation``: continue the curve to these values of lambda, such as (-1, 2)."""

    extrapolation: tuple[
        Annotated[float, Field(ge=-10, le=0)], Annotated[float, Field(ge=1, le=11)]
    ] = (0.0, 1.0)


def measure(
    params: BarrierParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The curve, and its height over the chord between its ends, in [0, 1].

    B_sup = max over lambda of L(lambda) - [(1 - lambda) L(0) + lambda L(1)], B_mid the same at 1/2;
    for the metric with reversed sign, so that a barrier is positive, and also relative to the mean
    metric of the ends. All weights are interpolated, heads included; batch statistics are
    recomputed at each point, the ends included.
    Units: nats and fractions. Error: no interval; compare replicates.
    """
    from transferbench_plugins.diagnostics.landscape._curve import (
        curve_measurements,
        interpolation_grid,
        undefined_barriers,
    )
    from transferbench_plugins.diagnostics.landscape._line import incompatibility, line_between

    splits: Sequence[str] = params.splits
    if reason := incompatibility(subjects, params):
        for split in splits:
            yield from undefined_barriers(reason, {"split": split})
        return
    line = line_between(subjects, params, splits, context)
    weights = interpolation_grid(params.points, params.extrapolation)
    curve = line.interpolate(weights)
    for split, examples in line.splits.items():
        points, n = [by_split[split] for by_split in curve], len(examples.targets)
        yield from curve_measurements(weights, points, n, {"split": split})


def _cost(params: BarrierParams) -> float:
    low, high = params.extrapolation
    return (high - low) * (params.points - 1) * len(params.splits)


BARRIER = DiagnosticSpec(
    name="barrier",
    version=1,
    summary="Loss and metric on the line between two networks, and the height of the barrier",
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
    report=BARRIER_PART,
)
