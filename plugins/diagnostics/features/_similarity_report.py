"""Table 1 of the paper: how alike the features of two networks are, module by module."""

from __future__ import annotations

from collections.abc import Sequence

from transferbench import reporting as rp

__all__ = ["similarity"]

COLUMNS = 3
CKA = "cka"

TITLES = {
    "cka": "Table 1: CKA",
    "svcca": "A second opinion: SVCCA",
    "pwcca": "A second opinion: PWCCA",
    "procrustes": "A second opinion: Procrustes distance",
}
NOTES = {
    "cka": "1 for equal features, 0 for unrelated ones; debiased, so that a small one may be below "
    "0.",
    "svcca": "Mean canonical correlation: 1 for equal features; unrelated ones are above 0.",
    "pwcca": "Weighted mean canonical correlation: 1 for equal features; unrelated ones are above "
    "0.",
    "procrustes": "Squared distance after the best rotation: 0 for equal features, 2 for unrelated "
    "ones.",
}
PROFILE = (
    "Similarity of the features of two networks at each module, from input to output, the mean "
    "over pairs. Only the order of pairs depends on no choice of kernel, estimator or sample. "
    "Procrustes is a distance: small is alike."
)
MAPS = (
    "CKA of every module of the first network (up) with every module of the second (right), the "
    "mean over pairs of networks. A bright diagonal means that the two compute the same at "
    "the same depth."
)
PUBLISHED = rp.Published.parse("ImageNet \N{RIGHTWARDS ARROW} CheXpert", "Table 1", "printed", """\
module | P-T & P | P-T & P-T | P-T & RI-T | RI-T & RI-T
conv1  | .6225   | .6710     | .0036      | .0016
layer1 | .4592   | .8230     | .0011      | .0088
layer2 | .2896   | .6052     | .0022      | .0004
layer3 | .1877   | .4089     | .0003      | .0004
layer4 | .0453   | .1628     | .0808      | .0424
""")  # fmt: skip


@rp.part("Similarity of features")
def similarity(scope: rp.Scope, views: Sequence[rp.View]) -> rp.Blocks:
    """Each measure at equal modules, then CKA of all modules with all."""
    lines: dict[rp.Condition, list[rp.Panel]] = {}
    for view in views:
        for condition, here in scope.conditions(_same_module(view.rows)):
            title = f"{condition.name}: {view.plugin}"
            panel = rp.profile(title, here, scope.pairs(here), "module")
            lines.setdefault(condition, []).append(panel)
    figure = rp.PanelFigure("similarity of features by module and pair", list(lines.values()))
    text = rp.caption(PROFILE, figure, _same_module(scope.rows), "test images")
    yield rp.Drawing(figure, text)
    for view in views:
        rows, head = _same_module(view.rows), ("target", "module")
        lines_of = scope.lines(rows, module=None)
        table = rp.comparison(head, lines_of, scope.pairs(rows), note=NOTES[view.plugin])
        yield view.listing(f"{TITLES[view.plugin]} of each module", table)
        if view.plugin == CKA:
            yield PUBLISHED.listing
            yield _maps(scope, view)


def _same_module(rows: rp.Measurements) -> rp.Measurements:
    return rows.matching("module", "other_module")


def _maps(scope: rp.Scope, view: rp.View) -> rp.Drawing:
    """CKA of all modules with all, a map for each pair and condition."""
    lines: list[Sequence[rp.Heat]] = []
    for condition, here in scope.conditions(view.rows):
        heats = [_heat(here, pair, condition) for pair in scope.pairs(here)]
        lines += rp.in_rows(heats, COLUMNS)
    description = "CKA of all modules with all modules, a map for each pair of arms"
    figure = rp.HeatFigure(description, lines, label="CKA", numbers=True, height=1.9)
    return view.drawing(figure, MAPS, items="test images")


def _heat(rows: rp.Measurements, pair: rp.Compared, condition: rp.Condition) -> rp.Heat:
    """The means of one pair, modules in the order of the network."""
    own = rows.select(**pair.labels)
    up, right = own.distinct("module"), own.distinct("other_module")
    first, second = pair.name.split(" & ")
    means = rp.grid_means(own, ("module", "other_module"), up, right)
    return rp.Heat(f"{condition.name}: {pair.name}", means, right, up, second, first)
