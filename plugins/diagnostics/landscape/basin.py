"""The basin that two networks share: flatness of the loss inside, distance of its walls.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Definition 3.1 and the procedure behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Subject
from transferbench_plugins.diagnostics.landscape._basin_report import BASIN_PART
from transferbench_plugins.diagnostics.landscape._line_params import LineParams

if TYPE_CHECKING:
    from transferbench.networks.modules import StateDict
    from transferbench_plugins.diagnostics.landscape._basin_search import (
        Basin,
        Escape,
        Losses,
        Segment,
    )
    from transferbench_plugins.diagnostics.landscape._line import NetworkLine

__all__ = ["BASIN", "BasinParams"]


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

    measurements = BasinMeasurements(params.loss, params.split, 0)
    if reason := incompatibility(subjects, params):
        yield from measurements.undefined(reason)
        return
    line = line_between(subjects, params, (params.split,), context)
    measurements = measurements._replace(n=len(line.splits[params.split].targets))
    names = [name for name, _ in line.net.named_parameters()]
    segment = Segment(line.a, line.b, names)
    if segment.length == 0:
        yield from measurements.undefined("the two networks are one")
        return
    losses = _losses(line, params)
    yield from measure_segment(params, segment, losses, measurements, context.seed)


def measure_segment(
    params: BasinParams,
    segment: Segment,
    losses: Losses,
    measurements: BasinMeasurements,
    seed: int,
) -> Iterator[Measurement]:
    """The measurements of the basin around a segment, for any loss function."""
    from transferbench_plugins.diagnostics.landscape._basin_search import escape, find_basin

    steps = range(params.scan[0] * params.steps, params.scan[1] * params.steps + 1)
    positions = [step / params.steps for step in steps]
    scan = losses(segment.at(position) for position in positions)
    yield from measurements.curve("loss", "lambda", positions, scan)
    basin = find_basin(positions, scan, params.tolerance)
    yield measurements.number("epsilon_segment", basin.epsilon_segment)
    if not basin.is_basin:
        yield from measurements.undefined(
            f"not a basin: {params.loss} {basin.peak:.4g} at {basin.peak_at:g} of the way is above"
            f" {basin.cap:.4g}",
        )
        return
    yield from measurements.extent(basin)
    sigmas = _sigmas(params)
    walls = escape(losses, segment, basin, sigmas, params.draws, seed)
    yield from measurements.curve(
        "escape_noise", "sigma", [0.0, *sigmas], [walls.ends, *walls.noise]
    )
    yield from measurements.curve(
        "escape_extrapolation", "sigma", [0.0, *sigmas], [walls.ends, *walls.extrapolation]
    )
    yield from measurements.deltas(walls, sigmas, segment.size, basin.epsilon)


def _sigmas(params: BasinParams) -> list[float]:
    smallest, largest = params.sigmas
    ratio = (largest / smallest) ** (1 / (params.levels - 1))
    return [float(f"{smallest * ratio**level:.6g}") for level in range(params.levels)]


def _losses(line: NetworkLine, params: BasinParams) -> Losses:
    def losses(states: Iterable[StateDict]) -> list[float]:
        points = [by_split[params.split] for by_split in line.evaluate(states)]
        if params.loss == "loss":
            values = [point.loss for point in points]
        else:
            values = [None if point.metric is None else 1 - point.metric for point in points]
        return [math.inf if value is None else value for value in values]

    return losses


class BasinMeasurements(NamedTuple):
    """Measurements of a basin of ``loss`` on ``n`` images of ``split``."""

    loss: str
    split: str
    n: int

    def number(
        self,
        metric: str,
        value: float | None,
        unit: str | None = None,
        flag: str | None = None,
        position: Mapping[str, float] | None = None,
    ) -> Measurement:
        finite = value is not None and math.isfinite(value)
        return Measurement(
            metric=metric,
            value=value if finite else None,
            unit=unit or ("nats" if self.loss == "loss" else "fraction"),
            n=self.n,
            coordinates={"split": self.split, "of": self.loss, **(position or {})},
            flag=flag or (None if finite else "not finite"),
        )

    def undefined(self, reason: str) -> Iterator[Measurement]:
        """Measurements without a value, flagged with the reason."""
        units = {"a_lo": "lambda", "a_hi": "lambda", "delta": "l2", "delta_excess": "l2"}
        for metric in ("a_lo", "a_hi", "mu", "epsilon", "delta", "delta_excess"):
            yield self.number(metric, None, units.get(metric), reason)

    def curve(
        self, metric: str, axis: str, positions: Sequence[float], values: Sequence[float]
    ) -> Iterator[Measurement]:
        for position, value in zip(positions, values, strict=True):
            yield self.number(metric, float(value), position={axis: round(position, 9)})

    def extent(self, basin: Basin) -> Iterator[Measurement]:
        """The ends of S, and condition 1 on it."""
        outside = "boundary not found: the basin reaches the end of the scan"
        yield self.number("a_lo", basin.low, "lambda", None if basin.low_inside else outside)
        yield self.number("a_hi", basin.high, "lambda", None if basin.high_inside else outside)
        yield self.number("mu", basin.mu)
        yield self.number("epsilon", basin.epsilon)

    def deltas(
        self, walls: Escape, sigmas: Sequence[float], size: int, epsilon: float
    ) -> Iterator[Measurement]:
        """Delta of conditions 2 and 3, literally and for the excess over the ends."""
        from transferbench_plugins.diagnostics.landscape._basin_search import smallest_delta

        for metric, excess in (("delta", False), ("delta_excess", True)):
            value, smallest = smallest_delta(walls, sigmas, size, epsilon, excess=excess)
            flag = "at the smallest sigma tried" if smallest else None
            if value is None:
                flag = f"no wall: not reached up to sigma {sigmas[-1]:g}"
            yield self.number(metric, value, "l2", flag)


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
    tiny={
        "limit": 16,
        "calibration": 16,
        "steps": 2,
        "levels": 2,
        "draws": 1,
        "tolerance": 1,
    },
    measure=measure,
    subjects="pair",
    needs=frozenset({"images"}),
    cost=_cost,
    limit=lambda params: params.limit,
    report=BASIN_PART,
)
