"""Flags of measurements: what a reader must know to interpret a value."""

from __future__ import annotations

__all__ = ["join_flags"]


def join_flags(*flags: str | None) -> str | None:
    """The non-empty flags, joined by semicolons; None if there are none."""
    return "; ".join(flag for flag in flags if flag) or None
