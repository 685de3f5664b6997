"""One HTML file that shows what a run measured."""

from __future__ import annotations

from pathlib import Path

from transferbench.report.inputs import ReportInput

__all__ = ["ReportInput", "render_report"]


def render_report(results: ReportInput, path: Path) -> None:
    """Write the report: one self-contained HTML file, equal bytes for equal input."""
    # matplotlib and jinja2 take half a second to import: only who renders pays it.
    from transferbench.report.page import page

    path.write_text(page(results), encoding="utf-8", newline="\n")
