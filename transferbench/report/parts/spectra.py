"""Spectra of the weights, and whether the first filters follow the axes of the data."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from transferbench.report.aggregates import View, aggregate, ordered, places_of
from transferbench.report.panels import Panel, panel_figure
from transferbench.report.parts.networks import Compared, arms_in, comparison, series_of
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
from transferbench.specs import HEAD
from transferbench.suite import SOURCE

__all__ = ["METRICS", "misalignment_part", "spectra_part"]

RANKS = {
    "stable_rank": "stable rank",
    "effective_rank": "effective rank",
    "spectral_norm": "spectral norm",
    "frobenius_norm": "Frobenius norm",
}
METRICS = {
    "spectrum": frozenset({"singular_value", *RANKS}),
    "misalignment": frozenset({"misalignment", "misalignment_random", "shrinkage"}),
}
MOST_LAYERS, COLUMNS = 12, 4
ROW = "\N{SYMBOL FOR UNIT SEPARATOR}"

SPECTRA = (
    "The largest singular values of each layer's weight, a convolution taken as a matrix of "
    "outputs by inputs, the mean over networks. Where P-T lies on P, fine-tuning kept the "
    "spectrum that pre-training gave."
)
PROFILE = (
    "Stable rank (squared Frobenius norm over squared largest singular value) and effective rank "
    "(exponential of the entropy of the singular values) of each layer, from input to output: how "
    "many directions count."
)
MISALIGNED = (
    "Misalignment of the first layer's filters with the principal axes of the image patches that "
    "they read: 0 where their covariance has the same axes. The scale is that of the same filters "
    "turned at random: a value below it says that the filters have taken up the axes of the data."
)


def spectra_part(scope: Scope) -> Part | None:
    """Singular values layer by layer, ranks over depth, and their table."""
    title, slug = "Spectra of weights", "spectra"
    if not scope.has("spectrum"):
        return None
    views = scope.views("spectrum", "module", "layer", "of", "index")
    blocks: list[Block] = []
    for view in views:
        if view.rows["value"].notna().any():
            blocks += view_blocks(scope, view, title_of(view, views))
    if not blocks:
        return missing_part(title, slug, views)
    return Part(title, slug, blocks, view_notes(views))


def states_in(rows: pd.DataFrame, scope: Scope) -> tuple[pd.DataFrame, list[Compared]]:
    """The rows with the name of each state, and those states: P, P-T, RI, RI-T and others.

    What the scored arm starts from is P but for its head, which is drawn; what the baseline
    starts from is RI.
    """
    starts = {scope.pair[0]: SOURCE, scope.pair[1]: "RI"}
    states: dict[str, Compared] = {}
    named = {}
    for arm in arms_in(rows, scope):
        for of in ordered(rows[rows["initialization"] == arm.name], "of"):
            begins = of == "init"
            name = starts.get(arm.name, f"{arm.name} at its start") if begins else arm.name
            if not begins and of != "final":
                name = f"{arm.name} at {of}"
            named[f"{arm.name}{ROW}{of}"] = name
            states.setdefault(
                name, arm._replace(key=(name,), name=name, dash="--" if begins else "-")
            )
    # By text, as the epochs among the states are numbers.
    places = rows["initialization"] + ROW + rows["of"].astype(str)
    stated = rows.assign(state=places.map(named))
    source = stated["state"] == SOURCE
    # The source is one network, however many trials start from it.
    once = stated["replicate"] == stated.loc[source, "replicate"].min()
    stated = stated[~source | (once & (stated["module"] != HEAD))]
    return stated, list(states.values())


def view_blocks(scope: Scope, view: View, begin: str) -> list[Block]:
    """Figures and table of one set of parameters."""
    rows, states = states_in(view.rows, scope)
    name = f"{scope.anchor}-{view.labels[0]}"
    singular = rows[rows["metric"] == "singular_value"]
    blocks: list[Block] = []
    if not singular.empty:
        lines, left = singular_panels(scope, singular, states)
        told = f"{begin}{SPECTRA} Bands: {OVER_NETWORKS}; {counted(singular, '')}."
        if left:
            told += f" {left} more layers lie between those shown; the records hold all of them."
        figure = panel_figure(f"{name}-values", "singular values of each layer", lines, 1.3)
        blocks.append(Drawing(figure, told))
    told = f"{begin}{PROFILE} Bars: {OVER_NETWORKS}; {counted(rows, '')}."
    figure = panel_figure(
        f"{name}-ranks", "stable and effective rank of each layer", rank_panels(scope, rows, states)
    )
    blocks.append(Drawing(figure, told))
    if table := rank_table(scope, rows, states):
        blocks.append(Listing(f"{begin}Stable and effective rank of each layer", table))
    return blocks


def singular_panels(
    scope: Scope, rows: pd.DataFrame, states: Sequence[Compared]
) -> tuple[list[Sequence[Panel | None]], int]:
    """A panel for each layer, of many an even choice; and how many were left out."""
    every = ordered(rows, "layer")
    step = -(-len(every) // MOST_LAYERS)
    layers = every[::step]
    lines: list[Sequence[Panel | None]] = []
    chosen = rows[rows["layer"].isin(layers)]
    for place in places_of(chosen, scope.suite):
        found = aggregate(place.of(chosen), ["state", "layer", "index"])
        indices = sorted(ordered(chosen, "index"))
        panels = [
            Panel(
                title=f"{place.name}: {layer}",
                series=series_of(states, found, [(layer, at) for at in indices], indices),
                x_label="index",
            )
            for layer in layers
        ]
        lines += [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    return lines, len(every) - len(layers)


def rank_panels(
    scope: Scope, rows: pd.DataFrame, states: Sequence[Compared]
) -> list[Sequence[Panel | None]]:
    """Both ranks over depth, a row for each place."""
    layers = ordered(rows, "layer")
    lines: list[Sequence[Panel | None]] = []
    for place in places_of(rows, scope.suite):
        found = aggregate(place.of(rows), ["state", "metric", "layer"])
        lines.append(
            [
                Panel(
                    title=f"{place.name}: {RANKS[metric]}",
                    series=series_of(states, found, [(metric, layer) for layer in layers]),
                    x_label="",
                    bars=True,
                    ticks=[layer.removesuffix(".weight") for layer in layers],
                )
                for metric in ("stable_rank", "effective_rank")
            ]
        )
    return lines


def rank_table(scope: Scope, rows: pd.DataFrame, states: Sequence[Compared]) -> Table | None:
    """A row for each layer and measure of each place, a column for each state."""
    lines = [
        ((place.name, layer, RANKS[metric]), (metric, layer), found)
        for place in places_of(rows, scope.suite)
        for found in [aggregate(place.of(rows), ["state", "metric", "layer"])]
        for layer in ordered(rows, "layer")
        for metric in ("stable_rank", "effective_rank")
    ]
    note = f"Brackets: {OVER_NETWORKS}."
    return comparison(("target", "layer", "measure"), lines, states, exact_cell, note)


# --- misalignment -----------------------------------------------------------------------------


def misalignment_part(scope: Scope) -> Part | None:
    """A table: each state beside the same filters on random axes."""
    title, slug = "Misalignment of the first filters", "misalignment"
    if not scope.has("misalignment"):
        return None
    views = scope.views("misalignment", "module", "layer", "of")
    blocks: list[Block] = []
    for view in views:
        known = view.rows[view.rows["layer"].notna()]
        if not known["value"].notna().any():
            continue
        rows, states = states_in(known, scope)
        if table := misalignment_table(scope, rows, states):
            begin = title_of(view, views)
            blocks.append(Listing(f"{begin}Misalignment with the axes of the data", table))
    if not blocks:
        return missing_part(title, slug, views)
    return Part(title, slug, blocks, view_notes(views))


def misalignment_table(
    scope: Scope, rows: pd.DataFrame, states: Sequence[Compared]
) -> Table | None:
    """A row for each measure of each place, a column for each state."""
    measures = {
        "misalignment": "misalignment",
        "misalignment_random": "of the same filters on random axes",
        "shrinkage": "shrinkage of their covariance",
    }
    lines = [
        ((place.name, layer, text), (metric, layer), found)
        for place in places_of(rows, scope.suite)
        for found in [aggregate(place.of(rows), ["state", "metric", "layer"])]
        for layer in ordered(rows, "layer")
        for metric, text in measures.items()
    ]
    note = f"{MISALIGNED} Brackets: {OVER_NETWORKS}."
    return comparison(("target", "layer", "measure"), lines, states, exact_cell, note)
