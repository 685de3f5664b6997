"""The columns and rows of a board of initializations, and what it says of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from transferbench.errors import UnknownNameError
from transferbench.leaderboard.arm_scores import Arm
from transferbench.leaderboard.scores import compared_arms
from transferbench.leaderboard.table import SHORT_ID, Cell, Column, Row, bounds
from transferbench.registry import Registry
from transferbench.specs import InitializationSpec
from transferbench.statistics import Rank, student_t
from transferbench.submission import Bundle
from transferbench.suite import Suite

__all__ = ["RankedArm", "arm_columns", "arm_row", "described_arms", "flags_of_arms", "needs_of"]


ROUNDING = 1e-12
"""What a score of 0 may be off by."""


class RankedArm(NamedTuple):
    """An arm with everything its row is made from."""

    bundle: Bundle
    arm: Arm
    needs: str | None
    trust: str
    folder: str


def arm_columns(suite: Suite, severe: str | None) -> tuple[Column, ...]:
    """The columns of a board whose rows are initializations."""
    arm, baseline = suite.scoring.initialization, suite.scoring.baseline
    metric = suite.scoring.metric.replace("_", " ")
    share = f"share of the speed that {arm} gains over {baseline}: 0 is {baseline}, 1 is {arm}"
    return (
        Column("rank", "rank", "rank", "place by score within the entry, with its 95% interval"),
        Column("ties", "tie group", "text",
               "initializations of an entry that share a letter are not separated"),
        Column("initialization", "initialization", "text", "the arm of the suite"),
        Column("entry", "entry", "text", "the backbone"),
        Column("score", "score", "interval",
               "mean over the scoring targets; 0 is chance, 1 the frozen reference"),
        Column("replicates", "n", "count", "replicates behind every interval of the row"),
        Column("final", metric, "interval", f"{metric}, a fraction"),
        Column("speed", "speed", "interval", "mean train metric over the epochs, a fraction"),
        Column("speed_rank", "speed rank", "rank",
               "place by speed within the entry, with its 95% interval"),
        Column("share", "speed gain recovered", "interval", share),
        Column("severe_final", f"{metric}, {severe}", "interval", f"{metric} under {severe}"),
        Column("severe_speed", f"speed, {severe}", "interval", f"speed under {severe}"),
        Column("severe_share", f"speed gain recovered, {severe}", "interval",
               f"{share}, all under {severe}"),
        Column("needs", "needs", "text", "what it starts from besides the backbone's own draw"),
        Column("trust", "trust", "text", "reported, recomputed or reproduced"),
        Column("submission", "submission", "text", "its id"),
    )  # fmt: skip


def arm_row(ranked: RankedArm) -> Row:
    """The row of one initialization of a submission."""
    submission, arm = ranked.bundle.submission, ranked.arm
    cells: dict[str, Cell] = {
        "rank": _rank(arm.rank),
        "ties": (arm.rank.tie_group,),
        "initialization": (arm.label,),
        "entry": (submission.entry.name,),
        "score": bounds(student_t(list(arm.score.values()))),
        "replicates": (len(arm.score),),
        "final": bounds(arm.clean.final),
        "speed": bounds(arm.clean.speed),
        "speed_rank": _rank(arm.speed_rank),
        "share": bounds(arm.clean.share),
        "severe_final": bounds(arm.severe.final),
        "severe_speed": bounds(arm.severe.speed),
        "severe_share": bounds(arm.severe.share),
        "needs": (ranked.needs,),
        "trust": (ranked.trust,),
        "submission": (submission.id[:SHORT_ID],),
    }
    return Row(cells, ranked.folder, None)


def _rank(rank: Rank | None) -> Cell:
    return (None, None, None) if rank is None else (rank.rank, rank.rank_low, rank.rank_high)


def needs_of(bundle: Bundle, label: str, registry: Registry) -> str | None:
    """What an arm starts from; None where its plugin is not installed here."""
    spec = _spec(bundle.plan.suite, label, registry)
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


def flags_of_arms(rows: Iterable[Row]) -> Iterator[str]:
    """Which rows are not above chance: their other numbers are of networks that did not learn."""
    names = [
        f"{row.cells['initialization'][0]} of {row.cells['entry'][0]}"
        for row in rows
        if isinstance(low := row.cells["score"][1], float) and low <= ROUNDING
    ]
    if names:
        yield f"Not above chance: {', '.join(names)}. Such networks did not learn."


def described_arms(suite: Suite, registry: Registry) -> Iterator[str]:
    """A line on each compared arm: its plugin, parameters, and what that keeps of P."""
    for label in compared_arms(suite):
        use, spec = suite.initializations[label], _spec(suite, label, registry)
        given = ", ".join(f"{name}={value}" for name, value in use.params.items())
        told = f"{label}: {use.name}{f' ({given})' if given else ''}"
        yield f"{told}. {spec.summary}." if spec else f"{told}."


def _spec(suite: Suite, label: str, registry: Registry) -> InitializationSpec | None:
    try:
        return registry.initialization(suite.initializations[label].name)
    except UnknownNameError:
        return None
