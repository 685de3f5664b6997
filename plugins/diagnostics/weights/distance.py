"""Distance of two networks in weight space, module by module.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Section 3.2 and Table 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from transferbench.records import Measurement
from transferbench.specs import (
    HEAD,
    DiagnosticContext,
    DiagnosticSpec,
    NoParams,
    ReportPart,
    Subject,
)
from transferbench_plugins.diagnostics._measurement import measurement

if TYPE_CHECKING:
    from transferbench.networks.modules import StateDict

__all__ = ["BODY", "DISTANCE"]

BODY = "body"
"""The ``module`` coordinate of all modules but the head, whose classes may differ."""

StatePair: TypeAlias = "tuple[StateDict, StateDict]"

NO_START = "b is external weights, and what they were trained from is not known"
NO_HEAD = "the heads have different shapes"
DIVERGED = "the weights are not finite: diverged"


def measure(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """L2 distance of body, modules and head, and the cosine of the two training displacements.

    l2 = |a - b|; l2_normalised = |a - b| / sqrt(|a| |b|); cosine of a - a0 and b - b0, each
    network's displacement from its own initial weights. Over parameters, without batch statistics.
    No cosine if a was initialized from b's final weights; no value if b is external weights. An arm
    that starts from an earlier checkpoint of b has one, beside a displacement that led there.
    Units: l2; 1 for ratios. ``n`` counts parameters. Error: none, sums in float64.
    """
    del params, context  # deterministic, without parameters
    a, b = subjects
    parameters = {name for name, _ in a.network("final").named_parameters()}
    modules = {m: [n for n in names if n in parameters] for m, names in a.modules.items()}
    body = [name for module, names in modules.items() if module != HEAD for name in names]
    finals, init = (a.state("final"), b.state("final")), a.state("init")
    started_from_b = _distance(init, finals[1], body) == 0
    # External weights have no history, and an initial state that nobody knows.
    inits = (init, b.state("init")) if b.history and not started_from_b else None
    weights = {BODY: body, **{module: names for module, names in modules.items() if names}}
    for module, names in weights.items():
        at = {"module": module}
        if any(finals[0][name].shape != finals[1][name].shape for name in names):
            yield measurement("l2", None, "l2", 0, at, flag=NO_HEAD)
            yield measurement("l2_normalised", None, "1", 0, at, flag=NO_HEAD)
        else:
            yield from _distances(finals, inits, names, at)
            if not b.history and not started_from_b:
                yield measurement("cosine", None, "1", 0, at, flag=NO_START)


def _distances(
    finals: StatePair, inits: StatePair | None, names: Sequence[str], at: dict[str, str]
) -> Iterator[Measurement]:
    n = sum(finals[0][name].numel() for name in names)
    distance = _distance(*finals, names)
    yield measurement("l2", distance, "l2", n, at, missing=DIVERGED)
    scale = math.sqrt(_norm(finals[0], names) * _norm(finals[1], names))
    normalised = distance / scale if scale else None
    missing = DIVERGED if scale else "one of them is 0 everywhere"
    yield measurement("l2_normalised", normalised, "1", n, at, missing=missing)
    if inits is not None:
        cosine = _cosine(finals, inits, names)
        missing = "one of them did not move" if cosine is None else DIVERGED
        yield measurement("cosine", cosine, "1", n, at, missing=missing)


def _cosine(finals: StatePair, inits: StatePair, names: Sequence[str]) -> float | None:
    """The cosine of the displacements; None if one of the networks did not move."""
    lengths = [_distance(final, init, names) for final, init in zip(finals, inits, strict=True)]
    if not all(lengths):
        return None
    product = sum(
        float(((finals[0][n].double() - inits[0][n]) * (finals[1][n].double() - inits[1][n])).sum())
        for n in names
    )
    return product / math.prod(lengths)


def _distance(a: StateDict, b: StateDict, names: Sequence[str]) -> float:
    return math.sqrt(sum(float((a[name].double() - b[name]).square().sum()) for name in names))


def _norm(a: StateDict, names: Sequence[str]) -> float:
    return math.sqrt(sum(float(a[name].double().square().sum()) for name in names))


METRICS = frozenset({"l2", "l2_normalised", "cosine"})

DISTANCE = DiagnosticSpec(
    name="distance",
    version=1,
    summary="L2 distance of two networks' weights, of the body and by module, raw and normalised",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Table 2",
    license="Apache-2.0",
    measure=measure,
    subjects="pair",
    unknown_labels=True,
    metrics=METRICS,
    ranges={"cosine": (-1, 1), **dict.fromkeys(("l2", "l2_normalised"), (0, math.inf))},
    needs=frozenset({"init_state", "history"}),
    needs_of_source="state",
    identical={"l2": 0, "l2_normalised": 0, "cosine": 1},
    symmetric=METRICS,
    report=ReportPart(build=f"{__package__}._distance_report:distances", metrics=METRICS),
)
