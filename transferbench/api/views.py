"""How a finished run is shown: rows of verdicts, and HTML with a picture for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from transferbench.claims import Verdict
from transferbench.identity import digest
from transferbench.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

    from transferbench.report.figures import Panel

__all__ = ["VERDICT_COLUMNS", "notebook_view", "verdict_row"]

VERDICT_COLUMNS = ("claim", "verdict", "effect", "95% interval", "n", "statement")
MAX_PANELS = 8
COLUMNS = 4


def verdict_row(verdict: Verdict) -> tuple[str, str, str, str, int, str]:
    """A verdict as a row of a table with ``VERDICT_COLUMNS``."""
    effect = "" if verdict.effect is None else f"{verdict.effect:+.3f}"
    interval = "" if verdict.low is None else f"[{verdict.low:+.3f}, {verdict.high:+.3f}]"
    return verdict.claim, verdict.verdict, effect, interval, verdict.n, verdict.statement


def notebook_view(
    title: str, claims: Mapping[str, Sequence[Verdict]], table: pd.DataFrame, suite: Suite
) -> str:
    """HTML without references to other files; ``table``: of ``Run.table``."""
    parts = [f"<p>{escape(title)}</p>"]
    for entry, verdicts in claims.items():
        rows = [verdict_row(verdict) for verdict in verdicts]
        parts.append(f"<p>{escape(entry)}</p>")
        parts.append(tabulate(rows, VERDICT_COLUMNS, tablefmt="html", disable_numparse=True))
    groups = list(table.groupby(["target", "entry"], sort=False))[:MAX_PANELS]
    if panels := [_panel(f"{entry} on {target}", rows, suite) for (target, entry), rows in groups]:
        parts.append(_picture(panels, name=f"run-{digest(title)[:8]}"))
    return "\n".join(parts)


def _panel(title: str, means: pd.DataFrame, suite: Suite) -> Panel:
    """The scored arm and its baseline under each perturbation, with their intervals."""
    from transferbench.reporting import Panel, Series, Summary, arm_styles

    labels = list(suite.perturbations)
    styles = arm_styles(suite)
    series = []
    for arm in (suite.scoring.initialization, suite.scoring.baseline):
        rows: list[Any] = list(means[means["arm"] == arm].itertuples())
        summaries = [Summary(row.mean, row.low, row.high, row.n, "") for row in rows]
        positions = [labels.index(row.perturbation) for row in rows]
        series.append(Series(arm, positions, summaries, styles[arm]))
    return Panel(title, series, y_label="test metric", bars=True, ticks=labels)


def _picture(panels: Sequence[Panel], name: str) -> str:
    from transferbench.report.drawing import draw
    from transferbench.reporting import PanelFigure, in_rows

    description = "The test metric of the scored arm and its baseline under each perturbation"
    # White under the drawing: its ink would not show in a notebook with a dark theme.
    svg = draw(PanelFigure(description, in_rows(panels, COLUMNS), height=2.2), name)
    return f'<div style="background: white">{svg}</div>'
