"""Table 1 of the paper: how alike the features of two networks are, module by module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transferbench import reporting as rp
from transferbench.specs import ReportPart

__all__ = ["similarity_report"]

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
PUBLISHED = rp.Published(
    "ImageNet \N{RIGHTWARDS ARROW} CheXpert",
    "Table 1",
    "printed",
    ("module", "P-T & P", "P-T & P-T", "P-T & RI-T", "RI-T & RI-T"),
    (
        ("conv1", ".6225", ".6710", ".0036", ".0016"),
        ("layer1", ".4592", ".8230", ".0011", ".0088"),
        ("layer2", ".2896", ".6052", ".0022", ".0004"),
        ("layer3", ".1877", ".4089", ".0003", ".0004"),
        ("layer4", ".0453", ".1628", ".0808", ".0424"),
    ),
)


def similarity_part(scope: rp.Scope) -> rp.Part:
    """Each measure at equal modules, then CKA of all modules with all."""
    return scope.part("Similarity of features", _blocks)


def _blocks(scope: rp.Scope, views: Sequence[rp.View]) -> Iterator[rp.Block | None]:
    yield _profile(scope, views)
    for view in views:
        yield view.listing(f"{TITLES[view.plugin]} of each module", _table(scope, view))
        if view.plugin == CKA:
            yield PUBLISHED.listing
            yield _maps(scope, view)


def _same_module(rows: rp.Measurements) -> rp.Measurements:
    return rows.matching("module", "other_module")


def _profile(scope: rp.Scope, views: Sequence[rp.View]) -> rp.Drawing:
    """Each measure against depth, a row of panels for each condition."""
    lines: dict[rp.Condition, list[rp.Panel]] = {}
    for view in views:
        for condition, here in scope.conditions(_same_module(view.rows)):
            title = f"{condition.name}: {view.plugin}"
            panel = rp.profile(title, here, scope.pairs(here), "module")
            lines.setdefault(condition, []).append(panel)
    figure = rp.PanelFigure("similarity of features by module and pair", list(lines.values()))
    rows = _same_module(scope.rows)
    return rp.Drawing(figure, rp.caption(PROFILE, figure, rows, "test images"))


def _table(scope: rp.Scope, view: rp.View) -> rp.Table | None:
    """A row for each module of each condition, a column for each pair."""
    rows = _same_module(view.rows)
    lines = scope.lines(rows, module=None)
    head, note = ("target", "module"), NOTES[view.plugin]
    return rp.comparison(head, lines, scope.pairs(rows), note=note)


def _maps(scope: rp.Scope, view: rp.View) -> rp.Drawing:
    """CKA of all modules with all, a map for each pair and condition."""
    lines: list[Sequence[rp.Heat]] = []
    for condition, here in scope.conditions(view.rows):
        heats = [_heat(here, pair, condition) for pair in scope.pairs(here)]
        lines += rp.in_rows(heats, COLUMNS)
    figure = rp.HeatFigure(
        "CKA of all modules with all modules, a map for each pair of arms",
        lines,
        label="CKA",
        numbers=True,
        height=1.9,
    )
    return view.drawing(figure, MAPS, items="test images")


def _heat(rows: rp.Measurements, pair: rp.Compared, condition: rp.Condition) -> rp.Heat:
    """The means of one pair, modules in the order of the network."""
    own = rows.select(**pair.labels)
    up, right = own.distinct("module"), own.distinct("other_module")
    first, second = pair.name.split(" & ")
    means = rp.grid_means(own, ("module", "other_module"), up, right)
    return rp.Heat(f"{condition.name}: {pair.name}", means, right, up, second, first)


def similarity_report(metric: str) -> ReportPart:
    """The part that all measures of similarity share."""
    return ReportPart(build=similarity_part, metrics=frozenset({metric}))
