"""One HTML file that shows what a run measured."""

from __future__ import annotations

from pathlib import Path

from transferbench.files import write_text
from transferbench.report.inputs import ReportInput

__all__ = ["ReportInput", "render_report"]


def render_report(results: ReportInput, path: Path) -> None:
    """Write the report atomically: one HTML file that loads no other, equal for equal input."""
    # matplotlib and jinja2 take half a second to import.
    from transferbench.report.page import page

    write_text(path, page(results))
