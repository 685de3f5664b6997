"""The page of an entry: what a submission measured, and how to measure it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, NamedTuple

from tabulate import LATEX_ESCAPE_RULES

from transferbench.leaderboard.candidates import Competition
from transferbench.leaderboard.profile import main_family
from transferbench.leaderboard.scores import Candidate, compared_arms
from transferbench.leaderboard.site.cost import Cost
from transferbench.leaderboard.site.plots import Datum, Plot, Series, plot
from transferbench.leaderboard.table import SHORT_ID, BoardTable, Row
from transferbench.statistics import Interval, replicate_mean
from transferbench.streams import one_line, printable
from transferbench.submission.bundle import slug
from transferbench.suite import TRIAL, Suite
from transferbench.suite.columns import columns_of

__all__ = ["EntryPage", "Panel", "entry_href", "page_href"]

DRAWN = 6
"""Arms of a plot: there are as many colours."""
BRACES = {"{": r"\textbraceleft{}", "}": r"\textbraceright{}"}
LONGEST_FACT = 300
"""Characters of a fact about the environment."""
SHIFT = 0.05
"""Between the intervals of arms side by side."""


class Panel(NamedTuple):
    """A metric on a target along a family of perturbations: as a plot, and as rows of numbers.

    ``rows``: an arm and its value under each of ``labels``.
    """

    plot: Plot
    labels: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Interval | None]]]


def entry_href(candidate: Candidate) -> str:
    """The page of a submission, below the folder of its board: it never changes."""
    return page_href(candidate.head.entry.label, candidate.head.id[:SHORT_ID])


def page_href(label: str, short_id: str) -> str:
    """``entry_href`` of the submission of this entry, by the first characters of its id."""
    return f"entries/{slug(label)}-{slug(short_id)}.html"


@dataclass(frozen=True)
class EntryPage:
    """What the page of a submission shows beside its claims; ``rows``: on the board."""

    candidate: Candidate
    competition: Competition
    table: BoardTable
    day: date
    cost: Cost

    @property
    def rows(self) -> list[Row]:
        """Its rows on the board, the best first; none where it is not ranked."""
        return [row for row in self.table.rows if row.folder == self.candidate.folder]

    @property
    def successor(self) -> Candidate | None:
        """The submission that stands on the board instead."""
        chosen = self.competition.chosen[self.candidate.entry]
        return None if chosen is self.candidate else chosen

    @property
    def predecessors(self) -> list[Candidate]:
        """The submissions that it stands instead of."""
        own = self.candidate
        if self.successor is not None:
            return []
        return [each for each in self.competition.superseded if each.entry == own.entry]

    @property
    def label(self) -> str:
        """The name of the entry."""
        return self.candidate.head.entry.label

    @property
    def suite(self) -> Suite:
        """The suite that was run."""
        return self.candidate.bundle.plan.suite

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """The arms that the board compares."""
        return compared_arms(self.competition.suite)

    @cached_property
    def drawn_arms(self) -> list[str]:
        """The arms that plots have room for: the scored one, its baseline, and the best others."""
        scoring = self.competition.suite.scoring
        ranked = [str(row.cells["initialization"][0]) for row in self.rows
                  if "initialization" in row.cells]  # fmt: skip
        first = [scoring.initialization, scoring.baseline]
        return list(dict.fromkeys([*first, *ranked, *self.arms]))[:DRAWN]

    def panels(self) -> Iterator[Panel]:
        """The scored metric, and those of the board's columns, on each scoring target."""
        suite, candidate = self.competition.suite, self.candidate
        severities = candidate.head.severities
        labels = main_family(suite, severities) or [suite.scoring.perturbation]
        metrics = {(TRIAL, suite.scoring.metric): None}
        metrics |= {(column.diagnostic, column.metric): None for column in columns_of(suite)}
        for diagnostic, metric in metrics:
            for position, target in enumerate(suite.scoring.chance):
                rows = [
                    (
                        arm,
                        [self._mean(diagnostic, metric, arm, label, position) for label in labels],
                    )
                    for arm in self.arms
                ]
                drawn = [k for k in range(len(labels)) if any(row[k] for _, row in rows)]
                rows = [(arm, [row[k] for k in drawn]) for arm, row in rows if any(row)]
                # In the order of the legend.
                rows.sort(key=lambda row: [*self.drawn_arms, *self.arms].index(row[0]))
                if rows:
                    yield self._panel(target, metric, [labels[k] for k in drawn], rows)

    def _mean(
        self, diagnostic: str, metric: str, arm: str, label: str, position: int
    ) -> Interval | None:
        """The mean of an arm on a target under one perturbation; None where it has none."""
        candidate = self.candidate
        values = candidate.by_target(diagnostic, metric, arm, label)[position]
        if not values:
            return None
        networks, ends = (
            candidate.networks(diagnostic, metric, arm),
            candidate.ends(diagnostic, metric),
        )
        mean = replicate_mean(values, networks, ends=ends)
        return mean if mean.value is not None else None

    def _panel(
        self,
        target: str,
        metric: str,
        labels: Sequence[str],
        rows: Sequence[tuple[str, Sequence[Interval | None]]],
    ) -> Panel:
        scoring, words = self.competition.suite.scoring, metric.replace("_", " ")
        drawn_rows = [row for row in rows if row[0] in self.drawn_arms]
        middle = (len(drawn_rows) - 1) / 2
        series = [
            Series(arm, [Datum(k + SHIFT * (position - middle), mean.value, mean.low, mean.high)
                         for k, mean in enumerate(means) if mean and mean.value is not None])
            for position, (arm, means) in enumerate(drawn_rows)
        ]  # fmt: skip
        chance = scoring.chance_of(target) if metric == scoring.metric else None
        drawn = plot(
            series,
            title=f"{words} on {target}",
            description=f"{words} on {target} of {', '.join(arm for arm, _ in drawn_rows)} under "
            f"{', '.join(labels)}, with 95% intervals",
            x_label="perturbation, the mildest left" if len(labels) > 1 else "",
            y_label=words,
            x_names=labels,
            guides=[(chance, "chance")] if chance is not None else [],
        )
        return Panel(drawn, labels, rows)

    def recipes(self) -> dict[str, list[str]]:
        """Name of a recipe -> the sources, and the arms on the first target, that it is of."""
        suite, scoring = self.suite, self.suite.scoring
        first = next(iter(scoring.chance))
        users: dict[str, list[str]] = {}
        for label, source in suite.sources.items():
            if self.candidate.head.entry.weights is None:
                users.setdefault(source.recipe, []).append(f"pre-training on {label}")
        for arm in dict.fromkeys((scoring.initialization, scoring.baseline, *self.arms)):
            users.setdefault(suite.initializations[arm].recipe_on(first), []).append(arm)
        return users

    @property
    def weights_tag(self) -> str | None:
        """The tag of external weights, or the name of their file, in one line."""
        weights = self.candidate.head.entry.weights
        return one_line(weights.tag) if weights else None

    @property
    def command(self) -> str:
        """The command that runs all of it again."""
        entry = self.candidate.head.entry
        parts = ["transferbench", "run", self.candidate.head.board,
                 "--backbone", entry.weightless_name]  # fmt: skip
        if self.weights_tag:
            parts += ["--weights", self.weights_tag]
        return shlex.join(parts)

    @property
    def spot_check(self) -> str:
        """The command that trains some of its trials again."""
        folder = shlex.quote(f"leaderboard/submissions/{self.candidate.folder}")
        return f'transferbench submission reproduce {folder} --trials 3 --by "your name"'

    @property
    def bibtex(self) -> str:
        """An entry of a bibliography, which names the submission by its id."""
        head = self.candidate.head
        key = f"{slug(head.entry.label)}-{head.board}-{head.id[:SHORT_ID]}".replace("+", "-")
        fields = {
            "title": f"{{{_tex(head.entry.label)} on {_tex(head.suite)}}}",
            "author": f"{{{_tex(head.declaration.submitter or 'unnamed submitter')}}}",
            "year": str(self.day.year),
            "howpublished": "transferbench leaderboard",
            "note": f"submission {head.id}",
        }
        lines = (f"  {name} = {{{value}}}," for name, value in fields.items())
        return "\n".join([f"@misc{{{key.replace('@', '-')},", *lines, "}"])

    @property
    def environment(self) -> Mapping[str, str]:
        """The machine and the versions, as the submitter recorded them."""
        recorded = self.candidate.bundle.environment
        facts = {name: recorded.get(name) for name in ("platform", "python")}
        for group in ("packages", "jobs"):
            content = recorded.get(group)
            facts |= content if isinstance(content, dict) else {}
        return {_text(name): _text(value) for name, value in facts.items() if value}


def _tex(text: str) -> str:
    """Text as LaTeX reads it in a field of BibTeX, which counts braces behind backslashes, too."""
    rules = LATEX_ESCAPE_RULES | BRACES
    return "".join(rules.get(letter, letter) for letter in text)


def _text(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return printable(text[:LONGEST_FACT])
