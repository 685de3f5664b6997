"""The parts of a report that open the networks, in the order of the page."""

from __future__ import annotations

from transferbench.report.parts import (
    barriers,
    basins,
    checkpoint,
    criticality,
    distances,
    rewinding,
    robustness,
    scores,
    similarity,
    spectra,
)
from transferbench.report.parts.part import Builder, Part, Scope

__all__ = ["parts_of", "shown_in_parts"]

PARTS: tuple[Builder, ...] = (
    similarity.similarity_part,
    distances.distances_part,
    barriers.lines_part,
    basins.basins_part,
    rewinding.swaps_part,
    criticality.criticality_part,
    checkpoint.checkpoint_part,
    spectra.spectra_part,
    spectra.misalignment_part,
    scores.scores_part,
    robustness.robustness_part,
    robustness.shape_bias_part,
)
METRICS: dict[str, frozenset[str]] = {
    plugin: metrics
    for module in (
        similarity,
        distances,
        barriers,
        basins,
        rewinding,
        criticality,
        checkpoint,
        spectra,
        scores,
        robustness,
    )
    for plugin, metrics in module.METRICS.items()
}


def parts_of(scope: Scope) -> list[Part]:
    """The parts whose diagnostics the suite asks for."""
    return [part for part in (build(scope) for build in PARTS) if part is not None]


def shown_in_parts(scope: Scope) -> dict[str, frozenset[str]]:
    """The metrics of each diagnostic that one of these parts shows."""
    return {plugin: metrics for plugin, metrics in METRICS.items() if scope.has(plugin)}
