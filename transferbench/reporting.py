"""What the parts of diagnostics in a run's report are made of.

``ReportPart.build`` returns a ``Part``. Figures are data: a plugin says what a panel shows, and the
report draws it. Importing this imports neither matplotlib nor pandas.
"""
# ruff: noqa: F403, F405  # each name stands once, in __all__

from __future__ import annotations

from transferbench.measurements import *
from transferbench.report.comparisons import *
from transferbench.report.figures import *
from transferbench.report.formats import *
from transferbench.report.parts import *
from transferbench.report.styles import *
from transferbench.report.summaries import *
from transferbench.report.tables import *

__all__ = [
    "ABSENT",
    "INK",
    "MUTED",
    "PALETTE",
    "Aggregate",
    "Block",
    "Blocks",
    "Cell",
    "Compared",
    "Condition",
    "Drawing",
    "Heat",
    "HeatFigure",
    "LineStyle",
    "Listing",
    "Measurements",
    "Panel",
    "PanelFigure",
    "PanelOptions",
    "Part",
    "Published",
    "Scope",
    "Series",
    "Summary",
    "Table",
    "TableLine",
    "View",
    "WriteCell",
    "arm_styles",
    "as_summary",
    "by_metric",
    "caption",
    "comparison",
    "count_cell",
    "decimal_cell",
    "difference",
    "exact_cell",
    "fraction_cell",
    "grid_means",
    "in_rows",
    "mosaic",
    "part",
    "part_by_view",
    "percent_cell",
    "points_cell",
    "profile",
    "significant",
]
