"""LaTeX formulas between dollars as MathML, which needs no scripts or fonts."""

from __future__ import annotations

import re

from latex2mathml.converter import convert

__all__ = ["with_formulas"]

BLOCK = re.compile(r"^\$\$\s*(.+?)\s*\$\$$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<![\\$\w])\$([^$\n]+?)\$(?![\w$])")
VERBATIM = re.compile(r"^```.*?^```|`+[^`]+`+", re.MULTILINE | re.DOTALL)


def with_formulas(markdown: str) -> str:
    """``markdown`` with formulas as MathML; code and escaped dollars are left alone."""
    parts, start = [], 0
    for verbatim in VERBATIM.finditer(markdown):
        parts += [_converted(markdown[start : verbatim.start()]), verbatim.group()]
        start = verbatim.end()
    return "".join([*parts, _converted(markdown[start:])])


def _converted(text: str) -> str:
    text = BLOCK.sub(lambda match: f'<div class="formula">{_mathml(match[1], "block")}</div>', text)
    return INLINE.sub(_inline, text)


def _inline(match: re.Match[str]) -> str:
    # Markdown parses a line that begins with <math> as a block.
    return f'<span class="math">{_mathml(match[1], "inline")}</span>'


def _mathml(latex: str, display: str) -> str:
    mathml = convert(" ".join(latex.split()), display=display)
    # One line without Markdown characters.
    return mathml.replace("*", "&#42;").replace("_", "&#95;").replace("\n", "")
