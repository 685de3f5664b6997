"""Common and uncommon mistakes: how alike the errors of two networks are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench import reporting
from transferbench.specs import ReportPart

__all__ = ["AGREEMENT_PART"]

KAPPA = "\N{GREEK SMALL LETTER KAPPA}"
COLUMNS = {
    "kappa": (f"{KAPPA} of errors", reporting.decimal_cell),
    "error_jaccard": ("error Jaccard", reporting.decimal_cell),
    "agreement": ("equal predictions", reporting.decimal_cell),
    "uncommon_a": ("only a wrong", reporting.count_cell),
    "n_common": ("both wrong", reporting.count_cell),
    "uncommon_b": ("only b wrong", reporting.count_cell),
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


def mistakes_part(scope: reporting.Scope) -> reporting.Part:
    """Agreement of errors, sizes of the sets of mistakes and their ambiguity, by pair of arms."""
    return scope.part_by_view("Common and uncommon mistakes", _blocks, WORDS)


def _blocks(scope: reporting.Scope, view: reporting.View) -> Iterator[reporting.Block | None]:
    # Of a multi-label task the mean over its labels, which has no label.
    rows = view.rows.select(label=None, metric=[*COLUMNS, "reference_entropy"])
    scored = rows.select(perturbation=scope.suite.scoring.perturbation).valued()
    if panels := [_panels(scope, *condition) for condition in scope.conditions(scored)]:
        most = max(len(line[0].ticks) for line in panels)
        figure = reporting.PanelFigure(
            "common and uncommon mistakes", panels, height=0.3 * most + 0.1
        )
        yield view.drawing(figure, CAPTION, scored.select(metric=list(COLUMNS)), "test images")
    lines = [
        ((condition.target, condition.perturbation, pair.name), here.select(**pair.labels))
        for condition, here in scope.conditions(rows)
        for pair in scope.pairs(here)
    ]
    compared = [reporting.Compared(name, {"metric": m}) for m, (name, _) in COLUMNS.items()]
    write = [write for _, write in COLUMNS.values()]
    note = "The last three columns count test images."
    table = reporting.comparison(("target", "perturbation", "pair"), lines, compared, write, note)
    yield view.listing("Agreement of errors by pair of arms", table)


def _panels(
    scope: reporting.Scope, condition: reporting.Condition, here: reporting.Measurements
) -> list[reporting.Panel]:
    """The four panels of one target, a row for each pair."""
    pairs = scope.pairs(here)
    names = [pair.name for pair in pairs]
    kappa, jaccard = (
        [_point(row, pair.of(here.select(metric=metric)), pair.style.color)
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
    return [
        reporting.Panel(
            f"{condition.name}: {title}",
            series,
            bars=True,
            ticks=names,
            across=True,
            levels=levels,
        )
        for title, series, levels in panels
    ]


def _points_of_sets(
    scope: reporting.Scope,
    pairs: Sequence[reporting.Compared],
    sets: Sequence[reporting.Measurements],
) -> list[reporting.Series]:
    """For each pair a point for what only a, both, and only b get wrong."""
    styles = reporting.arm_styles(scope.suite)
    series = []
    for row, pair in enumerate(pairs):
        a, b = (styles[arm].color if arm in styles else reporting.INK
                for arm in pair.labels.values())  # fmt: skip
        for shift, color, rows in zip((-0.2, 0.0, 0.2), (a, reporting.MUTED, b), sets, strict=True):
            series.append(_point(row + shift, pair.of(rows), color))
    return series


def _point(row: float, value: reporting.Aggregate | None, color: str) -> reporting.Series:
    style = reporting.LineStyle(color, "o", "")
    return reporting.Series("", [row], [value.summary if value else None], style)


AGREEMENT_PART = ReportPart(build=mistakes_part, metrics=frozenset({*COLUMNS, "reference_entropy"}))
