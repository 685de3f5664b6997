"""How numbers are written in the text and tables of a report."""

from __future__ import annotations

import math

__all__ = ["ABSENT", "grouped", "label_text", "number", "percent", "signed_percent", "significant"]

ABSENT = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: float, digits: int = 1) -> str:
    """A fixed number of decimals, with a true minus sign and no negative zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", MINUS)


def percent(value: float) -> str:
    """A fraction in percent, with one decimal."""
    return number(100 * value)


def signed_percent(value: float) -> str:
    """As ``percent``, with a plus where the number is positive."""
    text = percent(value)
    return f"+{text}" if value > 0 and float(text) != 0 else text


def grouped(value: float) -> str:
    """A count of any size, its thousands apart; a fraction of one as it is."""
    return f"{value:,.0f}" if value.is_integer() else f"{value:g}"


def label_text(label: object) -> str:
    """A label as it is, a number without needless digits, nothing where there is none."""
    if isinstance(label, float):
        return f"{label:.0f}" if label.is_integer() else f"{label:g}"
    return "" if label is None else str(label)


def significant(value: float, digits: int = 3) -> str:
    """So many significant digits, for numbers of unknown size."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e5:
        return number(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))))
    return f"{value:.{digits - 1}e}".replace("-", MINUS)
