"""Formulas, written as LaTeX between dollars, as MathML: no script, no font from elsewhere."""

from __future__ import annotations

import re

from latex2mathml.converter import convert

__all__ = ["with_formulas"]

BLOCK = re.compile(r"^\$\$\s*(.+?)\s*\$\$$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<![\\$\w])\$([^$\n]+?)\$(?![\w$])")
VERBATIM = re.compile(r"^```.*?^```|`+[^`]+`+", re.MULTILINE | re.DOTALL)


def with_formulas(markdown: str) -> str:
    """``markdown`` with its formulas as MathML; code, and an escaped dollar, stay as they are."""
    found, start = [], 0
    for verbatim in VERBATIM.finditer(markdown):
        found += [_converted(markdown[start : verbatim.start()]), verbatim.group()]
        start = verbatim.end()
    return "".join([*found, _converted(markdown[start:])])


def _converted(text: str) -> str:
    text = BLOCK.sub(lambda found: f'<div class="formula">{_mathml(found[1], "block")}</div>', text)
    return INLINE.sub(_inline, text)


def _inline(found: re.Match[str]) -> str:
    # Markdown takes a line that begins with <math> for a block.
    return f'<span class="math">{_mathml(found[1], "inline")}</span>'


def _mathml(latex: str, display: str) -> str:
    mathml = convert(" ".join(latex.split()), display=display)
    # One line, and no character that Markdown would read.
    return mathml.replace("*", "&#42;").replace("_", "&#95;").replace("\n", "")
