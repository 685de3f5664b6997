"""A finished run in a notebook: its verdicts, and a picture of what the arms reached."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from transferbench.claims import Verdict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["VERDICT_COLUMNS", "notebook_view", "verdict_row"]

VERDICT_COLUMNS = ("claim", "verdict", "effect", "95% interval", "n", "statement")
MAX_PANELS = 6
PANEL_INCHES = (3.2, 2.6)


def verdict_row(verdict: Verdict) -> tuple[str, str, str, str, int, str]:
    """A verdict as a row of a table with ``VERDICT_COLUMNS``."""
    effect = "" if verdict.effect is None else f"{verdict.effect:+.3f}"
    interval = "" if verdict.low is None else f"[{verdict.low:+.3f}, {verdict.high:+.3f}]"
    return verdict.claim, verdict.verdict, effect, interval, verdict.n, verdict.statement


def notebook_view(
    title: str, claims: Mapping[str, Sequence[Verdict]], table: pd.DataFrame, arms: Sequence[str]
) -> str:
    """HTML without references to other files; ``table``: of ``Run.table``, ``arms``: to draw."""
    parts = [f"<p>{escape(title)}</p>"]
    for entry, verdicts in claims.items():
        rows = [verdict_row(verdict) for verdict in verdicts]
        parts.append(f"<p>{escape(entry)}</p>")
        parts.append(tabulate(rows, VERDICT_COLUMNS, tablefmt="html", disable_numparse=True))
    panels = list(table[table["arm"].isin(arms)].groupby(["target", "entry"], sort=False))
    if panels:
        parts.append(_picture(panels[:MAX_PANELS], arms))
    return "\n".join(parts)


def _picture(panels: Sequence[tuple[Any, pd.DataFrame]], arms: Sequence[str]) -> str:
    """The mean of each arm under each perturbation with its interval, a panel for each target."""
    from matplotlib.figure import Figure

    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, ((target, entry), means) in zip(row, panels, strict=True):
        for arm in arms:
            own = means[means["arm"] == arm]
            error = [own["mean"] - own["low"], own["high"] - own["mean"]]
            axes.errorbar(own["perturbation"], own["mean"], error, label=arm, marker="o", capsize=2)
        axes.set_title(f"{entry} on {target}", fontsize=8)
        axes.tick_params(axis="x", labelrotation=45)
    row[0].set_ylabel("test metric")
    row[0].legend()
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return f'<img src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}">'
