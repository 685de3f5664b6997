"""Claims of a suite, judged by what was measured."""

from __future__ import annotations

from transferbench.claims.verdicts import Verdict, judge

__all__ = ["Verdict", "judge"]
