"""What the trials of an entry measured: the scored pair in every condition, and every arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transferbench.measurements import Measurements
from transferbench.report.comparisons import (
    OF_SHARES,
    OVER_NETWORKS,
    PAIRED,
    Compared,
    by_metric,
    comparison,
)
from transferbench.report.figures import Panel, PanelFigure, Scale, Series
from transferbench.report.parts import Block, Condition, Drawing, Listing, Part, Scope, caption
from transferbench.report.quantities import (
    TEST,
    TRAIN,
    UNTRAINED,
    Quantity,
    quantities_of,
    trained_above,
)
from transferbench.report.styles import arm_styles
from transferbench.report.summaries import Aggregate, as_summary
from transferbench.report.tables import (
    Cell,
    Table,
    WriteCell,
    count_cell,
    decimal_cell,
    fraction_cell,
    percent_cell,
)
from transferbench.statistics import share_of_gain

__all__ = ["DRAWN", "arms_part", "transfer_part", "transfer_table"]

COLUMNS: dict[str, tuple[str, WriteCell]] = {
    "test_metric": ("test", fraction_cell),
    "best_test_metric": ("test at best", fraction_cell),
    "train_metric": ("train", fraction_cell),
    "test_loss": ("test loss", decimal_cell),
    "train_loss": ("train loss", decimal_cell),
    "best_epoch": ("best epoch", count_cell),
    "n_train": ("train images", count_cell),
}
DRAWN = frozenset(COLUMNS)
"""The metrics of trials that these parts show."""

PERTURBED = (
    "Final test metric, and the gain of the scored arm over its baseline, in the suite's order of "
    "perturbations; gains are paired by replicate, and the table below gives each n. Dotted: "
    "chance, and no gain."
)


# --- the scored pair --------------------------------------------------------------------------


def transfer_part(scope: Scope) -> Part:
    """Test metric and gain of the scored pair under each perturbation."""
    blocks: list[Block] = []
    notes = []
    rows = TEST.rows(scope.measurements)
    if figure := scope.gain_figure(rows, TEST.name, chance=True):
        blocks.append(Drawing(figure, caption(PERTURBED, figure, rows)))
    else:
        notes.append(
            "No target was trained under two or more perturbations, so there is no dependence to "
            "draw."
        )
    if table := transfer_table(scope):
        blocks.append(Listing(f"{' and '.join(scope.pair)} in every cell", table))
    else:
        notes.append("No trial of this entry has finished with a test metric.")
    return Part("Test metric by perturbation", blocks, notes)


def transfer_table(scope: Scope) -> Table | None:
    """Test metric, gain and train metric of the scored pair, and what the suite's columns name."""
    quantities = quantities_of(scope.suite, scope.measurements)
    columns: list[tuple[Compared, WriteCell]] = [
        *((TEST.of_arm(arm, f"test {arm}"), TEST.write) for arm in scope.pair),
        (TEST.gain(scope.pair, "gain"), TEST.write_gain),
        *((TRAIN.of_arm(arm, f"train {arm}"), TRAIN.write) for arm in scope.pair),
        *((q.gain(scope.pair, f"{q.name} gain"), q.write_gain) for q in quantities),
    ]
    lines = []
    for condition, here in _conditions(scope, quantities):
        cells = [write(_unflagged(compared.of(here))) for compared, write in columns]
        flags = Cell("; ".join(_warnings(scope, condition, here)), kind="flag")
        lines.append((Cell(condition.target), Cell(condition.perturbation), *cells, flags))
    if not lines:
        return None
    note = (
        f"Metrics in %, differences in points. Brackets: {OVER_NETWORKS}. "
        f"Gains are {' minus '.join(scope.pair)}, {PAIRED}. A network is flagged as "
        "untrained where its train metric covers no more than "
        f"{UNTRAINED:.0%} of the way from chance to 100%: the gain then measures trainability."
    )
    names = (compared.name for compared, _ in columns)
    return Table(("target", "perturbation", *names, "flag"), lines, note)


def _conditions(
    scope: Scope, quantities: Sequence[Quantity]
) -> list[tuple[Condition, Measurements]]:
    """The conditions with a finished trial, and what was measured there without coordinates."""
    diagnostics = [TEST.diagnostic, *(quantity.diagnostic for quantity in quantities)]
    rows = scope.measurements.select(diagnostic=diagnostics).without_coordinates()
    conditions = scope.conditions(rows)
    return [(c, here) for c, here in conditions if len(TEST.rows(here).valued())]


def _unflagged(value: Aggregate | None) -> Aggregate | None:
    """A mean without its flags, which have a column of their own; None without a value."""
    return Aggregate(value.summary) if value and value.summary else None


def _warnings(scope: Scope, condition: Condition, here: Measurements) -> list[str]:
    """What makes the comparison of a condition doubtful, arm by arm."""
    warnings = []
    for arm in scope.pair:
        own = here.select(initialization=arm)
        train = TRAIN.rows(own).by_replicate()
        if condition.chance is not None:
            limit = trained_above(condition.chance)
            if stuck := sum(value <= limit for value in train.values()):
                warnings.append(f"{arm} did not train in {stuck} of {len(train)} replicates")
        flags = own.select(diagnostic=TEST.diagnostic).distinct("flag")
        warnings += [f"{arm}: {flag}" for flag in sorted(flags)]
    return warnings


# --- every arm --------------------------------------------------------------------------------

ARMS = (
    "Final test metric of the arms that are not scored, below the scored pair; dotted: chance. "
    "Then, for each quantity that the suite's columns name, its value and the share of the scored "
    "arm's gain that an arm recovers: 0 as the baseline, 100 as the scored arm. Bars: "
    f"{OVER_NETWORKS}; {OF_SHARES}; n stands in the table."
)
ARMS_NOTE = (
    f"Fractions in %. Gain: over the baseline, {PAIRED}. Share: (arm \N{MINUS SIGN} "
    "baseline) / (scored arm \N{MINUS SIGN} baseline), in %, of the means; none where the gain of "
    f"the scored arm is not shown to be above 0. Brackets: {OVER_NETWORKS}; {OF_SHARES}."
)


class ArmGroup(NamedTuple):
    """The arms of one condition, the scored pair first, and what was measured there."""

    condition: Condition
    arms: Sequence[str]
    rows: Measurements


def arms_part(scope: Scope) -> Part:
    """The arms besides the scored pair as figure and table, then every arm in every cell."""
    quantities = quantities_of(scope.suite, scope.measurements)
    groups = _groups(scope, quantities)
    blocks: list[Block] = []
    notes = []
    scored = scope.suite.scoring.perturbation
    if clean := [group for group in groups if group.condition.perturbation == scored]:
        blocks.append(Drawing(_arms_figure(scope, clean, quantities), ARMS))
    if groups:
        compared = _groups_table(scope, groups, quantities)
        blocks.append(Listing("Initializations compared", compared))
    else:
        a, b = scope.pair
        notes.append(f"This suite trained no arm besides {a} and {b}, so there is none to compare.")
    if table := _every_arm(scope):
        blocks.append(Listing("Every arm in every cell", table))
    return Part("Other initializations and controls", blocks, notes)


def _groups(scope: Scope, quantities: Sequence[Quantity]) -> list[ArmGroup]:
    """The conditions where arms besides the scored pair were trained."""
    groups = []
    for condition, here in _conditions(scope, quantities):
        measured = TEST.rows(here).valued().distinct("initialization")
        rest = [arm for arm in scope.suite.initializations if arm in {*measured} - {*scope.pair}]
        if rest:
            groups.append(ArmGroup(condition, [*scope.pair, *rest], here))
    return groups


def _share(scope: Scope, quantity: Quantity, arm: str, rows: Measurements) -> Aggregate | None:
    """The share of the scored arm's gain that an arm recovers; its flag says why there is none."""
    measured = quantity.rows(rows).select(initialization=(arm, *scope.pair))
    own, source, baseline = (
        measured.select(initialization=name).by_replicate() for name in (arm, *scope.pair)
    )
    share = None
    if arm not in scope.pair:
        share = share_of_gain(own, source, baseline, measured.networks, measured.bounds)
    if share is None:
        return None
    return Aggregate(as_summary(share), (share.reason,) if share.reason else ())


def _arms_figure(
    scope: Scope, groups: Sequence[ArmGroup], quantities: Sequence[Quantity]
) -> PanelFigure:
    """A row for each target: the test metric, then of each quantity its value and the share."""
    measured = [q for q in quantities if any(len(q.rows(group.rows)) for group in groups)]
    lines = []
    for group in groups:
        panels = []
        for quantity in (TEST, *measured):
            values = [quantity.of_arm(arm).of(group.rows) for arm in group.arms]
            scale: Scale = "percent" if quantity.of_fractions else ""
            title = f"{quantity.name}, {'%' if scale else quantity.unit}"
            chance = group.condition.chance if quantity is TEST else None
            panels.append(_panel(scope, group, title, values, scale=scale, chance=chance))
            if quantity is not TEST:
                shares = [_share(scope, quantity, arm, group.rows) for arm in group.arms]
                title = f"share of the {quantity.name} gain, %"
                panels.append(_panel(scope, group, title, shares, scale="percent", levels=(0, 1)))
        lines.append(panels)
    most = max(len(group.arms) for group in groups)
    return PanelFigure("test metric and other quantities of every arm", lines, 0.22 * most + 0.1)


def _panel(
    scope: Scope,
    group: ArmGroup,
    title: str,
    values: Sequence[Aggregate | None],
    *,
    scale: Scale = "",
    levels: Sequence[float] = (),
    chance: float | None = None,
) -> Panel:
    """A row for each arm, a line below the scored pair."""
    styles = arm_styles(scope.suite)
    series = [
        Series("", [row], [value.summary if value else None], styles[arm]._replace(dash=""))
        for row, (arm, value) in enumerate(zip(group.arms, values, strict=True))
    ]
    title, ticks = f"{group.condition.target}: {title}", group.arms
    return Panel(
        title, series, scale=scale, bars=True, ticks=ticks, across=True, marks=(1.5,),
        levels=levels, chance=chance,
    )  # fmt: skip


def _groups_table(
    scope: Scope, groups: Sequence[ArmGroup], quantities: Sequence[Quantity]
) -> Table:
    """A row for each arm of each condition."""
    baseline = scope.pair[1]
    head = ["target", "perturbation", "arm", "initialization", "test", f"gain over {baseline}"]
    for quantity in quantities:
        head += [quantity.name, f"share of the {quantity.name} gain"]
    lines = []
    for condition, arms, rows in groups:
        for arm in arms:
            name = scope.suite.initializations[arm].name
            cells = [*map(Cell, (condition.target, condition.perturbation, arm, name))]
            gain = TEST.gain((arm, baseline)).of(rows)
            cells.append(TEST.write(TEST.of_arm(arm).of(rows)))
            cells.append(Cell("") if arm == baseline else TEST.write_gain(gain))
            for quantity in quantities:
                share = _share(scope, quantity, arm, rows)
                cells.append(quantity.write(quantity.of_arm(arm).of(rows)))
                cells.append(Cell("") if arm in scope.pair else percent_cell(share))
            lines.append(cells)
    return Table(head, lines, ARMS_NOTE)


def _every_arm(scope: Scope) -> Table | None:
    """Every metric of every arm in every condition, controls included."""
    lines = [
        ((condition.target, condition.perturbation, arm), here.select(initialization=arm))
        for condition, here in scope.conditions(scope.trials)
        for arm in scope.suite.initializations
    ]
    lines = [(labels, rows) for labels, rows in lines if len(TEST.rows(rows).valued())]
    note = (
        "Metrics in %. Test is after the last epoch; test at best is at the epoch that the "
        "validation images chose, never the test images."
    )
    return comparison(("target", "perturbation", "arm"), lines, *by_metric(COLUMNS), note)
