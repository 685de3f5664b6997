"""The flags of one measurement: what a reader is to know of its value."""

from __future__ import annotations

__all__ = ["joined"]


def joined(*flags: str | None) -> str | None:
    """The flags that there are, in one."""
    return "; ".join(flag for flag in flags if flag) or None
