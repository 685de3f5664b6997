"""Spectra of the weights, and the misalignment of the first filters with the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from transferbench import reporting as rp
from transferbench.specs import HEAD
from transferbench.suite import SOURCE

__all__ = ["misalignment", "spectra", "states_in"]

RANKS = {"stable_rank": "stable rank", "effective_rank": "effective rank"}
MISALIGNED = {
    "misalignment": "misalignment",
    "misalignment_random": "of the same filters on random axes",
    "shrinkage": "shrinkage of their covariance",
}
MOST_LAYERS, COLUMNS = 12, 4

VALUES = (
    "The largest singular values of each layer's weight, a convolution taken as a matrix of "
    "outputs by inputs, the mean over networks. Where P-T lies on P, fine-tuning kept the "
    "spectrum that pre-training gave."
)
PROFILE = (
    "Stable rank (squared Frobenius norm over squared largest singular value) and effective rank "
    "(exponential of the entropy of the singular values) of each layer, from input to output: how "
    "many directions count."
)
NOTE = (
    "Misalignment of the first layer's filters with the principal axes of the image patches that "
    "they read: 0 where their covariance has the same axes. The scale is that of the same filters "
    "rotated at random: a value below it means that the filters are aligned with the data."
)


def states_in(scope: rp.Scope, rows: rp.Measurements) -> list[rp.Compared]:
    """The states that were measured: P-T, P, RI-T, RI and the rest.

    What the scored arm starts from is P but for its head, which is drawn; what the baseline
    starts from is RI.
    """
    starts = {scope.pair[0]: SOURCE, scope.pair[1]: "RI"}
    states: dict[str, rp.Compared] = {}
    for arm in scope.arms(rows):
        own = rows.select(**arm.labels)
        for of in own.distinct("of"):
            name = arm.name if of == "final" else f"{arm.name} at {of}"
            if of == "init":
                name = starts.get(arm.name, f"{arm.name} at its start")
            labels = {**arm.labels, "of": of}
            if name == SOURCE:
                # A source network is one, however many trials start from it.
                modules = [None, *(m for m in own.distinct("module") if m != HEAD)]
                labels |= {"replicate": own.first_replicates, "module": modules}
            style = arm.style._replace(dash="--" if of == "init" else "-")
            states.setdefault(name, rp.Compared(name, labels, style))
    return list(states.values())


# --- spectra ----------------------------------------------------------------------------------


@rp.part_by_view("Spectra of weights")
def spectra(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """Singular values layer by layer, ranks over depth, and their table."""
    states = states_in(scope, view.rows)
    singular = view.rows.select(metric="singular_value")
    layers = singular.distinct("layer")
    drawn = layers[:: max(-(-len(layers) // MOST_LAYERS), 1)]
    lines: list[Sequence[rp.Panel]] = []
    for condition, here in scope.conditions(singular):
        panels = [
            rp.profile(f"{condition.name}: {layer}", here.select(layer=layer), states, "index",
                       x_label="index")
            for layer in drawn
        ]  # fmt: skip
        lines += rp.in_rows(panels, COLUMNS)
    if lines:
        text = VALUES
        if left := len(layers) - len(drawn):
            text += f" {left} more layers lie between those drawn; the records hold all of them."
        figure = rp.PanelFigure("singular values of each layer", lines, height=1.3)
        yield view.drawing(figure, text, singular, "")
    lines = [
        [_ranks(f"{condition.name}: {name}", here.select(metric=metric), states)
         for metric, name in RANKS.items()]
        for condition, here in scope.conditions(view.rows)
    ]  # fmt: skip
    figure = rp.PanelFigure("stable and effective rank of each layer", lines)
    yield view.drawing(figure, PROFILE, items="")
    table = _table(scope, view.rows, RANKS)
    yield view.listing("Stable and effective rank of each layer", table)


def _ranks(title: str, rows: rp.Measurements, states: Sequence[rp.Compared]) -> rp.Panel:
    """A rank over depth."""
    panel = rp.profile(title, rows, states, "layer")
    return replace(panel, ticks=[tick.removesuffix(".weight") for tick in panel.ticks])


def _table(
    scope: rp.Scope, rows: rp.Measurements, measures: Mapping[str, str], note: str = ""
) -> rp.Table | None:
    """A row for each layer and measure of each condition, a column for each state."""
    lines = scope.lines(rows, layer=None, metric=measures)
    head = ("target", "layer", "measure")
    return rp.comparison(head, lines, states_in(scope, rows), note=note)


# --- misalignment -----------------------------------------------------------------------------


@rp.part_by_view("Misalignment of the first filters")
def misalignment(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """A table: each state beside the same filters on random axes."""
    table = _table(scope, view.rows, MISALIGNED, NOTE)
    yield view.listing("Misalignment with the axes of the data", table)
