"""The leaderboard: submissions checked, chosen and ranked, written from one table object."""

from __future__ import annotations

from transferbench.leaderboard.build import boards, build
from transferbench.leaderboard.folders import survey
from transferbench.leaderboard.formats import show
from transferbench.leaderboard.table import BoardTable

__all__ = ["BoardTable", "boards", "build", "show", "survey"]
