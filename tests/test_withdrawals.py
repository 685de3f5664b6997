"""Submissions that are withdrawn or corrected, with their history kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from command_line import cli, mistake
from handmade_run import copied_submissions, entry_of, handmade_registry, submit

from transferbench.errors import SubmissionError
from transferbench.leaderboard import BoardTable, boards, build
from transferbench.leaderboard.exports import Destination, exported
from transferbench.registry import Registry
from transferbench.submission import Declaration, check

REASON = "The test images had been resized twice."


class Packed(NamedTuple):
    registry: Registry
    submissions: Path
    paths: tuple[Path, Path, Path]
    """Of made-good by two submitters, and of made-poor."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    folder = tmp_path_factory.mktemp("made")
    registry, submissions = handmade_registry(folder), folder / "submissions"
    entries = (entry_of("made-good"), entry_of("made-poor"))
    first, poor = submit(folder / "a", registry, submissions, entries)
    (second,) = submit(folder / "b", registry, submissions, entries[:1],
                       declaration=Declaration(submitter="B. Second"))  # fmt: skip
    return Packed(registry, submissions, (first, second, poor))


@pytest.fixture
def packed(source: Packed, tmp_path: Path) -> Packed:
    to = copied_submissions(source.submissions, tmp_path / "submissions")
    paths = tuple(to / path.relative_to(source.submissions) for path in source.paths)
    return Packed(source.registry, to, paths)  # type: ignore[arg-type]  # three


def taken_back(packed: Packed, path: Path, *more: object) -> Path:
    out = packed.submissions.parent / "withdrawals"
    said = cli("submission", "withdraw", path, "--by", "A. First", "--reason", REASON,
               "--out", out, *more)  # fmt: skip
    assert said.code == 0, said
    return Path(said.out.strip())


def board(packed: Packed) -> BoardTable:
    (table,) = boards(packed.submissions, packed.registry)
    return table


def ranked(table: BoardTable) -> Sequence[object]:
    return [row.cells["entry"][0] for row in table.rows]


def test_a_withdrawn_submission_is_listed_and_not_ranked(packed: Packed) -> None:
    assert ranked(board(packed)) == ["made-good", "made-poor"]
    poor = packed.paths[2]
    path = taken_back(packed, poor)
    table = board(packed)
    assert ranked(table) == ["made-good"]
    (row,) = (row for row in table.unranked if row.status == "withdrawn")
    assert row.submission == poor.name[:10]
    date = json.loads(path.read_text())["date"]
    assert row.why == f"on {date} by A. First: {REASON}"
    assert poor.is_dir()
    build(packed.submissions, packed.submissions.parent / "out", packed.registry)
    page = (packed.submissions.parent / "out" / "handmade@1" / "board.md").read_text()
    assert "withdrawn" in page
    assert REASON in page


def test_a_withdrawn_submission_is_not_exported(packed: Packed) -> None:
    poor = packed.paths[2]
    taken_back(packed, poor)
    report = check(poor, packed.registry)
    with pytest.raises(SubmissionError, match=f"was withdrawn on .* by A. First: {REASON}"):
        exported(report, packed.registry, "badge", Destination())


def test_a_correction_stands_in_the_place_of_the_corrected(packed: Packed) -> None:
    chosen = next(Path(row.folder).name for row in board(packed).rows)
    first, second = sorted(packed.paths[:2], key=lambda path: path.name != chosen)
    taken_back(packed, first, "--corrected-by", second)
    table = board(packed)
    assert ranked(table) == ["made-good", "made-poor"]
    assert Path(table.rows[0].folder).name == second.name
    (row,) = table.unranked
    assert f", corrected by {second.name[:10]}: " in row.why


def test_what_corrects_is_of_the_same_entry(packed: Packed) -> None:
    first, _, poor = packed.paths
    for other in (poor, first):
        message = mistake("submission", "withdraw", first, "--by", "x", "--reason", REASON,
                          "--corrected-by", other, "--out", packed.submissions)  # fmt: skip
        assert "corrects no other submission of made-good on handmade@1" in message


def test_a_withdrawal_is_written_once_and_with_a_reason(packed: Packed) -> None:
    first = packed.paths[0]
    out = packed.submissions.parent / "withdrawals"
    options = ("--by", "x", "--out", out)
    assert "--reason: " in mistake("submission", "withdraw", first, "--reason", "no", *options)
    message = mistake("submission", "withdraw", first, "--reason", "In two\nlines.", *options)
    assert "--reason: it holds a line break" in message
    assert "is not a submission" in mistake("submission", "withdraw", out, "--reason", REASON,
                                            *options)  # fmt: skip
    taken_back(packed, first)
    again = mistake("submission", "withdraw", first, "--reason", REASON, *options)
    assert "is withdrawn already" in again


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"entry": "made-poor"}, "is of made-poor on handmade@1, and that submission of made-good"),
        ({"board": "other@1"}, "is of made-good on other@1"),
        ({"corrected_by": "0" * 64}, "is no other submission of made-good"),
        ({"corrected_by": 0}, "is no other submission of made-good"),
        ({"corrected_by": 2}, "is no other submission of made-good"),
        ({"date": "2026-02-30"}, "withdrawals/"),
    ],
)
def test_a_withdrawal_of_something_else_stops_the_boards(
    packed: Packed, change: dict[str, object], why: str
) -> None:
    path = taken_back(packed, packed.paths[0])
    change = {k: packed.paths[v].name if isinstance(v, int) else v for k, v in change.items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SubmissionError, match=why):
        boards(packed.submissions, packed.registry)


@pytest.mark.parametrize("forged", ["the id", "the folder"])
def test_nobody_is_withdrawn_or_corrected_by_a_forger(packed: Packed, forged: str) -> None:
    """A refused submission that says it is the withdrawn one, or is called as the correction."""
    first, second, poor = packed.paths
    taken_back(packed, first, "--corrected-by", second)
    if forged == "the id":
        head = json.loads((poor / "submission.json").read_text())
        (poor / "submission.json").write_text(json.dumps(head | {"id": first.name}))
    else:
        poor.rename(poor.with_name(second.name))
    table = board(packed)
    assert ranked(table) == ["made-good"]
    assert sorted((row.entry, row.status) for row in table.unranked) == [
        ("made-good", "withdrawn"), ("made-poor", "refused")
    ]  # fmt: skip


def test_a_correction_that_is_refused_still_corrects(packed: Packed) -> None:
    first, second, _ = packed.paths
    taken_back(packed, first, "--corrected-by", second)
    (second / "plan.json").unlink()
    assert ranked(board(packed)) == ["made-poor"]


def test_corrections_end_somewhere(packed: Packed) -> None:
    first, second, _ = packed.paths
    taken_back(packed, first, "--corrected-by", second)
    taken_back(packed, second, "--corrected-by", first)
    with pytest.raises(SubmissionError, match="in the end, which is no other submission"):
        boards(packed.submissions, packed.registry)


@pytest.mark.parametrize("harm", ["renamed", "broken", "field", "link"])
def test_a_file_that_is_no_withdrawal_stops_the_boards(packed: Packed, harm: str) -> None:
    """Rather than rank what was taken back."""
    path = taken_back(packed, packed.paths[0])
    if harm == "renamed":
        path.rename(path.with_name(f"{'0' * 64}.json"))
    elif harm == "broken":
        path.write_text(path.read_text()[:-4])
    elif harm == "field":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"by": "a\x1b[31m"}))
    else:
        shutil.move(path, path.parents[1] / "elsewhere")
        path.symlink_to(path.parents[1] / "elsewhere")
    with pytest.raises(SubmissionError, match=r"withdrawals/'[0-9a-f]{64}\.json': "):
        boards(packed.submissions, packed.registry)
