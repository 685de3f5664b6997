"""The boards as a site: static pages of suites, entries and claims, and a feed."""

from __future__ import annotations

from transferbench.leaderboard.site.dates import append_dates, dates_of, read_dates
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
    "append_dates",
    "dates_of",
    "index_of",
    "newer_than",
    "read_dates",
    "write_board_pages",
    "write_front",
]
