"""How numbers and their intervals are written in a report's text and tables."""

from __future__ import annotations

import math

from transferbench.report.summaries import Summary

__all__ = ["ABSENT", "interval_text", "number", "signed", "significant"]

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: float, digits: int = 1) -> str:
    """A fixed number of digits, with a true minus sign and no negative zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float, digits: int = 1) -> str:
    """As ``number``, with a plus where it is positive."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and float(text) != 0 else text


def significant(value: float, digits: int = 3) -> str:
    """So many significant digits, for numbers whose unit is not known beforehand."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e5:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return number(value, places)
    return f"{value:.{digits - 1}e}".replace("-", MINUS)


def interval_text(one: Summary, scale: float = 1.0, digits: int = 1) -> str:
    """The interval in brackets and the number of replicates behind it."""
    if one.low is None or one.high is None:
        return f"no interval, n\N{NO-BREAK SPACE}{one.n}"
    low, high = number(one.low * scale, digits), number(one.high * scale, digits)
    return f"[{low}, {high}] n\N{NO-BREAK SPACE}{one.n}"
