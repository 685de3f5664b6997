"""Figure 5 of the paper: what a network loses when one module is rewound or re-randomised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from transferbench import reporting as rp

__all__ = ["swaps"]

REWINDING = "rewinding"
DROPS = {
    "mean_body_drop": "mean drop over the body's modules",
    "worst_body_drop": "worst drop of a module of the body",
}
NONE, ALL = "none", "all"
FRESH = "re-randomised"

CAPTION = (
    "Figure 5. Test metric with one module taken from another state and nothing trained again: "
    "rewound to where training started, or re-randomised: sampled from its initial distribution. "
    "The axis names the module, from input to output; none is the trained network as it is, all "
    "has every module replaced. The lower a point, the more critical its module. Dotted: chance."
)
NOTE = (
    "Points of the test metric lost against the network as it is. Mean and worst are over the "
    "modules outside the head."
)
PUBLISHED = rp.Published.parse(
    "ImageNet \N{RIGHTWARDS ARROW} CheXpert", "Figure 5", "digitised", """\
module rewound | P-T, rate 0.02: AUC | RI-T, rate 0.02: AUC | RI-T, rate 0.1: AUC
none           | -                   | .703                 | .702
conv1          | .715 to .735        | .507                 | .561
layer1.0       | .715 to .735        | .638                 | -
layer2.0       | .715 to .735        | .655                 | .658
layer3.0       | .715 to .735        | .641                 | .543
layer4.0       | .715 to .735        | -                    | .609
layer4.1       | .715 to .735        | -                    | .654
layer4.2       | .71                 | .636                 | -
fc             | .693                | -                    | -
""")  # fmt: skip


@rp.part("Modules rewound and re-randomised")
def swaps(scope: rp.Scope, views: Sequence[rp.View]) -> rp.Blocks:
    """Rewinding and re-randomisation side by side, and the drops of each module."""
    ways: dict[rp.Condition, list[tuple[str, rp.Measurements]]] = {}
    for view in views:
        for way, rows in _ways(view):
            for condition, here in scope.conditions(rows):
                ways.setdefault(condition, []).append((way, here))
    lines = [
        [_profile(scope, condition, *way) for way in group] for condition, group in ways.items()
    ]
    figure = rp.PanelFigure("test metric by module replaced", lines)
    rows = scope.rows.select(metric="metric")
    yield rp.Drawing(figure, rp.caption(CAPTION, figure, rows, "test images"))
    if table := _table(scope, ways):
        yield rp.Listing("Drop by module", table)
    yield PUBLISHED.listing


def _ways(view: rp.View) -> Iterator[tuple[str, rp.Measurements]]:
    """The states that modules are taken from, each with its rows.

    The network as it is was measured once for all states: it belongs to each of them.
    """
    if view.plugin != REWINDING:
        yield FRESH, view.rows
        return
    unmodified = view.rows.select(module=NONE)
    modules = view.rows.select(module=[m for m in view.rows.distinct("module") if m != NONE])
    for state in modules.distinct("to"):
        yield f"rewound to {state}", view.rows.select(to=state) | unmodified


def _modules(rows: rp.Measurements) -> list[str]:
    """From input to output, between the network as it is and one with every module replaced."""
    return [NONE, *(m for m in rows.distinct("module") if m not in {NONE, ALL}), ALL]


def _profile(scope: rp.Scope, condition: rp.Condition, way: str, here: rp.Measurements) -> rp.Panel:
    """The metric by module."""
    rows = here.select(metric="metric")
    return rp.profile(
        f"{condition.name}: {way}", rows, scope.arms(rows), "module", _modules(rows),
        y_label="test metric, %", scale="percent", chance=condition.chance,
    )  # fmt: skip


def _table(
    scope: rp.Scope, ways: Mapping[rp.Condition, Sequence[tuple[str, rp.Measurements]]]
) -> rp.Table | None:
    """A row for mean and worst and for each module, of each condition and way."""
    lines: list[rp.TableLine] = []
    for condition, group in ways.items():
        for way, here in group:
            begin, drops = (condition.name, way), here.select(metric="drop")
            lines += [((*begin, name), here.select(metric=m)) for m, name in DROPS.items()]
            lines += [((*begin, m), drops.select(module=m)) for m in _modules(here)[1:]]
    compared = [*scope.arms(scope.rows), scope.difference()]
    return rp.comparison(("target", "way", "module"), lines, compared, rp.percent_cell, NOTE)
