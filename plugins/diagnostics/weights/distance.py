"""How far apart two networks are in the space of weights, module by module.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Section 3.2 and Table 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from transferbench.records import Measurement
from transferbench.specs import HEAD, DiagnosticContext, DiagnosticSpec, NoParams, Subject

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BODY", "DISTANCE"]

State = Mapping[str, "Tensor"]

BODY = "body"
"""The place of the whole network without its head, which may have other classes."""

NO_HEAD = "the heads have different shapes"
DIVERGED = "the weights are not finite: diverged"


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """For the body, each module and the head: l2, and the directions of the two trainings.

    l2 = |a - b|; l2_normalised = |a - b| / sqrt(|a| |b|); cosine of a - a0 and b - b0, the way that
    each network went from its own initial weights. Parameters alone: batch statistics are no
    weights. There is no cosine with the weights that a started from.
    Units: l2, and 1 for what has none; ``n`` counts parameters. Error: none, sums in float64.
    """
    del params, context  # nothing to choose, nothing drawn
    a, b = subjects
    parameters = {name for name, _ in a.network("final").named_parameters()}
    modules = {m: [n for n in names if n in parameters] for m, names in a.modules.items()}
    body = [name for module, names in modules.items() if module != HEAD for name in names]
    ends, starts = (a.state("final"), b.state("final")), (a.state("init"), b.state("init"))
    started = _distance(starts[0], ends[1], body) == 0
    for module, names in {
        BODY: body,
        **{m: names for m, names in modules.items() if names},
    }.items():
        if any(ends[0][name].shape != ends[1][name].shape for name in names):
            yield _number("l2", None, "l2", 0, module, NO_HEAD)
            yield _number("l2_normalised", None, "1", 0, module, NO_HEAD)
            continue
        yield from _distances(ends, names, module)
        if not started:
            yield _cosine(ends, starts, names, module)


def _distances(
    ends: tuple[State, State], names: Sequence[str], module: str
) -> Iterator[Measurement]:
    a, b = ends
    found, count = _distance(a, b, names), sum(a[name].numel() for name in names)
    scale = math.sqrt(_norm(a, names) * _norm(b, names))
    yield _number("l2", found, "l2", count, module)
    flag = "one of them is 0 everywhere"
    yield _number("l2_normalised", found / scale if scale else None, "1", count, module, flag)


def _cosine(
    ends: tuple[State, State], starts: tuple[State, State], names: Sequence[str], module: str
) -> Measurement:
    lengths = [_distance(end, start, names) for end, start in zip(ends, starts, strict=True)]
    count = sum(ends[0][name].numel() for name in names)
    if not all(lengths):
        return _number("cosine", None, "1", count, module, "one of them did not move")
    product = sum(
        float(((ends[0][n].double() - starts[0][n]) * (ends[1][n].double() - starts[1][n])).sum())
        for n in names
    )
    return _number("cosine", product / math.prod(lengths), "1", count, module)


def _distance(a: State, b: State, names: Sequence[str]) -> float:
    return math.sqrt(sum(float((a[name].double() - b[name]).square().sum()) for name in names))


def _norm(a: State, names: Sequence[str]) -> float:
    return math.sqrt(sum(float(a[name].double().square().sum()) for name in names))


def _number(
    metric: str, value: float | None, unit: str, n: int, module: str, flag: str | None = None
) -> Measurement:
    if value is not None and not math.isfinite(value):
        value, flag = None, DIVERGED
    return Measurement(
        metric=metric,
        value=value,
        unit=unit,
        n=n,
        coordinates={"module": module},
        flag=flag if value is None else None,
    )


DISTANCE = DiagnosticSpec(
    name="distance",
    version=1,
    summary="l2 distance of two networks' weights, whole and by module, raw and normalised",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Table 2",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    needs=frozenset({"init_state"}),
    identical={"l2": 0, "l2_normalised": 0, "cosine": 1},
    symmetric=frozenset({"l2", "l2_normalised", "cosine"}),
)
