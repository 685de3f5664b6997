"""Figures 4 and 16: the barrier on the line between two networks, and what lies beyond its ends."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from transferbench.report.aggregates import Aggregates, Place, View, aggregate, ordered, places_of
from transferbench.report.drawing import MUTED, SERIES
from transferbench.report.panels import Panel, panel_figure, steep
from transferbench.report.parts.networks import PAIR, Compared, pairs_in, series_of
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
    percent_cell,
    title_of,
    view_notes,
)
from transferbench.report.published import BARRIERS
from transferbench.report.tables import Cell, Table

__all__ = ["METRICS", "lines_part"]

HEIGHTS = (
    "barrier_metric_sup",
    "barrier_metric_mid",
    "barrier_metric_relative_sup",
    "barrier_metric_relative_mid",
    "barrier_loss_sup",
    "barrier_loss_mid",
)
CURVES = ("metric", "loss")
METRICS = dict.fromkeys(("barrier", "aligned-barrier"), frozenset({*HEIGHTS, *CURVES}))
LAMBDA = "\N{GREEK SMALL LETTER LAMDA}"
SHARED_START = "same-random"
WAYS = {
    "before": ("as they are", MUTED),
    "matched": ("channels matched", SERIES[2]),
    "repaired": ("matched, activations repaired", SERIES[3]),
}

LINE = (
    f"Figure 4. Metric and loss of the network (1 \N{MINUS SIGN} {LAMBDA}) a + {LAMBDA} b between "
    "two trained networks a and b, the mean over pairs. A curve that stays on the chord between "
    "its ends has no barrier: one basin holds both."
)
SHARED = (
    "Figure 16. The same for networks that start from one random draw. Where their barrier is "
    "lower than that of other random pairs, a shared start explains a part of it; only what is "
    "left to the pre-trained pair is due to pre-training."
)
BEYOND = (
    "Extrapolation: the same lines beyond the two networks, which the dotted lines mark. How far a "
    "curve stays flat outside says how far the basin reaches."
)
MATCHED = (
    "Aligned barrier: the same lines after the channels of b are renumbered to match those of a. "
    "What is left of the barrier is not due to the order of channels."
)


def lines_part(scope: Scope) -> Part | None:
    """The barriers of every pair, matched ones beside them."""
    title, slug = "Barriers between solutions", "barriers"
    if not scope.has(*METRICS):
        return None
    plain = scope.views("barrier", "split", "lambda")
    aligned = scope.views("aligned-barrier", "split", "lambda", "alignment")
    blocks: list[Block] = []
    for view in plain:
        blocks += plain_blocks(scope, view, title_of(view, plain))
    for view in aligned:
        blocks += aligned_blocks(scope, view, title_of(view, aligned))
    if not blocks:
        return missing_part(title, slug, [*plain, *aligned])
    return Part(title, slug, [*blocks, paper(BARRIERS)], view_notes([*plain, *aligned]))


# --- as they are ------------------------------------------------------------------------------


def plain_blocks(scope: Scope, view: View, title: str) -> list[Block]:
    """The line itself, the control of a shared start, the extrapolation, and the heights."""
    curves = view.rows[view.rows["metric"].isin(CURVES)]
    inside = curves[curves["lambda"].between(0, 1)]
    pairs = pairs_in(view.rows, scope)
    shared = [pair for pair in pairs if starts_together(scope, pair)]
    apart = [pair for pair in pairs if pair not in shared]
    control = [*apart[:2], *shared] if shared else []
    beyond = pairs if len(inside) < len(curves) else []
    blocks: list[Block] = []
    for slug, caption, rows, drawn in (
        ("line", LINE, inside, apart),
        ("shared", SHARED, inside, control),
        ("beyond", BEYOND, curves, beyond),
    ):
        name = f"{scope.anchor}-{view.labels[0]}-{slug}"
        if panels := curve_panels(scope, rows, drawn):
            figure = panel_figure(name, f"{slug}: {described(drawn)}", panels)
            told = f"{title}{caption} Bands: {OVER_PAIRS}; {counted(rows, 'images')}."
            blocks.append(Drawing(figure, told))
    if heights := heights_table(scope, view.rows, ["split"]):
        blocks.append(Listing(f"{title}Height of the barriers", heights))
    return blocks


def starts_together(scope: Scope, pair: Compared) -> bool:
    """Whether both networks start from one random draw that all replicates share."""
    use = scope.suite.initializations.get(pair.key[0])
    return len(set(pair.key)) == 1 and use is not None and use.name == SHARED_START


def described(pairs: Sequence[Compared]) -> str:
    """The text alternative of a figure of curves."""
    return f"metric and loss on the line between {', '.join(pair.name for pair in pairs)}"


def curve_panels(
    scope: Scope, rows: pd.DataFrame, pairs: Sequence[Compared]
) -> list[list[Panel | None]]:
    """For each place a row of panels: metric and loss on the images of each split."""
    lines = []
    for place in places_of(rows, scope.suite):
        found = aggregate(place.of(rows), [*PAIR, "metric", "split", "lambda"])
        panels = [
            curve_panel(place, found, pairs, metric, split, sorted(ordered(rows, "lambda")))
            for metric in CURVES
            for split in ordered(rows, "split")
        ]
        if any(panel.series for panel in panels):
            lines.append([*panels])
    return [[*line] for line in lines]


def curve_panel(
    place: Place,
    found: Aggregates,
    pairs: Sequence[Compared],
    metric: str,
    split: str,
    lambdas: Sequence[float],
) -> Panel:
    """One metric on one split."""
    series = series_of(pairs, found, [(metric, split, at) for at in lambdas], lambdas)
    return Panel(
        title=f"{place.name}: {split} {metric}{', %' if metric == 'metric' else ', nats'}",
        series=series,
        x_label=LAMBDA,
        percent=metric == "metric",
        log="y" if metric == "loss" and steep(series) else "",
        marks=(0, 1) if lambdas and (lambdas[0] < 0 or lambdas[-1] > 1) else (),
    )


def heights_table(scope: Scope, rows: pd.DataFrame, by: Sequence[str]) -> Table | None:
    """B_sup and B_mid of metric and loss; ``by``: the coordinates that tell a pair's rows apart."""
    lines = []
    for place in places_of(rows, scope.suite):
        here = place.of(rows)
        found = aggregate(here[here["metric"].isin(HEIGHTS)], [*PAIR, *by, "metric"])
        middle = aggregate(
            here[(here["metric"] == "metric") & (here["lambda"] == 0.5)], [*PAIR, *by]
        )
        for pair in pairs_in(here, scope):
            keys = dict.fromkeys(key[:-1] for key in found if key[:2] == pair.key)
            for key in keys:
                heights = [found.get((*key, metric)) for metric in HEIGHTS]
                lines.append(
                    (
                        *map(Cell, (place.name, pair.name, *map(str, key[2:]))),
                        percent_cell(middle.get(key)),
                        *map(percent_cell, heights[:4]),
                        *map(exact_cell, heights[4:]),
                    )
                )
    head = ("target", "pair", *by, "midpoint, %")
    sizes = ("B_sup, points", "B_mid, points", "B_sup, % of ends", "B_mid, % of ends")
    note = (
        "B_sup: the largest drop of the metric (rise of the loss) below (above) the chord between "
        "the ends; B_mid: the same at the midpoint, negative where the mean of two networks is "
        f"better than they are. Brackets: {OVER_PAIRS}; n counts replicates."
    )
    whole = (*head, *sizes, "B_sup, nats", "B_mid, nats")
    return Table(whole, tuple(lines), note) if lines else None


# --- after matching ---------------------------------------------------------------------------


def aligned_blocks(scope: Scope, view: View, title: str) -> list[Block]:
    """The curves of each pair before and after matching, and the heights of all."""
    curves = view.rows[view.rows["metric"].isin(CURVES)]
    blocks: list[Block] = []
    if panels := aligned_panels(scope, curves):
        pairs = pairs_in(view.rows, scope)
        figure = panel_figure(f"{scope.anchor}-{view.labels[0]}-aligned",
                              f"before and after matching: {described(pairs)}", panels)  # fmt: skip
        told = f"{title}{MATCHED} Bands: {OVER_PAIRS}; {counted(curves, 'images')}."
        blocks.append(Drawing(figure, told))
    if heights := heights_table(scope, view.rows, ["split", "alignment"]):
        blocks.append(Listing(f"{title}Height of the barriers before and after matching", heights))
    return blocks


def aligned_panels(scope: Scope, rows: pd.DataFrame) -> list[list[Panel | None]]:
    """For each place a row: metric and loss of each pair, on the last split, in each way."""
    lines: list[list[Panel | None]] = []
    splits, lambdas = ordered(rows, "split"), sorted(ordered(rows, "lambda"))
    for place in places_of(rows, scope.suite):
        here = place.of(rows)
        found = aggregate(here, ["metric", "split", *PAIR, "alignment", "lambda"])
        panels: list[Panel | None] = []
        for pair in pairs_in(here, scope):
            for metric in CURVES:
                ways = [
                    Compared((metric, splits[-1], *pair.key, way), name, color, "")
                    for way, (name, color) in WAYS.items()
                ]
                series = series_of(ways, found, [(at,) for at in lambdas], lambdas)
                unit = ", %" if metric == "metric" else ", nats"
                panels.append(
                    Panel(
                        title=f"{place.name}, {pair.name}: {splits[-1]} {metric}{unit}",
                        series=series,
                        x_label=LAMBDA,
                        percent=metric == "metric",
                    )
                )
        lines += [panels[start : start + 4] for start in range(0, len(panels), 4)]
    return lines
