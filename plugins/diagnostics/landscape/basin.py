"""The basin that two networks share: how flat the loss is inside, how far its walls are.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Definition 3.1 and the procedure behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Subject
from transferbench_plugins.diagnostics.landscape._line_params import LineParams

if TYPE_CHECKING:
    from torch import Tensor

    from transferbench_plugins.diagnostics.landscape._basin_search import (
        Basin,
        Escape,
        Losses,
        Segment,
    )
    from transferbench_plugins.diagnostics.landscape._line import Line

__all__ = ["BASIN", "BasinParams"]


class BasinParams(LineParams):
    """``loss``: in nats, or the error, 1 - metric; ``split``: the images it is measured on.

    ``tolerance``: how much above the worse endpoint the basin may rise, in the unit of the loss.
    ``scan``: places of the line, ``steps`` to the distance of the two networks.
    ``sigmas``: smallest and largest noise of a weight, ``levels`` of them, equal ratios apart;
    ``draws`` of noise at each.
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
    def _ascends(self) -> Self:
        if self.sigmas[0] >= self.sigmas[1]:
            raise ValueError("sigmas are the smallest and the largest, in this order")
        return self


def measure(
    params: BasinParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """S = [a_lo, a_hi] on the line, mu and epsilon on it, delta, and the curves c2 and c3.

    ``epsilon_segment`` is epsilon between the two networks alone, and stands for those that share
    no basin as well. ``delta`` is the literal one, ``delta_excess`` counts what noise adds to the
    loss at the ends of S. ``escape_noise`` and ``escape_extrapolation`` are c2 and c3.
    Units: of the loss; a_lo and a_hi in distances of the two networks, delta in l2.
    Error: none of its own; replicates tell.
    """
    from transferbench_plugins.diagnostics.landscape._basin_search import Segment
    from transferbench_plugins.diagnostics.landscape._line import line_between, misfit

    report = Report(params.loss, params.split, 0)
    if why := misfit(*(s.state(e) for s, e in zip(subjects, params.endpoints, strict=True))):
        yield from report.nothing(why)
        return
    line = line_between(subjects, params, (params.split,), context)
    report = report._replace(n=len(line.splits[params.split].targets))
    names = [name for name, _ in line.net.named_parameters()]
    segment = Segment(line.a, line.b, names)
    if segment.length == 0:
        yield from report.nothing("the two networks are one")
        return
    yield from basin_measurements(params, segment, _losses(line, params), report, context.seed)


def basin_measurements(
    params: BasinParams, segment: Segment, losses: Losses, report: Report, seed: int
) -> Iterator[Measurement]:
    """What ``measure`` reports of a segment, for any loss."""
    from transferbench_plugins.diagnostics.landscape._basin_search import escape, find_basin

    first, last = params.scan
    places = [
        place / params.steps for place in range(first * params.steps, last * params.steps + 1)
    ]
    found = losses(segment.at(place) for place in places)
    yield from report.curve("loss", "lambda", places, found)
    basin = find_basin(places, found, params.tolerance)
    yield report.number("epsilon_segment", basin.epsilon_segment)
    if not basin.is_basin:
        yield from report.nothing(
            f"not a basin: {params.loss} {basin.peak:.4g} at {basin.peak_at:g} of the way is above"
            f" {basin.cap:.4g}",
        )
        return
    yield from report.inside(basin)
    sigmas = _sigmas(params)
    walls = escape(losses, segment, basin, sigmas, params.draws, seed)
    yield from report.curve("escape_noise", "sigma", [0.0, *sigmas], [walls.ends, *walls.noise])
    yield from report.curve(
        "escape_extrapolation", "sigma", [0.0, *sigmas], [walls.ends, *walls.extrapolation]
    )
    yield from report.deltas(walls, sigmas, segment.size, basin.epsilon)


def _sigmas(params: BasinParams) -> list[float]:
    smallest, largest = params.sigmas
    ratio = (largest / smallest) ** (1 / (params.levels - 1))
    return [float(f"{smallest * ratio**level:.6g}") for level in range(params.levels)]


def _losses(line: Line, params: BasinParams) -> Losses:
    def losses(states: Iterable[Mapping[str, Tensor]]) -> list[float]:
        found = [at[params.split] for at in line.evaluate(states)]
        if params.loss == "loss":
            values = [point.loss for point in found]
        else:
            values = [None if point.metric is None else 1 - point.metric for point in found]
        return [math.inf if value is None else value for value in values]

    return losses


class Report(NamedTuple):
    """How the numbers of a basin are published: of which loss, on how many images of what split."""

    loss: str
    split: str
    n: int

    def number(
        self,
        metric: str,
        value: float | None,
        unit: str | None = None,
        flag: str | None = None,
        place: Mapping[str, float] | None = None,
    ) -> Measurement:
        finite = value is not None and math.isfinite(value)
        return Measurement(
            metric=metric,
            value=value if finite else None,
            unit=unit or ("nats" if self.loss == "loss" else "fraction"),
            n=self.n,
            coordinates={"split": self.split, "of": self.loss, **(place or {})},
            flag=flag or (None if finite else "not finite"),
        )

    def nothing(self, why: str) -> Iterator[Measurement]:
        """The numbers of a basin where there is none."""
        units = {"a_lo": "lambda", "a_hi": "lambda", "delta": "l2", "delta_excess": "l2"}
        for metric in ("a_lo", "a_hi", "mu", "epsilon", "delta", "delta_excess"):
            yield self.number(metric, None, units.get(metric), why)

    def curve(
        self, metric: str, axis: str, places: Sequence[float], values: Sequence[float]
    ) -> Iterator[Measurement]:
        for place, value in zip(places, values, strict=True):
            yield self.number(metric, float(value), place={axis: round(place, 9)})

    def inside(self, basin: Basin) -> Iterator[Measurement]:
        """The ends of S, and condition 1 on it."""
        lost = "boundary not found: the basin reaches the end of the scan"
        yield self.number("a_lo", basin.low, "lambda", None if basin.low_found else lost)
        yield self.number("a_hi", basin.high, "lambda", None if basin.high_found else lost)
        yield self.number("mu", basin.mu)
        yield self.number("epsilon", basin.epsilon)

    def deltas(
        self, walls: Escape, sigmas: Sequence[float], size: int, epsilon: float
    ) -> Iterator[Measurement]:
        """Conditions 2 and 3, literally and by what noise adds."""
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
    summary="The (epsilon, delta) of the basin around two networks, with the curves behind it",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Definition 3.1",
    license="Apache-2.0",
    params=BasinParams,
    tiny={"limit": 16, "calibration": 16, "steps": 2, "levels": 2, "draws": 1},
    measure=measure,
    subjects="pair",
    needs=frozenset({"images"}),
    cost=_cost,
    limit=lambda params: params.limit,
)
