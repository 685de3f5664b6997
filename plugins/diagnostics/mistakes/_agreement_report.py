"""Common and uncommon mistakes: how alike the errors of two networks are."""

from __future__ import annotations

from collections.abc import Sequence

from transferbench import reporting as rp

__all__ = ["mistakes"]

KAPPA = "\N{GREEK SMALL LETTER KAPPA}"
COLUMNS = {
    "kappa": (f"{KAPPA} of errors", rp.decimal_cell),
    "error_jaccard": ("error Jaccard", rp.decimal_cell),
    "agreement": ("equal predictions", rp.decimal_cell),
    "uncommon_a": ("only a wrong", rp.count_cell),
    "n_common": ("both wrong", rp.count_cell),
    "uncommon_b": ("only b wrong", rp.count_cell),
}
SIZES = ("uncommon_a", "n_common", "uncommon_b")
SETS = ("uncommon_a", "common", "uncommon_b")

CAPTION = (
    "Pairs of networks on the same test images, without perturbation. Third panel: mean number of "
    "test images that only the first network, both (grey), or only the second gets wrong. Fourth: "
    "entropy of an independent reference network on those sets, in the same colours."
)
WORDS = {
    f"{KAPPA} of errors": "agreement about which images are wrong, corrected for the agreement "
    "that two networks of these accuracies have by chance (Cohen)",
    "error Jaccard": "images both get wrong, divided by images at least one gets wrong",
    "reference entropy": "how unsure an independent network is about a set of images: a stand-in "
    "for their ambiguity",
}


@rp.part_by_view("Common and uncommon mistakes", WORDS)
def mistakes(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """Agreement of errors, sizes of the sets of mistakes and their ambiguity, by pair of arms."""
    # Of a multi-label task the mean over its labels, which has no label.
    rows = view.rows.select(label=None, metric=[*COLUMNS, "reference_entropy"])
    scored = rows.select(perturbation=scope.suite.scoring.perturbation).valued()
    if panels := [_panels(scope, *condition) for condition in scope.conditions(scored)]:
        most = max(len(line[0].ticks) for line in panels)
        figure = rp.PanelFigure("common and uncommon mistakes", panels, height=0.3 * most + 0.1)
        yield view.drawing(figure, CAPTION, scored.select(metric=list(COLUMNS)), "test images")
    lines, note = scope.pair_lines(rows), "The last three columns count test images."
    table = rp.comparison(("target", "pair"), lines, *rp.by_metric(COLUMNS), note)
    yield view.listing("Agreement of errors by pair of arms", table)


def _panels(scope: rp.Scope, condition: rp.Condition, here: rp.Measurements) -> list[rp.Panel]:
    """The four panels of one target, a row for each pair."""
    pairs = scope.pairs(here)
    kappa, jaccard = (
        [_point(row, pair, here.select(metric=metric), pair.style.color)
         for row, pair in enumerate(pairs)]
        for metric in ("kappa", "error_jaccard")
    )  # fmt: skip
    sizes = [here.select(metric=metric) for metric in SIZES]
    entropies = [here.select(metric="reference_entropy", set=name) for name in SETS]
    panels = (
        (f"error agreement, {KAPPA}", kappa, (0,)),
        ("error Jaccard", jaccard, (0,)),
        ("mistakes: only a, both, only b", _points_of_sets(scope, pairs, sizes), (0,)),
        ("reference entropy, nats", _points_of_sets(scope, pairs, entropies), ()),
    )
    ticks = [pair.name for pair in pairs]
    return [
        rp.Panel(f"{condition.name}: {title}", series,
                 bars=True, ticks=ticks, across=True, levels=levels)
        for title, series, levels in panels
    ]  # fmt: skip


def _points_of_sets(
    scope: rp.Scope, pairs: Sequence[rp.Compared], sets: Sequence[rp.Measurements]
) -> list[rp.Series]:
    """For each pair a point for what only a, both, and only b get wrong."""
    colors = {arm: style.color for arm, style in rp.arm_styles(scope.suite).items()}
    series = []
    for row, pair in enumerate(pairs):
        a, b = (colors.get(str(arm), rp.INK) for arm in pair.labels.values())
        for shift, color, rows in zip((-0.2, 0.0, 0.2), (a, rp.MUTED, b), sets, strict=True):
            series.append(_point(row + shift, pair, rows, color))
    return series


def _point(row: float, pair: rp.Compared, rows: rp.Measurements, color: str) -> rp.Series:
    mean = pair.of(rows)
    return rp.Series("", [row], [mean.summary if mean else None], rp.LineStyle(color, "o", ""))
