"""What is left of the metric on perturbed test images, and which cue a network follows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from transferbench.report.aggregates import (
    Place,
    View,
    aggregate,
    differences,
    ordered,
    places_of,
)
from transferbench.report.panels import Panel, panel_figure
from transferbench.report.parts.networks import (
    ARM,
    arms_in,
    comparison,
    difference_of,
    series_of,
)
from transferbench.report.parts.part import (
    OVER_NETWORKS,
    Block,
    Drawing,
    Listing,
    Part,
    Scope,
    counted,
    missing_part,
    percent_cell,
    title_of,
    view_notes,
)
from transferbench.report.tables import Table

__all__ = ["METRICS", "robustness_part", "shape_bias_part"]

KEPT = {
    "mean_metric": "mean metric",
    "relative_metric": "share of the clean metric",
    "corrected_relative_metric": "share above chance",
}
SHAPE = {
    "shape_bias": "shape bias",
    "shape_answers": "answers that name the shape",
    "texture_answers": "answers that name the texture",
}
METRICS = {
    "robustness": frozenset({"test_metric", "test_loss", *KEPT}),
    "shape-bias": frozenset(SHAPE),
}
CLEAN = "none"
COLUMNS = 4

CAPTION = (
    "Test metric on images that were perturbed at test time alone, by severity; 0: the images as "
    "trained on. The slower a curve falls, the more robust the network; compare what is left, not "
    "the height of the start."
)
NOTE = (
    "In %, differences in points. Mean metric: over all severities of a perturbation; share of the "
    "clean metric: the mean divided by the metric on unperturbed images; share above chance: the "
    f"same of what exceeds chance. Brackets: {OVER_NETWORKS}, differences paired."
)
SHAPE_NOTE = (
    "In %, differences in points. Images with the shape of one class and the texture of another. "
    "Shape bias: of the answers that name either class, the share that name the shape; 50% where a "
    f"network heeds neither. Brackets: {OVER_NETWORKS}, differences paired."
)


def robustness_part(scope: Scope) -> Part | None:
    """Metric against severity, and what is kept of it."""
    title, slug = "Robustness", "robustness"
    if not scope.has("robustness"):
        return None
    views = scope.views("robustness", "test_perturbation", "severity")
    blocks: list[Block] = []
    for view in views:
        if view.rows["value"].notna().any():
            blocks += view_blocks(scope, view, title_of(view, views))
    if not blocks:
        return missing_part(title, slug, views)
    return Part(title, slug, blocks, view_notes(views))


def view_blocks(scope: Scope, view: View, begin: str) -> list[Block]:
    """A figure for each place, then the table."""
    rows = view.rows[view.rows["metric"] == "test_metric"]
    told = f"Bands: {OVER_NETWORKS}; {counted(rows)}."
    blocks: list[Block] = []
    for place in places_of(rows, scope.suite):
        name = f"{scope.anchor}-{view.labels[0]}-{place.target}-{place.perturbation}"
        figure = panel_figure(
            name, f"test metric by severity on {place.name}", severity_panels(scope, rows, place)
        )
        blocks.append(Drawing(figure, f"{begin}{place.name}. {CAPTION} {told}"))
    if table := kept_table(scope, view.rows):
        blocks.append(Listing(f"{begin}What is left of the metric", table))
    return blocks


def severity_panels(scope: Scope, rows: pd.DataFrame, place: Place) -> list[Sequence[Panel | None]]:
    """A panel for each perturbation of the test images, each from the clean images on."""
    here = place.of(rows)
    names = [name for name in ordered(here, "test_perturbation") if name != CLEAN]
    found, arms = aggregate(here, [*ARM, "test_perturbation", "severity"]), arms_in(here, scope)
    panels: list[Panel | None] = []
    for name in names:
        severities = sorted(ordered(here[here["test_perturbation"] == name], "severity"))
        at = [(CLEAN, 0), *((name, severity) for severity in severities)]
        panels.append(
            Panel(
                title=name,
                series=series_of(arms, found, at, [0, *severities]),
                x_label="severity",
                percent=True,
                chance=scope.suite.scoring.chance.get(place.target),
            )
        )
    return [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]


def kept_table(scope: Scope, rows: pd.DataFrame) -> Table | None:
    """A row for each perturbation and measure of each place, a column for each arm."""
    by = ["metric", "test_perturbation"]
    own = rows[rows["metric"].isin(KEPT)]
    lines = []
    for place in places_of(own, scope.suite):
        here = place.of(own)
        found = aggregate(here, [*ARM, *by]) | differences(here, by, scope.pair)
        lines += [
            ((place.name, name, text), (metric, name), found)
            for name in ordered(here, "test_perturbation")
            for metric, text in KEPT.items()
        ]
    compared = [*arms_in(own, scope), difference_of(scope)]
    return comparison(("target", "perturbation", "measure"), lines, compared, percent_cell, NOTE)


def shape_bias_part(scope: Scope) -> Part | None:
    """A table of the answers to images whose cues are in conflict."""
    title, slug = "Shape bias", "shape-bias"
    if not scope.has("shape-bias"):
        return None
    views = scope.views("shape-bias")
    blocks: list[Block] = []
    for view in views:
        lines = []
        for place in places_of(view.rows, scope.suite):
            here = place.of(view.rows)
            found = aggregate(here, [*ARM, "metric"]) | differences(here, ["metric"], scope.pair)
            lines += [((place.name, text), (metric,), found) for metric, text in SHAPE.items()]
        compared = [*arms_in(view.rows, scope), difference_of(scope)]
        table = comparison(("target", "measure"), lines, compared, percent_cell, SHAPE_NOTE)
        if table:
            begin, n = title_of(view, views), counted(view.rows, "")
            blocks.append(Listing(f"{begin}Shape against texture; {n}", table))
    if not blocks:
        return missing_part(title, slug, views)
    return Part(title, slug, blocks, view_notes(views))
