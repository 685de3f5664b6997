"""The barrier that is left when the channels of one network are renumbered to match the other's.

Source: Entezari et al. 2021, arXiv 2110.06296; Ainsworth et al. 2022, arXiv 2209.04836 (weight
matching); Jordan et al. 2022, arXiv 2211.08403 (REPAIR).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench.records import Measurement
from transferbench.specs import HEAD, DiagnosticContext, DiagnosticSpec, Subject
from transferbench_plugins.diagnostics.landscape._line_params import BARRIERS, GridParams

__all__ = ["ALIGNED_BARRIER", "AlignedBarrierParams"]


class AlignedBarrierParams(GridParams):
    """``repair``: measure networks without batch statistics also with REPAIR."""

    repair: bool = True


def measure(
    params: AlignedBarrierParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The curve and the barriers of ``barrier``, for each way to join the networks.

    ``alignment``: ``before`` as they are, ``matched`` with the second one's channels renumbered,
    ``repaired`` with the statistics of the activations restored as well. Batch statistics are
    recomputed at every point in any case: that is REPAIR for the networks that have them.
    A network whose symmetries are not known has the barrier before, and a flag for ``matched``.
    """
    from transferbench.analysis.landscape import lerp_state
    from transferbench.analysis.weight_matching import UnmatchableError
    from transferbench_plugins.diagnostics.landscape._alignment import curves, matched
    from transferbench_plugins.diagnostics.landscape._curve import (
        curve_measurements,
        grid,
        no_barrier,
    )
    from transferbench_plugins.diagnostics.landscape._line import line_between, misfit

    places = [{"split": split} for split in params.splits]
    if why := misfit(*(s.state(e) for s, e in zip(subjects, params.endpoints, strict=True))):
        for place in places:
            yield from no_barrier(why, {**place, "alignment": "before"})
            yield from no_barrier(why, {**place, "alignment": "matched"})
        return
    line, weights = line_between(subjects, params, params.splits, context), grid(params.points)
    found = {"before": line.evaluate(lerp_state(line.a, line.b, weight) for weight in weights)}
    try:
        aligned = matched(line, subjects[0].modules[HEAD], context.generator)
    except UnmatchableError as error:
        for place in places:
            yield from no_barrier(str(error), {**place, "alignment": "matched"})
    else:
        found |= curves(aligned, weights, repair=params.repair)
    for name, curve in found.items():
        for split, examples in line.splits.items():
            points, n = [at[split] for at in curve], len(examples.targets)
            yield from curve_measurements(weights, points, n, {"split": split, "alignment": name})


def _cost(params: AlignedBarrierParams) -> float:
    return (3 if params.repair else 2) * params.points * len(params.splits)


ALIGNED_BARRIER = DiagnosticSpec(
    name="aligned-barrier",
    version=1,
    summary="The barrier before and after matching channels by their weights (Git Re-Basin)",
    source="Ainsworth et al. 2022, arXiv 2209.04836; Jordan et al. 2022, arXiv 2211.08403",
    license="Apache-2.0",
    params=AlignedBarrierParams,
    tiny={"points": 3, "limit": 16, "calibration": 16},
    measure=measure,
    subjects="pair",
    needs=frozenset({"images"}),
    cost=_cost,
    limit=lambda params: params.limit,
    identical=dict.fromkeys(BARRIERS, 0),
    answers_within=1e-5,
)
