"""What a diagnostic draws its part of a run's report with: ``ReportPart.build`` returns a ``Part``.

Figures are data: a plugin says what a panel shows, and the report draws it. Names are imported
when they are first used, and none of them imports matplotlib or pandas: a plugin's module can say
``from transferbench import reporting as rp`` at its top.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferbench.measurements import Measurements
    from transferbench.report.comparisons import (
        Compared,
        TableLine,
        by_metric,
        comparison,
        difference,
        grid_means,
        profile,
    )
    from transferbench.report.figures import (
        Heat,
        HeatFigure,
        Panel,
        PanelFigure,
        Series,
        in_rows,
        mosaic,
    )
    from transferbench.report.formats import ABSENT, significant
    from transferbench.report.parts import (
        Block,
        Condition,
        Drawing,
        Listing,
        Part,
        Published,
        Scope,
        View,
        caption,
    )
    from transferbench.report.styles import INK, MUTED, PALETTE, LineStyle, arm_styles
    from transferbench.report.summaries import (
        Aggregate,
        Summary,
        as_summary,
    )
    from transferbench.report.tables import (
        Cell,
        Table,
        WriteCell,
        count_cell,
        decimal_cell,
        exact_cell,
        percent_cell,
        points_cell,
    )

__all__ = [
    "ABSENT",
    "INK",
    "MUTED",
    "PALETTE",
    "Aggregate",
    "Block",
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
    "grid_means",
    "in_rows",
    "mosaic",
    "percent_cell",
    "points_cell",
    "profile",
    "significant",
]

_HOMES = ("parts", "comparisons", "figures", "tables", "summaries", "styles", "formats")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in ("measurements", *(f"report.{module}" for module in _HOMES)):
            module = import_module(f"transferbench.{home}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
