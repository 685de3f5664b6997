"""Optimisation speed of the scored pair under each perturbation, as in Figure 3 of the paper."""

from __future__ import annotations

from transferbench import reporting as rp

__all__ = ["speed"]

CAPTION = (
    "Optimisation speed (train metric averaged over the epochs) and the speed gain, in the suite's "
    "order of perturbations; gains are paired by replicate. Dotted: no gain."
)
WORDS = {"speed": "the train metric, clean images in eval mode, averaged over the epochs"}


@rp.part_by_view("Optimisation speed", WORDS)
def speed(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """A row of panels for each target, then a row of a table for each condition."""
    if figure := scope.gain_figure(view.rows, "speed"):
        yield view.drawing(figure, CAPTION, items="")
    compared = [*scope.arms(view.rows), scope.difference()]
    table = rp.comparison(("target",), scope.lines(view.rows), compared, rp.percent_cell, "In %.")
    yield view.listing("Optimisation speed in every cell", table)
