"""Relative drops by perturbation, and those that Figure 3 of the paper shows."""

from __future__ import annotations

from functools import partial

from transferbench import reporting as rp

__all__ = ["PUBLISHED", "drops"]

CAPTION = (
    "Figure 3. Relative drop of the test metric from the first arm of a pair to the second, in the "
    "suite's order of perturbations. Dotted: no drop."
)
NOTE = (
    "Of the first arm a over the second b, of test metric A: gain, A(a) \N{MINUS SIGN} A(b); "
    "relative drop, 100 gain / A(a); corrected drop, 100 gain / (A(a) \N{MINUS SIGN} chance). A "
    "network did not train where its train metric stays near chance: the drop then measures "
    "trainability."
)
one_decimal = partial(rp.decimal_cell, digits=1)
COLUMNS: dict[str, tuple[str, rp.WriteCell]] = {
    "gain": ("gain, points", rp.points_cell),
    "relative_drop": ("relative drop, %", one_decimal),
    "corrected_drop": ("corrected drop, %", one_decimal),
    "speed_gain": ("speed gain, points", rp.points_cell),
    "train_metric_a": ("train a, %", rp.fraction_cell),
    "train_metric_b": ("train b, %", rp.fraction_cell),
}
# Speed: the mean train accuracy. Test and speed: of P-T / RI-T.
PUBLISHED = rp.Published.parse(
    "ImageNet \N{RIGHTWARDS ARROW} DomainNet", "Figure 3",
    "printed drops, digitised accuracies", """\
block  | real drop, % | real test, % | real speed, % | clipart drop, % | clipart test, % |\
 clipart speed, % | quickdraw drop, % | quickdraw test, % | quickdraw speed, %
pixels | 16 | 8.8 / 7.3   | 81 / 47 | 33 | 10.5 / 6.8  | 80 / 15 | 91 | 10.5 / 1    | 83 / 0
1      | 9  | 13.1 / 12.2 | 83 / 46 | 22 | 13.8 / 10.7 | 81 / 27 | 69 | 9.3 / 2.7   | 79 / 2
2      | 3  | 18.5 / 17.9 | 85 / 68 | 23 | 17.5 / 13.4 | 84 / 46 | 30 | 16.5 / 11.4 | 75 / 70
4      | 12 | 26.6 / 23.5 | 89 / 77 | 22 | 23.5 / 18.2 | 87 / 73 | 23 | 24.7 / 19.2 | 88 / 81
7      | 31 | 32.9 / 22.8 | 90 / 79 | 29 | 27.8 / 20.1 | 89 / 76 | 20 | 26.4 / 21.3 | 89 / 85
8      | 34 | 41.6 / 27.6 | 91 / 80 | 33 | 32.2 / 21.4 | 90 / 76 | 23 | 30.3 / 23.5 | 88 / 78
14     | 45 | 52.0 / 28.6 | 93 / 83 | 38 | 40.9 / 25.2 | 92 / 79 | 24 | 33.9 / 25.9 | 92 / 86
16     | 45 | 56.6 / 30.7 | 94 / 80 | 41 | 45.2 / 26.9 | 92 / 77 | 20 | 37.5 / 30.3 | 92 / 86
28     | 52 | 63.1 / 30.0 | 94 / 84 | 46 | 52.5 / 27.8 | 93 / 80 | 25 | 41.4 / 31.5 | 93 / 87
32     | 45 | 65.5 / 35.8 | 94 / 81 | 45 | 56.3 / 30.7 | 94 / 77 | 18 | 44.7 / 36.8 | 93 / 86
56     | 52 | 69.9 / 33.2 | 95 / 85 | 49 | 62.6 / 31.7 | 94 / 82 | 26 | 50.5 / 37.5 | 93 / 87
112    | 45 | 74.4 / 41.1 | 95 / 86 | 43 | 69.9 / 39.4 | 94 / 83 | 24 | 60.0 / 45.7 | 94 / 88
224    | 42 | 76.9 / 44.7 | 95 / 86 | 40 | 73.2 / 44.3 | 94 / 83 | 22 | 64.5 / 50.5 | 94 / 88
""")  # fmt: skip
WORDS = {
    "relative drop": "100 (A of P-T minus A of RI-T) / (A of P-T): how much of the test metric "
    "is lost without pre-training"
}


@rp.part_by_view("Relative drop", WORDS)
def drops(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """Drops by perturbation, and a table of every pair in every condition."""
    rows = view.rows.select(metric="relative_drop")
    panels = [
        rp.profile(f"{target}: relative drop, %", here, _drawn(scope, here), "perturbation", labels,
                   levels=(0,))
        for target, labels, here in scope.by_perturbation(rows)
    ]  # fmt: skip
    if panels:
        figure = rp.PanelFigure("relative drop by perturbation", rp.in_rows(panels, 2), height=2.2)
        yield view.drawing(figure, CAPTION, rows, "test images")
    lines = scope.pair_lines(view.rows)
    table = rp.comparison(("target", "pair"), lines, *rp.by_metric(COLUMNS), NOTE)
    yield view.listing("Drops from the first arm of a pair to the second", table)
    if panels:
        yield PUBLISHED.listing


def _drawn(scope: rp.Scope, rows: rp.Measurements) -> list[rp.Compared]:
    """The scored pair alone where it was measured: a suite may compare many more."""
    pairs = scope.pairs(rows)
    return [pair for pair in pairs if pair.name == " & ".join(scope.pair)] or pairs
