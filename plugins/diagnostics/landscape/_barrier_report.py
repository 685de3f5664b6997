"""Figures 4 and 16 of the paper: the barrier between two networks, and the line beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from transferbench import reporting as rp

__all__ = ["barriers"]

BARRIER = "barrier"
SHARED_START = "same-random"
HEIGHTS = {
    "barrier_metric_sup": ("B_sup, points", rp.percent_cell),
    "barrier_metric_mid": ("B_mid, points", rp.percent_cell),
    "barrier_metric_relative_sup": ("B_sup, % of ends", rp.percent_cell),
    "barrier_metric_relative_mid": ("B_mid, % of ends", rp.percent_cell),
    "barrier_loss_sup": ("B_sup, nats", rp.exact_cell),
    "barrier_loss_mid": ("B_mid, nats", rp.exact_cell),
}
CURVES = ("metric", "loss")
METRIC_AXES = "%", rp.PanelOptions(scale="percent")
LOSS_AXES = "nats", rp.PanelOptions(log="steep")
LAMBDA = "\N{GREEK SMALL LETTER LAMDA}"
WAYS = {
    "before": ("as they are", rp.MUTED),
    "matched": ("channels matched", rp.PALETTE[2]),
    "repaired": ("matched, activations repaired", rp.PALETTE[3]),
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
NOTE = (
    "B_sup: the largest drop of the metric (rise of the loss) below (above) the chord between "
    "the ends; B_mid: the same at the midpoint, negative where the mean of two networks is "
    "better than they are."
)
PUBLISHED = rp.Published.parse(
    "ImageNet \N{RIGHTWARDS ARROW} CheXpert, DomainNet", "Figures 4 and 16", "digitised", """\
target                   | pair                       | ends       | midpoint
real, accuracy in %      | P-T & P-T                  | 78.4       | 79.3
real, accuracy in %      | RI-T & RI-T                | 61.5       | 0.5
real, accuracy in %      | P-T & RI-T                 | 78.4, 61.5 | 0.5
real, accuracy in %      | RI-T & RI-T, same start    | -          | 6.5
clipart, accuracy in %   | RI-T & RI-T, same start    | -          | 5.5
quickdraw, accuracy in % | RI-T & RI-T, same start    | -          | 16
CheXpert, AUC, best      | P-T & P-T                  | .787       | .787
CheXpert, AUC, final     | P-T & P-T                  | .735       | .75
CheXpert, AUC, best      | RI-T & RI-T                | .77        | .53
CheXpert, AUC, final     | RI-T & RI-T                | .70        | .52
CheXpert, AUC            | RI-T best & final, one run | .77, .70   | .635
""")  # fmt: skip


@rp.part("Barriers between solutions")
def barriers(scope: rp.Scope, views: Sequence[rp.View]) -> rp.Blocks:
    """The barriers of every pair, matched ones beside them, then the paper's."""
    for view in views:
        yield from (_plain if view.plugin == BARRIER else _aligned)(scope, view)
    yield PUBLISHED.listing


def _plain(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """The line itself, the control of a shared start, the extrapolation, and the heights."""
    curves = view.rows.select(metric=CURVES)
    inside = curves.select(**{"lambda": [at for at in curves.distinct("lambda") if 0 <= at <= 1]})
    pairs = scope.pairs(view.rows)
    shared = [pair for pair in pairs if _starts_together(scope, pair)]
    apart = [pair for pair in pairs if pair not in shared]
    for text, rows, drawn in (
        (LINE, inside, apart),
        (SHARED, inside, [*apart[:2], *shared] if shared else []),
        (BEYOND, curves, pairs if len(inside) < len(curves) else []),
    ):
        lines = [
            [
                _curve(f"{condition.name}: {split}", here.select(split=split), drawn, metric)
                for metric in CURVES
                for split in here.distinct("split")
            ]
            for condition, here in scope.conditions(rows)
        ]
        lines = [panels for panels in lines if any(panel.series for panel in panels)]
        if lines:
            yield view.drawing(rp.PanelFigure(_description(drawn), lines), text, rows)
    yield view.listing("Height of the barriers", _heights(scope, view, "split"))


def _starts_together(scope: rp.Scope, pair: rp.Compared) -> bool:
    """Whether both networks start from one random draw that all replicates share."""
    arms = set(pair.labels.values())
    use = scope.suite.initializations.get(str(next(iter(arms))))
    return len(arms) == 1 and use is not None and use.name == SHARED_START


def _aligned(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """The curves of each pair before and after matching, and the heights of all."""
    ways = [
        rp.Compared(text, {"alignment": way}, rp.LineStyle(color, ""))
        for way, (text, color) in WAYS.items()
    ]
    curves = view.rows.select(metric=CURVES)
    split = curves.distinct("split")[-1:]
    lines: list[Sequence[rp.Panel]] = []
    for condition, here in scope.conditions(curves.select(split=split)):
        panels = [
            _curve(f"{condition.name}, {pair.name}: {split[0]}", here.select(**pair.labels), ways,
                   metric, log="", marks=())
            for pair in scope.pairs(here) for metric in CURVES
        ]  # fmt: skip
        lines += rp.in_rows(panels, 4)
    if lines:
        description = f"before and after matching: {_description(scope.pairs(view.rows))}"
        yield view.drawing(rp.PanelFigure(description, lines), MATCHED, curves)
    heights = _heights(scope, view, "split", "alignment")
    yield view.listing("Height of the barriers before and after matching", heights)


def _description(pairs: Sequence[rp.Compared]) -> str:
    return f"metric and loss on the line between {', '.join(pair.name for pair in pairs)}"


def _curve(
    name: str,
    rows: rp.Measurements,
    lines: Sequence[rp.Compared],
    metric: str,
    **options: Unpack[rp.PanelOptions],
) -> rp.Panel:
    """Metric or loss along the line; dotted lines mark the networks where it goes beyond them."""
    own = rows.select(metric=metric)
    unit, axes = METRIC_AXES if metric == "metric" else LOSS_AXES
    marks = (0, 1) if any(not 0 <= at <= 1 for at in own.distinct("lambda")) else ()
    drawn: rp.PanelOptions = {"x_label": LAMBDA, "marks": marks, **axes, **options}
    return rp.profile(f"{name} {metric}, {unit}", own, lines, "lambda", **drawn)


def _heights(scope: rp.Scope, view: rp.View, *columns: str) -> rp.Table | None:
    """B_sup and B_mid of metric and loss; ``columns`` tell the rows of a pair apart."""
    compared, write = rp.by_metric(HEIGHTS)
    midpoint = rp.Compared("midpoint, %", {"metric": "metric", "lambda": 0.5})
    lines, head = scope.pair_lines(view.rows, *columns), ("target", "pair", *columns)
    return rp.comparison(head, lines, [midpoint, *compared], [rp.percent_cell, *write], NOTE)
