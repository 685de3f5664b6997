"""Figure 6 of the paper: how far each module can go back, and the weight noise it tolerates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transferbench import reporting as rp

__all__ = ["criticality", "path_map"]

SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
MU = "\N{GREEK SMALL LETTER MU}"
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
SUMMARIES = {
    "mu": f"criticality {MU}",
    "distance": "distance from the start",
    "alpha_low": f"can go back to {ALPHA}",
    "sigma_high": f"tolerates noise {SIGMA}",
}
TOTALS = {"all": "total of all modules", "body": "total of the body"}

FIRST = (
    "Figure 6. Train metric of the network with its first module at a point of the path from its "
    "start (left) to its end (right), with its distance from the start as tick, and noise "
    f"{SIGMA} on each of its weights (upwards): bright where the network still works. A module is "
    "uncritical where the left edge is bright (it can go back) or the upper one (it tolerates "
    "noise)."
)
OTHERS = (
    "The same for each further module, from input (above) to output: in each map the start of the "
    "path left, its end right, and the noise upwards."
)
PROFILE = (
    f"Criticality {MU} of each module, from input to output, and what makes it up: the distance "
    "of the module from its start, how far back it can go without increasing the loss "
    f"({ALPHA} = 0: to its start), and the noise {SIGMA} that its end tolerates. A module may be "
    "uncritical because it hardly moved although it tolerates little noise: look at all four."
)
NOTE = (
    f"{MU}: the least (distance / {SIGMA})\N{SUPERSCRIPT TWO} at which the risk on training images "
    "stays within the tolerance of its value at the end, 0 where the module can go back to its "
    "start; a total is missing where one of its modules has no feasible point."
)


@rp.part_by_view("Module criticality")
def criticality(scope: rp.Scope, view: rp.View) -> rp.Blocks:
    """Maps and profiles over depth of the first end that was measured; tables of each end."""
    ends = view.rows.distinct("end")
    drawn = view.rows.select(end=ends[0])
    end = f"End point: {ends[0]}."
    for condition, here in scope.conditions(drawn):
        (module, first), *rest = _maps(scope, here).items()
        heats = [
            heat and replace(heat, title=f"{condition.name}: {module}, {name}")
            for name, heat in first.items()
        ]
        yield view.drawing(_map_figure([heats]), f"{FIRST} {end}", drawn, "training images")
        if rest:
            joined = rp.mosaic(dict(rest), condition.name)
            figure = _map_figure([[joined]], 0.62 * len(rest))
            yield view.drawing(figure, f"{OTHERS} {end}", drawn, "training images")
    path, tolerance = drawn.distinct("path")[0], min(drawn.distinct("tolerance"))
    summaries = _summaries(drawn.select(path=path), tolerance)
    lines = [
        [
            rp.profile(f"{condition.name}: {title}", here.select(metric=metric), scope.arms(here),
                       "module", here.distinct("module"),
                       log="symmetric" if metric == "mu" else "")
            for metric, title in SUMMARIES.items()
        ]
        for condition, here in scope.conditions(summaries)
    ]  # fmt: skip
    panels = rp.PanelFigure("criticality of each module and what makes it up", lines)
    text = f"{PROFILE} {end} Path: {path}; tolerance {tolerance:g}."
    yield view.drawing(panels, text, summaries, items="")
    for name in ends:
        yield from _tables(scope, view, name)


# --- maps -------------------------------------------------------------------------------------


def _map_figure(rows: Sequence[Sequence[rp.Heat | None]], height: float = 1.7) -> rp.HeatFigure:
    """Maps on one scale, which is the train metric's."""
    description = "train metric over distance and noise, for each module, arm and path"
    return rp.HeatFigure(description, rows, label="train metric, %", percent=True, height=height)


def _maps(scope: rp.Scope, rows: rp.Measurements) -> dict[str, dict[str, rp.Heat | None]]:
    """For each module a map for each of the scored pair of arms and each path."""
    groups = rows.select(metric=("metric", "distance")).groups("module", "initialization", "path")
    maps = {labels: path_map(cells) for labels, cells in groups.items()}
    arms = [arm.name for arm in scope.arms(rows) if arm.name in scope.pair]
    return {
        module: {
            f"{arm}, {path}": maps.get((module, arm, path))
            for arm in arms
            for path in rows.distinct("path")
        }
        for module in rows.distinct("module")
    }


def path_map(rows: rp.Measurements) -> rp.Heat | None:
    """Mean metric at each point of one path (right) and each noise (up)."""
    cells = rows.select(metric="metric").valued()
    if not len(cells):
        return None
    alphas, sigmas = sorted(cells.distinct("alpha")), sorted(cells.distinct("sigma"))
    distances = rows.select(metric="distance")
    gone = rp.grid_means(distances, ("metric", "alpha"), ["distance"], alphas)[0]
    return rp.Heat(
        title="",
        values=rp.grid_means(cells, ("sigma", "alpha"), sigmas, alphas),
        x_ticks=[rp.significant(distance, 2) for distance in gone],
        y_ticks=[f"{sigma:g}" for sigma in sigmas],
        x_label="distance from the start",
        y_label=SIGMA,
    )


# --- what makes a module critical -------------------------------------------------------------


def _summaries(rows: rp.Measurements, tolerance: float) -> rp.Measurements:
    """The summaries of modules at one tolerance; the distance of the whole path, which has none."""
    metrics = ("mu", "alpha_low", "sigma_high", "mu_total")
    distances = rows.select(metric="distance", alpha=1)
    return rows.select(metric=metrics, tolerance=tolerance) | distances


def _tables(scope: rp.Scope, view: rp.View, end: str) -> rp.Blocks:
    """The totals, then each module, for each path and tolerance; columns: measures and arms."""
    rows = view.rows.select(end=end)
    totals: list[rp.TableLine] = []
    modules: list[rp.TableLine] = []
    for (target, path), here in scope.lines(rows, path=None):
        for tolerance in sorted(here.distinct("tolerance")):
            own, begin = _summaries(here, tolerance), (target, f"{path}, {tolerance:g}")
            of_total = own.select(metric="mu_total").groups("modules")
            totals += [((*begin, TOTALS[name]), group) for (name,), group in of_total.items()]
            of_module = own.select(metric=list(SUMMARIES)).groups("module")
            modules += [((*begin, name), group) for (name,), group in of_module.items()]
    head, arms = ("target", "path, tolerance"), scope.arms(rows)
    compared = [*arms, scope.difference()]
    table = rp.comparison((*head, "sum"), totals, compared, note=NOTE)
    yield view.listing(f"Total criticality {MU}, end point: {end}", table)
    compared = [_measure("mu", arm) for arm in compared]
    compared += [_measure(metric, arm) for metric in list(SUMMARIES)[1:] for arm in arms]
    table = rp.comparison((*head, "module"), modules, compared, note=NOTE)
    yield view.listing(f"Criticality of each module, end point: {end}", table)


def _measure(metric: str, arm: rp.Compared) -> rp.Compared:
    """One summary of an arm, or of the difference of two."""
    return replace(
        arm,
        name=f"{SUMMARIES[metric]}, {arm.name}",
        labels={**arm.labels, "metric": metric},
        minus={**arm.minus, "metric": metric} if arm.minus else {},
    )
