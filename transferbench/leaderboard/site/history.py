"""The ranks of a board as its submissions came: by those that were there on each day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

from transferbench.leaderboard.candidates import Competition
from transferbench.leaderboard.scores import Candidate
from transferbench.leaderboard.site.plots import Datum, Plot, Series, plot
from transferbench.statistics import rank_intervals
from transferbench.suite import TRIAL

__all__ = ["Arrival", "arrivals", "history_plot"]


class Arrival(NamedTuple):
    """A submission of ``entry``, the day it came, and the ranks of all entries on that day."""

    day: date
    candidate: Candidate
    entry: str
    ranks: Mapping[str, int]

    @property
    def rank(self) -> int | None:
        """The rank of its own entry on that day."""
        return self.ranks.get(self.entry)


def arrivals(competition: Competition, dates: Mapping[str, date]) -> list[Arrival]:
    """The submissions of a board, newest first; without ranks where these are within an entry."""
    by_day = {
        day: _ranks(competition, [c for c in competition.candidates if dates[c.folder] <= day])
        for day in {dates[c.folder] for c in competition.candidates}
    }
    came = [
        Arrival(dates[c.folder], c, competition.names[c.entry], by_day[dates[c.folder]])
        for c in competition.candidates
    ]
    came.sort(key=lambda each: (each.rank or len(each.ranks) + 1, each.candidate.folder))
    return sorted(came, key=lambda each: each.day, reverse=True)


def _ranks(competition: Competition, present: Sequence[Candidate]) -> dict[str, int]:
    scoring = competition.suite.scoring
    if scoring.ranks == "initializations":
        return {}
    arm = scoring.initialization
    present = sorted(present, key=competition.precedence)
    chosen: dict[str, Candidate] = {}
    for candidate in present:
        chosen.setdefault(competition.names[candidate.entry], candidate)
    complete = {entry: c for entry, c in chosen.items() if not c.missing_scores(arm)}
    scores = {entry: c.score(arm) for entry, c in sorted(complete.items())}
    networks = {entry: c.networks(TRIAL, scoring.metric, arm) for entry, c in complete.items()}
    return {entry: rank.rank for entry, rank in rank_intervals(scores, networks=networks).items()}


def history_plot(history: Sequence[Arrival]) -> Plot | None:
    """The ranks of the entries over the days; None where all came on one."""
    by_day = {arrival.day: arrival.ranks for arrival in history if arrival.ranks}
    if len(by_day) < 2:  # one day has no history
        return None
    days = sorted(by_day)
    labels = sorted(by_day[days[-1]], key=lambda label: by_day[days[-1]][label])
    series = [
        Series(label, [Datum(k, by_day[day][label]) for k, day in enumerate(days)
                       if label in by_day[day]])
        for label in labels
    ]  # fmt: skip
    return plot(
        series,
        title="Ranks by day",
        description=f"The ranks of {len(labels)} entries on {len(days)} days",
        x_label="",
        y_label="rank",
        x_names=[str(day) for day in days],
        ranks=True,
    )
