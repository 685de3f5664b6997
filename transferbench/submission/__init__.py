"""Submissions: one entry's records and predictions on one suite, packed, read and checked."""

from __future__ import annotations

from transferbench.submission.bundle import Bundle, Declaration, Submission
from transferbench.submission.check import Check, CheckReport, check
from transferbench.submission.pack import pack, suite_as_packed
from transferbench.submission.recompute import chance_levels

__all__ = [
    "Bundle",
    "Check",
    "CheckReport",
    "Declaration",
    "Submission",
    "chance_levels",
    "check",
    "pack",
    "suite_as_packed",
]
