"""The rows and columns of a board: arms of submissions, ranked in groups.

The rows of a board of entries are the scored arms of all entries, in one group; those of a board
of initializations are the arms of each entry, a group for each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from transferbench.claims import Counts, controls_of, counts_of, failed_controls, families_of
from transferbench.errors import listing
from transferbench.leaderboard.candidates import Arm, Competition
from transferbench.leaderboard.notes import installed_initialization
from transferbench.leaderboard.origin_text import origin_text
from transferbench.leaderboard.profile import profile_of
from transferbench.leaderboard.rates import is_tuned, rates_text
from transferbench.leaderboard.scores import Candidate, EntryKey
from transferbench.leaderboard.table import SHORT_ID, BoardCell, CellKind, Column, Row, field_names
from transferbench.measurements import ReplicateValues
from transferbench.registry import Registry
from transferbench.statistics import (
    Interval,
    Rank,
    rank_intervals,
    replicate_difference,
    replicate_mean,
    share_of_gain,
)
from transferbench.streams import one_line
from transferbench.submission import Submission
from transferbench.suite import TRIAL, BoardColumn, Suite
from transferbench.suite.columns import columns_of

__all__ = ["board_rows"]

VALUES = "the submission's values: recomputed from predictions, derived, or reported"
NAMED = 5
"""Claims that a mark names."""


class Standing(NamedTuple):
    """An arm of a candidate that has every score, and its rank in its group."""

    candidate: Candidate
    arm: str
    score: ReplicateValues
    rank: Rank

    @property
    def head(self) -> Submission:
        """The head of the candidate's submission."""
        return self.candidate.head

    @property
    def key(self) -> str:
        """A name, by which rows of equal means are sorted."""
        return _key(self.candidate, self.arm)


IMAGES = ", on the suite's fixed test images"
"""After what a column shows: no interval of a board covers other images."""

CellValue: TypeAlias = Interval | Rank | Counts | str | int | None
ColumnValues: TypeAlias = Callable[[Sequence[Standing]], Iterable[CellValue]]
"""The values of a column for the rows of one group."""


def board_rows(competition: Competition) -> tuple[list[Column], list[Row]]:
    """The columns that have a value, and the rows, group after group, in each the best first."""
    columns = list(_columns(competition))
    of_arms = competition.suite.scoring.ranks == "initializations"
    rows: list[Row] = []
    for group in competition.groups():
        standings = _ranked(group)
        by_key = {
            column.key: [_cell(column, value) for value in values_of(standings)]
            for column, values_of in columns
        }
        for position, standing in enumerate(standings):
            cells = {key: column[position] for key, column in by_key.items()}
            # The arms of one entry would all have the same profile.
            profile = None if of_arms else profile_of(standing.candidate)
            rows.append(Row(cells, standing.candidate.folder, profile))
    measured = [
        column
        for column, _ in columns
        if not rows or any(row.cells[column.key][0] is not None for row in rows)
    ]
    return measured, rows


def _ranked(group: Sequence[Arm]) -> list[Standing]:
    """The arms of a group that have every score, the best first."""
    members = {
        _key(candidate, arm): (candidate, arm)
        for candidate, arm in group
        if not candidate.missing_scores(arm)
    }
    scores = {key: candidate.score(arm) for key, (candidate, arm) in members.items()}
    networks = {
        key: candidate.networks(TRIAL, candidate.suite.scoring.metric, arm)
        for key, (candidate, arm) in members.items()
    }
    ends = next((candidate.score_ends for candidate, _ in members.values()), None)
    ranks = rank_intervals(scores, networks=networks, ends=ends)
    return [Standing(*members[key], scores[key], rank) for key, rank in ranks.items()]


def _key(candidate: Candidate, arm: str) -> str:
    return f"{candidate.head.entry.label} {candidate.head.id} {arm}"


def _cell(column: Column, value: CellValue) -> BoardCell:
    """The cell of a value, with the bounds of an interval or a rank."""
    if value is None:
        return (None,) * len(field_names(column))
    if isinstance(value, Rank):
        return value.rank, value.rank_low, value.rank_high
    if isinstance(value, Interval):
        return value.value, value.low, value.high
    return value if isinstance(value, tuple) else (value,)


# --- columns ----------------------------------------------------------------------------------


def _columns(competition: Competition) -> Iterator[tuple[Column, ColumnValues]]:
    """The columns of a board and their values.

    The suite's columns follow those of the trials under the same perturbation.
    """
    suite, severe = competition.suite, competition.severe
    of_arms = suite.scoring.ranks == "initializations"
    yield from _leading_columns(competition.names, of_arms=of_arms)
    measured = [*_trial_columns(suite), *((column, None) for column in columns_of(suite))]
    for under, perturbation in (("clean", suite.scoring.perturbation), ("most-severe", severe)):
        for column, arm in measured:
            if column.under == under and perturbation is not None:
                yield _measured(column, perturbation, arm)
    if of_arms:
        text = "what it starts from besides the backbone's own draw"
        yield _column("needs", "needs", "text", text, lambda row: _needs(row, competition.registry))
    else:
        yield from _entry_facts()
    if is_tuned(suite):
        yield _rate_column(suite)

    text = "controls that failed, and claims with equal predictions or lost replicates"
    yield _column("marks", "marks", "text", text, _marks, terminal=True)

    def trust(row: Standing) -> str:
        return competition.trust(row.candidate, row.arm)

    yield _column("values", "values", "text", VALUES, _values)
    text = "what of the row is derived from recorded histories, or is the submitter's word"
    yield _column("reported", "derived and reported", "text", text,
                  lambda row: origin_text(row.candidate))  # fmt: skip
    text = "reported, recomputed, spot-checked or reproduced"
    yield _column("trust", "trust", "text", text, trust, terminal=not of_arms)
    yield _column("submission", "submission", "text", "its id", lambda row: row.head.id[:SHORT_ID])


def _column(
    key: str,
    title: str,
    kind: CellKind,
    text: str,
    value: Callable[[Standing], CellValue],
    *,
    terminal: bool = False,
) -> tuple[Column, ColumnValues]:
    """A column with a value for each row."""
    return Column(key, title, kind, text, terminal), lambda standings: map(value, standings)


def _leading_columns(
    names: Mapping[EntryKey, str], *, of_arms: bool
) -> Iterator[tuple[Column, ColumnValues]]:
    text = f"place by score{' within the entry' if of_arms else ''}, with its 95% interval{IMAGES}"
    yield _column("rank", "rank", "rank", text, lambda row: row.rank, terminal=True)
    members = "initializations of an entry" if of_arms else "entries"
    text = f"{members} that share a letter are not separated"
    yield _column("ties", "tie group", "text", text, lambda row: row.rank.tie_group, terminal=True)
    if of_arms:
        title, text = "initialization", "the arm of the suite"
        yield _column(title, title, "text", text, lambda row: row.arm, terminal=True)
    text = "the backbone"
    yield _column("entry", "entry", "text", text, lambda row: names[row.candidate.entry],
                  terminal=True)  # fmt: skip
    text = f"mean over the scoring targets; 0 is chance, 1 the frozen reference{IMAGES}"
    yield _column("score", "score", "interval", text, _score, terminal=not of_arms)
    text = "replicates behind every interval of the row"
    yield _column("replicates", "n", "count", text, lambda row: len(row.score))
    text = "what the row's intervals cover; given P: all replicates start from one source network"
    yield _column("covers", "intervals over", "text", text, _covers, terminal=True)


def _trial_columns(suite: Suite) -> list[tuple[BoardColumn, str | None]]:
    """The columns of the scored metric on every board, each with its arm (None: the row's)."""
    scoring = suite.scoring
    arm, baseline = scoring.initialization, scoring.baseline
    metric = scoring.metric.replace("_", " ")

    column = partial(BoardColumn, diagnostic=TRIAL, metric=scoring.metric, of="value")
    severe = partial(column, under="most-severe")

    if scoring.ranks == "initializations":
        return [
            (column(key="final", title=metric, help=f"{metric}, a fraction", terminal=True), None),
            (
                column(
                    key="severe_final",
                    title=metric,
                    help=metric,
                    under="most-severe",
                    terminal=True,
                ),
                None,
            ),
        ]
    pretrained, scratch = (f"{metric} of {label}, a fraction" for label in (arm, baseline))
    gain = f"{metric} of {arm} minus {baseline}, paired"
    return [
        (column(key="pretrained", title=arm, help=pretrained, terminal=True), None),
        (column(key="baseline", title=baseline, help=scratch, terminal=True), baseline),
        (column(key="gain", title="gain", help=gain, of="gain", terminal=True), None),
        (
            severe(key="severe_gain", title="gain", help="gain", of="gain"),
            None,
        ),
    ]


def _measured(
    column: BoardColumn, perturbation: str, arm: str | None = None
) -> tuple[Column, ColumnValues]:
    """A column of one measurement, of ``arm`` instead of the row's where it is given."""
    severe = column.under == "most-severe"
    head = Column(
        key=column.key,
        title=f"{column.title}, {perturbation}" if severe else column.title,
        kind="rank" if column.of == "rank" else "interval",
        help=f"{column.help} under {perturbation}" if severe else column.help,
        terminal=column.terminal,
    )

    def series(row: Standing, label: str) -> ReplicateValues:
        return row.candidate.series(column.diagnostic, column.metric, label, perturbation)

    def networks(row: Standing, *arms: str) -> int:
        return row.candidate.networks(column.diagnostic, column.metric, *arms)

    def interval(row: Standing) -> Interval | None:
        scoring, own = row.candidate.suite.scoring, arm or row.arm
        values = series(row, own)
        ends = row.candidate.ends(column.diagnostic, column.metric)
        if column.of == "value":
            return replicate_mean(values, networks(row, own), ends=ends)
        baseline = series(row, scoring.baseline)
        if column.of == "gain":
            several = networks(row, own, scoring.baseline)
            return replicate_difference(values, baseline, several, ends=ends)
        arms = (own, scoring.initialization, scoring.baseline)
        scored = series(row, scoring.initialization)
        return share_of_gain(values, scored, baseline, networks(row, *arms), ends)

    def ranks(standings: Sequence[Standing]) -> list[Rank | None]:
        measured = {row.key: values for row in standings if (values := series(row, row.arm))}
        starts = {row.key: networks(row, row.arm) for row in standings}
        candidate = next((row.candidate for row in standings), None)
        ends = candidate.ends(column.diagnostic, column.metric) if candidate else None
        by_key = rank_intervals(measured, networks=starts, ends=ends)
        return [by_key.get(row.key) for row in standings]

    return head, ranks if column.of == "rank" else lambda standings: map(interval, standings)


def _score(row: Standing) -> Interval:
    candidate = row.candidate
    networks = candidate.networks(TRIAL, candidate.suite.scoring.metric, row.arm)
    return replicate_mean(row.score, networks, ends=candidate.score_ends)


def _covers(row: Standing) -> str:
    return row.candidate.covers(row.arm)


# --- facts ------------------------------------------------------------------------------------


def _entry_facts() -> Iterator[tuple[Column, ColumnValues]]:
    text = "families (claims of the paper) reproduced/contradicted/undecided"
    yield _column("claims", "claims", "claims", text, _claims, terminal=True)
    text = f"{text}, after Holm's correction over them"
    yield _column("adjusted", "claims, adjusted", "claims", text, _adjusted)
    text = "controls passed/failed/underpowered"
    yield _column("controls", "controls", "controls", text, _controls, terminal=True)
    text = "of the network that is scored"
    yield _column("parameters", "parameters", "count", text, lambda row: row.head.entry.parameters)
    text = "the suite's source, or external weights"
    yield _column("pretraining", "pre-training", "text", text, _pretraining)
    text = "whether the targets' images were in the pre-training"
    yield _column("overlap", "overlap", "text", text, _overlap)


def _rate_column(suite: Suite) -> tuple[Column, ColumnValues]:
    """The chosen rates of the row's arm, or of the scored arm and its baseline."""
    scoring = suite.scoring
    pair = (scoring.initialization, scoring.baseline)

    def rates(row: Standing) -> str | None:
        arms = [row.arm] if scoring.ranks == "initializations" else pair
        return rates_text(row.candidate, arms)

    text = "peak learning rate, chosen from the grid of the recipe on validation images"
    return _column("learning_rates", "learning rates", "text", text, rates)


def _claims(row: Standing) -> Counts | None:
    """Of the families, without controls."""
    families = families_of(row.candidate.bundle.verdicts)
    return counts_of(family.verdict for family in families) if families else None


def _adjusted(row: Standing) -> Counts | None:
    families = families_of(row.candidate.bundle.verdicts)
    adjusted = [family.adjusted for family in families if family.adjusted is not None]
    return counts_of(adjusted) if adjusted else None


def _controls(row: Standing) -> Counts | None:
    verdicts = row.candidate.bundle.verdicts
    return controls_of(verdicts) if any(verdict.control for verdict in verdicts) else None


def _marks(row: Standing) -> str | None:
    """What a reader of the row must know; None where there is nothing."""
    verdicts = row.candidate.bundle.verdicts
    flagged: dict[str, list[str]] = {}
    for verdict in verdicts:
        for flag in verdict.flags:
            flagged.setdefault(flag, []).append(verdict.claim)
    parts = [f"{flag}: {listing(claims, NAMED)}" for flag, claims in flagged.items()]
    if failed := failed_controls(verdicts):
        parts.insert(0, f"control failed: {listing(failed, NAMED)}")
    return "; ".join(parts) or None


def _values(row: Standing) -> str | None:
    origins = row.candidate.origins
    return origins.text if origins else None


def _pretraining(row: Standing) -> str:
    if weights := row.head.entry.weights:
        return f"{one_line(weights.tag)} ({weights.pretrained_on})"
    suite = row.candidate.bundle.plan.suite
    source = suite.initializations[suite.scoring.initialization].source
    return f"suite: {suite.sources[source].dataset.name}"


def _overlap(row: Standing) -> str:
    """The overlap with the scoring targets: one word, or the targets of each."""
    overlaps = row.candidate.overlaps
    by_word: dict[str, list[str]] = defaultdict(list)
    for target in row.candidate.bundle.plan.suite.scoring.chance:
        by_word[overlaps.get(target, "unknown")].append(target)
    if len(by_word) == 1:
        return next(iter(by_word))
    return "; ".join(f"{word}: {', '.join(targets)}" for word, targets in sorted(by_word.items()))


def _needs(row: Standing, registry: Registry) -> str | None:
    """What an arm starts from; None where its plugin is not installed here."""
    use = row.candidate.bundle.plan.suite.initializations[row.arm]
    spec = installed_initialization(use, registry)
    if spec is None:
        return None
    needs = []
    if "source_weights" in spec.needs:
        needs.append("external weights" if row.head.entry.weights else f"weights of {use.source}")
    if "images" in spec.needs:
        needs.append("target images")
    return ", ".join(needs) or "nothing"
