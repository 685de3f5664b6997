"""The basin that two networks share: flatness of the loss inside, distance of its walls.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Definition 3.1 and the procedure behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, ReportPart, Subject
from transferbench_plugins.diagnostics._measurement import measurement
from transferbench_plugins.diagnostics.landscape._line_params import LineParams

if TYPE_CHECKING:
    from transferbench.networks.modules import StateDict
    from transferbench_plugins.diagnostics.landscape._basin_search import Basin, Losses, Segment
    from transferbench_plugins.diagnostics.landscape._line import NetworkLine

__all__ = ["BASIN", "BasinParams"]

UNITS = {"a_lo": "lambda", "a_hi": "lambda", "delta": "l2", "delta_excess": "l2"}
"""The units of metrics that are not losses."""

NUMBERS = ("a_lo", "a_hi", "mu", "epsilon", "delta", "delta_excess")
"""The metrics of a pair that need a basin around both networks."""

OUTSIDE = "boundary not found: the basin reaches the end of the scan"


class BasinParams(LineParams):
    """``loss``: the loss in nats, or the error, 1 - metric; ``split``: the images to evaluate on.

    ``tolerance``: the largest excess over the worse endpoint in the basin, in units of the loss.
    ``scan``: range of lambda on the line, with ``steps`` per distance of the two networks.
    ``sigmas``: smallest and largest standard deviation of weight noise, with ``levels`` at equal
    ratios; ``draws``: noise samples at each.
    """

    loss: Literal["loss", "error"] = "loss"
    split: Literal["train", "test"] = "test"
    limit: Annotated[int, Field(ge=1)] | None = 500
    calibration: Annotated[int, Field(ge=1)] = 500
    tolerance: Annotated[float, Field(gt=0)] = 0.05
    scan: tuple[Annotated[int, Field(ge=-10, le=0)], Annotated[int, Field(ge=1, le=11)]] = (-1, 2)
    steps: Annotated[int, Field(ge=2, le=1000)] = 20
    sigmas: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (1e-3, 1.0)
    levels: Annotated[int, Field(ge=2, le=100)] = 13
    draws: Annotated[int, Field(ge=1, le=1000)] = 8

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.sigmas[0] >= self.sigmas[1]:
            raise ValueError("sigmas are the smallest and the largest, in this order")
        return self


def measure(
    params: BasinParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """S = [a_lo, a_hi] on the line, mu and epsilon on it, delta, and the curves c2 and c3.

    ``epsilon_segment`` is epsilon on the segment between the two networks, which is defined even
    without a shared basin. ``delta`` follows the definition literally; ``delta_excess`` counts what
    noise adds to the loss at the ends of S. ``escape_noise`` and ``escape_extrapolation`` are c2
    and c3.
    Units: those of the loss; a_lo and a_hi in distances of the two networks, delta in l2.
    Error: no interval; compare replicates.
    """
    from transferbench_plugins.diagnostics.landscape._basin_search import Segment
    from transferbench_plugins.diagnostics.landscape._line import incompatibility, line_between

    if reason := incompatibility(subjects, params):
        yield from _undefined(params, 0, reason)
        return
    line = line_between(subjects, params, (params.split,), context)
    n = len(line.splits[params.split].targets)
    segment = Segment(line.a, line.b, [name for name, _ in line.net.named_parameters()])
    if segment.length == 0:
        yield from _undefined(params, n, "the two networks are one")
        return
    yield from measure_segment(params, segment, partial(_losses, line, params), n, context.seed)


def measure_segment(
    params: BasinParams, segment: Segment, losses: Losses, n: int, seed: int
) -> Iterator[Measurement]:
    """The measurements of the basin around a segment, for any loss function over ``n`` images."""
    from transferbench_plugins.diagnostics.landscape._basin_search import find_basin

    number = partial(_number, params, n)
    steps = range(params.scan[0] * params.steps, params.scan[1] * params.steps + 1)
    positions = [step / params.steps for step in steps]
    scan = losses(segment.at(position) for position in positions)
    for position, value in zip(positions, scan, strict=True):
        yield number("loss", value, {"lambda": round(position, 9)})
    basin = find_basin(positions, scan, params.tolerance)
    yield number("epsilon_segment", basin.epsilon_segment)
    if not basin.is_basin:
        reason = (
            f"not a basin: {params.loss} {basin.peak:.4g} at {basin.peak_at:g} of the way is above"
            f" {basin.cap:.4g}"
        )
        yield from _undefined(params, n, reason)
        return
    yield number("a_lo", basin.low, flag=None if basin.low_inside else OUTSIDE)
    yield number("a_hi", basin.high, flag=None if basin.high_inside else OUTSIDE)
    yield number("mu", basin.mu)
    yield number("epsilon", basin.epsilon)
    yield from _escape_measurements(params, segment, losses, basin, number, seed)


def _escape_measurements(
    params: BasinParams,
    segment: Segment,
    losses: Losses,
    basin: Basin,
    number: Callable[..., Measurement],
    seed: int,
) -> Iterator[Measurement]:
    """The curves c2 and c3, and the delta at which both leave the basin."""
    from transferbench_plugins.diagnostics.landscape._basin_search import escape, smallest_delta

    sigmas = _sigmas(params)
    walls = escape(losses, segment, basin, sigmas, params.draws, seed)
    for metric, curve in (("noise", walls.noise), ("extrapolation", walls.extrapolation)):
        for sigma, value in zip((0.0, *sigmas), (walls.ends, *curve), strict=True):
            yield number(f"escape_{metric}", float(value), {"sigma": round(sigma, 9)})
    for metric, base in (("delta", 0.0), ("delta_excess", walls.ends)):
        delta, is_smallest = smallest_delta(walls, base, sigmas, segment.size, basin.epsilon)
        flag = "at the smallest sigma tried" if is_smallest else None
        no_wall = f"no wall: not reached up to sigma {sigmas[-1]:g}"
        yield number(metric, delta, missing=no_wall, flag=flag)


def _sigmas(params: BasinParams) -> list[float]:
    smallest, largest = params.sigmas
    ratio = (largest / smallest) ** (1 / (params.levels - 1))
    return [float(f"{smallest * ratio**level:.6g}") for level in range(params.levels)]


def _losses(line: NetworkLine, params: BasinParams, states: Iterable[StateDict]) -> list[float]:
    points = [by_split[params.split] for by_split in line.evaluate(states)]
    if params.loss == "loss":
        values = [point.loss for point in points]
    else:
        values = [None if point.metric is None else 1 - point.metric for point in points]
    return [math.inf if value is None else value for value in values]


def _number(
    params: BasinParams,
    n: int,
    metric: str,
    value: float | None,
    position: Mapping[str, float] | None = None,
    *,
    missing: str = "not finite",
    flag: str | None = None,
) -> Measurement:
    unit = UNITS.get(metric, "nats" if params.loss == "loss" else "fraction")
    coordinates = {"split": params.split, "of": params.loss, **(position or {})}
    return measurement(metric, value, unit, n, coordinates, missing=missing, flag=flag)


def _undefined(params: BasinParams, n: int, reason: str) -> Iterator[Measurement]:
    """Measurements without a value, flagged with the reason."""
    for metric in NUMBERS:
        yield _number(params, n, metric, None, missing=reason)


def _cost(params: BasinParams) -> float:
    low, high = params.scan
    return (high - low) * params.steps + 1 + 4 * params.levels * params.draws


BASIN = DiagnosticSpec(
    name="basin",
    version=1,
    summary="(epsilon, delta) of the basin around two networks, with the underlying curves",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Definition 3.1",
    license="Apache-2.0",
    params=BasinParams,
    # With this tolerance the two networks of the conformance kit share a basin.
    tiny={"limit": 16, "calibration": 16, "steps": 2, "levels": 2, "draws": 1, "tolerance": 1},
    measure=measure,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset(
        {
            "a_hi",
            "a_lo",
            "delta",
            "delta_excess",
            "epsilon",
            "epsilon_segment",
            "escape_extrapolation",
            "escape_noise",
            "loss",
            "mu",
        }
    ),
    ranges=dict.fromkeys(("delta", "epsilon", "epsilon_segment", "loss", "mu"), (0, math.inf)),
    needs=frozenset({"images"}),
    states=lambda params: params.endpoints,
    cost=_cost,
    limit=lambda params: params.limit,
    report=ReportPart(
        build=f"{__package__}._basin_report:basins",
        metrics=frozenset(
            {*NUMBERS, "epsilon_segment", "loss", "escape_noise", "escape_extrapolation"}
        ),
    ),
)
