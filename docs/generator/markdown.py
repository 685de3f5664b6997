"""Markdown tables and code, and docstrings as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

__all__ = ["code", "in_boxes", "prose", "table"]

SECTION = re.compile(r"^(Shapes|Units|Error|Memory|Source|Raises): ?", re.MULTILINE)
CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)


def code(text: str) -> str:
    """``text`` as inline code."""
    return f"`{text}`" if text else ""


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are joined into one line and their bars escaped."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    parts = CODE.split(" ".join(text.split()))
    return "".join(part if CODE.fullmatch(part) else part.replace("|", r"\|") for part in parts)


def prose(docstring: str | None) -> str:
    """A docstring as Markdown, with headings for its sections; only its code is markup."""
    text = inspect.cleandoc(docstring or "")
    parts = CODE.split(text)
    return "".join(_code(part) if CODE.fullmatch(part) else _plain(part) for part in parts)


def _code(part: str) -> str:
    return code(part.strip("`"))


def _plain(part: str) -> str:
    escaped = re.sub(r"([*_<\[\]$])", r"\\\1", part)
    return SECTION.sub(r"\n**\1.** ", escaped)


def in_boxes(html: str) -> str:
    """``html`` with each table in a box that scrolls in narrow windows."""
    return html.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )
