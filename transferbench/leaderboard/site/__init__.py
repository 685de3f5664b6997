"""The boards as a site: static pages of suites, entries and claims, and a feed."""

from __future__ import annotations

from transferbench.leaderboard.site.dates import dates_with
from transferbench.leaderboard.site.summary import BoardSummary, Index, index_of, newer_than
from transferbench.leaderboard.site.write import (
    SITE,
    BoardInput,
    write_board_pages,
    write_front,
)

__all__ = [
    "SITE",
    "BoardInput",
    "BoardSummary",
    "Index",
    "dates_with",
    "index_of",
    "newer_than",
    "write_board_pages",
    "write_front",
]
