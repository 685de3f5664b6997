"""The line between two networks after the channels of the second are permuted to match."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator

from transferbench.analysis.landscape import has_batch_statistics, lerp_state
from transferbench.analysis.weight_matching import (
    UnmatchableError,
    activation_statistics,
    keeps_function,
    match_weights,
    permute_state,
    repaired,
    residual_axes,
)
from transferbench.networks.modules import clone_state, load_state
from transferbench_plugins.diagnostics.landscape._line import Curve, NetworkLine

__all__ = ["aligned_curves", "match_channels"]

PROBES = 8
"""Images on which a permuted network must give the same outputs."""


def match_channels(line: NetworkLine, head: Sequence[str], generator: Generator) -> NetworkLine:
    """``line`` with the channels of ``b`` permuted to match those of ``a`` (weight matching).

    Raises: ``UnmatchableError`` if the permutation symmetries of the network are unknown or its
    weights are not finite.
    """
    if not all(bool(t.isfinite().all()) for state in (line.a, line.b) for t in state.values()):
        raise UnmatchableError("weights that are not finite cannot be matched: diverged")
    axes = residual_axes(line.a, head)
    if not keeps_function(line.net, axes, line.calibration[:PROBES], generator):
        raise UnmatchableError(
            f"renumbering the channels of {type(line.net).__name__} by torchvision's names changed"
            " its answers: its layers are joined in another way; measure the barrier without"
            " alignment"
        )
    permutations = match_weights(line.a, line.b, axes, generator)
    return line._replace(b=permute_state(line.b, axes, permutations))


def aligned_curves(
    line: NetworkLine, weights: Sequence[float], *, repair: bool
) -> dict[str, Curve]:
    """The ``matched`` curve of an aligned line, and ``repaired`` without batch statistics.

    For networks with batch statistics the recomputation at each point is equivalent to REPAIR.
    """
    curves = {"matched": line.interpolate(weights)}
    if repair and not has_batch_statistics(line.net):
        curves["repaired"] = _repaired_curve(line, weights)
    return curves


def _repaired_curve(line: NetworkLine, weights: Sequence[float]) -> Curve:
    before, ends, curve = clone_state(line.net), [], []
    try:
        for state in (line.a, line.b):
            load_state(line.net, state)
            ends.append(activation_statistics(line.net, line.calibration))
        for weight in weights:
            goal = [start.lerp(end, weight) for start, end in zip(*ends, strict=True)]
            state = lerp_state(line.a, line.b, weight)
            load_state(line.net, state)
            with repaired(line.net, goal, line.calibration):
                curve += line.evaluate([state])
    finally:
        load_state(line.net, before)
    return curve
