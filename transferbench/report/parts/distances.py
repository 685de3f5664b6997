"""Table 2: how far apart two networks are in the space of weights, whole and by module."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from transferbench.report.aggregates import View, aggregate, ordered, places_of
from transferbench.report.panels import Panel, panel_figure
from transferbench.report.parts.networks import PAIR, comparison, pairs_in, series_of
from transferbench.report.parts.part import (
    OVER_PAIRS,
    Block,
    Drawing,
    Listing,
    Part,
    Scope,
    counted,
    exact_cell,
    missing_part,
    paper,
    title_of,
    view_notes,
)
from transferbench.report.published import DISTANCES
from transferbench.report.tables import Table

__all__ = ["METRICS", "distances_part"]

MEASURES = {
    "l2": "l2 distance",
    "l2_normalised": "normalised distance",
    "cosine": "cosine of the ways from the start",
}
METRICS = {"distance": frozenset(MEASURES)}
BODY = "body"

NOTE = (
    "l2: |a \N{MINUS SIGN} b|; normalised: divided by the root of |a| |b|; cosine: of the ways "
    "that the two went from their own starts. The body is the network without its head, as P has "
    f"other classes. Brackets: {OVER_PAIRS}; n counts replicates."
)
CAPTION = (
    "Distance of the weights of two networks at each module, from input to output, the mean over "
    "pairs. Raw distances are dominated by large modules: compare pairs within a module. A cosine "
    "near 0 says that the two trainings moved in unrelated directions."
)


def distances_part(scope: Scope) -> Part | None:
    """The whole body as in the paper's table, then module by module."""
    title, slug = "Distance of weights", "distances"
    if not scope.has("distance"):
        return None
    views = scope.views("distance", "module")
    blocks: list[Block] = []
    for view in views:
        if view.rows["value"].notna().any():
            blocks += view_blocks(scope, view, title_of(view, views))
    if not blocks:
        return missing_part(title, slug, views)
    return Part(title, slug, blocks, view_notes(views))


def view_blocks(scope: Scope, view: View, begin: str) -> list[Block]:
    """Table 2, the paper's, the figure by module and its table."""
    whole, modules = view.rows["module"] == BODY, view.rows["module"] != BODY
    blocks: list[Block] = []
    if table := distance_table(scope, view.rows[whole]):
        blocks.append(Listing(f"{begin}Table 2: distance of the whole body", table))
        blocks.append(paper(DISTANCES))
    blocks.append(profile(scope, view, view.rows[modules], begin))
    if table := distance_table(scope, view.rows[modules]):
        blocks.append(Listing(f"{begin}Distance of each module", table))
    return blocks


def distance_table(scope: Scope, rows: pd.DataFrame) -> Table | None:
    """A row for each measure and module of each place, a column for each pair."""
    lines = [
        ((place.name, measure, module), (metric, module), found)
        for place in places_of(rows, scope.suite)
        for found in [aggregate(place.of(rows), [*PAIR, "metric", "module"])]
        for metric, measure in MEASURES.items()
        for module in ordered(rows, "module")
    ]
    head = ("target", "measure", "module")
    return comparison(head, lines, pairs_in(rows, scope), exact_cell, NOTE)


def profile(scope: Scope, view: View, rows: pd.DataFrame, begin: str) -> Drawing:
    """The three measures against depth, a row of panels for each place."""
    lines: list[Sequence[Panel | None]] = []
    for place in places_of(rows, scope.suite):
        here = place.of(rows)
        modules = ordered(here, "module")
        found = aggregate(here, [*PAIR, "metric", "module"])
        panels = []
        for metric, measure in MEASURES.items():
            series = series_of(pairs_in(here, scope), found, [(metric, at) for at in modules])
            level = 0.0 if metric == "cosine" else None
            panels.append(
                Panel(f"{place.name}: {measure}", series, "", bars=True, ticks=modules, level=level)
            )
        lines.append(panels)
    figure = panel_figure(
        f"{scope.anchor}-{view.labels[0]}-modules", "distance of weights by module and pair", lines
    )
    told = f"{begin}{CAPTION} Bars: {OVER_PAIRS}; {counted(rows, 'weights')}."
    return Drawing(figure, told)
