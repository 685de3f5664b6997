"""The rows and columns of a board: arms of submissions, ranked in groups.

The rows of a board of entries are the scored arms of all entries, in one group; those of a board
of initializations are the arms of each entry, a group for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from transferbench.errors import UnknownNameError
from transferbench.leaderboard.candidates import Candidate, Competition
from transferbench.leaderboard.profile import Profile, profile_of
from transferbench.leaderboard.scores import SubmissionValues, compared_arms
from transferbench.leaderboard.table import SHORT_ID, Cell, Column, Row
from transferbench.measurements import ReplicateValues, difference_of
from transferbench.registry import Registry
from transferbench.specs import InitializationSpec
from transferbench.statistics import Interval, Rank, rank_intervals, share_of_gain, student_t
from transferbench.submission import Bundle, Submission
from transferbench.suite import TRIAL, BoardColumn, Suite
from transferbench.suite.columns import columns_of

__all__ = ["BoardRows", "board_rows", "described_arms"]


class BoardRows(NamedTuple):
    """The ranked rows, and the arms that lack a score."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    incomplete: Sequence[tuple[Candidate, str]]


class Standing(NamedTuple):
    """An arm of a candidate that has every score, and its rank in its group."""

    candidate: Candidate
    arm: str
    values: SubmissionValues
    score: ReplicateValues
    rank: Rank

    @property
    def head(self) -> Submission:
        """The head of the candidate's submission."""
        return self.candidate.bundle.submission

    @property
    def key(self) -> str:
        """A name to rank by: equal means are in the order of these."""
        return _key(self.candidate, self.arm)


CellsOf: TypeAlias = Callable[[Sequence[Standing]], list[Cell]]
"""The cells of a column for the rows of one group."""


def board_rows(competition: Competition) -> BoardRows:
    """The rows of a board, group after group, in each the best first."""
    columns = list(_columns(competition))
    rows: list[Row] = []
    incomplete: list[tuple[Candidate, str]] = []
    for group in _groups(competition):
        lacking = [(c, arm) for c, arm in group if competition.values(c).missing_scores(arm)]
        standings = _ranked(competition, [member for member in group if member not in lacking])
        cells = {column.key: cells_of(standings) for column, cells_of in columns}
        rows += [
            Row(
                cells={key: column[position] for key, column in cells.items()},
                folder=competition.folder(standing.candidate),
                profile=_profile(standing),
            )
            for position, standing in enumerate(standings)
        ]
        incomplete += lacking
    return BoardRows([column for column, _ in columns], rows, incomplete)


def _groups(competition: Competition) -> list[list[tuple[Candidate, str]]]:
    suite, chosen = competition.suite, competition.chosen
    if suite.scoring.ranks == "entries":
        return [[(candidate, suite.scoring.initialization) for candidate in chosen]]
    return [[(candidate, arm) for arm in compared_arms(suite)] for candidate in chosen]


def _ranked(competition: Competition, group: Sequence[tuple[Candidate, str]]) -> list[Standing]:
    members = {_key(*member): member for member in group}
    scores = {key: competition.values(c).score(arm) for key, (c, arm) in members.items()}
    return [
        Standing(*members[key], competition.values(members[key][0]), scores[key], rank)
        for key, rank in rank_intervals(scores).items()
    ]


def _key(candidate: Candidate, arm: str) -> str:
    head = candidate.bundle.submission
    return f"{head.entry.name} {head.id} {arm}"


def _profile(standing: Standing) -> Profile | None:
    """Of entries: the arms of one entry would all have the same."""
    if standing.values.suite.scoring.ranks != "entries":
        return None
    return profile_of(standing.values, standing.candidate.bundle.submission.severities)


# --- columns ----------------------------------------------------------------------------------


def _columns(competition: Competition) -> Iterator[tuple[Column, CellsOf]]:
    """The columns of a board and their cells; those that no row has a value in are left out later.

    The suite's own stand behind those of the trials under the same perturbation.
    """
    suite, severe = competition.suite, competition.severe
    of_arms = suite.scoring.ranks == "initializations"
    yield from _leading_columns(of_arms=of_arms)
    measured = [*_trial_columns(suite), *((column, None) for column in columns_of(suite))]
    for under, perturbation in (("clean", suite.scoring.perturbation), ("most-severe", severe)):
        for column, arm in measured:
            if column.under == under and perturbation is not None:
                yield _measured(column, perturbation, arm)
    yield from _arm_facts(competition) if of_arms else _entry_facts()
    yield _column(
        Column("trust", "trust", "text", "reported, recomputed or reproduced", not of_arms),
        lambda row: competition.trust(row.candidate, row.arm),
    )
    yield _column(
        Column("submission", "submission", "text", "its id"), lambda row: row.head.id[:SHORT_ID]
    )


def _column(
    column: Column, value: Callable[[Standing], Cell | str | int | None]
) -> tuple[Column, CellsOf]:
    """A column with a value for each row."""

    def cells(standings: Sequence[Standing]) -> list[Cell]:
        values = [value(row) for row in standings]
        return [v if isinstance(v, tuple) else (v,) for v in values]

    return column, cells


def _leading_columns(*, of_arms: bool) -> Iterator[tuple[Column, CellsOf]]:
    rank = f"place by score{' within the entry' if of_arms else ''}, with its 95% interval"
    yield _column(Column("rank", "rank", "rank", rank, True), lambda row: _rank_cell(row.rank))
    members = "initializations of an entry" if of_arms else "entries"
    ties = f"{members} that share a letter are not separated"
    yield _column(Column("ties", "tie group", "text", ties, True), lambda row: row.rank.tie_group)
    if of_arms:
        arm = Column("initialization", "initialization", "text", "the arm of the suite", True)
        yield _column(arm, lambda row: row.arm)
    entry = Column("entry", "entry", "text", "the backbone", True)
    yield _column(entry, lambda row: row.head.entry.name)
    score = "mean over the scoring targets; 0 is chance, 1 the frozen reference"
    yield _column(
        Column("score", "score", "interval", score, not of_arms),
        lambda row: _interval_cell(_mean(row.score)),
    )
    n = "replicates behind every interval of the row"
    yield _column(Column("replicates", "n", "count", n), lambda row: len(row.score))


def _trial_columns(suite: Suite) -> list[tuple[BoardColumn, str | None]]:
    """What every board shows of the scored metric, with the arm it is of (None: the row's)."""
    scoring = suite.scoring
    arm, baseline = scoring.initialization, scoring.baseline
    metric = scoring.metric.replace("_", " ")

    def column(key: str, title: str, text: str, **fields: Any) -> BoardColumn:
        measured = {"diagnostic": TRIAL, "metric": scoring.metric, "of": "value"}
        return BoardColumn(key=key, title=title, help=text, **measured | fields)

    if scoring.ranks == "initializations":
        return [
            (column("final", metric, f"{metric}, a fraction", terminal=True), None),
            (column("severe_final", metric, metric, under="most-severe", terminal=True), None),
        ]
    pretrained, scratch = (f"{metric} of {label}, a fraction" for label in (arm, baseline))
    gain = f"{metric} of {arm} minus {baseline}, paired"
    return [
        (column("pretrained", arm, pretrained, terminal=True), None),
        (column("baseline", baseline, scratch, terminal=True), baseline),
        (column("gain", "gain", gain, of="gain", terminal=True), None),
        (column("severe_gain", "gain", "gain", of="gain", under="most-severe"), None),
    ]


def _measured(
    column: BoardColumn, perturbation: str, arm: str | None = None
) -> tuple[Column, CellsOf]:
    """``arm``: the one that is measured instead of the row's."""
    severe = column.under == "most-severe"
    head = Column(
        key=column.key,
        title=f"{column.title}, {perturbation}" if severe else column.title,
        kind="rank" if column.of == "rank" else "interval",
        help=f"{column.help} under {perturbation}" if severe else column.help,
        terminal=column.terminal,
    )

    def series(row: Standing, label: str) -> ReplicateValues:
        return row.values.series(column.diagnostic, column.metric, label, perturbation)

    def interval_cell(row: Standing) -> Cell:
        scoring, values = row.values.suite.scoring, series(row, arm or row.arm)
        if column.of == "value":
            return _interval_cell(_mean(values))
        baseline = series(row, scoring.baseline)
        if column.of == "gain":
            return _interval_cell(_mean(difference_of(values, baseline)))
        scored = series(row, scoring.initialization)
        return _interval_cell(share_of_gain(values, scored, baseline))

    def ranks(standings: Sequence[Standing]) -> list[Cell]:
        measured = {row.key: values for row in standings if (values := series(row, row.arm))}
        by_key = rank_intervals(measured)
        return [_rank_cell(by_key.get(row.key)) for row in standings]

    return _column(head, interval_cell) if column.of != "rank" else (head, ranks)


def _mean(values: ReplicateValues) -> Interval:
    return student_t(list(values.values()))


def _interval_cell(interval: Interval | None) -> Cell:
    return (None, None, None) if interval is None else interval[:3]


def _rank_cell(rank: Rank | None) -> Cell:
    return (None, None, None) if rank is None else (rank.rank, rank.rank_low, rank.rank_high)


# --- facts ------------------------------------------------------------------------------------


def _entry_facts() -> Iterator[tuple[Column, CellsOf]]:
    claims = "reproduced/contradicted/undecided"
    yield _column(
        Column("claims", "claims", "claims", claims, True),
        lambda row: _claims(row.candidate.bundle),
    )
    yield _column(
        Column("parameters", "parameters", "count", "of the network that is scored"),
        lambda row: row.head.entry.parameters,
    )
    yield _column(
        Column("pretraining", "pre-training", "text", "the suite's source, or external weights"),
        lambda row: _pretraining(row.candidate.bundle),
    )
    overlap = "whether the targets' images were in the pre-training"
    yield _column(
        Column("overlap", "overlap", "text", overlap),
        lambda row: _overlap(row.candidate.bundle),
    )


def _claims(bundle: Bundle) -> Cell:
    """How many claims were reproduced, contradicted and left undecided; controls are no claims."""
    counts = Counter(row.verdict for row in bundle.verdicts if not row.control)
    if not counts:
        return None, None, None
    return counts["reproduced"], counts["contradicted"], counts["undecided"]


def _pretraining(bundle: Bundle) -> str:
    weights = bundle.submission.entry.weights
    if weights is not None:
        return f"{weights.tag} ({weights.pretrained_on})"
    suite = bundle.plan.suite
    source = suite.initializations[suite.scoring.initialization].source
    return f"suite: {suite.sources[source].dataset.name}"


def _overlap(bundle: Bundle) -> str:
    """The declared overlap with the scoring targets: one word, or the targets of each."""
    declared = bundle.submission.declaration.overlap
    by_word: dict[str, list[str]] = {}
    for target in bundle.plan.suite.scoring.chance:
        by_word.setdefault(declared.get(target, "unknown"), []).append(target)
    if len(by_word) == 1:
        return next(iter(by_word))
    return "; ".join(f"{word}: {', '.join(targets)}" for word, targets in sorted(by_word.items()))


def _arm_facts(competition: Competition) -> Iterator[tuple[Column, CellsOf]]:
    needs = "what it starts from besides the backbone's own draw"
    yield _column(
        Column("needs", "needs", "text", needs),
        lambda row: _needs(row.candidate.bundle, row.arm, competition.registry),
    )


def _needs(bundle: Bundle, label: str, registry: Registry) -> str | None:
    """What an arm starts from; None where its plugin is not installed here."""
    spec = _initialization(bundle.plan.suite, label, registry)
    if spec is None:
        return None
    needs = []
    if "source_weights" in spec.needs:
        source = bundle.plan.suite.initializations[label].source
        external = bundle.submission.entry.weights is not None
        needs.append("external weights" if external else f"weights of {source}")
    if "images" in spec.needs:
        needs.append("target images")
    return ", ".join(needs) or "nothing"


def described_arms(suite: Suite, registry: Registry) -> Iterator[str]:
    """A line on each compared arm: its plugin, parameters and summary."""
    for label in compared_arms(suite):
        use, spec = suite.initializations[label], _initialization(suite, label, registry)
        params = ", ".join(f"{name}={value}" for name, value in use.params.items())
        text = f"{label}: {use.name}{f' ({params})' if params else ''}"
        yield f"{text}. {spec.summary}." if spec else f"{text}."


def _initialization(suite: Suite, label: str, registry: Registry) -> InitializationSpec | None:
    try:
        return registry.initialization(suite.initializations[label].name)
    except UnknownNameError:
        return None
