"""The ranges of what a suite measures, as its diagnostics declare them."""

from __future__ import annotations

from collections.abc import Mapping

from transferbench.specs import DiagnosticSpec
from transferbench.suite.schema import Suite

__all__ = ["metric_ranges"]


def metric_ranges(
    suite: Suite, diagnostics: Mapping[str, DiagnosticSpec]
) -> dict[tuple[str, str], tuple[float, float]]:
    """Label of a diagnostic and its metric -> the least and the largest value.

    ``diagnostics``: those that are installed, by name; another one declares no range.
    """
    return {
        (label, metric): ends
        for label, use in suite.diagnostics.items()
        if use.name in diagnostics
        for metric, ends in diagnostics[use.name].ranges.items()
    }
