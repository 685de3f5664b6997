"""The performance barrier before and after permuting one network's channels to match the other's.

Source: Entezari et al. 2021, arXiv 2110.06296; Ainsworth et al. 2022, arXiv 2209.04836 (weight
matching); Jordan et al. 2022, arXiv 2211.08403 (REPAIR).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench.records import Measurement
from transferbench.specs import HEAD, DiagnosticContext, DiagnosticSpec, Subject
from transferbench_plugins.diagnostics.landscape._barrier_report import BARRIER_PART
from transferbench_plugins.diagnostics.landscape._line_params import BARRIERS, GridParams

__all__ = ["ALIGNED_BARRIER", "AlignedBarrierParams"]


class AlignedBarrierParams(GridParams):
    """``repair``: apply REPAIR to networks without batch statistics, as a further curve."""

    repair: bool = True


def measure(
    params: AlignedBarrierParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The curve and barriers of ``barrier``, for each alignment of the two networks.

    ``alignment``: ``before`` without, ``matched`` with the channels of the second network permuted,
    ``repaired`` with activation statistics restored as well. Batch statistics are recomputed at
    each point in all cases, which is REPAIR for networks that have them.
    If the symmetries of the network are unknown, ``matched`` is flagged and has no value.
    """
    from transferbench.analysis.weight_matching import UnmatchableError
    from transferbench_plugins.diagnostics.landscape._alignment import (
        aligned_curves,
        match_channels,
    )
    from transferbench_plugins.diagnostics.landscape._curve import (
        curve_measurements,
        interpolation_grid,
        undefined_barriers,
    )
    from transferbench_plugins.diagnostics.landscape._line import incompatibility, line_between

    splits: Sequence[str] = params.splits
    if reason := incompatibility(subjects, params):
        for split in splits:
            yield from undefined_barriers(reason, {"split": split, "alignment": "before"})
            yield from undefined_barriers(reason, {"split": split, "alignment": "matched"})
        return
    line = line_between(subjects, params, splits, context)
    weights = interpolation_grid(params.points)
    curves = {"before": line.interpolate(weights)}
    try:
        aligned = match_channels(line, subjects[0].modules[HEAD], context.generator)
    except UnmatchableError as error:
        for split in splits:
            yield from undefined_barriers(str(error), {"split": split, "alignment": "matched"})
    else:
        curves |= aligned_curves(aligned, weights, repair=params.repair)
    for name, curve in curves.items():
        for split, examples in line.splits.items():
            points, n = [by_split[split] for by_split in curve], len(examples.targets)
            yield from curve_measurements(weights, points, n, {"split": split, "alignment": name})


def _cost(params: AlignedBarrierParams) -> float:
    return (3 if params.repair else 2) * params.points * len(params.splits)


ALIGNED_BARRIER = DiagnosticSpec(
    name="aligned-barrier",
    version=1,
    summary="Performance barrier before and after matching channels by weight (Git Re-Basin)",
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
    report=BARRIER_PART,
)
