"""The figure of common and uncommon mistakes: how alike the errors of two networks are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from transferbench.report.drawing import INK, MUTED, ArmStyle, arm_styles, render, tidy
from transferbench.report.summaries import Measured, Summary
from transferbench.suite import Suite

__all__ = ["Pair", "mistakes_figure", "pairs_of"]

WIDTH = 10.4
SETS = ("uncommon_a", "common", "uncommon_b")


@dataclass(frozen=True)
class Pair:
    """Two arms whose networks are compared, in one target under one perturbation."""

    target: str
    perturbation: str
    a: str
    b: str

    @property
    def name(self) -> str:
        """As the paper writes it."""
        return f"{self.a} & {self.b}"

    def summary(self, measured: Measured, metric: str, **coordinates: object) -> Summary | None:
        """The mean over the pairs of networks; of a multi-label task, its mean over labels."""
        return measured.pair_summary(
            "agreement",
            metric,
            target=self.target,
            perturbation=self.perturbation,
            initialization=self.a,
            other_initialization=self.b,
            label=None,
            **coordinates,
        )


def pairs_of(measured: Measured, suite: Suite, target: str, perturbation: str) -> list[Pair]:
    """The pairs of arms that were compared, in the suite's order."""
    rows = measured.rows("agreement", "n_common", target=target, perturbation=perturbation)
    arms = list(suite.initializations)
    seen = {(row["initialization"], row["other_initialization"]) for row in rows}
    known = [pair for pair in seen if pair[0] in arms and pair[1] in arms]
    known.sort(key=lambda pair: (arms.index(pair[0]), arms.index(pair[1])))
    return [Pair(target, perturbation, a, b) for a, b in known]


def style_of(pair: Pair, styles: dict[str, ArmStyle]) -> ArmStyle:
    """A pair of one arm has that arm's colour, a mixed pair the ink's."""
    return styles[pair.a] if pair.a == pair.b else ArmStyle(INK, "D")


def draw_metric(
    axes: Axes, pairs: Sequence[Pair], measured: Measured, metric: str, styles: dict[str, ArmStyle]
) -> None:
    """One agreement metric, a row for each pair of arms."""
    for place, pair in enumerate(pairs):
        style, one = style_of(pair, styles), pair.summary(measured, metric)
        if one is not None:
            axes.hlines(place, *one.bounds, color=style.color, linewidth=1.6)
            axes.plot(one.mean, place, style.marker, color=style.color)
    axes.axvline(0, color=MUTED, linewidth=0.6)
    tidy(axes, grid="x")


def draw_sets(
    axes: Axes, pairs: Sequence[Pair], measured: Measured, styles: dict[str, ArmStyle]
) -> None:
    """What both get wrong, centred; to its left and right what only one does."""
    for place, pair in enumerate(pairs):
        sizes = [pair.summary(measured, metric) for metric in ("uncommon_a", "n_common")]
        other = pair.summary(measured, "uncommon_b")
        if sizes[0] is None or sizes[1] is None or other is None:
            continue
        left, common, right = sizes[0].mean, sizes[1].mean, other.mean
        axes.barh(place, common, 0.5, left=-common / 2, color=MUTED, alpha=0.35)
        axes.barh(place, left, 0.5, left=-common / 2 - left, color=styles[pair.a].color)
        axes.barh(place, right, 0.5, left=common / 2, color=styles[pair.b].color)
    axes.axvline(0, color=MUTED, linewidth=0.6)
    axes.margins(x=0.06)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):.0f}"))
    tidy(axes, grid="x")


def draw_entropy(
    axes: Axes, pairs: Sequence[Pair], measured: Measured, styles: dict[str, ArmStyle]
) -> None:
    """How unsure an independent network is on each set of mistakes."""
    for place, pair in enumerate(pairs):
        colors = (styles[pair.a].color, MUTED, styles[pair.b].color)
        for shift, which, color in zip((-0.2, 0.0, 0.2), SETS, colors, strict=True):
            one = pair.summary(measured, "reference_entropy", set=which)
            if one is not None:
                axes.hlines(place + shift, *one.bounds, color=color, linewidth=1.3)
                axes.plot(one.mean, place + shift, "o", color=color, markersize=3.5)
    tidy(axes, grid="x")


TITLES = (
    "error agreement, \N{GREEK SMALL LETTER KAPPA}",
    "error Jaccard",
    "mistakes: only a | both | only b",
    "reference entropy, nats",
)


def draw_line(
    panels: Sequence[Axes], pairs: Sequence[Pair], measured: Measured, styles: dict[str, ArmStyle]
) -> None:
    """The four panels of one target."""
    for axes, metric in zip(panels, ("kappa", "error_jaccard"), strict=False):
        draw_metric(axes, pairs, measured, metric, styles)
    draw_sets(panels[2], pairs, measured, styles)
    draw_entropy(panels[3], pairs, measured, styles)
    for axes in panels:
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_yticks(range(len(pairs)), [])
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticklabels([pair.name for pair in pairs])


def mistakes_figure(measured: Measured, suite: Suite, name: str) -> Markup | None:
    """Agreement of errors, sizes of the sets of mistakes and their ambiguity, by pair of arms."""
    perturbation = suite.scoring.perturbation
    every = [pairs_of(measured, suite, target, perturbation) for target in suite.targets]
    lines = [pairs for pairs in every if pairs]
    if not lines:
        return None
    styles = arm_styles(suite)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(lines), 4, squeeze=False, sharex="col")
        for panels, pairs in zip(grid, lines, strict=True):
            draw_line(panels, pairs, measured, styles)
            panels[0].set_ylabel(pairs[0].target, fontweight="bold")
        for axes, title in zip(grid[0], TITLES, strict=True):
            axes.set_title(title)

    height = sum(0.35 * len(pairs) + 0.45 for pairs in lines) + 0.3
    return render(f"{name}-mistakes", "common and uncommon mistakes", (WIDTH, height), draw)
