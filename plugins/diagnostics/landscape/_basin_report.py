"""The basin that two networks share: its (epsilon, delta), and the curves behind them."""

from __future__ import annotations

from collections.abc import Sequence

from transferbench import reporting as rp

__all__ = ["basins"]

EPSILON = "\N{GREEK SMALL LETTER EPSILON}"
DELTA = "\N{GREEK SMALL LETTER DELTA}"
LAMBDA = "\N{GREEK SMALL LETTER LAMDA}"
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
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
PUBLISHED = rp.Published.parse(
    "ImageNet \N{RIGHTWARDS ARROW} DomainNet", "Section 3.3", "printed", f"""\
target    | pair      | {EPSILON}      | {DELTA}
real      | P-T & P-T | 0.0038 | 49.14
clipart   | P-T & P-T | 0.0054 | 98.28
quickdraw | P-T & P-T | 0.0034 | 49.14
""")  # fmt: skip


@rp.part("Basins")
def basins(scope: rp.Scope, views: Sequence[rp.View]) -> rp.Blocks:
    """The curves of every pair, then (epsilon, delta) beside the paper's."""
    for view in views:
        curves = view.rows.select(metric=list(CURVES))
        panels = [_panels(scope, *condition) for condition in scope.conditions(curves)]
        if rows := [row for row in panels if row]:
            description = "loss along the line through two networks, and its rise beyond the basin"
            yield view.drawing(rp.PanelFigure(description, rows), CAPTION)
        lines = scope.pair_lines(view.rows.select(metric=list(NUMBERS)), "of", "split")
        compared = [rp.Compared(name, {"metric": metric}) for metric, name in NUMBERS.items()]
        table = rp.comparison(("target", "pair", "of", "split"), lines, compared, note=NOTE)
        yield view.listing(f"({EPSILON}, {DELTA}) of the basin around each pair", table)
    yield PUBLISHED.listing


def _panels(scope: rp.Scope, condition: rp.Condition, here: rp.Measurements) -> list[rp.Panel]:
    """The curves of one condition, those that were measured."""
    panels = []
    for metric, title in CURVES.items():
        rows = here.select(metric=metric)
        along = f"{condition.name}: {title}", rows, scope.pairs(here)
        if metric == LOSS:
            panel = rp.profile(*along, "lambda", x_label=LAMBDA, log="steep", marks=(0, 1))
        else:
            sigmas = sorted(sigma for sigma in rows.distinct("sigma") if sigma > 0)
            panel = rp.profile(*along, "sigma", sigmas, x_label=SIGMA, log="x")
        panels.append(panel)
    return [panel for panel in panels if panel.series]
