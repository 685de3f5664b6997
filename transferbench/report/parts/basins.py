"""The basin that two networks share: its (epsilon, delta), and the curves behind them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from transferbench.report.aggregates import View, aggregate, ordered, places_of
from transferbench.report.panels import Panel, panel_figure, steep
from transferbench.report.parts.networks import PAIR, pairs_in, series_of
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
from transferbench.report.published import BASINS
from transferbench.report.tables import Cell, Table

__all__ = ["METRICS", "basins_part"]

EPSILON, DELTA, SIGMA = (
    "\N{GREEK SMALL LETTER EPSILON}",
    "\N{GREEK SMALL LETTER DELTA}",
    "\N{GREEK SMALL LETTER SIGMA}",
)
NUMBERS = {
    "epsilon": EPSILON,
    "epsilon_segment": f"{EPSILON} between the two",
    "delta": f"{DELTA}, literal",
    "delta_excess": f"{DELTA}, by what noise adds",
    "a_lo": "from",
    "a_hi": "to",
    "mu": "mean loss inside",
}
CURVES = {
    "loss": "loss along the line",
    "escape_noise": "above the mean: random directions",
    "escape_extrapolation": "above the mean: beyond the ends",
}
METRICS = {"basin": frozenset({*NUMBERS, *CURVES})}

CAPTION = (
    "Left: the loss along the line through two networks, which the dotted lines mark. Then how far "
    f"the loss rises above its mean inside the basin with noise {SIGMA} on every weight beyond the "
    "ends, in random directions and along the line. A basin is flat inside and has walls: curves "
    "that rise late have their walls far away. Pairs without a common basin have no such curves."
)
NOTE = (
    f"{EPSILON}: mean deviation of the loss inside; {DELTA}: l2 length of the noise that raises "
    f"the loss by 2{EPSILON}, literally and counting only what noise adds to the ends; from, to: "
    "the ends of the basin, in distances of the two networks from the first. "
    f"Brackets: {OVER_PAIRS}; n counts replicates."
)


def basins_part(scope: Scope) -> Part | None:
    """The curves of every pair, then (epsilon, delta) beside the paper's."""
    title, slug = "Basins", "basins"
    if not scope.has("basin"):
        return None
    views = scope.views("basin", "split", "of", "lambda", "sigma")
    blocks: list[Block] = []
    for view in views:
        blocks += view_blocks(scope, view, title_of(view, views))
    if not blocks:
        return missing_part(title, slug, views)
    return Part(title, slug, [*blocks, paper(BASINS)], view_notes(views))


def view_blocks(scope: Scope, view: View, begin: str) -> list[Block]:
    """Figure and table of one set of parameters."""
    blocks: list[Block] = []
    if lines := basin_panels(scope, view.rows):
        description = "loss along the line through two networks, and its rise beyond the basin"
        figure = panel_figure(f"{scope.anchor}-{view.labels[0]}-curves", description, lines)
        told = f"{begin}{CAPTION} Bands: {OVER_PAIRS}; {counted(view.rows, 'images')}."
        blocks.append(Drawing(figure, told))
    if table := basin_table(scope, view.rows):
        blocks.append(Listing(f"{begin}({EPSILON}, {DELTA}) of the basin around each pair", table))
    return blocks


def basin_panels(scope: Scope, rows: pd.DataFrame) -> list[Sequence[Panel | None]]:
    """A row of panels for each place."""
    lines: list[Sequence[Panel | None]] = []
    for place in places_of(rows, scope.suite):
        here = place.of(rows)
        here = here[here["metric"].isin(CURVES)]
        found, pairs = aggregate(here, [*PAIR, "metric", "lambda", "sigma"]), pairs_in(here, scope)
        panels: list[Panel | None] = []
        for metric, title in CURVES.items():
            axis = "lambda" if metric == "loss" else "sigma"
            known = sorted(ordered(here, axis))
            x = known if metric == "loss" else [at for at in known if at > 0]
            lookup = {key_of(key, axis): one for key, one in found.items()}
            series = series_of(pairs, lookup, [(metric, at) for at in x], x)
            if not series:
                continue
            panels.append(
                Panel(
                    title=f"{place.name}: {title}",
                    series=series,
                    x_label="\N{GREEK SMALL LETTER LAMDA}" if metric == "loss" else SIGMA,
                    log=("y" if steep(series) else "") if metric == "loss" else "x",
                    marks=(0, 1) if metric == "loss" else (),
                )
            )
        if panels:
            lines.append(panels)
    return lines


def key_of(key: tuple[object, ...], axis: str) -> tuple[object, ...]:
    """The key without the axis that its curve does not have."""
    return (*key[:3], key[3] if axis == "lambda" else key[4])


def basin_table(scope: Scope, rows: pd.DataFrame) -> Table | None:
    """A row for each pair of each place."""
    lines = []
    numbers = rows[rows["metric"].isin(NUMBERS)]
    for place in places_of(numbers, scope.suite):
        here = place.of(numbers)
        found = aggregate(here, [*PAIR, "of", "split", "metric"])
        for pair in pairs_in(here, scope):
            for of, split in dict.fromkeys(key[2:4] for key in found if key[:2] == pair.key):
                cells = [exact_cell(found.get((*pair.key, of, split, one))) for one in NUMBERS]
                lines.append((*map(Cell, (place.name, pair.name, f"{of}, {split}")), *cells))
    head = ("target", "pair", "of", *NUMBERS.values())
    return Table(head, tuple(lines), NOTE) if lines else None
