"""Table 2 of the paper: the distance of two networks in weight space, body and modules."""

from __future__ import annotations

from transferbench import reporting as rp

__all__ = ["distances"]

MEASURES = {
    "l2": "l2 distance",
    "l2_normalised": "normalised distance",
    "cosine": "cosine of the displacements",
}
BODY = "body"

NOTE = (
    "l2: |a \N{MINUS SIGN} b|; normalised: divided by the root of |a| |b|; cosine: of the "
    "displacements of the two from their own starts. The body is the network without its head, as "
    "P has other classes."
)
PROFILE = (
    "Distance of the weights of two networks at each module, from input to output, the mean over "
    "pairs. Raw distances are dominated by large modules: compare pairs within a module. A cosine "
    "near 0 means that the two trainings moved in unrelated directions."
)
PUBLISHED = rp.Published.parse(
    "ImageNet \N{RIGHTWARDS ARROW} CheXpert, DomainNet", "Table 2", "printed", """\
target    | P-T & P-T | RI-T & RI-T | P-T & P | RI-T & P
CheXpert  | 200.12    | 255.34      | 237.31  | 598.19
clipart   | 178.07    | 822.43      | 157.19  | 811.87
quickdraw | 218.52    | 776.76      | 195.44  | 785.22
real      | 193.45    | 815.08      | 164.83  | 796.80
""")  # fmt: skip


@rp.part_by_view("Distance of weights")
def distances(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """The body as in the paper's table, then module by module."""
    body, names = view.rows.select(module=BODY), view.rows.distinct("module")
    modules = view.rows.select(module=[name for name in names if name != BODY])
    if table := _table(scope, body):
        yield view.listing("Table 2: distance of the whole body", table)
        yield PUBLISHED.listing
    lines = [
        [
            rp.profile(f"{condition.name}: {title}", here.select(metric=metric), scope.pairs(here),
                       "module", levels=(0,) if metric == "cosine" else ())
            for metric, title in MEASURES.items()
        ]
        for condition, here in scope.conditions(modules)
    ]  # fmt: skip
    figure = rp.PanelFigure("distance of weights by module and pair", lines)
    yield view.drawing(figure, PROFILE, modules, "weights")
    yield view.listing("Distance of each module", _table(scope, modules))


def _table(scope: rp.Scope, rows: rp.Measurements) -> rp.Table | None:
    """A row for each measure and module of each condition, a column for each pair."""
    lines = scope.lines(rows, metric=MEASURES, module=None)
    return rp.comparison(("target", "measure", "module"), lines, scope.pairs(rows), note=NOTE)
