"""Figure 6: how far back each module can go and how much noise it bears at no loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from markupsafe import Markup

from transferbench.report.aggregates import (
    Aggregate,
    Aggregates,
    View,
    aggregate,
    differences,
    ordered,
    places_of,
)
from transferbench.report.formats import significant
from transferbench.report.panels import Heat, Panel, heat_figure, mosaic, panel_figure
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
    exact_cell,
    missing_part,
    title_of,
    view_notes,
)
from transferbench.report.tables import Table

__all__ = ["METRICS", "criticality_part"]

SIGMA, MU, ALPHA = (
    "\N{GREEK SMALL LETTER SIGMA}",
    "\N{GREEK SMALL LETTER MU}",
    "\N{GREEK SMALL LETTER ALPHA}",
)
SUMMARIES = {
    "mu": f"criticality {MU}",
    "distance": "distance gone",
    "alpha_low": f"can go back to {ALPHA}",
    "sigma_high": f"bears noise {SIGMA}",
}
METRICS = {
    "criticality": frozenset({*SUMMARIES, "mu_alpha", "mu_sigma", "mu_total", "loss", "metric"})
}
TOTALS = {"all": "total of all modules", "body": "total of the body"}

FIRST = (
    "Figure 6. Train metric of the network with its first module at a point of the path from its "
    f"start (left) to its end (right), the distance gone written below, and noise {SIGMA} on each "
    "of its weights (upwards): bright where the network still works. A module is uncritical where "
    "the left edge is bright (it can go back) or the upper one (it bears noise)."
)
OTHERS = (
    "The same for each further module, from input (above) to output: in each map the start of the "
    "path left, its end right, and the noise upwards."
)
PROFILE = (
    f"Criticality {MU} of each module, from input to output, and what makes it up: the distance "
    f"that the module went, how far back it can go at no loss ({ALPHA} = 0: the whole way), and "
    f"the noise {SIGMA} that its end bears. A module may be uncritical because it hardly moved "
    "although it bears little noise: look at all four."
)
NOTE = (
    f"{MU}: the least (distance / {SIGMA})\N{SUPERSCRIPT TWO} at which the risk on training images "
    "stays within the tolerance of its value at the end, 0 where the module can go back the whole "
    "way; a total is missing where one of its modules has no feasible point. "
    f"Brackets: {OVER_NETWORKS}, differences paired."
)


def criticality_part(scope: Scope) -> Part | None:
    """The maps, the profile over depth and the table, for each set of parameters."""
    title, slug = "Module criticality", "criticality"
    if not scope.has("criticality"):
        return None
    coordinates = ("module", "path", "end", "alpha", "sigma", "tolerance", "modules")
    views = scope.views("criticality", *coordinates)
    blocks: list[Block] = []
    for view in views:
        if view.rows["value"].notna().any():
            blocks += view_blocks(scope, view, title_of(view, views))
    if not blocks:
        return missing_part(title, slug, views)
    return Part(title, slug, blocks, view_notes(views))


def view_blocks(scope: Scope, view: View, begin: str) -> list[Block]:
    """Everything of one set of parameters; figures show the first end that was measured."""
    rows, name = view.rows, f"{scope.anchor}-{view.labels[0]}"
    end, ends = ordered(rows, "end")[0], ordered(rows, "end")
    shown = rows[rows["end"] == end]
    told = f"End point: {end}. Means over replicates; {counted(rows, 'training images')}."
    blocks: list[Block] = []
    for place in places_of(shown, scope.suite):
        maps = maps_of(scope, place.of(shown))
        (module, first), *others = maps.items()
        at = f"{name}-{place.target}-{place.perturbation}"
        large = [
            heat and replace(heat, title=f"{place.name}: {module}, {which}")
            for which, heat in first.items()
        ]
        blocks.append(Drawing(draw_maps(f"{at}-first", [large], 1.7), f"{begin}{FIRST} {told}"))
        if others:
            one = mosaic(dict(others), place.name)
            figure = draw_maps(f"{at}-others", [[one]], 0.62 * len(others))
            blocks.append(Drawing(figure, f"{begin}{OTHERS} {told}"))
    blocks.append(profile(scope, shown, f"{name}-profile", f"{begin}{PROFILE} End point: {end}. "))
    tables = {one: summary_table(scope, rows[rows["end"] == one]) for one in ends}
    blocks += [
        Listing(f"{begin}Criticality of each module, end point: {one}", table)
        for one, table in tables.items()
        if table
    ]
    return blocks


# --- maps -------------------------------------------------------------------------------------


def draw_maps(name: str, lines: Sequence[Sequence[Heat | None]], height: float) -> Markup:
    """Maps on one scale, which is the train metric's."""
    description = "train metric over distance gone and noise, for each module, arm and path"
    return heat_figure(
        name, description, lines, label="train metric, %", percent=True, height=height
    )


def maps_of(scope: Scope, rows: pd.DataFrame) -> dict[str, dict[str, Heat | None]]:
    """For each module a map for each of the scored pair of arms and each path."""
    cells = rows[rows["metric"].isin(["metric", "distance"])]
    parts = dict(tuple(cells.groupby(["module", ARM[0], "path"], sort=False)))
    arms = [arm.name for arm in arms_in(rows, scope) if arm.name in scope.pair]
    paths = ordered(rows, "path")
    return {
        module: {
            f"{arm}, {path}": path_map(parts[module, arm, path])
            if (module, arm, path) in parts
            else None
            for arm in arms
            for path in paths
        }
        for module in ordered(rows, "module")
    }


def path_map(rows: pd.DataFrame) -> Heat | None:
    """Mean metric at each point of one path (right) and each noise (up)."""
    cells = rows[(rows["metric"] == "metric") & rows["value"].notna()]
    if cells.empty:
        return None
    means = cells.pivot_table(index="sigma", columns="alpha", values="value", aggfunc="mean")
    gone = rows[(rows["metric"] == "distance") & rows["alpha"].notna()]
    distances = gone.groupby("alpha")["value"].mean().reindex(means.columns)
    return Heat(
        title="",
        values=means.to_numpy(dtype=np.float64),
        x_ticks=[significant(one, 2) for one in distances],
        y_ticks=[f"{one:g}" for one in means.index],
        x_label="distance gone",
        y_label=SIGMA,
    )


# --- what makes a module critical -------------------------------------------------------------


def ends_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The summaries of modules; of distances only the whole way, the same for each tolerance."""
    whole = rows[(rows["metric"] == "distance") & (rows["alpha"] == 1)]
    tolerances = ordered(rows, "tolerance")
    repeated = [whole.assign(tolerance=tolerance) for tolerance in tolerances]
    return pd.concat([rows[rows["metric"].isin(METRICS["criticality"] - {"distance"})], *repeated])


def profile(scope: Scope, rows: pd.DataFrame, name: str, caption: str) -> Drawing:
    """The four summaries over depth on the first path, at the smallest tolerance."""
    path, tolerance = ordered(rows, "path")[0], min(ordered(rows, "tolerance"))
    own = ends_of(rows[rows["path"] == path])
    lines: list[Sequence[Panel | None]] = []
    for place in places_of(own, scope.suite):
        here = place.of(own)
        modules, arms = ordered(here, "module"), arms_in(here, scope)
        found = aggregate(here, [*ARM, "tolerance", "metric", "module"])
        lines.append(
            [
                Panel(
                    f"{place.name}: {title}",
                    series_of(arms, found, [(tolerance, metric, at) for at in modules]),
                    "",
                    bars=True,
                    ticks=modules,
                    log="symmetric" if metric == "mu" else "",
                )
                for metric, title in SUMMARIES.items()
            ]
        )
    figure = panel_figure(name, "criticality of each module and what makes it up", lines)
    told = f"Path: {path}; tolerance {tolerance:g}. Bars: {OVER_NETWORKS}; {counted(own, '')}."
    return Drawing(figure, f"{caption}{told}")


def without_totals(scope: Scope, path: str, tolerance: float) -> Aggregates:
    """What a total does not have, for the arms of a table."""
    arms = [*scope.suite.initializations, *scope.pair]
    return {
        (arm, metric, path, tolerance, None, which): Aggregate(None, ("of modules alone",))
        for arm in arms
        for metric in list(SUMMARIES)[1:]
        for which in TOTALS
    }


def summary_table(scope: Scope, rows: pd.DataFrame) -> Table | None:
    """For each path and tolerance: the totals, then each module, a column for measure and arm."""
    by = ["metric", "path", "tolerance", "module", "modules"]
    own = ends_of(rows)
    own = own.assign(metric=own["metric"].replace("mu_total", "mu"))
    lines = []
    for place in places_of(own, scope.suite):
        here = place.of(own)
        found = aggregate(here, [*ARM, *by]) | differences(here, by, scope.pair)
        for path in ordered(here, "path"):
            for tolerance in sorted(ordered(here, "tolerance")):
                begin = (place.name, f"{path}, {tolerance:g}")
                totals = [(text, (None, which)) for which, text in TOTALS.items()]
                found |= without_totals(scope, path, tolerance)
                modules = [(module, (module, None)) for module in ordered(here, "module")]
                lines += [
                    ((*begin, text), (path, tolerance, *key), found)
                    for text, key in totals + modules
                ]
    arms = arms_in(own, scope)
    columns = [(arm, "mu") for arm in [*arms, difference_of(scope)]]
    columns += [(arm, metric) for metric in list(SUMMARIES)[1:] for arm in arms]
    compared = [
        arm._replace(key=(*arm.key, metric), name=f"{SUMMARIES[metric]}, {arm.name}")
        for arm, metric in columns
    ]
    return comparison(("target", "path, tolerance", "module"), lines, compared, exact_cell, NOTE)
