"""Table 1: how alike the features of two networks are, module by module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from transferbench.report.aggregates import View, aggregate, ordered, places_of
from transferbench.report.panels import Heat, Panel, heat_figure, panel_figure
from transferbench.report.parts.networks import PAIR, Compared, comparison, pairs_in, series_of
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
from transferbench.report.published import CKA
from transferbench.report.tables import Table

__all__ = ["METRICS", "similarity_part"]

MEASURES = ("cka", "svcca", "pwcca", "procrustes")
METRICS = {name: frozenset({name}) for name in MEASURES}
COLUMNS = 3

MAPS = (
    "CKA of every module of the first network (up) with every module of the second (right), the "
    "mean over pairs of networks. A bright diagonal says that the two do the same thing at the "
    "same depth."
)
NOTES = {
    "cka": "1 for equal features, 0 for unrelated ones; debiased, so that a small one may be below "
    "0.",
    "svcca": "Mean canonical correlation: 1 for equal features; unrelated ones are above 0.",
    "pwcca": "Weighted mean canonical correlation: 1 for equal features; unrelated ones are above "
    "0.",
    "procrustes": "Squared distance after the best rotation: 0 for equal features, 2 for unrelated "
    "ones.",
}


def similarity_part(scope: Scope) -> Part | None:
    """Each measure at equal modules, then CKA of all modules with all."""
    title, slug = "Similarity of features", "similarity"
    if not scope.has(*MEASURES):
        return None
    views = {name: scope.views(name, "module", "other_module") for name in MEASURES}
    every = [(name, view) for name, found in views.items() for view in found]
    flat = [view for _, view in every]
    known = [(name, view) for name, view in every if view.rows["value"].notna().any()]
    if not known:
        return missing_part(title, slug, flat)
    blocks: list[Block] = [profile(scope, known)]
    for name, view in known:
        begin = title_of(view, views[name])
        if table := equal_table(scope, view, name):
            which = "Table 1: CKA" if name == "cka" else f"A second opinion: {name.upper()}"
            if name == "procrustes":
                which = "A second opinion: Procrustes distance"
            blocks.append(Listing(f"{begin}{which} of each module", table))
        if name == "cka":
            blocks.append(paper(CKA))
            blocks.append(maps(scope, view, begin))
    return Part(title, slug, blocks, view_notes(flat))


def equal(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that compare a module with itself in the other network."""
    return rows[rows["module"] == rows["other_module"]]


def profile(scope: Scope, known: Sequence[tuple[str, View]]) -> Drawing:
    """Each measure against depth, a row of panels for each place."""
    lines: list[list[Panel | None]] = []
    places = dict.fromkeys(
        place for _, view in known for place in places_of(view.rows, scope.suite)
    )
    for place in places:
        panels: list[Panel | None] = []
        for name, view in known:
            here = equal(place.of(view.rows))
            if here.empty:
                continue
            modules = ordered(here, "module")
            found = aggregate(here, [*PAIR, "module"])
            series = series_of(pairs_in(here, scope), found, [(module,) for module in modules])
            panels.append(Panel(f"{place.name}: {name}", series, "", bars=True, ticks=modules))
        lines.append(panels)
    rows = pd.concat([equal(view.rows) for _, view in known])
    caption = (
        "Similarity of the features of two networks at each module, from input to output, the mean "
        f"over pairs. Bars: {OVER_PAIRS}; {counted(rows, 'test images')}. Only the order of "
        "pairs depends on no choice of kernel, estimator or sample. Of Procrustes, which is a "
        "distance, small is alike."
    )
    name = f"{scope.anchor}-similarity"
    return Drawing(panel_figure(name, "similarity of features by module and pair", lines), caption)


def equal_table(scope: Scope, view: View, metric: str) -> Table | None:
    """A row for each module of each place, a column for each pair."""
    rows = equal(view.rows)
    lines = [
        ((place.name, module), (module,), found)
        for place in places_of(rows, scope.suite)
        for found in [aggregate(place.of(rows), [*PAIR, "module"])]
        for module in ordered(place.of(rows), "module")
    ]
    note = f"{NOTES[metric]} Brackets: {OVER_PAIRS}; n counts replicates."
    return comparison(("target", "module"), lines, pairs_in(rows, scope), exact_cell, note)


def maps(scope: Scope, view: View, begin: str) -> Drawing:
    """CKA of all modules with all, a map for each pair and place."""
    lines: list[list[Heat | None]] = []
    for place in places_of(view.rows, scope.suite):
        here = place.of(view.rows)
        heats: list[Heat | None] = [
            heat(here, pair, f"{place.name}: {pair.name}") for pair in pairs_in(here, scope)
        ]
        lines += [heats[start : start + COLUMNS] for start in range(0, len(heats), COLUMNS)]
    figure = heat_figure(
        f"{scope.anchor}-{view.labels[0]}-maps",
        "CKA of all modules with all modules, a map for each pair of arms",
        lines,
        label="CKA",
        numbers=True,
        height=1.9,
    )
    return Drawing(figure, f"{begin}{MAPS} {counted(view.rows, 'test images')}.")


def heat(rows: pd.DataFrame, pair: Compared, title: str) -> Heat:
    """The means of one pair, modules in the order of the network."""
    own = rows[(rows[PAIR[0]] == pair.key[0]) & (rows[PAIR[1]] == pair.key[1])]
    up, right = ordered(own, "module"), ordered(own, "other_module")
    means = own.pivot_table(index="module", columns="other_module", values="value", aggfunc="mean")
    values = means.reindex(index=up, columns=right).to_numpy(dtype=np.float64)
    return Heat(title, values, right, up, pair.key[1], pair.key[0])
