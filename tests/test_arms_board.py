"""Boards of initializations: shares and ranks against numbers computed here, in every format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_pages import html_rows, latex_rows, markdown_rows
from command_line import SMALL, cli, suite_file
from handmade_run import (
    SUITE,
    BuiltBoards,
    TrialOutputs,
    certify,
    entry_of,
    handmade_registry,
    only_board,
    publish,
    recorded_values,
    submit,
    trial_outputs,
)
from scipy import optimize, stats
from t_intervals import ANY, OF_SHARES, of_difference, of_level, quantile, reach

from transferbench.claims import judge
from transferbench.leaderboard import boards, build, show
from transferbench.leaderboard.candidates import Competition
from transferbench.leaderboard.rows import board_rows
from transferbench.leaderboard.table import cell_text
from transferbench.measurements import Measurements
from transferbench.registry import Registry, load_registry
from transferbench.statistics import share_of_gain
from transferbench.submission import CheckReport, Declaration, check
from transferbench.submission.bundle import read_bundle
from transferbench.suite import Suite
from transferbench.suite.ranges import metric_ranges
from transferbench.suite.schema import BOARD_KEYS

PUBLISHED = Path(__file__).parents[1] / "leaderboard" / "submissions"
ENTRIES = ("made-fair", "made-good")

SPEED = {"diagnostic": "speed", "metric": "speed", "title": "speed", "help": "speed"}
SHARE = {**SPEED, "of": "share", "title": "speed gain recovered", "terminal": True}
COLUMNS = [
    {**SPEED, "key": "speed", "of": "value", "terminal": True},
    {**SPEED, "key": "speed_rank", "title": "speed rank", "of": "rank"},
    {**SPEED, "key": "speed_gain", "title": "speed gain", "of": "gain"},
    {**SHARE, "key": "share"},
    {**SHARE, "key": "severe_share", "under": "most-severe"},
]
ARMS: dict[str, Any] = SUITE | {
    "name": "handmade-arms",
    "recipes": SUITE["recipes"] | {"P-T": SUITE["recipes"]["RI-T"]},
    "initializations": SUITE["initializations"] | {
        "half": {"name": "made-statistics", "params": {"strength": 5}, "recipe": "RI-T"},
        "bare": {"name": "made-statistics", "recipe": "RI-T"},
        # A control that is trained where nothing is scored has no row.
        "aside": {"name": "made-statistics", "params": {"strength": 1}, "recipe": "RI-T"},
    },
    "trials": [
        {"targets": ["digits", "marks"], "initializations": ["P-T", "RI-T", "half", "bare"]},
        {"targets": ["shuffled"], "perturbations": ["none"], "initializations": ["P-T", "aside"]},
    ],
    "scoring": SUITE["scoring"] | {"ranks": "initializations", "columns": COLUMNS},
}  # fmt: skip


def submit_arms(
    folder: Path,
    registry: Registry,
    submissions: Path,
    suite: Mapping[str, Any] = ARMS,
    submitter: str | None = None,
    outputs: TrialOutputs | None = None,
) -> None:
    entries, declaration = [entry_of(name) for name in ENTRIES], Declaration(submitter=submitter)
    submit(folder, registry, submissions, entries, suite, declaration, outputs)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBoards:
    folder = tmp_path_factory.mktemp("arms")
    registry = handmade_registry(folder)
    submit_arms(folder / "a", registry, folder / "submissions")
    build(folder / "submissions", folder / "boards", registry)
    return BuiltBoards(registry, folder / "submissions", folder / "boards")


def rows_of(built: BuiltBoards, entry: str) -> dict[str, dict[str, Any]]:
    """Arm -> its row in the JSON of the board."""
    rows = json.loads((built.out / "handmade-arms@1" / "board.json").read_text())["rows"]
    return {row["initialization"]: row for row in rows if row["entry"] == entry}


def scores_of(built: BuiltBoards, entry: str, arm: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    chance, reference = np.array([[0.2], [0.5]]), np.array([[0.9], [0.95]])
    values = recorded_values(built.submissions, entry, "test_metric", arm)
    scores: np.ndarray[Any, np.dtype[np.float64]] = (values - chance) / (reference - chance)
    return scores.mean(axis=0)


SCORE_ENDS = (
    float(np.mean([-0.2 / 0.7, -0.5 / 0.45])),
    float(np.mean([0.8 / 0.7, 0.5 / 0.45])),
)
"""The mean scores of an accuracy of 0, and of 1, on both targets."""


def cell(row: Mapping[str, Any], key: str) -> list[float]:
    return [row[key], row[f"{key}_low"], row[f"{key}_high"]]


# --- the share of the speed gain --------------------------------------------------------------


def share_of(
    arm: np.ndarray[Any, Any],
    source: np.ndarray[Any, Any],
    baseline: np.ndarray[Any, Any],
    ends: tuple[float, float],
) -> list[float | None]:
    """(S - RI) / (P - RI), and the ratios r whose contrast S - r P - (1 - r) RI may be 0.

    By numerical solution. The baseline counts once in the dividend and once in the divisor.
    """
    rows = [arm, baseline, source, baseline]
    share = (arm.mean() - baseline.mean()) / (source.mean() - baseline.mean())

    def bound(ratio: float, side: int) -> float:
        """The end of the contrast's interval."""
        weights = np.array([1.0, -1.0, -ratio, ratio])
        contrast = weights @ np.array(rows)
        own = np.abs(weights) * np.std(rows, axis=1)
        half = quantile(len(arm), ends, float(max(own**2) / (own**2).sum())) * stats.sem(contrast)
        errors = half * own / np.sqrt((own**2).sum())
        reached = [
            reach(float(row.mean()), error / max(abs(w), 1e-12), *ends)[side if w > 0 else 1 - side]
            for row, error, w in zip(rows, errors, weights, strict=True)
        ]
        size = float(np.sqrt(((reached * errors) ** 2).sum()))
        return float(contrast.mean()) + (size if side else -size)

    away = 4 * stats.sem(arm - source) / (source.mean() - baseline.mean()) + 2
    low = optimize.brentq(lambda r: bound(r, 0), share - away, share, xtol=1e-14)
    high = optimize.brentq(lambda r: bound(r, 1), share, share + away, xtol=1e-14)
    return [share, float(low), float(high)]


def test_the_share_is_the_ratio_of_mean_gains_with_fiellers_interval() -> None:
    rng = np.random.default_rng(3)
    baseline = rng.normal(0.7, 0.01, 5)
    source, arm = baseline + rng.normal(0.1, 0.01, 5), baseline + rng.normal(0.04, 0.02, 5)
    series = [dict(enumerate(map(float, s))) for s in (arm, source, baseline)]
    share = share_of_gain(*series, ends=(0.0, 1.0))
    assert share is not None
    expected = share_of(arm, source, baseline, OF_SHARES)
    np.testing.assert_allclose(share[:3], expected, rtol=0, atol=1e-8)
    assert (share.n, share.method) == (5, "ranged-fieller-95")


def test_the_share_by_hand() -> None:
    """Gains of 1, 2 and 3 of 4 each: half of it on the mean, and nobody knows how 4 varies."""
    arm, source, baseline = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 4.0, 1: 4.0, 2: 4.0}, dict.fromkeys(
        range(3), 0.0
    )  # fmt: skip
    share = share_of_gain(arm, source, baseline, ends=ANY)
    assert share is not None
    assert share[:3] == (pytest.approx(0.5), None, None)
    assert share.reason == "every replicate gives the same value: their spread is not known"


def test_there_is_no_share_of_a_gain_that_may_be_zero() -> None:
    source = {0: 0.1, 1: -0.1, 2: 0.05}
    share = share_of_gain(dict.fromkeys(range(3), 0.1), source, dict.fromkeys(range(3), 0.0))
    assert share is not None
    assert share[:3] == (None, None, None)
    assert share.reason == "the denominator's 95% interval includes 0"


def test_there_is_no_share_of_a_loss() -> None:
    source, baseline = {0: 0.5, 1: 0.51, 2: 0.49}, dict.fromkeys(range(3), 0.7)
    share = share_of_gain(dict.fromkeys(range(3), 0.6), source, baseline)
    assert share is not None
    assert share[:3] == (None, None, None)
    assert share.reason == "the denominator is not above 0"


def test_only_replicates_that_all_three_have_count() -> None:
    arm, source, baseline = {0: 1.0, 1: 2.0, 7: 9.0}, {0: 4.0, 1: 4.0}, {0: 0.0, 1: 0.0, 7: 1.0}
    share = share_of_gain(arm, source, baseline)
    assert share is not None
    assert (share.value, share.n) == (pytest.approx(0.375), 2)
    assert share_of_gain({7: 1.0}, source, baseline) is None


# --- the numbers of a board -------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("arm", ["P-T", "RI-T", "half", "bare"])
def test_numbers_equal_those_of_scipy(built: BuiltBoards, entry: str, arm: str) -> None:
    row = rows_of(built, entry)[arm]
    final = recorded_values(built.submissions, entry, "test_metric", arm).mean(axis=0)
    severe = recorded_values(built.submissions, entry, "test_metric", arm, "blur-9").mean(axis=0)
    speed, source, baseline = (
        recorded_values(built.submissions, entry, "speed", label).mean(axis=0)
        for label in (arm, "P-T", "RI-T")
    )
    # 1 and 0 by definition.
    share = [(speed - baseline).mean() / (source - baseline).mean(), None, None]
    if arm not in {"P-T", "RI-T"}:
        share = share_of(speed, source, baseline, OF_SHARES)
    for key, expected in {
        "score": of_level(scores_of(built, entry, arm), SCORE_ENDS),
        "final": of_level(final, OF_SHARES),
        "severe_final": of_level(severe, OF_SHARES),
        "speed": of_level(speed, OF_SHARES),
        "speed_gain": of_difference(speed, baseline, OF_SHARES),
        "share": share,
    }.items():
        assert cell(row, key) == pytest.approx(expected, abs=1e-9), key
    assert row["replicates"] == 3


def test_p_recovers_all_of_its_own_gain_and_its_baseline_nothing(built: BuiltBoards) -> None:
    rows = rows_of(built, "made-good")
    # By definition, whatever the sample: there is no spread to make an interval of.
    assert cell(rows["P-T"], "share") == [pytest.approx(1), None, None]
    assert cell(rows["RI-T"], "share") == [pytest.approx(0), None, None]
    assert rows["half"]["share"] == pytest.approx((2.17 / 3 - 0.69) / 0.1)


def holm(values: Mapping[str, Any], ends: tuple[float, float]) -> set[frozenset[str]]:
    """The pairs that intervals of differences tell apart after Holm's correction."""
    apart: set[frozenset[str]] = set()
    while rest := {frozenset(pair) for pair in combinations(values, 2)} - apart:
        parted = set()
        for pair in rest:
            a, b = sorted(pair)
            _, low, high = of_difference(values[a], values[b], ends, 1 - 0.05 / len(rest))
            if low is not None and high is not None and not low <= 0 <= high:
                parted.add(pair)
        if not parted:
            break
        apart |= parted
    return apart


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("key", ["rank", "speed_rank"])
def test_ranks_are_those_of_paired_differences_within_an_entry(
    built: BuiltBoards, entry: str, key: str
) -> None:
    rows = rows_of(built, entry)
    measure: Callable[[str], Any] = (
        (lambda arm: scores_of(built, entry, arm)) if key == "rank"
        else (lambda arm: recorded_values(built.submissions, entry, "speed", arm).mean(axis=0))
    )  # fmt: skip
    values = {arm: measure(arm) for arm in rows}
    apart = holm(values, SCORE_ENDS if key == "rank" else OF_SHARES)
    for arm, row in rows.items():
        better = [o for o in rows if frozenset((o, arm)) in apart
                  and values[o].mean() > values[arm].mean()]  # fmt: skip
        worse = [o for o in rows if frozenset((o, arm)) in apart and o not in better]
        rank = 1 + sum(values[o].mean() > values[arm].mean() for o in rows)
        assert cell(row, key) == [rank, 1 + len(better), len(rows) - len(worse)], arm
    if key == "rank":
        for a, b in combinations(rows, 2):
            tied = set(rows[a]["ties"]) & set(rows[b]["ties"])
            assert bool(tied) == (frozenset((a, b)) not in apart), (a, b)


def test_an_entry_s_arms_stand_together_the_best_first(built: BuiltBoards) -> None:
    board = only_board(built.submissions, built.registry)
    stands = [(row.cells["entry"][0], row.cells["rank"][0]) for row in board.rows]
    assert stands == [(entry, rank) for entry in ENTRIES for rank in (1, 2, 3, 4)]
    assert board.rows[0].cells["initialization"] == ("P-T",)


def test_an_arm_that_is_not_trained_where_it_is_scored_has_no_row(built: BuiltBoards) -> None:
    board = only_board(built.submissions, built.registry)
    assert "aside" not in {row.cells["initialization"][0] for row in board.rows}
    assert board.unranked == ()


def test_what_an_arm_starts_from_is_told(built: BuiltBoards) -> None:
    rows = rows_of(built, "made-good")
    assert {arm: row["needs"] for arm, row in rows.items()} == {
        "P-T": "weights of source",
        "RI-T": "nothing",
        "half": "weights of source, target images",
        "bare": "weights of source, target images",
    }
    assert {row["trust"] for row in rows.values()} == {"recomputed"}
    notes = " ".join(only_board(built.submissions, built.registry).notes)
    assert "half: made-statistics (strength=5). made by hand." in notes


def test_an_arm_without_a_score_is_listed_apart_and_the_others_stand(
    built: BuiltBoards, tmp_path: Path
) -> None:
    def diverged(job: Any, cell: Any) -> Any:
        labels, logits = trial_outputs(job, cell)
        lost = (cell.target, cell.replicate, cell.initialization) == ("marks", 1, "half")
        return labels, logits * np.float32(np.nan) if lost else logits

    submit_arms(tmp_path, built.registry, tmp_path / "s", outputs=diverged)
    board = only_board(tmp_path / "s", built.registry)
    assert [row.cells["initialization"][0] for row in board.rows].count("half") == 0
    assert len(board.rows) == 6
    assert {(row.entry, row.status, row.why) for row in board.unranked} == {
        (entry, "incomplete", "no score of half on marks, replicate 1") for entry in ENTRIES
    }


def test_an_arm_that_did_not_learn_is_flagged(built: BuiltBoards, tmp_path: Path) -> None:
    def collapsed(job: Any, cell: Any) -> Any:
        labels, logits = trial_outputs(job, cell)
        return labels, np.roll(logits, 1, axis=1) if cell.initialization == "bare" else logits

    submit_arms(tmp_path, built.registry, tmp_path / "s", outputs=collapsed)
    board = only_board(tmp_path / "s", built.registry)
    lost = [row.cells["score"][1] for row in board.rows if row.cells["initialization"] == ("bare",)]
    assert all(isinstance(low, float) and low < 0 for low in lost)
    (flag,) = board.flags
    names = "bare of made-fair, bare of made-good"
    assert flag == f"Not above chance: {names}. Such networks did not learn."


def test_another_submitter_reproduces_every_arm(built: BuiltBoards, tmp_path: Path) -> None:
    def noisy(job: Any, cell: Any) -> Any:
        labels, logits = trial_outputs(job, cell)
        return labels, logits + np.float32(1e-4)

    for name, outputs in (("one", trial_outputs), ("two", noisy)):
        submit_arms(tmp_path / name, built.registry, tmp_path / "s", ARMS, name, outputs)
    for path in (tmp_path / "s").glob("*/*/*"):
        certify(path, by="three")
    board = only_board(tmp_path / "s", built.registry)
    assert len(board.rows) == 8
    assert {row.cells["trust"] for row in board.rows} == {("reproduced",)}
    assert [row.status for row in board.unranked] == ["superseded", "superseded"]


def test_every_board_has_the_columns_that_a_suite_cannot_name(built: BuiltBoards) -> None:
    (board,) = boards(built.submissions, built.registry)
    own = {column["key"] for column in COLUMNS}
    assert {column.key for column in board.columns} - own <= BOARD_KEYS


# --- formats and notes ------------------------------------------------------------------------


def test_every_format_shows_the_same_table(built: BuiltBoards) -> None:
    board, folder = only_board(built.submissions, built.registry), built.out / "handmade-arms@1"
    expected = [[column.title for column in board.columns]] + [
        [cell_text(column, row.cells[column.key]) for column in board.columns] for row in board.rows
    ]
    assert len(expected) == 9
    assert markdown_rows(folder / "board.md") == expected
    assert latex_rows(folder / "board.tex") == expected
    assert html_rows(folder / "index.html") == expected
    rows = json.loads((folder / "board.json").read_text())["rows"]
    with (folder / "board.csv").open(newline="") as stream:
        for flat, row in zip(csv.DictReader(stream), rows, strict=True):
            texts = {key: "" if row[key] is None else str(row[key]) for key in flat}
            assert texts == flat


def test_the_page_names_its_rows_by_their_initialization(built: BuiltBoards) -> None:
    page = (built.out / "handmade-arms@1" / "index.html").read_text()
    assert page.count('<th scope="row" data-sort="half">half</th>') == 2
    assert 'aria-label="Ranked initializations"' in page


def test_the_index_counts_entries_not_rows(built: BuiltBoards) -> None:
    (line,) = [line for line in (built.out / "README.md").read_text().splitlines() if "@1" in line]
    assert [part.strip() for part in line.split("|")][3] == "2"


def test_the_terminal_shows_arms_with_their_shares(built: BuiltBoards) -> None:
    message = show(only_board(built.submissions, built.registry))
    assert "speed gain recovered" in message
    assert "half" in message
    assert max(map(len, message.splitlines())) < 200


def test_equal_budgets_are_told_and_unequal_ones_flagged(
    built: BuiltBoards, tmp_path: Path
) -> None:
    board = only_board(built.submissions, built.registry)
    assert board.flags == ()
    assert "Tuning budgets are equal: the recipes are of P-T, RI-T, bare, half best of 1" in (
        " ".join(board.notes)
    )
    shared = {label: use | {"recipe": "P-T"} for label, use in ARMS["initializations"].items()}
    submit_arms(
        tmp_path / "1", built.registry, tmp_path / "one", ARMS | {"initializations": shared}
    )
    message = " ".join(only_board(tmp_path / "one", built.registry).notes)
    assert "all share one recipe, the best of 1 settings; none was tuned apart" in message
    recipes = ARMS["recipes"] | {"P-T": ARMS["recipes"]["RI-T"] | {"tuned_over": 6}}
    submit_arms(tmp_path / "2", built.registry, tmp_path / "2" / "s", ARMS | {"recipes": recipes})
    (flag,) = only_board(tmp_path / "2" / "s", built.registry).flags
    assert flag == (
        "Unequal tuning budgets: the recipes are of P-T best of 6 and RI-T, bare, half best of 1"
        " settings. Ranks favour the initializations that were tuned more."
    )


def test_a_run_ends_with_the_board_of_its_initializations(tmp_path: Path) -> None:
    arms = SMALL["initializations"] | {"mean-var": {"name": "mean-var", "recipe": "short"}}
    scoring = SMALL["scoring"] | {"ranks": "initializations"}
    arms_suite = SMALL | {"initializations": arms, "scoring": scoring}
    suite = suite_file(tmp_path, arms_suite)
    said = cli("run", suite, "--out", tmp_path / "run", "--jobs", 1, "--device", "cpu")
    assert said.code == 0, said.err
    board = said.out[said.out.index("tiny@1 ") :]
    assert {"P-T", "RI-T", "mean-var"} <= set(board.split())
    packed = cli("submission", "pack", tmp_path / "run", "--out", tmp_path / "s").out.strip()
    assert cli("submission", "check", packed).code == 0
    publish(Suite.model_validate(arms_suite), tmp_path / "s")
    board_text = cli("leaderboard", "show", "tiny@1", "--submissions", tmp_path / "s").out
    assert board.startswith(board_text.rstrip())


def test_the_published_shares_are_the_effects_of_the_claims_on_them() -> None:
    (folder,) = PUBLISHED.glob("initializations@1/fixup-resnet14/*")
    bundle = read_bundle(folder)
    competition = Competition([CheckReport(folder, (), bundle)], load_registry())
    _, rows = board_rows(competition)
    arms = {row.cells["initialization"][0]: row.cells for row in rows}
    assert len(arms) == 19
    verdicts = {verdict.claim: verdict for verdict in bundle.verdicts}
    # The submission was judged before intervals of shares were Fieller's.
    ranges = metric_ranges(bundle.plan.suite, load_registry().diagnostics)
    measurements = Measurements.of_records(bundle.records, ranges)
    again = judge(bundle.plan.suite, measurements, bundle.submission.entry.name)
    judged = {verdict.claim: verdict for verdict in again}
    for label in ("mean-var", "bootstrap", "shuffle-all", "spectrum-matched", "random-label"):
        for images, key in (("whole", "share"), ("blocks", "severe_share")):
            new = judged[f"C7-speed-{images}-{label}"]
            assert arms[label][key] == pytest.approx((new.effect, new.low, new.high), abs=1e-9)
            if new.effect is not None:
                former = verdicts[f"C7-speed-{images}-{label}"]
                assert new.effect == pytest.approx(former.effect, abs=1e-9)


# --- what was published before boards of initializations --------------------------------------


def published() -> list[Path]:
    return sorted(path.parent for path in PUBLISHED.glob("*/*/*/submission.json"))


@pytest.mark.parametrize("folder", published(), ids=lambda folder: "-".join(folder.parts[-3:-1]))
def test_a_published_suite_keeps_its_digest(folder: Path) -> None:
    message = json.loads((folder / "submission.json").read_text())["suite_digest"]
    suite = json.loads((folder / "plan.json").read_text())["suite"]
    assert Suite.model_validate(suite).digest == message


def test_a_published_submission_still_passes_its_check() -> None:
    (folder,) = PUBLISHED.glob("null-pair@1/*/*")
    assert check(folder).ok


def test_what_a_board_ranks_is_content_where_it_is_said() -> None:
    plain = Suite.model_validate(SUITE)
    assert "ranks" not in plain.model_dump(mode="json")["scoring"]
    said = Suite.model_validate(SUITE | {"scoring": SUITE["scoring"] | {"ranks": "entries"}})
    assert said.digest == plain.digest
    arms = Suite.model_validate(ARMS)
    assert arms.model_dump(mode="json")["scoring"]["ranks"] == "initializations"
    scoring = SUITE["scoring"] | {"ranks": "initializations"}
    assert Suite.model_validate(SUITE | {"scoring": scoring}).digest != plain.digest
    assert Suite.model_validate(arms.model_dump(mode="json")) == arms
