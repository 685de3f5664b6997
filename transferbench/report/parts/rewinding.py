"""Figure 5: what a network loses when one module is rewound or drawn anew."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from transferbench.report.aggregates import View, aggregate, differences, ordered, places_of
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
    paper,
    percent_cell,
    view_notes,
)
from transferbench.report.published import REWINDING
from transferbench.report.tables import Table

__all__ = ["METRICS", "swaps_part"]

DROPS = {
    "mean_body_drop": "mean drop over the body's modules",
    "worst_body_drop": "worst drop of a module of the body",
}
METRICS = dict.fromkeys(
    ("rewinding", "re-randomisation"), frozenset({"metric", "loss", "drop", *DROPS})
)
NONE, ALL = "none", "all"
FRESH = "drawn anew"

CAPTION = (
    "Figure 5. Test metric with one module taken from another state and nothing trained again: "
    "rewound to where training started, or drawn anew from its initial distribution. The module "
    "is named on the axis, from input to output; none is the trained network as it is, all has "
    "every module replaced. The lower a point, the more critical its module."
)
NOTE = (
    "Points of the test metric lost against the network as it is. Mean and worst are over the "
    f"modules outside the head. Brackets: {OVER_NETWORKS}, differences paired."
)


def swaps_part(scope: Scope) -> Part | None:
    """Rewinding and re-randomisation side by side, and the drops of each module."""
    title, slug = "Modules rewound and drawn anew", "rewinding"
    if not scope.has(*METRICS):
        return None
    views = [
        (plugin, view)
        for plugin, key in (("rewinding", "to"), ("re-randomisation", "draw"))
        for view in scope.views(plugin, "module", key)
    ]
    known = [(plugin, view) for plugin, view in views if view.rows["value"].notna().any()]
    flat = [view for _, view in views]
    if not known:
        return missing_part(title, slug, flat)
    rows = pd.concat([stated(plugin, view) for plugin, view in known])
    blocks: list[Block] = [profile(scope, rows)]
    if table := drops_table(scope, rows):
        blocks.append(Listing("Drop by module", table))
    return Part(title, slug, [*blocks, paper(REWINDING)], view_notes(flat))


def stated(plugin: str, view: View) -> pd.DataFrame:
    """The rows with one column ``way`` for what a module is replaced by.

    The network as it is stands there once for all states of a view: it gets each of them.
    """
    rows = view.rows
    if plugin == "re-randomisation":
        return rows.assign(way=FRESH)
    ways = {to: f"rewound to {to}" for to in ordered(rows[rows["module"] != NONE], "to")}
    changed = rows[rows["module"] != NONE]
    whole = [rows[rows["module"] == NONE].assign(way=way) for way in ways.values()]
    return pd.concat([changed.assign(way=changed["to"].map(ways)), *whole])


def modules_of(rows: pd.DataFrame) -> list[str]:
    """From input to output, between the whole network and none of it."""
    found = [module for module in ordered(rows, "module") if module not in {NONE, ALL}]
    return [NONE, *found, ALL]


def profile(scope: Scope, rows: pd.DataFrame) -> Drawing:
    """Metric by module, a row of panels for each place and a panel for each way."""
    metric = rows[rows["metric"] == "metric"]
    lines: list[Sequence[Panel | None]] = []
    for place in places_of(metric, scope.suite):
        here = place.of(metric)
        modules, arms = modules_of(here), arms_in(here, scope)
        found = aggregate(here, [*ARM, "way", "module"])
        lines.append(
            [
                Panel(
                    title=f"{place.name}: {way}",
                    series=series_of(arms, found, [(way, module) for module in modules]),
                    x_label="",
                    y_label="test metric, %",
                    percent=True,
                    bars=True,
                    ticks=modules,
                    chance=scope.suite.scoring.chance.get(place.target),
                )
                for way in ordered(here, "way")
            ]
        )
    figure = panel_figure(f"{scope.anchor}-rewinding", "test metric by module replaced", lines)
    told = f"{CAPTION} Dotted: chance. Bars: {OVER_NETWORKS}; {counted(metric)}."
    return Drawing(figure, told)


def drops_table(scope: Scope, rows: pd.DataFrame) -> Table | None:
    """A row for each module, and for mean and worst, of each place and way."""
    lines = []
    for place in places_of(rows, scope.suite):
        here = place.of(rows)
        by = ["way", "metric", "module"]
        found = aggregate(here, [*ARM, *by]) | differences(here, by, scope.pair)
        for way in ordered(here, "way"):
            summaries = [(name, (way, metric, None)) for metric, name in DROPS.items()]
            modules = [(module, (way, "drop", module)) for module in modules_of(here)[1:]]
            lines += [((place.name, way, name), at, found) for name, at in summaries + modules]
    compared = [*arms_in(rows, scope), difference_of(scope)]
    return comparison(("target", "way", "module"), lines, compared, percent_cell, NOTE)
