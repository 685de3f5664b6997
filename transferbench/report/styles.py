"""The colours, markers and dashes of a report's figures."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from transferbench.suite import Suite

__all__ = ["GRID", "INK", "MUTED", "PALETTE", "Dash", "LineStyle", "arm_styles"]

INK = "#1f2430"
MUTED = "#667081"
GRID = "#dde1e8"
# Okabe and Ito (2008), colours that readers with any colour vision tell apart; black is the ink.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
# Seven against four colours: 28 arms before a pair of both comes again.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

Dash: TypeAlias = Literal["-", "--", ":", "-.", ""]


class LineStyle(NamedTuple):
    """How a line and its points are drawn; ``dash`` "": points alone."""

    color: str = INK
    marker: str = "o"
    dash: Dash = "-"


def arm_styles(suite: Suite) -> dict[str, LineStyle]:
    """The scored arm is blue, its baseline orange, the rest follow in the suite's order."""
    first = [suite.scoring.initialization, suite.scoring.baseline]
    arms = [*first, *(arm for arm in suite.initializations if arm not in first)]
    rest = PALETTE[2:]
    colors = [*PALETTE[:2], *(rest[position % len(rest)] for position in range(len(arms)))]
    return {
        arm: LineStyle(colors[position], MARKERS[position % len(MARKERS)])
        for position, arm in enumerate(arms)
    }
