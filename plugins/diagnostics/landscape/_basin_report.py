"""The basin that two networks share: its (epsilon, delta), and the curves behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from transferbench import reporting as rp
from transferbench.specs import ReportPart

__all__ = ["BASIN_PART"]

EPSILON, DELTA, LAMBDA, SIGMA = (
    "\N{GREEK SMALL LETTER EPSILON}",
    "\N{GREEK SMALL LETTER DELTA}",
    "\N{GREEK SMALL LETTER LAMDA}",
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
LOSS = "loss"
CURVES = {
    LOSS: "loss along the line",
    "escape_noise": "above the mean: random directions",
    "escape_extrapolation": "above the mean: beyond the ends",
}

CAPTION = (
    "Left: the loss along the line through two networks, which the dotted lines mark. Then how far "
    f"the loss rises above its mean inside the basin with noise {SIGMA} on every weight beyond the "
    "ends, in random directions and along the line. A basin is flat inside and has walls: curves "
    "that rise late have their walls far away. Pairs without a common basin have no such curves."
)
NOTE = (
    f"{EPSILON}: mean deviation of the loss inside; {DELTA}: l2 length of the noise that raises "
    f"the loss by 2{EPSILON}, literally and counting only what noise adds to the ends; from, to: "
    "the ends of the basin, in distances of the two networks from the first."
)
PUBLISHED = rp.Published(
    "ImageNet \N{RIGHTWARDS ARROW} DomainNet",
    "Section 3.3",
    "printed",
    ("target", "pair", EPSILON, DELTA),
    (
        ("real", "P-T & P-T", "0.0038", "49.14"),
        ("clipart", "P-T & P-T", "0.0054", "98.28"),
        ("quickdraw", "P-T & P-T", "0.0034", "49.14"),
    ),
)


def basins_part(scope: rp.Scope) -> rp.Part:
    """The curves of every pair, then (epsilon, delta) beside the paper's."""

    def blocks(scope: rp.Scope, views: Sequence[rp.View]) -> Iterator[rp.Block | None]:
        for view in views:
            yield from _blocks(scope, view)
        yield PUBLISHED.listing

    return scope.part("Basins", blocks)


def _blocks(scope: rp.Scope, view: rp.View) -> Iterator[rp.Block | None]:
    curves = view.rows.select(metric=list(CURVES))
    lines = [_panels(scope, *condition) for condition in scope.conditions(curves)]
    if lines := [panels for panels in lines if panels]:
        description = "loss along the line through two networks, and its rise beyond the basin"
        yield view.drawing(rp.PanelFigure(description, lines), CAPTION)
    yield view.listing(f"({EPSILON}, {DELTA}) of the basin around each pair", _table(scope, view))


def _panels(scope: rp.Scope, condition: rp.Condition, here: rp.Measurements) -> list[rp.Panel]:
    """The curves of one condition, those that were measured."""
    panels = []
    for metric, title in CURVES.items():
        column = "lambda" if metric == LOSS else "sigma"
        rows = here.select(metric=metric)
        points = sorted(at for at in rows.distinct(column) if metric == LOSS or at > 0)
        heading = f"{condition.name}: {title}"
        panel = rp.profile(heading, rows, scope.pairs(here), column, points)
        if metric == LOSS:
            panel = replace(panel, x_label=LAMBDA, log="y" if panel.steep else "", marks=(0, 1))
        else:
            panel = replace(panel, x_label=SIGMA, log="x")
        panels += [panel] if panel.series else []
    return panels


def _table(scope: rp.Scope, view: rp.View) -> rp.Table | None:
    """A row for each pair of each condition."""
    numbers = view.rows.select(metric=list(NUMBERS))
    lines = scope.pair_lines(numbers, "of", "split")
    compared = [rp.Compared(name, {"metric": metric}) for metric, name in NUMBERS.items()]
    return rp.comparison(("target", "pair", "of", "split"), lines, compared, note=NOTE)


BASIN_PART = ReportPart(build=basins_part, metrics=frozenset({*NUMBERS, *CURVES}))
