"""Figure 5 of the paper: what a network loses when one module is rewound or re-randomised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from transferbench import reporting as rp
from transferbench.specs import ReportPart

__all__ = ["SWAP_PART"]

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
PUBLISHED = rp.Published(
    "ImageNet \N{RIGHTWARDS ARROW} CheXpert",
    "Figure 5",
    "digitised",
    ("module rewound", "P-T, rate 0.02: AUC", "RI-T, rate 0.02: AUC", "RI-T, rate 0.1: AUC"),
    (
        ("none", "\N{EN DASH}", ".703", ".702"),
        ("conv1", ".715 to .735", ".507", ".561"),
        ("layer1.0", ".715 to .735", ".638", "\N{EN DASH}"),
        ("layer2.0", ".715 to .735", ".655", ".658"),
        ("layer3.0", ".715 to .735", ".641", ".543"),
        ("layer4.0", ".715 to .735", "\N{EN DASH}", ".609"),
        ("layer4.1", ".715 to .735", "\N{EN DASH}", ".654"),
        ("layer4.2", ".71", ".636", "\N{EN DASH}"),
        ("fc", ".693", "\N{EN DASH}", "\N{EN DASH}"),
    ),
)


def swaps_part(scope: rp.Scope) -> rp.Part:
    """Rewinding and re-randomisation side by side, and the drops of each module."""
    return scope.part("Modules rewound and re-randomised", _blocks)


def _blocks(scope: rp.Scope, views: Sequence[rp.View]) -> Iterator[rp.Block | None]:
    ways = [(name, rows) for view in views for name, rows in _ways(view)]
    by_condition: dict[rp.Condition, list[tuple[str, rp.Measurements]]] = {}
    for name, rows in ways:
        for condition, here in scope.conditions(rows):
            by_condition.setdefault(condition, []).append((name, here))
    figure = rp.PanelFigure(
        "test metric by module replaced",
        [
            [_profile(scope, condition, name, here) for name, here in group]
            for condition, group in by_condition.items()
        ],
    )
    rows = scope.rows.select(metric="metric")
    text = rp.caption(CAPTION, figure, rows, "test images")
    yield rp.Drawing(figure, text)
    if table := _table(scope, by_condition):
        yield rp.Listing("Drop by module", table)
    yield PUBLISHED.listing


def _ways(view: rp.View) -> Iterator[tuple[str, rp.Measurements]]:
    """The states that modules are taken from, each with its rows.

    The network as it is was measured once for all states: it belongs to each of them.
    """
    if view.plugin != REWINDING:
        yield FRESH, view.rows
        return
    whole = view.rows.select(module=NONE)
    modules = view.rows.select(module=[m for m in view.rows.distinct("module") if m != NONE])
    states = modules.distinct("to")
    for state in states:
        yield f"rewound to {state}", view.rows.select(to=state) | whole


def _modules(rows: rp.Measurements) -> list[str]:
    """From input to output, between the network as it is and one with every module replaced."""
    return [NONE, *(m for m in rows.distinct("module") if m not in {NONE, ALL}), ALL]


def _profile(scope: rp.Scope, condition: rp.Condition, way: str, here: rp.Measurements) -> rp.Panel:
    """The metric by module."""
    rows = here.select(metric="metric")
    title = f"{condition.name}: {way}"
    panel = rp.profile(title, rows, scope.arms(rows), "module", _modules(rows))
    return replace(panel, y_label="test metric, %", scale="percent", chance=condition.chance)


def _table(
    scope: rp.Scope, by_condition: dict[rp.Condition, list[tuple[str, rp.Measurements]]]
) -> rp.Table | None:
    """A row for mean and worst and for each module, of each condition and way."""
    lines: list[rp.TableLine] = []
    for condition, group in by_condition.items():
        for way, here in group:
            begin, drops = (condition.name, way), here.select(metric="drop")
            lines += [((*begin, name), here.select(metric=m)) for m, name in DROPS.items()]
            lines += [((*begin, m), drops.select(module=m)) for m in _modules(here)[1:]]
    compared = [*scope.arms(scope.rows), scope.difference()]
    head = ("target", "way", "module")
    return rp.comparison(head, lines, compared, rp.percent_cell, NOTE)


SWAP_PART = ReportPart(build=swaps_part, metrics=frozenset({"metric", "loss", "drop", *DROPS}))
