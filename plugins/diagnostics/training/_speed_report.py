"""Optimisation speed of the scored pair under each perturbation, as in Figure 3 of the paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from transferbench import reporting
from transferbench.specs import ReportPart

__all__ = ["SPEED_PART"]

CAPTION = (
    "Optimisation speed (train metric averaged over the epochs) and the speed gain, in the suite's "
    "order of perturbations; gains are paired by replicate. Dotted: no gain."
)
WORDS = {"speed": "the train metric, clean images in eval mode, averaged over the epochs"}


def speed_part(scope: reporting.Scope) -> reporting.Part:
    """A row of panels for each target, then a row of a table for each condition."""
    return scope.part_by_view("Optimisation speed", _blocks, WORDS)


def _blocks(scope: reporting.Scope, view: reporting.View) -> Iterator[reporting.Block | None]:
    scored = view.rows.select(initialization=scope.pair)
    lines = []
    for target, labels, here in scope.by_perturbation(scored):
        speed, gain = (
            reporting.profile(f"{target}: {title}", here, compared, "perturbation", labels)
            for title, compared in (
                ("speed, %", scope.arms(here)),
                ("speed gain, points", [scope.difference()]),
            )
        )
        lines.append([replace(speed, scale="percent"), replace(gain, scale="points", levels=(0,))])
    if lines:
        figure = reporting.PanelFigure("optimisation speed by perturbation", lines, height=2.2)
        yield view.drawing(figure, CAPTION, scored, items="")
    conditions = [
        ((condition.target, condition.perturbation), here)
        for condition, here in scope.conditions(view.rows)
    ]
    compared = [*scope.arms(view.rows), scope.difference()]
    head = ("target", "perturbation")
    table = reporting.comparison(head, conditions, compared, reporting.percent_cell, "In %.")
    yield view.listing("Optimisation speed in every cell", table)


SPEED_PART = ReportPart(build=speed_part, metrics=frozenset({"speed"}))
