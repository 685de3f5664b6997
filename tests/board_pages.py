"""The tables of a board's pages, read back."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

__all__ = ["html_rows", "latex_rows", "markdown_rows"]


class _Tables(HTMLParser):
    """The rows of a page's tables, each cell as its text."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        del attrs
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
            self._open = True
        elif tag == "span" and self._open and self.rows[-1][-1].strip():
            self.rows[-1][-1] += " "
        elif tag == "title":
            self._open = False

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data.strip()


def html_rows(path: Path) -> list[list[str]]:
    """The text of every cell of a page, drawings apart."""
    parser = _Tables()
    parser.feed(path.read_text())
    drawings = {k for k, title in enumerate(parser.rows[0]) if title in {"interval", "profile"}}
    return [[c for k, c in enumerate(row) if k not in drawings] for row in parser.rows]


def markdown_tables(path: Path) -> list[list[list[str]]]:
    """The cells of each table of a markdown page."""
    blocks = path.read_text().split("\n\n")
    return [_markdown_rows(block) for block in blocks if block.startswith("|")]


def markdown_rows(path: Path) -> list[list[str]]:
    """The cells of the only table, or of all but the heads of the others."""
    return _markdown_rows(path.read_text())


def _markdown_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    del lines[1]
    return [
        [cell.strip().replace("\\", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
    ]


def latex_rows(path: Path) -> list[list[str]]:
    """The cells of a LaTeX table."""
    lines = [line for line in path.read_text().splitlines() if line.endswith(r"\\")]
    plain = [line.replace("$-$", "−").replace("--", "–").rstrip("\\") for line in lines]  # noqa: RUF001  # as shown
    return [[cell.strip().replace(r"\%", "%") for cell in line.split("&")] for line in plain]
