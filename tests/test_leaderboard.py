"""Boards: numbers from records, one table in every format, and who stands on it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from board_pages import html_rows, latex_rows, markdown_rows, markdown_tables
from handmade_run import (
    SKILL,
    SUITE,
    BuiltBoards,
    certify,
    copied_submissions,
    entry_of,
    handmade_registry,
    make_run,
    only_board,
    publish,
    recorded_values,
    sealed,
    submit,
    trial_outputs,
)
from pydantic import ValidationError
from t_intervals import OF_SHARES, of_difference, of_level

from transferbench.claims import Verdict
from transferbench.errors import SubmissionError, SuiteError
from transferbench.leaderboard import boards, build, show, survey
from transferbench.leaderboard import rows as rows_module
from transferbench.leaderboard.build import _sound_board, _with_pages, judged_board, write_pages
from transferbench.leaderboard.candidates import refused
from transferbench.leaderboard.claim_table import claims_as_csv, claims_as_markdown
from transferbench.leaderboard.formats import write_board
from transferbench.leaderboard.scores import Candidate
from transferbench.leaderboard.site import Index
from transferbench.leaderboard.site import write as write_module
from transferbench.leaderboard.site.history import arrivals
from transferbench.leaderboard.table import EN_DASH, MINUS, BoardTable, cell_text, csv_text
from transferbench.plan import Entry
from transferbench.records import read_records, write_records
from transferbench.registry import load_registry
from transferbench.specs import Weights
from transferbench.submission import Check, CheckReport, Declaration, check, pack
from transferbench.submission.bundle import read_bundle
from transferbench.submission.certificate import (
    Certificate,
    Repeated,
    certificates_of,
    is_another,
    is_valid_for,
)
from transferbench.submission.check import PUBLISHED as PUBLISHED_SUITE
from transferbench.submission.check import RECOMPUTING
from transferbench.submission.diagnoses import recompute_diagnoses
from transferbench.submission.origins import origins_of
from transferbench.submission.overlap import overlaps_of
from transferbench.submission.withdrawal import withdrawals_beside
from transferbench.suite import Suite
from transferbench.suite.minors import changed_between
from transferbench.suite.preregistration import register_beside
from transferbench.suite.published import KnownSuites
from transferbench.suite.schema import BOARD_KEYS

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
FORMATS = ("board.md", "board.csv", "board.json", "board.tex", "index.html")
CLAIMS = ("claims.md", "claims.csv")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBoards:
    folder = tmp_path_factory.mktemp("made")
    registry = handmade_registry(folder)
    submissions = folder / "submissions"
    submit(folder / "a", registry, submissions, tuple(entry_of(name) for name in SKILL))
    build(submissions, folder / "boards", registry)
    return BuiltBoards(registry, submissions, folder / "boards")


# --- numbers ----------------------------------------------------------------------------------


def _assert_interval(row: Mapping[str, Any], key: str, expected: Sequence[float | None]) -> None:
    assert [row[key], row[f"{key}_low"], row[f"{key}_high"]] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("entry", sorted(SKILL))
def test_numbers_equal_those_of_scipy(built: BuiltBoards, entry: str) -> None:
    rows = json.loads((built.out / "handmade@1" / "board.json").read_text())["rows"]
    row = next(row for row in rows if row["entry"] == entry)
    tuned = recorded_values(built.submissions, entry, "test_metric", "P-T")
    scratch = recorded_values(built.submissions, entry, "test_metric", "RI-T")
    chance, reference = np.array([[0.2], [0.5]]), np.array([[0.9], [0.95]])
    least, most = (((end - chance) / (reference - chance)).mean() for end in (0, 1))
    scores = ((tuned - chance) / (reference - chance)).mean(axis=0)
    _assert_interval(row, "score", of_level(scores, (least, most)))
    final, start = tuned.mean(axis=0), scratch.mean(axis=0)
    _assert_interval(row, "pretrained", of_level(final, OF_SHARES))
    _assert_interval(row, "baseline", of_level(start, OF_SHARES))
    _assert_interval(row, "gain", of_difference(final, start, OF_SHARES))
    severe = [
        recorded_values(built.submissions, entry, "test_metric", arm, "blur-9").mean(axis=0)
        for arm in ("P-T", "RI-T")
    ]
    _assert_interval(row, "severe_gain", of_difference(*severe, OF_SHARES))
    assert row["speed_gain"] == pytest.approx(0.1)
    assert row["severe_speed_gain"] == pytest.approx(0.1)
    assert row["replicates"] == 3


def test_another_diagnostic_cannot_stand_in_for_the_score(
    built: BuiltBoards, tmp_path: Path
) -> None:
    """A forged test metric of the speed diagnostic, sealed: it is no trial's and moves nothing."""
    submissions = copied_submissions(built.submissions, tmp_path / "s")
    (path,) = submissions.glob("*/made-poor/*/records.jsonl.gz")
    rows = list(read_records(path))
    forged = [
        row.model_copy(update={"metric": "test_metric", "value": 1.0, "flag": None})
        for row in rows
        if row.diagnostic == "speed"
    ]
    write_records([*rows, *forged], path)
    sealed(path.parent)
    before, after = (
        only_board(built.submissions, built.registry),
        only_board(submissions, built.registry),
    )
    assert len(forged) == 24
    assert [row.cells["score"] for row in after.rows] == [r.cells["score"] for r in before.rows]


def test_a_score_that_predictions_do_not_give_is_only_reported(
    built: BuiltBoards, tmp_path: Path
) -> None:
    scoring = SUITE["scoring"] | {"metric": "train_metric"}
    submit(tmp_path, built.registry, tmp_path / "s", suite=SUITE | {"scoring": scoring})
    (row,) = only_board(tmp_path / "s", built.registry).rows
    assert row.cells["trust"] == ("reported",)


def test_the_profile_follows_the_perturbations_by_severity(built: BuiltBoards) -> None:
    row = only_board(built.submissions, built.registry).rows[0]
    assert row.profile is not None
    assert row.profile.perturbations == ("none", "blur-2", "blur-9")
    for k, label in enumerate(row.profile.perturbations):
        expected = recorded_values(
            built.submissions, "made-good", "test_metric", "P-T", label
        ).mean()
        assert row.profile.pretrained[k] == pytest.approx(expected, abs=1e-12)


def test_entries_are_ranked_by_score_with_tie_groups(built: BuiltBoards) -> None:
    board = only_board(built.submissions, built.registry)
    ranks = {row.cells["entry"][0]: row.cells["rank"] for row in board.rows}
    assert list(ranks) == ["made-good", "made-fair", "made-poor"]
    assert ranks["made-poor"] == (3, 3, 3)
    ties = {row.cells["entry"][0]: str(row.cells["ties"][0]) for row in board.rows}
    assert not set(ties["made-poor"]) & set(ties["made-good"])


def test_one_replicate_has_a_rank_and_no_interval(built: BuiltBoards, tmp_path: Path) -> None:
    submit(tmp_path, built.registry, tmp_path / "s", suite=SUITE | {"replicates": 1})
    build(tmp_path / "s", tmp_path / "out", built.registry)
    board = only_board(tmp_path / "s", built.registry)
    (row,) = board.rows
    score = next(column for column in board.columns if column.key == "score")
    assert row.cells["score"][1:] == (None, None)
    assert re.fullmatch(r"\d\.\d{3} \[\?, \?\]", cell_text(score, row.cells["score"]))


def test_a_board_says_when_its_suite_was_registered(built: BuiltBoards, tmp_path: Path) -> None:
    submissions = copied_submissions(built.submissions, tmp_path / "submissions")
    digest = Suite.model_validate(SUITE).digest
    register = tmp_path / "suites" / "PREREGISTERED"
    register.parent.mkdir(exist_ok=True)
    register.write_text(f"2026-11-28 handmade@1.0 {digest}\n")
    before = only_board(built.submissions, built.registry)
    (note,) = set(only_board(submissions, built.registry).notes) - set(before.notes)
    assert note.startswith(f"Preregistered on 2026-11-28 with digest {digest[:12]}: claims, ")
    register.write_text(f"2026-11-28 handmade@1.0 {'0' * 64}\n")
    with pytest.raises(SuiteError, match="is not what was preregistered on 2026-11-28: handmade@1"):
        boards(submissions, built.registry)


PUBLISHED = Path(__file__).parents[1] / "leaderboard"


@pytest.mark.parametrize(
    "board",
    [
        "initializations@1",
        "initializations@3",
        "null-pair@1",
        "quickstart@1",
        "quickstart@2",
        "quickstart@3",
        "icons@1",
        pytest.param("characters@1", marks=pytest.mark.slow),
        pytest.param("characters@2", marks=pytest.mark.slow),
        pytest.param("characters@4", marks=pytest.mark.slow),
    ],
)
def test_a_published_board_is_built_again_byte_for_byte(board: str, tmp_path: Path) -> None:
    """Its files, its pages of the site, and what the front page says of it."""
    root = PUBLISHED / "submissions"
    checks = tuple(Check(name, "ok") for name in (*RECOMPUTING, PUBLISHED_SUITE))
    registry, examined = load_registry(), []
    for head in sorted((root / board).glob("*/*/submission.json")):
        bundle = read_bundle(head.parent)
        origins = origins_of(bundle, recompute_diagnoses(bundle, registry))
        overlaps = overlaps_of(bundle, KnownSuites(PUBLISHED / "suites"))
        examined.append(CheckReport(head.parent, checks, bundle, origins, overlaps=overlaps))
    judged = judged_board(
        board, examined, registry, register_beside(root), withdrawals_beside(root)
    )
    for path in write_board(judged.table, tmp_path / "submissions", tmp_path / board):
        assert path.read_bytes() == (PUBLISHED / board / path.name).read_bytes(), path.name
    for name in ("submissions", "certificates", "DATES"):
        (tmp_path / name).symlink_to(PUBLISHED / name)
    summary, pages = write_pages(judged, tmp_path / "submissions", tmp_path / "site", registry)
    for path in pages:
        name = path.relative_to(tmp_path)
        assert path.read_bytes() == (PUBLISHED / name).read_bytes(), name
    published = (PUBLISHED / "site" / board).rglob("*.html")
    assert {path.relative_to(tmp_path) for path in pages} == {
        path.relative_to(PUBLISHED) for path in published
    }
    index = Index.model_validate_json((PUBLISHED / "site" / "index.json").read_text())
    assert summary in index.boards


# --- what intervals cover ---------------------------------------------------------------------


def test_a_row_says_what_its_intervals_cover(built: BuiltBoards, tmp_path: Path) -> None:
    board = only_board(built.submissions, built.registry)
    assert {row.cells["covers"] for row in board.rows} == {("replicates, given P",)}
    assert any(note.startswith("Intervals: 95%, Student-t over the n") for note in board.notes)
    assert any("and do not cover others of the same dataset" in note for note in board.notes)
    sources = {"source": SUITE["sources"]["source"] | {"networks": 3}}
    entries = (entry_of("made-good"), entry_of("made-fair", "afar"))
    submit(tmp_path, built.registry, tmp_path / "s", entries, SUITE | {"sources": sources})
    board = only_board(tmp_path / "s", built.registry)
    covers = {row.cells["entry"][0]: row.cells["covers"][0] for row in board.rows}
    assert list(covers.values()) == ["3 source networks x 1 replicate", "replicates, given P"]
    assert any("another pre-training run would change; over replicates given P" in note
               for note in board.notes)  # fmt: skip
    claims = claims_as_markdown(board.board, board.verdicts, str)
    assert "over 3 source networks x 1 replicate" in claims
    text = next(column.help for column in board.columns if column.key == "score")
    assert text.endswith("on the suite's fixed test images")


# --- formats ----------------------------------------------------------------------------------


def test_every_format_shows_the_same_table(built: BuiltBoards) -> None:
    board, folder = only_board(built.submissions, built.registry), built.out / "handmade@1"
    expected = [[column.title for column in board.columns]] + [
        [cell_text(column, row.cells[column.key]) for column in board.columns] for row in board.rows
    ]
    assert len(expected) == 4
    assert markdown_rows(folder / "board.md") == expected
    assert latex_rows(folder / "board.tex") == expected
    assert html_rows(folder / "index.html") == expected


def test_csv_and_json_have_full_precision(built: BuiltBoards) -> None:
    folder = built.out / "handmade@1"
    rows = json.loads((folder / "board.json").read_text())["rows"]
    with (folder / "board.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert len(read) == len(rows) == 3
    for flat, row in zip(read, rows, strict=True):
        assert float(flat["score_low"]) == row["score_low"]
        assert {key: str(row[key]) for key in flat} == flat


def test_the_terminal_shows_the_columns_that_fit(built: BuiltBoards) -> None:
    message = show(only_board(built.submissions, built.registry))
    assert message.startswith("handmade@1  Invented numbers.")
    assert "made-good" in message
    assert "recomputed" in message
    assert max(map(len, message.splitlines())) < 170


def test_the_same_submissions_give_the_same_bytes(built: BuiltBoards, tmp_path: Path) -> None:
    submissions = tmp_path / "moved"
    publish(Suite.model_validate(SUITE), submissions)
    for folder in sorted(built.submissions.glob("*/*"), reverse=True):
        shutil.copytree(folder, submissions / folder.relative_to(built.submissions))
    written = build(submissions, tmp_path / "boards", built.registry)
    assert [path.name for path in written] == [*FORMATS, *CLAIMS, "README.md"]
    for name in (*FORMATS, *CLAIMS):
        again = (tmp_path / "boards" / "handmade@1" / name).read_bytes()
        first = (built.out / "handmade@1" / name).read_bytes()
        assert again.replace(b"/moved/", b"/submissions/") == first


def test_the_index_links_every_board(built: BuiltBoards) -> None:
    index = (built.out / "README.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", index):
        assert (built.out / link).is_file(), link
    assert "[handmade@1](handmade@1/board.md)" in index
    # Boards without a site need no dates of submissions.
    assert not (built.out.parent / "DATES").exists()


def test_the_page_links_its_submissions_and_loads_nothing(built: BuiltBoards) -> None:
    folder = built.out / "handmade@1"
    page = (folder / "index.html").read_text()
    assert not re.search(r"src=|@import|url\(|https?:|<link", page)
    links = [link for link in re.findall(r'href="([^"]+)"', page) if "README" not in link]
    assert len(links) == 9
    for link in links:
        assert (folder / link.replace("%40", "@")).is_file(), link


HOSTILE = "<script>alert(1)</script> | a_b & 5% $x$ #1 [y](z)"


def test_foreign_text_is_escaped_in_every_format(built: BuiltBoards, tmp_path: Path) -> None:
    weights = Weights(tag="=SUM(A1)", origin="afar", license="MIT", pretrained_on=HOSTILE)
    entry = Entry("made-good", {"name": "made-good", "version": 1, "params": {}}, "MIT", "x",
                  weights)  # fmt: skip
    submit(tmp_path, built.registry, tmp_path / "s", (entry,))
    build(tmp_path / "s", tmp_path / "out", built.registry)
    folder = tmp_path / "out" / "handmade@1"
    message = f"=SUM(A1) ({HOSTILE})"
    page = (folder / "index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | a_b &amp; 5%" in page
    markdown = (folder / "board.md").read_text()
    assert "<script>" not in re.sub(r"\\.", "", markdown)
    assert message in markdown_rows(folder / "board.md")[1]
    assert r"a\_b \& 5\% \$x\$ \#1" in (folder / "board.tex").read_text()
    with (folder / "board.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["pretraining"] == f"'{message}"
    assert json.loads((folder / "board.json").read_text())["rows"][0]["pretraining"] == message


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium to open the page")
def test_a_browser_sorts_the_table_of_a_file(built: BuiltBoards, tmp_path: Path) -> None:
    page = (built.out / "handmade@1" / "index.html").read_text()
    click = "<script>document.querySelector('th.score button, th.interval button').click()</script>"
    copy = tmp_path / "index.html"
    copy.write_text(page.replace("</body>", f"{click}</body>"))
    dumped = subprocess.run(  # a browser on our own file
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu",
         f"--user-data-dir={tmp_path}",
         "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    order = re.findall(r'<th scope="row" data-sort="([^"]+)"', dumped)
    assert order == ["made-poor", "made-fair", "made-good"]
    assert 'aria-sort="ascending"' in dumped


# --- notes ------------------------------------------------------------------------------------


def test_every_format_says_how_its_numbers_are_made(built: BuiltBoards) -> None:
    for name in ("board.md", "board.json", "board.tex", "index.html"):
        message = (built.out / "handmade@1" / name).read_text().replace("\\", "")
        assert "95%, Student-t over the n replicates" in message, name
        assert "P is one pre-trained network shared by all replicates" in message, name
        assert (
            "Unequal tuning budgets: the recipes are of P-T best of 6 and RI-T best" in message
        ), name
    assert "Unequal tuning budgets" in show(only_board(built.submissions, built.registry))


def test_equal_tuning_is_not_flagged(built: BuiltBoards, tmp_path: Path) -> None:
    recipes = SUITE["recipes"] | {"P-T": SUITE["recipes"]["RI-T"]}
    submit(tmp_path, built.registry, tmp_path / "s", suite=SUITE | {"recipes": recipes})
    board = only_board(tmp_path / "s", built.registry)
    assert board.flags == ()
    assert "Tuning budgets are equal: the recipes are of P-T best of 1 and RI-T best of 1" in (
        " ".join(board.notes)
    )


def test_a_board_shows_the_columns_that_its_suite_names(built: BuiltBoards, tmp_path: Path) -> None:
    measured = {
        "title": "train",
        "diagnostic": "trial",
        "metric": "test_metric",
        "help": "at the end",
    }
    columns = [
        {**measured, "key": "train", "of": "value", "terminal": True},
        {**measured, "key": "train_rank", "title": "train rank", "of": "rank"},
        {**measured, "key": "severe_train", "of": "gain", "under": "most-severe"},
        {**measured, "key": "nowhere", "metric": "unheard_of", "of": "value"},
    ]
    scoring = SUITE["scoring"] | {"columns": columns}
    entries = tuple(entry_of(name) for name in ("made-fair", "made-poor"))
    submit(tmp_path, built.registry, tmp_path / "s", entries, SUITE | {"scoring": scoring})
    board = only_board(tmp_path / "s", built.registry)
    titles = {column.key: (column.title, column.help) for column in board.columns}
    assert titles["train"] == ("train", "at the end")
    assert titles["severe_train"] == ("train, blur-9", "at the end under blur-9")
    assert list(titles)[8:13] == ["gain", "train", "train_rank", "severe_gain", "severe_train"]
    assert "nowhere" not in titles
    for row, rank in zip(board.rows, (1, 2), strict=True):
        entry = str(row.cells["entry"][0])
        values = recorded_values(tmp_path / "s", entry, "test_metric", "P-T")
        assert row.cells["train"][0] == pytest.approx(values.mean(), abs=1e-12)
        assert row.cells["train_rank"][0] == rank
    assert "Train: at the end." in board.notes
    assert " train " in show(board)
    assert "train rank" not in show(board)


def test_every_board_has_the_columns_that_a_suite_cannot_name(built: BuiltBoards) -> None:
    (board,) = boards(built.submissions, built.registry)
    own = {column["key"] for column in SUITE["scoring"]["columns"]}
    assert {column.key for column in board.columns} - own <= BOARD_KEYS


def test_what_no_entry_measured_has_no_column(built: BuiltBoards, tmp_path: Path) -> None:
    diagnostics = {"speed": SUITE["diagnostics"]["speed"] | {"on": {"perturbations": ["none"]}}}
    suite = SUITE | {"diagnostics": diagnostics, "claims": {}}
    submit(tmp_path, built.registry, tmp_path / "s", suite=suite)
    keys = {column.key for column in only_board(tmp_path / "s", built.registry).columns}
    assert "speed_gain" in keys
    assert not keys & {"severe_speed_gain", "claims"}
    assert {"gain", "severe_gain", "score"} <= keys


def test_pretraining_overlap_and_licence_of_external_weights_are_shown(
    built: BuiltBoards, tmp_path: Path
) -> None:
    submit(
        tmp_path,
        built.registry,
        tmp_path / "s",
        (entry_of("made-good", "web"),),
        declaration=Declaration(overlap={"digits": "yes"}),
    )
    (row,) = only_board(tmp_path / "s", built.registry).rows
    assert row.cells["entry"] == ("made-good+web",)
    assert row.cells["pretraining"] == ("web (everything)",)
    assert row.cells["overlap"] == ("unknown: marks; yes: digits",)


# --- who stands on a board --------------------------------------------------------------------


def test_a_refused_submission_is_listed_with_its_reason(built: BuiltBoards, tmp_path: Path) -> None:
    submissions = copied_submissions(built.submissions, tmp_path / "s")
    (path,) = submissions.glob("*/made-fair/*/claims.json")
    path.write_text("[]")
    board = only_board(submissions, built.registry)
    assert [row.cells["entry"][0] for row in board.rows] == ["made-good", "made-poor"]
    (listed,) = board.unranked
    assert (listed.entry, listed.status) == ("made-fair", "refused")
    assert "content is untouched: claims.json is not the file that was packed" in listed.why


def test_an_unreadable_submission_is_listed(built: BuiltBoards, tmp_path: Path) -> None:
    submissions = copied_submissions(built.submissions, tmp_path / "s")
    (path,) = submissions.glob("*/made-fair/*/plan.json")
    path.write_text("{")
    (listed,) = only_board(submissions, built.registry).unranked
    assert (listed.entry, listed.status) == ("made-fair", "refused")
    assert "plan.json is not a JSON file" in listed.why


def test_a_board_of_refused_submissions_alone_is_still_built(
    built: BuiltBoards, tmp_path: Path
) -> None:
    submit(tmp_path, built.registry, tmp_path / "s")
    (path,) = (tmp_path / "s").glob("*/*/*/environment.json")
    path.unlink()
    build(tmp_path / "s", tmp_path / "out", built.registry)
    page = (tmp_path / "out" / "handmade@1" / "index.html").read_text()
    assert "No entry is ranked yet" in page
    assert "environment.json is missing" in page


def test_an_entry_that_lacks_a_score_is_listed_apart_without_a_zero(
    built: BuiltBoards, tmp_path: Path
) -> None:
    def diverged(job: Any, cell: Any) -> Any:
        labels, logits = trial_outputs(job, cell)
        lost = (cell.target, cell.replicate, cell.initialization) == ("marks", 1, "P-T")
        return labels, logits * np.float32(np.nan) if lost else logits

    submit(tmp_path, built.registry, tmp_path / "s", outputs=diverged)
    board = only_board(tmp_path / "s", built.registry)
    assert board.rows == ()
    (listed,) = board.unranked
    assert (listed.status, listed.why) == ("incomplete", "no score on marks, replicate 1")
    assert "0.000" not in show(board)


def test_the_latest_minor_stands_and_the_older_is_superseded(
    built: BuiltBoards, tmp_path: Path
) -> None:
    submissions = tmp_path / "s"
    (old,) = submit(tmp_path / "old", built.registry, submissions)
    newer = SUITE | {"version": "1.10", "summary": "Newer."}
    submit(tmp_path / "older", built.registry, submissions, suite=SUITE | {"version": "1.9"})
    (new,) = submit(tmp_path / "new", built.registry, submissions, suite=newer)
    board = only_board(submissions, built.registry)
    assert (board.suite, board.summary) == ("handmade@1.10", "Newer.")
    assert [row.folder for row in board.rows] == [new.relative_to(submissions).as_posix()]
    assert {row.status for row in board.unranked} == {"superseded"}
    assert old.name[:10] in {row.submission for row in board.unranked}


def test_the_most_severe_perturbation_is_that_of_the_latest_minor(
    built: BuiltBoards, tmp_path: Path
) -> None:
    """Whichever folder comes first."""
    mild = {name: use for name, use in SUITE["perturbations"].items() if name != "blur-9"}
    other = {name: use for name, use in SUITE["diagnostics"].items() if name != "speed"}
    early = SUITE | {"perturbations": mild, "diagnostics": other,
                     "scoring": SUITE["scoring"] | {"columns": []}}  # fmt: skip
    late = early | {"version": "1.1", "perturbations": SUITE["perturbations"]}
    for name, suite in (("made-fair", early), ("made-good", late)):
        submit(tmp_path / name, built.registry, tmp_path / "s", (entry_of(name),), suite)
    board = only_board(tmp_path / "s", built.registry)
    assert "blur-9 is the most severe perturbation of the suite's main family." in board.notes


def test_entries_of_one_label_keep_their_verdicts_and_ranks(
    built: BuiltBoards, tmp_path: Path
) -> None:
    """Of external weights whose tags differ in a character that a label replaces."""
    paths = []
    for tag in ("my model", "my-model"):
        weights = Weights(tag=tag, origin="afar", license="MIT", pretrained_on="images")
        backbone = {"name": "made-good", "version": 1, "params": {}}
        entry = Entry("made-good+my-model", backbone, "MIT", "x", weights)
        paths += submit(tmp_path / tag, built.registry, tmp_path / "s", (entry,))
    reports = [check(path, built.registry) for path in paths]
    table, competition = judged_board("handmade@1", reports, built.registry, {})
    own = {f"made-good+my-model ({report.path.name[:10]})": report.content.verdicts
           for report in reports}  # fmt: skip
    assert dict(table.verdicts) == own
    assert len({verdicts[0].effect for verdicts in own.values()}) == 2
    assert {row.cells["entry"][0] for row in table.rows} == own.keys()
    assert competition is not None
    dates = {candidate.folder: date(2026, 1, 2) for candidate in competition.candidates}
    came = arrivals(competition, dates)
    assert [arrival.rank for arrival in came] == [1, 2]
    assert [set(arrival.ranks) for arrival in came] == [set(own)] * 2


def test_of_equal_minors_the_first_one_stands(built: BuiltBoards, tmp_path: Path) -> None:
    packed = [
        submit(tmp_path / name, built.registry, tmp_path / "s",
               declaration=Declaration(submitter=name))[0]
        for name in ("one", "two")
    ]  # fmt: skip
    board = only_board(tmp_path / "s", built.registry)
    first, second = sorted(path.name for path in packed)
    assert [row.cells["submission"] for row in board.rows] == [(first[:10],)]
    assert [row.submission for row in board.unranked] == [second[:10]]
    # A copy under another name reproduces nothing.
    assert board.rows[0].cells["trust"] == ("recomputed",)
    (flag,) = [flag for flag in board.flags if "equal bit for bit" in flag]
    assert flag.startswith(
        f"made-good: the submissions {first[:10]} and {second[:10]} have predict"
    )
    # The second, once it stood there before the other came.
    (tmp_path / "DATES").write_text(f"2026-01-02 handmade@1/made-good/{second}\n")
    (row,) = only_board(tmp_path / "s", built.registry).rows
    assert row.cells["submission"] == (second[:10],)
    (tmp_path / "DATES").unlink()
    certify(tmp_path.joinpath("s", "handmade@1", "made-good", second), by="three")
    assert only_board(tmp_path / "s", built.registry).rows[0].cells["trust"] == ("recomputed",)


def noisy(job: Any, cell: Any) -> Any:
    """As a training on another machine: other last bits."""
    labels, logits = trial_outputs(job, cell)
    return labels, logits + np.float32(1e-4)


def test_another_run_that_somebody_checked_reproduces(built: BuiltBoards, tmp_path: Path) -> None:
    (one,) = submit(tmp_path / "1", built.registry, tmp_path / "s",
                    declaration=Declaration(submitter="one"))  # fmt: skip
    (two,) = submit(tmp_path / "2", built.registry, tmp_path / "s", outputs=noisy,
                    declaration=Declaration(submitter="two"))  # fmt: skip

    def trust() -> Any:
        board = only_board(tmp_path / "s", built.registry)
        assert not any("bit for bit" in flag for flag in board.flags)
        return board.rows[0].cells["trust"][0]

    first, second = sorted((one, two), key=lambda path: path.name)
    assert trust() == "recomputed"
    own = certify(second, by="one" if second == one else "two")
    assert trust() == "recomputed"  # its submitter's own word
    own.unlink()
    certify(second, by="three")
    assert trust() == "reproduced"
    shutil.rmtree(tmp_path / "certificates")
    path = certify(first, by="three")
    assert trust() == "spot-checked"
    path.write_text("{")
    assert trust() == "recomputed"


@pytest.mark.parametrize(
    "change",
    [
        {"submission": "0" * 64},
        {"suite_digest": "0" * 64},
        {"by": " One "},
        {"trials": "other value"},
        {"trials": "far"},
        {"trials": "twice"},
        {"trials": "impossible"},
        {"trials": "unequal"},
        {"seed": 0},
    ],
)
def test_a_certificate_of_something_else_is_none(
    built: BuiltBoards, tmp_path: Path, change: dict[str, Any]
) -> None:
    (folder,) = submit(tmp_path, built.registry, tmp_path / "s",
                       declaration=Declaration(submitter="one"))  # fmt: skip
    bundle = read_bundle(folder)
    path = certify(folder, by="three")
    certificate = Certificate.model_validate_json(path.read_text())
    assert is_valid_for(certificate, bundle)
    (trial,) = certificate.trials
    trials = {
        "other value": (trial.model_copy(update={"submitted": 0.5, "again": 0.5}),),
        "far": (trial.model_copy(update={"again": trial.again - 0.05}),),
        "twice": (trial, trial),
        "impossible": (trial.model_copy(update={"same_bits": True, "equal_predictions": 0.9}),),
        "unequal": (trial.model_copy(update={"again": trial.again - 0.01}),),
    }
    change = {name: trials.get(value, value) for name, value in change.items()}
    assert not is_valid_for(certificate.model_copy(update=change), bundle)


@pytest.mark.parametrize(
    ("change", "possible"),
    [
        ({"same_bits": True}, True),
        ({"again": 0.75 + 1e-12}, True),
        ({"again": 0.74}, False),
        ({"again": 0.74, "equal_predictions": 0.9}, True),
        ({"same_bits": True, "equal_predictions": 0.9}, False),
        ({"submitted": None, "again": None, "same_bits": True, "equal_predictions": 0.0}, True),
    ],
)
def test_what_a_repeated_trial_may_say(change: dict[str, Any], possible: bool) -> None:
    trial = Repeated(
        job="0" * 64, target="t", perturbation="p", initialization="i", replicate=0,
        submitted=0.75, again=0.75, equal_predictions=1.0, same_bits=False,
    )  # fmt: skip
    assert trial.model_copy(update=change).is_possible is possible


def test_what_is_no_file_of_a_certificate_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "certificates" / "0").mkdir(parents=True)
    os.mkfifo(tmp_path / "certificates" / "0" / "a.json")
    assert list(certificates_of(tmp_path / "submissions", "0")) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"date": "2026-02-30"}, "day is out of range"),
        ({"tolerance": 0.031}, "less than or equal to 0.03"),
    ],
)
def test_what_no_certificate_says(
    built: BuiltBoards, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    submissions = copied_submissions(built.submissions, tmp_path / "submissions")
    with pytest.raises(ValidationError, match=why):
        certify(next(submissions.glob("*/made-good/*")), by="three", **change)


@pytest.mark.parametrize(("pinned", "word"), [("yes", None), ("", "unknown"), ("no", "no")])
def test_overlap_is_what_was_computed(
    built: BuiltBoards, tmp_path: Path, pinned: str, word: str | None
) -> None:
    """A leak that a submission denies is refused; what nobody computed is not clean."""
    submissions = copied_submissions(built.submissions, tmp_path / "s")
    pins = tmp_path / "suites" / "OVERLAPS"
    lines = pins.read_text().splitlines()
    others = [line for line in lines if " digits " not in line]
    own = [line.removesuffix("no") + pinned for line in lines if " digits " in line and pinned]
    pins.write_text("\n".join([*others, *own]))
    board = only_board(submissions, built.registry)
    if word is None:
        assert not board.rows
        assert "overlap with digits is declared no, but its images" in board.unranked[0].why
        return
    expected = word if word == "no" else "no: marks; unknown: digits"
    assert {row.cells["overlap"] for row in board.rows} == {(expected,)}


def test_the_same_submitter_reproduces_nothing(built: BuiltBoards, tmp_path: Path) -> None:
    for name, outputs in (("Ann Lee", None), ("ann  LEE", noisy)):
        (folder,) = submit(tmp_path / name, built.registry, tmp_path / "s", outputs=outputs,
                           declaration=Declaration(submitter=name))  # fmt: skip
        certify(folder, by="three")
    assert only_board(tmp_path / "s", built.registry).rows[0].cells["trust"] == ("spot-checked",)


@pytest.mark.parametrize(
    ("first", "second", "another"),
    [
        ("Ann Lee", "Bo Lee", True),
        ("Ann Lee", "\u0410\u043d\u043d\u0430", True),
        ("Ann Lee", "\u0410nn Lee", False),  # a Cyrillic A
        ("Ann Lee", "\uff21nn-LEE", False),  # a wide one
        ("Ann Lee", " ", False),
        ("Ann Lee", None, False),
    ],
)
def test_names_that_look_alike_are_of_one_person(
    first: str, second: str | None, another: bool
) -> None:
    assert is_another(first, second) is is_another(second, first) is another


def test_majors_never_share_a_board(built: BuiltBoards, tmp_path: Path) -> None:
    submit(tmp_path / "1", built.registry, tmp_path / "s")
    submit(tmp_path / "2", built.registry, tmp_path / "s", suite=SUITE | {"version": "2.0"})
    assert [board.board for board in boards(tmp_path / "s", built.registry)] == [
        "handmade@1",
        "handmade@2",
    ]


def test_a_submission_moved_to_another_board_is_refused(built: BuiltBoards, tmp_path: Path) -> None:
    submit(tmp_path, built.registry, tmp_path / "s")
    (tmp_path / "s" / "handmade@1").rename(tmp_path / "s" / "handmade@2")
    (listed,) = only_board(tmp_path / "s", built.registry).unranked
    assert "the folder is not handmade@1/made-good/" in listed.why


def test_a_suite_of_a_submission_s_own_is_on_no_board(built: BuiltBoards, tmp_path: Path) -> None:
    """Another reference under the known id, and a later MINOR that nobody knows."""
    (honest,) = submit(tmp_path / "1", built.registry, tmp_path / "s")
    forged = SUITE | {"scoring": SUITE["scoring"] | {"reference": {"digits": 0.3, "marks": 0.6}}}
    for version in ("1.0", "1.9"):
        suite = Suite.model_validate(forged | {"version": version})
        store = make_run(tmp_path / version, built.registry, suite=suite)
        run = (tmp_path / version / "run", store, "made-good", tmp_path / "s")
        pack(*run, Declaration(submitter="M"), built.registry)
    board = only_board(tmp_path / "s", built.registry)
    assert [row.folder.rpartition("/")[2] for row in board.rows] == [honest.name]
    why = " ".join(row.why for row in board.unranked)
    assert "handmade@1.0 was changed: it differs from the known suite" in why
    assert "there is no handmade@1.9, only handmade@1.0" in why


def test_a_suite_that_nobody_knows_has_a_board_that_says_so(
    built: BuiltBoards, tmp_path: Path
) -> None:
    submit(tmp_path, built.registry, tmp_path / "s")
    shutil.rmtree(tmp_path / "suites")
    (listed,) = only_board(tmp_path / "s", built.registry).unranked
    assert listed.why.startswith("handmade@1.0 is not a known suite: a board is of a suite of the ")


def test_a_minor_only_adds(built: BuiltBoards, tmp_path: Path) -> None:
    submit(tmp_path / "1", built.registry, tmp_path / "s")
    scoring = SUITE["scoring"] | {"reference": {"digits": 0.3, "marks": 0.95}}
    publish(Suite.model_validate(SUITE | {"version": "1.1", "scoring": scoring}), tmp_path / "s")
    why = r"handmade@1\.1 changes scoring of handmade@1\.0; a MINOR only adds: give it a MAJOR"
    with pytest.raises(SuiteError, match=why):
        boards(tmp_path / "s", built.registry)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"replicates": 4}, "replicates"),
        ({"claims": {}}, "claims.helps"),
        ({"trials": SUITE["trials"][:1]}, "the replicates of P-T on shuffled, none"),
        ({"summary": "Other words.", "backbones": ["made-fair"]}, None),
        ({"claims": SUITE["claims"] | {"more": SUITE["claims"]["helps"]}}, None),
        ({"recipes": SUITE["recipes"] | {"P": SUITE["recipes"]["P"] | {"epochs": 3}}}, "recipes.P"),
        ({"initializations": SUITE["initializations"]
          | {"late": SUITE["initializations"]["RI-T"]}}, None),
        ({"sources": {"source": SUITE["sources"]["source"] | {"checkpoints": [1]}}}, None),
    ],
)  # fmt: skip
def test_what_minors_may_differ_in(change: dict[str, Any], what: str | None) -> None:
    earlier = Suite.model_validate(SUITE)
    later = Suite.model_validate(SUITE | {"version": "1.1"} | change)
    changes = " ".join(changed_between([later, earlier]))
    assert (f"handmade@1.1 changes {what} of" in changes) if what else not changes


def test_a_minor_does_not_widen_what_a_claim_averages_over() -> None:
    claim = json.loads(json.dumps(SUITE["claims"]["helps"]))
    for term in claim["terms"]:
        del term["target"]
    earlier = SUITE | {"claims": {"helps": claim}}
    targets = SUITE["targets"] | {"more": SUITE["targets"]["digits"]}
    suites = [Suite.model_validate(earlier),
              Suite.model_validate(earlier | {"version": "1.1", "targets": targets})]  # fmt: skip
    (change,) = changed_between(suites)
    assert "changes what claims.helps averages over of handmade@1.0" in change


def test_the_suites_of_the_published_boards_are_known() -> None:
    suites = KnownSuites(PUBLISHED / "suites")
    for path in (PUBLISHED / "submissions").glob("*/*/*/submission.json"):
        head = json.loads(path.read_text())
        suite = suites.of(head["suite"].partition(".")[0])[head["suite"]]
        assert suite.digest == head["suite_digest"]


OTHER_NAMES = (
    "README.md",
    "submissions",
    "a@1\\write18{x}",
    "<img onerror=x>@1",
    "x@1\x1b[2J",
    "=1+1",
)


def test_folders_with_other_names_are_not_read(built: BuiltBoards, tmp_path: Path) -> None:
    submissions = copied_submissions(built.submissions, tmp_path / "s")
    for name in OTHER_NAMES:
        (submissions / name).mkdir()
        (submissions / "handmade@1" / name).mkdir()
    (submissions / "handmade@1" / "made-poor").rename(submissions / "handmade@1" / "\\write18{y}")
    (submissions / "handmade@2").symlink_to(submissions / "handmade@1")
    by_board, left_out = survey(submissions)
    assert {name: len(folders) for name, folders in by_board.items()} == {"handmade@1": 2}
    assert len(left_out) == 2 * len(
        OTHER_NAMES
    )  # README.md and submissions may be entries, a link not
    written = build(submissions, tmp_path / "out", built.registry)
    assert {path.parent.name for path in written} == {"out", "handmade@1"}
    for path in written:
        text = path.read_text().replace("\\\\", "")
        assert not re.search(r"\\write18|(?<!\\)<img|\x1b", text), path
    assert r"is left out: its name is not name@MAJOR of a suite" in written[-1].read_text()


def test_no_cell_of_a_csv_file_is_a_formula() -> None:
    rows = [["=1", "+1", "-1", "@SUM", "\t=1", " =1", "\uff1d1", "a=1", -1.5, None]]
    (line,) = csv.reader(io.StringIO(csv_text(rows)))
    assert [cell[:1] for cell in line] == [*["'"] * 7, "a", "-", ""]


def test_one_submission_that_cannot_be_shown_does_not_stop_the_others(
    built: BuiltBoards, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = rows_module.profile_of

    def failing(candidate: Candidate) -> Any:
        if candidate.head.entry.name == "made-fair":
            raise KeyError("hostile")
        return profile(candidate)

    monkeypatch.setattr(rows_module, "profile_of", failing)
    board = only_board(built.submissions, built.registry)
    assert [row.cells["entry"][0] for row in board.rows] == ["made-good", "made-poor"]
    (listed,) = board.unranked
    assert listed.why == "it can be shown: KeyError: 'hostile'"


def test_one_submission_without_a_page_does_not_stop_the_others(
    built: BuiltBoards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = write_module.cost_of

    def failing(candidate: Candidate, registry: Any) -> Any:
        if candidate.head.entry.name == "made-fair":
            raise OverflowError("hostile")
        return cost(candidate, registry)

    monkeypatch.setattr(write_module, "cost_of", failing)
    submissions = copied_submissions(built.submissions, tmp_path / "submissions")
    forged = certify(next(submissions.glob("*/made-good/*")), by="three", seed=0)
    build(submissions, tmp_path / "boards", built.registry, site=True)
    pages = sorted((tmp_path / "boards" / "site" / "handmade@1" / "entries").iterdir())
    assert [page.name.rpartition("-")[0] for page in pages] == ["made-good", "made-poor"]
    assert "made-fair" not in (tmp_path / "DATES").read_text()
    board = (tmp_path / "boards" / "handmade@1" / "board.md").read_text()
    assert "it can be shown: OverflowError: hostile" in board
    # Of another trial than its seed chooses.
    assert forged.exists()
    assert "three" not in pages[0].read_text()


def test_one_submission_that_no_format_takes_does_not_stop_the_others(
    built: BuiltBoards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(table: BoardTable, *more: Path) -> list[Path]:
        if "made-fair" in {row.cells["entry"][0] for row in table.rows}:
            raise ValueError("hostile")
        return write_board(table, *more)

    monkeypatch.setitem(judged_board.__globals__, "write_board", failing)
    build(built.submissions, tmp_path, built.registry)
    assert "it can be shown: ValueError: hostile" in (tmp_path / "handmade@1/board.md").read_text()


def _report(name: str, why: str = "", submission_id: str = "") -> CheckReport:
    """Of a submission of which nothing but its id is read; ``why``: it is refused."""
    checks = (Check("any", "failed" if why else "ok", (why,) if why else ()),)
    head = SimpleNamespace(id=submission_id)
    bundle: Any = SimpleNamespace(submission=head) if submission_id else None
    return CheckReport(Path("s", "handmade@1", "e", name), checks, bundle)


def test_of_two_that_cannot_be_shown_together_the_earlier_one_is_shown() -> None:
    def board_of(reports: Sequence[CheckReport], _: Any) -> Any:
        if {"a", "b"} <= {report.path.name for report in reports if report.ok}:
            raise OverflowError("together")
        return [(report.path.name, report.ok) for report in reports]

    reports, days = [_report(name) for name in "abc"], {"handmade@1/e/b": date(2026, 1, 2)}
    standing = _sound_board(reports, days, {}, board_of)
    assert sorted(standing) == [("a", False), ("b", True), ("c", True)]


def test_a_page_belongs_to_one_submission() -> None:
    """An id can be tried until it begins as another does."""
    first, second = "0" * 10 + "1" * 54, "0" * 10 + "2" * 54
    reports = [_report(first, submission_id=first), _report(second, submission_id=second),
               _report("unread")]  # fmt: skip
    for days, first_there in (({}, first), ({f"handmade@1/e/{second}": date(2026, 1, 2)}, second)):
        ends = {report.path.name: report for report in _with_pages(reports, days)}
        assert [name for name, report in ends.items() if report.ok] == [first_there, "unread"]
        (refused_one,) = (report for report in ends.values() if not report.ok)
        assert refused_one.checks[-1].why == (
            f"its page would be that of handmade@1/e/{first_there}",
        )


def test_a_copy_in_another_folder_is_refused(built: BuiltBoards, tmp_path: Path) -> None:
    submissions = copied_submissions(built.submissions, tmp_path / "s")
    (honest,) = submissions.glob("*/made-fair/*")
    shutil.copytree(honest, submissions / "handmade@1" / "made-fair" / "0-copy")
    board = only_board(submissions, built.registry)
    assert [row.cells["entry"][0] for row in board.rows] == ["made-good", "made-fair", "made-poor"]
    (listed,) = board.unranked
    assert (listed.status, listed.submission) == ("refused", "0-copy")
    assert "the folder is not handmade@1/made-fair/" in listed.why


def test_why_a_submission_is_refused_is_a_line_of_limited_length() -> None:
    listed = refused(_report("0" * 64, "a\n\u202eb\x1b[2J" + "c" * 500))
    assert listed.why == f"any: a??b?[2J{'c' * 292}..."


def test_no_submissions_give_an_index_that_says_so(built: BuiltBoards, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (index,) = build(tmp_path / "s", tmp_path / "out", built.registry)
    assert "There is no submission yet." in index.read_text()


def test_a_missing_folder_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"there is no folder .*nowhere; give the one that"):
        build(tmp_path / "nowhere", tmp_path / "out")


def test_every_claim_stands_beside_every_entry(built: BuiltBoards) -> None:
    (board,) = boards(built.submissions, built.registry)
    folder = built.out / board.board
    assert list(board.verdicts) == [row.cells["entry"][0] for row in board.rows]
    with (folder / "claims.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = [
        (entry, verdict.claim, verdict.verdict, verdict.effect)
        for entry, verdicts in board.verdicts.items()
        for verdict in verdicts
    ]
    assert [
        (
            row["entry"],
            row["claim"],
            row["verdict"],
            float(row["effect"]) if row["effect"] else None,
        )
        for row in rows
    ] == expected
    page = (folder / "claims.md").read_text(encoding="utf-8")
    for _, claim, verdict, _ in expected:
        assert re.search(rf"^\| ({chr(0xB7)} )?{re.escape(claim)}\b.*{verdict}", page, re.MULTILINE)
    assert "(claims.md)" in (folder / "board.md").read_text(encoding="utf-8")


def test_a_board_counts_controls_and_marks_an_entry_whose_control_fails(
    built: BuiltBoards, tmp_path: Path
) -> None:
    helps = SUITE["claims"]["helps"]
    control = helps | {"relation": "within", "control": True}
    claims = {
        "helps": helps | {"source": "C2"}, "also": helps | {"family": "C2"},
        "fails": control | {"threshold": 0.001}, "passes": control | {"threshold": 0.9},
    }  # fmt: skip
    suite = SUITE | {"claims": claims, "replicates": 6, "diagnostics": {}}
    scoring = {key: value for key, value in SUITE["scoring"].items() if key != "columns"}
    submit(tmp_path, built.registry, tmp_path / "s", suite=suite | {"scoring": scoring})
    board = only_board(tmp_path / "s", built.registry)
    (cells,) = [row.cells for row in board.rows]
    assert (cells["claims"], cells["adjusted"]) == ((1, 0, 0), (1, 0, 0))
    assert cells["controls"] == (1, 1, 0)
    assert cells["marks"] == ("control failed: fails",)
    assert "control failed: fails" in show(board)
    assert any(note.startswith("Controls: passed/failed/underpowered") for note in board.notes)


def verdict_on(claim: str, effect: float | None = 0.25, **changes: Any) -> Verdict:
    judged = effect is not None
    fields: dict[str, Any] = {
        "claim": claim, "statement": "It is so", "source": "", "control": False, "effect": effect,
        "unit": "fraction", "n": 3,
        "low": -0.5 if judged else None, "high": 1.0 if judged else None,
        "interval": "jackknife-95", "threshold": 0.1, "relation": "above", "verdict": "undecided",
        "reason": "",
    }  # fmt: skip
    return Verdict(**fields | changes)


def test_claims_of_another_minor_are_a_dash_and_missing_effects_a_word(tmp_path: Path) -> None:
    verdicts = {
        "old": [verdict_on("b")],
        "new": [
            verdict_on("a", None),
            verdict_on("b"),
            verdict_on("c", relation="within", control=True),
        ],
    }
    page = tmp_path / "claims.md"
    page.write_text(claims_as_markdown("made@1", verdicts, str), encoding="utf-8")
    bounds = f"**undecided** +0.250 [{MINUS}0.500, +1.000]"
    control = bounds.replace("undecided", "underpowered")
    counts, claims = markdown_tables(page)
    assert counts[1:] == [["old", "0/0/1", EN_DASH, "0/0/0"], ["new", "0/0/2", EN_DASH, "0/0/1"]]
    assert claims[1:] == [
        ["a", "It is so: > 0.1 fraction", EN_DASH, "undecided"],
        ["b", "It is so: > 0.1 fraction", bounds, bounds],
        ["c (control)", f"It is so: within {PLUS_MINUS}0.1 fraction", EN_DASH, control],
    ]


def test_the_claims_of_a_family_stand_beneath_it() -> None:
    sure = {"verdict": "reproduced", "p_reproduced": 0.0002, "p_contradicted": 1.0}
    open_ = {"verdict": "undecided", "p_reproduced": 0.3, "p_contradicted": 1.0}
    verdicts = [
        verdict_on("grows", source="C24", **sure), verdict_on("alone", source="C2", **sure),
        verdict_on("first", source="C24", **open_),
        verdict_on("null", control=True, **sure | {"verdict": "contradicted"}),
    ]  # fmt: skip
    page = claims_as_markdown("made@1", {"net": verdicts}, str)
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert re.search(r"net +\| 1/0/1 +\| 1/0/1 +\| 0/1/0", lines[2])
    texts = [re.sub(r" +", " ", line) for line in lines[5:]]
    bounds = f"+0.250 [{MINUS}0.500, +1.000]"
    certain = f"{bounds}; p < 0.001, adjusted < 0.001"
    assert texts == [
        "| **C24** | 2 claims, all of which must hold | **undecided** p 0.300, adjusted 0.300 |",
        f"| \N{MIDDLE DOT} grows | It is so: > 0.1 fraction | **reproduced** {bounds} |",
        f"| \N{MIDDLE DOT} first | It is so: > 0.1 fraction | **undecided** {bounds} |",
        f"| alone (C2) | It is so: > 0.1 fraction | **reproduced** {certain} |",
        f"| null (control) | It is so: > 0.1 fraction | **failed** {bounds} |",
    ]
    rows = list(csv.DictReader(io.StringIO(claims_as_csv({"net": verdicts}))))
    assert [row["family"] for row in rows] == ["C24", "C2", "C24", "control"]
    assert [row["family_adjusted_verdict"] for row in rows] == [
        "undecided", "reproduced", "undecided", "",
    ]  # fmt: skip
