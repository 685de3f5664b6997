"""The arms that are not scored: other initializations and controls, beside the scored pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transferbench.report.drawing import GRID, ArmStyle, render, tidy
from transferbench.report.formats import signed
from transferbench.report.panels import Layout, draw_chance, label_width, write_percent
from transferbench.report.parts.part import OVER_NETWORKS, Block, Drawing, Listing, Part, Scope
from transferbench.report.summaries import Summary, as_summary, summarize
from transferbench.report.tables import Cell, Table, arms_table, mean_cell
from transferbench.statistics import share_of_gain

__all__ = ["arms_part"]

CAPTION = (
    "Final test metric of the arms that are not scored, below the scored pair; dotted: chance. "
    "Then, where speed was measured, the speed (mean train metric over the epochs) and the share "
    "of the scored arm's gain in speed that an arm recovers: 0 as the baseline, 100 as the scored "
    f"arm. Bars: {OVER_NETWORKS}; of shares Fieller's 95% interval; n stands in the table."
)
NOTE = (
    "Metric and speed in %. Gain: over the baseline in points, paired by replicate. Share: (speed "
    "of the arm \N{MINUS SIGN} speed of the baseline) / (speed of the scored arm \N{MINUS SIGN} "
    f"speed of the baseline), in %, of the means; none where the scored arm is not shown to be the "
    f"faster one. Brackets: {OVER_NETWORKS}; of shares Fieller's 95% interval."
)


class Arm(NamedTuple):
    """One arm in one place; ``share``: of the scored arm's speed gain, None without speeds."""

    name: str
    test: Summary | None
    gain: Summary | None
    speed: Summary | None
    share: Summary | None
    flag: str = ""


class Group(NamedTuple):
    """The arms of one target under one perturbation, the scored pair first."""

    target: str
    perturbation: str
    arms: Sequence[Arm]


def arms_part(scope: Scope) -> Part:
    """The arms besides the scored pair as figure and table, then every arm in every cell."""
    title, slug = "Other initializations and controls", "arms"
    groups = groups_of(scope)
    blocks: list[Block] = []
    notes = []
    if shown := [g for g in groups if g.perturbation == scope.suite.scoring.perturbation]:
        blocks.append(Drawing(figure_of(scope, shown), CAPTION))
    if groups:
        blocks.append(Listing("Initializations compared", table_of(scope, groups)))
    else:
        a, b = scope.pair
        notes.append(f"This suite trained no arm besides {a} and {b}, so there is none to compare.")
    if every := arms_table(scope.measured, scope.suite):
        blocks.append(Listing("Every arm in every cell", every))
    return Part(title, slug, blocks, notes)


def groups_of(scope: Scope) -> list[Group]:
    """Where other arms than the scored pair were trained, in the suite's order."""
    groups = []
    for perturbation in scope.suite.perturbations:
        for target in scope.suite.targets:
            where = {"target": target, "perturbation": perturbation}
            rows = scope.measured.rows("trial", "test_metric", **where)
            seen = {row["initialization"] for row in rows}
            others = [arm for arm in scope.suite.initializations if arm in seen - {*scope.pair}]
            if others:
                arms = [arm_of(scope, where, arm) for arm in (*scope.pair, *others)]
                groups.append(Group(target, perturbation, arms))
    return groups


def arm_of(scope: Scope, where: dict[str, str], arm: str) -> Arm:
    """The numbers of one arm."""
    measured, (a, b) = scope.measured, scope.pair
    speeds = [
        {k: value for (k, _), value in found.items()}
        for one in (arm, a, b)
        for found in [measured.replicates("speed", "speed", initialization=one, **where)]
    ]
    share = None if arm in scope.pair else share_of_gain(*speeds)
    return Arm(
        name=arm,
        test=measured.summary("trial", "test_metric", initialization=arm, **where),
        gain=None if arm == b else measured.difference("trial", "test_metric", (arm, b), **where),
        speed=summarize(speeds[0].values()),
        share=as_summary(share) if share else None,
        flag=f"no share: {share.reason}" if share and share.value is None else "",
    )


# --- the figure -------------------------------------------------------------------------------


def figure_of(scope: Scope, groups: Sequence[Group]) -> Markup:
    """A row of panels for each target: metric, and where there is speed, speed and share."""
    fast = any(arm.speed for group in groups for arm in group.arms)
    most = max(len(group.arms) for group in groups)
    names = [arm.name for group in groups for arm in group.arms]
    columns = 3 if fast else 1
    layout = Layout(
        len(groups), columns, 0.22 * most + 0.1, left=0.3 + label_width(names), below=0.3
    )

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(groups), columns, squeeze=False, gridspec_kw=layout.grid)
        for panels, group in zip(grid, groups, strict=True):
            draw_group(scope, list(panels), group)

    description = "final metric, speed and share of the speed gain of every arm"
    return render(f"{scope.anchor}-arms", description, layout.size, draw, placed=True)


def draw_group(scope: Scope, panels: Sequence[Axes], group: Group) -> None:
    """One target: its arms from top to bottom in each panel."""
    styles = scope.styles()
    titles = ("test metric, %", "speed, %", "share of the speed gain, %")
    columns = zip(*((arm.test, arm.speed, arm.share) for arm in group.arms), strict=True)
    for axes, title, values in zip(panels, titles, columns, strict=False):
        for place, (arm, one) in enumerate(zip(group.arms, values, strict=True)):
            if one is not None:
                draw_arm(axes, place, one, styles[arm.name])
        axes.axhline(1.5, color=GRID, linewidth=0.9, zorder=0)
        axes.set_yticks(range(len(group.arms)), [])
        axes.set_ylim(len(group.arms) - 0.4, -0.6)
        axes.set_title(f"{group.target}: {title}")
        write_percent(axes.xaxis)
        tidy(axes, grid="x")
    panels[0].set_yticks(range(len(group.arms)), [arm.name for arm in group.arms])
    draw_chance(panels[0], scope.suite.scoring.chance.get(group.target), along="x")
    for axes in panels[2:]:
        for mark in (0, 1):
            axes.axvline(mark, color=GRID, linewidth=0.9, zorder=0)


def draw_arm(axes: Axes, place: int, one: Summary, style: ArmStyle) -> None:
    """One mean with its interval."""
    axes.hlines(place, *one.bounds, color=style.color, linewidth=1.6)
    axes.plot(one.mean, place, style.marker, color=style.color)


# --- the table --------------------------------------------------------------------------------


def table_of(scope: Scope, groups: Sequence[Group]) -> Table:
    """A row for each arm of each place."""
    uses = scope.suite.initializations
    rows = [
        (
            *map(Cell, (group.target, group.perturbation, arm.name, uses[arm.name].name)),
            mean_cell(arm.test),
            Cell("") if arm.name == scope.pair[1] else mean_cell(arm.gain, write=signed),
            mean_cell(arm.speed),
            Cell("") if arm.name in scope.pair else mean_cell(arm.share),
            Cell(arm.flag, kind="flag"),
        )
        for group in groups
        for arm in group.arms
    ]
    head = ("target", "perturbation", "arm", "initialization", "test", f"gain over {scope.pair[1]}")
    return Table((*head, "speed", "share of the speed gain", "flag"), tuple(rows), NOTE)
