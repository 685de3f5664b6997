"""Optimisation speed of the scored pair under each perturbation, as in Figure 3 of the paper."""

from __future__ import annotations

from collections.abc import Iterator

from transferbench import reporting as rp
from transferbench.specs import ReportPart

__all__ = ["SPEED_PART"]

CAPTION = (
    "Optimisation speed (train metric averaged over the epochs) and the speed gain, in the suite's "
    "order of perturbations; gains are paired by replicate. Dotted: no gain."
)
WORDS = {"speed": "the train metric, clean images in eval mode, averaged over the epochs"}


def speed_part(scope: rp.Scope) -> rp.Part:
    """A row of panels for each target, then a row of a table for each condition."""
    return scope.part_by_view("Optimisation speed", _blocks, WORDS)


def _blocks(scope: rp.Scope, view: rp.View) -> Iterator[rp.Block | None]:
    if figure := scope.gain_figure(view.rows, "speed"):
        yield view.drawing(figure, CAPTION, items="")
    compared = [*scope.arms(view.rows), scope.difference()]
    lines = scope.lines(view.rows)
    table = rp.comparison(("target",), lines, compared, rp.percent_cell, "In %.")
    yield view.listing("Optimisation speed in every cell", table)


SPEED_PART = ReportPart(build=speed_part, metrics=frozenset({"speed"}))
