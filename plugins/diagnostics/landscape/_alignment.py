"""The line between two networks, and the lines to the second with its channels renumbered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Generator, Tensor

from transferbench.analysis.landscape import has_batch_statistics, lerp_state
from transferbench.analysis.weight_matching import (
    ChannelStatistics,
    UnmatchableError,
    activation_statistics,
    keeps_function,
    match_weights,
    permute_state,
    repaired,
    residual_axes,
)
from transferbench.metrics import Evaluation
from transferbench.networks.modules import clone_state, load_state
from transferbench_plugins.diagnostics.landscape._line import Line

__all__ = ["curves", "matched"]

Curve = list[dict[str, Evaluation]]

PROBES = 8
"""Images on which a renumbered network must answer as before."""


def matched(line: Line, head: Sequence[str], generator: Generator) -> Line:
    """``line`` with the channels of ``b`` numbered as ``a`` numbers them, as near as can be.

    Raises: ``UnmatchableError`` where the symmetries of the network are not known, and where the
    weights of one are not finite.
    """
    if not all(bool(t.isfinite().all()) for state in (line.a, line.b) for t in state.values()):
        raise UnmatchableError("weights that are not finite cannot be matched: diverged")
    axes = residual_axes(line.a, head)
    if not keeps_function(line.net, axes, line.pool[:PROBES], generator):
        raise UnmatchableError(
            f"renumbering the channels of {type(line.net).__name__} by torchvision's names changed"
            " its answers: its layers are joined in another way; measure the barrier without"
            " alignment"
        )
    permutations = match_weights(line.a, line.b, axes, generator)
    return line._replace(b=permute_state(line.b, axes, permutations))


def curves(line: Line, weights: Sequence[float], *, repair: bool) -> dict[str, Curve]:
    """Of a matched line: ``matched``, and ``repaired`` where batch statistics do not see to it."""
    found = {"matched": line.evaluate(lerp_state(line.a, line.b, weight) for weight in weights)}
    if repair and not has_batch_statistics(line.net):
        found["repaired"] = _repaired_curve(line, weights)
    return found


def _repaired_curve(line: Line, weights: Sequence[float]) -> Curve:
    before = clone_state(line.net)
    try:
        a, b = _statistics(line, line.a), _statistics(line, line.b)
        return [_repaired_point(line, a, b, weight) for weight in weights]
    finally:
        load_state(line.net, before)


def _statistics(line: Line, state: Mapping[str, Tensor]) -> list[ChannelStatistics]:
    load_state(line.net, state)
    return activation_statistics(line.net, line.pool)


def _repaired_point(
    line: Line, a: list[ChannelStatistics], b: list[ChannelStatistics], weight: float
) -> dict[str, Evaluation]:
    goal = [one.lerp(other, weight) for one, other in zip(a, b, strict=True)]
    state = lerp_state(line.a, line.b, weight)
    load_state(line.net, state)
    with repaired(line.net, goal, line.pool):
        (found,) = line.evaluate([state])
    return found
