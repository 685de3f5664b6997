"""The figures of one entry; each is None where nothing was measured for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from transferbench.report.drawing import INK, MUTED, ArmStyle, arm_styles, render
from transferbench.report.formats import ABSENT, number
from transferbench.report.panels import WIDTH, draw_chance, legend_of, write_percent
from transferbench.report.summaries import Band, Measured, Summary
from transferbench.suite import Suite

__all__ = ["curves_figure", "severity_figure"]

PANELS_PER_ROW = 3
LONG_LABEL = 4
MANY_RUNS = 12

ArmSummaries = Mapping[str, Sequence[Summary | None]]
"""For each arm one summary a place on the axis, None where nothing was measured."""


# --- learning curves --------------------------------------------------------------------------


def draw_band(axes: Axes, band: Band, style: ArmStyle, label: str) -> None:
    """The mean with its interval, and the single runs as thin lines."""
    for run in band.runs[:MANY_RUNS]:
        seen = ~np.isnan(run)
        axes.plot(band.x[seen], run[seen], color=style.color, linewidth=0.5, alpha=0.35)
    axes.fill_between(
        band.x, band.low, band.high, color=style.color, alpha=0.16, linewidth=0, zorder=1
    )
    axes.plot(band.x, band.mean, color=style.color, linewidth=1.8, label=label)


def draw_curves(
    axes: Axes, measured: Measured, arms: Mapping[str, ArmStyle], target: str, perturbation: str
) -> None:
    """One target's panel: test metric with its band, train metric dashed."""
    for arm, style in arms.items():
        where = {"target": target, "perturbation": perturbation, "initialization": arm}
        if test := measured.band("learning-curve", "test_metric", **where):
            draw_band(axes, test, style, f"{arm}, test")
        if train := measured.band("learning-curve", "train_metric", **where):
            axes.plot(
                train.x, train.mean, "--", color=style.color, linewidth=1, label=f"{arm}, train"
            )
    axes.set_title(target)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def curves_figure(measured: Measured, suite: Suite, name: str) -> Markup | None:
    """Test metric against epochs for the two scored arms, a panel for each target."""
    perturbation = suite.scoring.perturbation
    rows = measured.rows("learning-curve", "test_metric", perturbation=perturbation)
    seen = {row["target"] for row in rows}
    targets = [target for target in suite.targets if target in seen]
    if not targets:
        return None
    arms = dict(list(arm_styles(suite).items())[:2])
    lines = -(-len(targets) // PANELS_PER_ROW)
    columns = min(len(targets), PANELS_PER_ROW)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
        panels = list(grid.flat)
        for axes, target in zip(panels, targets, strict=False):
            draw_curves(axes, measured, arms, target, perturbation)
            draw_chance(axes, suite.scoring.chance.get(target))
        for axes in panels[len(targets) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel("metric, %")
            write_percent(axes.yaxis)
        legend_of(figure, panels[: len(targets)])

    return render(f"{name}-curves", "learning curves", (WIDTH, 2.9 * lines + 0.3), draw)


# --- perturbations by severity ----------------------------------------------------------------


def draw_points(
    axes: Axes,
    places: np.ndarray,
    values: Sequence[Summary | None],
    style: ArmStyle,
    label: str | None = None,
) -> None:
    """Means with their intervals, joined where neighbours were both measured."""
    means = np.array([np.nan if one is None else one.mean for one in values])
    bounds = np.array([(np.nan, np.nan) if one is None else one.bounds for one in values])
    axes.errorbar(
        places,
        means,
        yerr=np.abs(bounds.T - means),
        color=style.color,
        marker=style.marker,
        markersize=4,
        linewidth=1,
        elinewidth=1.3,
        capsize=0,
        label=label,
    )


def label_perturbations(axes: Axes, labels: Sequence[str]) -> None:
    """A tick for each perturbation; long names lean so that they do not touch."""
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    if max(map(len, labels)) * len(labels) > 6 * LONG_LABEL:
        axes.tick_params(axis="x", labelrotation=40)
        for tick in axes.get_xticklabels():
            tick.set(horizontalalignment="right", rotation_mode="anchor")
    axes.set_xlabel("perturbation")
    write_percent(axes.yaxis)


def draw_arms(
    axes: Axes, arms: Mapping[str, ArmStyle], values: ArmSummaries, labels: Sequence[str]
) -> None:
    """The arms side by side at each perturbation."""
    for shift, (arm, style) in zip((-0.11, 0.11), arms.items(), strict=True):
        draw_points(axes, np.arange(len(labels)) + shift, values[arm], style, arm)
    label_perturbations(axes, labels)


def print_drops(axes: Axes, drops: Sequence[Summary | None]) -> None:
    """The relative drop of each group in a strip above the panel, as in the paper's figure."""
    transform = axes.get_xaxis_transform()
    axes.text(
        0, 1.105, "relative drop, %", transform=axes.transAxes, fontsize=7, color=MUTED, va="bottom"
    )
    for place, drop in enumerate(drops):
        text = ABSENT if drop is None else number(drop.mean, 0)
        axes.text(place, 1.03, text, transform=transform, ha="center", fontsize=7.5)


def draw_gain(axes: Axes, gains: Sequence[Summary | None], labels: Sequence[str]) -> None:
    """The paired difference of the arms against zero."""
    axes.axhline(0, color=MUTED, linewidth=0.9)
    draw_points(axes, np.arange(len(labels), dtype=float), gains, ArmStyle(INK, "o"))
    label_perturbations(axes, labels)
    axes.set_title("gain in test metric, paired")


def severity_figure(measured: Measured, suite: Suite, target: str, name: str) -> Markup | None:
    """Test metric, optimisation speed and gain against the perturbations of one target."""
    rows = measured.rows("trial", "test_metric", target=target)
    seen = {row["perturbation"] for row in rows}
    labels = [label for label in suite.perturbations if label in seen]
    if len(labels) < 2:
        return None
    arms = dict(list(arm_styles(suite).items())[:2])
    pair = (suite.scoring.initialization, suite.scoring.baseline)
    places = [{"target": target, "perturbation": label} for label in labels]

    def of(diagnostic: str, metric: str) -> ArmSummaries:
        return {
            arm: [measured.summary(diagnostic, metric, initialization=arm, **at) for at in places]
            for arm in arms
        }

    drops = [measured.drop(pair, **at) for at in places]
    gains = [measured.difference("trial", "test_metric", pair, **at) for at in places]

    def draw(figure: Figure) -> None:
        test, speed, gain = figure.subplots(1, 3)
        draw_arms(test, arms, of("trial", "test_metric"), labels)
        draw_chance(test, suite.scoring.chance.get(target))
        print_drops(test, drops)
        test.set_title(f"{target}: test metric", pad=26)
        draw_arms(speed, arms, of("speed", "speed"), labels)
        speed.set_title("speed: mean train metric")
        draw_gain(gain, gains, labels)
        test.set_ylabel("%")
        gain.set_ylabel("points")
        legend_of(figure, [test])

    return render(f"{name}-severity-{target}", f"perturbations of {target}", (WIDTH, 3.3), draw)
