"""Writes the pages: of each board, its entries and its claims, and the front page with its feed."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from transferbench.files import json_text, write_text
from transferbench.leaderboard.candidates import Competition
from transferbench.leaderboard.scores import Candidate
from transferbench.leaderboard.site.claims import BoardClaim, claims_of, judged_of, terms_of
from transferbench.leaderboard.site.cost import cost_of
from transferbench.leaderboard.site.entries import EntryPage, entry_href, page_href
from transferbench.leaderboard.site.history import arrivals, history_plot
from transferbench.leaderboard.site.pareto import pareto_plots
from transferbench.leaderboard.site.plots import ScoreAxis, compact
from transferbench.leaderboard.site.summary import (
    BoardSummary,
    Index,
    question_of,
    summary_of_board,
)
from transferbench.leaderboard.table import MINUS, BoardTable, Column, cell_text, signed
from transferbench.registry import Registry
from transferbench.submission.certificate import certificates_of, is_another, is_of
from transferbench.suite import TRIAL, Recipe
from transferbench.suite.columns import columns_of

__all__ = ["SITE", "BoardInput", "write_board_pages", "write_front"]

SITE = "site"
"""The folder of the site, among those of the boards."""
ASSETS = ("site.css", "site.js")
INDEX = "index.json"

MEASURED = 8
"""Columns of measurements that fit beside the score on a page 1,280 pixels wide."""
LEADING = ("rank", "ties", "initialization", "entry", "score", "claims", "trust")
"""What a board shows first, in its own way."""


class BoardInput(NamedTuple):
    """A board, and what its pages need beside the table.

    ``competition``: None where no submission was accepted. ``newer``: the board of the suite's
    newest MAJOR, where that is another one.
    """

    table: BoardTable
    competition: Competition | None
    submissions: Path
    dates: Mapping[str, date]
    registry: Registry
    newer: str | None = None


def write_board_pages(board: BoardInput, folder: Path) -> tuple[BoardSummary, list[Path]]:
    """Write the pages of a board into its folder below the site; pages that it had go.

    Returns what the front page says of it, and the files.
    """
    table, competition = board.table, board.competition
    pages, claims = [], []
    if competition:
        pages = [
            EntryPage(candidate, competition, table, board.dates[candidate.folder],
                      cost_of(candidate, board.registry))
            for candidate in competition.candidates
        ]  # fmt: skip
        claims = claims_of(competition.suite, list(_ordered(table, competition)))
    common = {
        "table": table,
        "of_arms": table.ranks == "initializations",
        "heads": {column.key: column for column in table.columns},
    }
    contents = {"index.html": _board_page(board, folder, common, pages, claims)}
    for row in table.unranked:
        if row.status == "withdrawn":
            href = page_href(row.entry, row.submission)
            contents[href] = _render("withdrawn.html.j2", **common, root="../../", row=row)
    for page in pages:
        href = entry_href(page.candidate)
        contents[href] = _entry_page(page, board, folder / href, common, claims)
    for claim in claims:
        contents[claim.href] = _claim_page(claim, board, common)
    for below in ("entries", "claims"):
        shutil.rmtree(folder / below, ignore_errors=True)
    for name, content in contents.items():
        write_text(folder / name, content)
    return summary_of_board(table, competition, pages), [folder / name for name in contents]


def write_front(index: Index, site: Path, left_out: Sequence[str] = ()) -> list[Path]:
    """Write the front page, the feed, the index as data, and what all pages share."""
    contents = {
        "index.html": _render("front.html.j2", root="", index=index, left_out=left_out,
                              axis_of=_axis_of_entries),
        "feed.xml": _render("feed.xml.j2", index=index, urn=_urn),
        INDEX: json_text(index.model_dump(mode="json")),
    }  # fmt: skip
    for name in ASSETS:
        contents[name] = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    for name, content in contents.items():
        write_text(site / name, content)
    return [site / name for name in contents]


# --- one page each ----------------------------------------------------------------------------


def _board_page(
    board: BoardInput,
    folder: Path,
    common: Mapping[str, Any],
    pages: Sequence[EntryPage],
    claims: Sequence[BoardClaim],
) -> str:
    table, competition = board.table, board.competition
    history = arrivals(competition, board.dates) if competition else []
    candidates = list(_ordered(table, competition)) if competition else []
    measured = [c for c in table.columns if c.kind in {"interval", "rank"} and c.key not in LEADING]
    ends = [end for row in table.rows for end in row.cells["score"]]
    return _render(
        "board.html.j2",
        **common,
        root="../",
        formats=f"../../{table.board}",
        submissions=_relative(board.submissions, folder),
        question=question_of(competition.suite) if competition else "",
        newer=board.newer,
        measured=_in_tables(measured, MEASURED - 2 * (table.ranks == "initializations")),
        facts=[c for c in table.columns if c not in measured and c.key not in LEADING],
        axis=ScoreAxis([end if isinstance(end, float) else None for end in ends]),
        hrefs={page.candidate.folder: entry_href(page.candidate) for page in pages},
        origins_of={page.candidate.folder: _origins(page) for page in pages},
        pareto=pareto_plots(table, pages) if competition else [],
        claims=claims,
        candidates=candidates,
        page_href=page_href,
        history=history,
        history_plot=history_plot(history),
    )


def _entry_page(
    page: EntryPage,
    board: BoardInput,
    path: Path,
    common: Mapping[str, Any],
    claims: Sequence[BoardClaim],
) -> str:
    head = page.candidate.head
    judged = [(claim, each) for claim in claims for each in judged_of([claim], page.candidate)]
    if not judged:  # of a superseded one, whose verdicts are not on the board
        own = claims_of(page.suite, [page.candidate])
        judged = [(claim, claim.judged[0]) for claim in own]
    return _render(
        "entry.html.j2",
        **common,
        root="../../",
        page=page,
        panels=list(page.panels()),
        judged=judged,
        linked={claim.label for claim in claims},
        arm_columns=[c for c in board.table.columns if c.kind in {"interval", "rank"}
                     and c.key != "rank"],
        certificates=[each for each in certificates_of(board.submissions, head.id)
                      if is_of(each, page.candidate.bundle)],
        is_another=is_another,
        href_of=lambda candidate: entry_href(candidate).partition("/")[2],
        recipe_text=_recipe_text,
        submissions=_relative(board.submissions, path.parent),
        files=["submission.json", *head.files],
    )  # fmt: skip


def _claim_page(claim: BoardClaim, board: BoardInput, common: Mapping[str, Any]) -> str:
    counted: dict[str, int] = {}
    for each in claim.judged:
        counted[each.word] = counted.get(each.word, 0) + 1
    return _render(
        "claim.html.j2",
        **common,
        root="../../",
        formats=f"../../../{board.table.board}",
        claim=claim,
        words=sorted(counted.items()),
        terms=list(terms_of(claim.claim)) if claim.claim else [],
        href_of=entry_href,
    )


# --- what they show ---------------------------------------------------------------------------


def _in_tables(columns: Sequence[Column], most: int) -> list[Sequence[Column]]:
    """Columns of about equally wide tables; one table at least: that of the scores."""
    tables = -(-len(columns) // most) or 1
    size = -(-len(columns) // tables) or 1
    return [columns[k : k + size] for k in range(0, len(columns), size)] or [()]


def _ordered(table: BoardTable, competition: Competition) -> Iterator[Candidate]:
    """The candidates that stand on the board, in its order; those without a score last."""
    by_folder = {candidate.folder: candidate for candidate in competition.chosen.values()}
    for folder in dict.fromkeys([*(row.folder for row in table.rows), *by_folder]):
        yield by_folder[folder]


def _origins(page: EntryPage) -> dict[str, str]:
    """Column -> where the values of an entry come from."""
    origins, suite = page.candidate.origins, page.competition.suite
    if origins is None:
        return dict.fromkeys((column.key for column in page.table.columns), "reported")
    by_key = {column.key: (column.diagnostic, column.metric) for column in columns_of(suite)}
    scored = TRIAL, suite.scoring.metric
    return {column.key: str(origins.of(*by_key.get(column.key, scored)))
            for column in page.table.columns}  # fmt: skip


def _recipe_text(recipe: Recipe) -> str:
    """The settings of a recipe that are not its defaults, in words."""
    settings = recipe.model_dump(exclude_defaults=True)
    parts = []
    for name, value in settings.items():
        text = value
        if isinstance(value, dict):
            text = " ".join(f"{k.replace('_', ' ')} {_listed(v)}" for k, v in value.items())
        parts.append(f"{name.replace('_', ' ')} {_listed(text)}")
    return "; ".join(parts)


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _axis_of_entries(entries: Sequence[Any]) -> ScoreAxis:
    return ScoreAxis([end for each in entries for end in (each.score, each.low, each.high)])


def _urn(name: str) -> str:
    """An address for a feed, which needs one that never changes and belongs to nobody else."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, name)}"


# --- rendering --------------------------------------------------------------------------------


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(str(__package__), ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions: dict[str, Callable[..., str]] = {
        "cell_text": cell_text, "compact": compact, "decimal": _decimal, "signed": signed,
    }  # fmt: skip
    environment.globals.update(functions)
    environment.filters["breakable"] = _breakable
    return environment


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values).rstrip() + "\n"


def _breakable(name: str) -> Markup:
    """The name of an entry, whose line may break behind a sign and not within a word."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_+@])(?=.)", name))


def _decimal(value: float) -> str:
    return f"{value:.3f}".replace("-", MINUS)


def _relative(target: Path, folder: Path) -> str:
    return Path(os.path.relpath(target, folder)).as_posix()
