"""Entries with weights from outside: what they go without, and that the rest stands as ever."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
from command_line import SMALL, cli, mistake, suite_file
from handmade_run import (
    SUITE,
    edit_records,
    entry_of,
    handmade_registry,
    make_run,
    publish,
    sealed,
)
from safetensors.torch import save_file

from transferbench.api import Run
from transferbench.errors import SubmissionError
from transferbench.identity import file_digest
from transferbench.leaderboard import boards
from transferbench.plan import DatasetFacts, Entry, make_plan
from transferbench.plan.resolve import left_out_arms
from transferbench.registry import identity, load_registry
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.specs import Weights
from transferbench.submission import Declaration, check, pack
from transferbench.suite import Suite
from transferbench.suite.loading import load_suite

OUTSIDE = Weights(tag="t", origin="o", license="l", pretrained_on="p", sha256="a" * 64)

# Of the arms besides P-T and RI-T, mean-var alone can start from external weights.
SOURCE = SMALL["sources"]["source"]
CONTROLLED = SMALL | {
    "sources": {"source": SOURCE, "null-source": SOURCE | {"shuffle_labels": True}},
    "initializations": SMALL["initializations"] | {
        "P0-T": {"name": "pretrained", "params": {"checkpoint": 0}, "recipe": "short"},
        "N-T": {"name": "random-label", "source": "null-source", "recipe": "short"},
        "mean-var": {"name": "mean-var", "recipe": "short"},
        # It starts from no source at all, so that it is free to name any.
        "same": {"name": "same-random", "source": "null-source", "recipe": "short"},
    },
    "diagnostics": {
        "drop": {
            "name": "relative-drop",
            "pairs": [
                {"a": "P-T", "b": "RI-T", "replicates": "same"},
                {"a": "N-T", "b": "RI-T", "replicates": "same"},
            ],
        },
    },
    "claims": {
        label: {
            "statement": f"{label} is null",
            "terms": [
                {"diagnostic": "trial", "metric": "test_metric", "initialization": label},
                {"diagnostic": "trial", "metric": "test_metric", "initialization": "RI-T",
                 "weight": -1},
            ],
            "relation": "within",
            "threshold": 0.03,
            "control": True,
        }
        for label in ("P0-T", "N-T", "mean-var")
    },
    "replicates": 2,
}  # fmt: skip
NEEDS = {
    "P0-T": "needs checkpoint 0 of the suite's source",
    "N-T": "needs weights of the suite's null-source",
}
TRAINED = ["P-T", "RI-T", "mean-var", "same"]


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("outside") / "mine.safetensors"
    save_file(timm.create_model("test_resnet", in_chans=1, num_classes=5).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("external")
    said = cli("run", suite_file(folder, CONTROLLED), "--backbone", "timm/test_resnet",
               "--weights", weights, "--out", folder / "run", "--jobs", 1,
               "--device", "cpu")  # fmt: skip
    assert said.code == 0, said.err
    return SimpleNamespace(run=Run(folder / "run"), folder=folder, said=said)


# --- the plan ---------------------------------------------------------------------------------


def plan_of(suite, registry, weights=OUTSIDE):
    """The plan of a suite whose datasets nobody decodes."""
    spec = registry.backbone("fixup-resnet8")
    facts = {
        f"{kind}:{label}": DatasetFacts(kind[0] * 64, 10, "multi-class", "accuracy", 900, 100)
        for kind, table in (("source", suite.sources), ("target", suite.targets))
        for label in table
    }
    entry = Entry("net", identity(spec, spec.parse({})), "l", "s", weights)
    return make_plan(suite, [entry], registry, facts)


def grid_of(plan):
    return {cell[2:]: cell.job for cell in plan.cells}


def test_an_arm_is_left_out_for_its_checkpoint_or_its_source(registry):
    suite = Suite.model_validate(CONTROLLED)
    assert left_out_arms(suite, OUTSIDE, registry) == NEEDS
    assert left_out_arms(suite, None, registry) == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quickstart@1", {"P0-T"}),
        pytest.param(
            "characters@2", {"P0-T", "P1-T", "P2-T", "P3-T", "P4-T", "N-T"}, marks=pytest.mark.slow
        ),
        ("initializations@1", {"random-label"}),
        ("null-pair@1", set()),
        ("quickstart@2", {"P0-T"}),
        ("null-pair@2", {"P0-T"}),
    ],
)
def test_every_bundled_suite_can_be_planned_with_external_weights(name, expected, registry):
    suite = load_suite(name, registry)
    own, external = plan_of(suite, registry, None), plan_of(suite, registry)
    assert set(left_out_arms(suite, OUTSIDE, registry)) == expected
    assert set(grid_of(external)) == {cell for cell in grid_of(own) if cell[2] not in expected}
    assert not external.of_kind("pretrain")
    measured = {cell.initialization for m in external.measured for cell in (m.a, m.b) if cell}
    assert measured.isdisjoint(expected)


def test_what_stays_has_the_id_that_it_has_in_a_suite_without_those_arms(registry):
    without = CONTROLLED | {
        "initializations": {arm: CONTROLLED["initializations"][arm] for arm in TRAINED},
        "diagnostics": {},
        "claims": {},
    }
    plain, whole = (
        plan_of(Suite.model_validate(suite), registry) for suite in (without, CONTROLLED)
    )
    assert grid_of(whole) == grid_of(plain)


def test_another_source_follows_the_scored_arm(registry):
    """The arm of the null source is scored, so external weights stand for that source."""
    suite = Suite.model_validate(
        CONTROLLED | {"scoring": CONTROLLED["scoring"] | {"initialization": "N-T"}}
    )
    assert set(left_out_arms(suite, OUTSIDE, registry)) == {"P-T", "P0-T", "mean-var"}


def test_quickstart_with_a_file_of_weights_has_all_cells_but_those_of_the_null_control(
    tmp_path, weights
):
    options = Options(backbones=["timm/test_resnet"], weights=str(weights), out=tmp_path / "run")
    planned = plan_suite("quickstart@1", options)
    assert set(grid_of(planned.plan)) == {
        ("handwriting", perturbation, arm, replicate)
        for perturbation in ("none", "block-4", "block-1")
        for arm in ("P-T", "RI-T")
        for replicate in range(5)
    }
    (note,) = [note for note in planned.notes if "external" in note]
    assert note == (
        f"timm/test_resnet+mine@{file_digest(weights)[:8]}: external weights cannot start P0-T "
        "(needs checkpoint 0 of the suite's source); these arms are left out, and claims on them "
        "stay undecided"
    )


def test_a_scored_arm_that_external_weights_cannot_start_is_a_mistake(tmp_path, weights):
    scoring = SMALL["scoring"] | {"initialization": "P0-T"}
    suite = suite_file(tmp_path, CONTROLLED | {"scoring": scoring})
    message = mistake("run", suite, "--backbone", "timm/test_resnet", "--weights", weights,
                   "--out", tmp_path / "run")  # fmt: skip
    assert "pretrained asks for pre-training checkpoint 0, but the external weights of" in message
    assert "have only their final state; use --weights suite" in message


# --- the run ----------------------------------------------------------------------------------


def test_the_rest_runs_and_one_note_names_what_is_left_out(finished):
    cells = finished.run.measurements.query("diagnostic == 'trial' and metric == 'test_metric'")
    assert sorted(set(cells["initialization"])) == TRAINED
    assert len(cells) == 2 * len(TRAINED)
    (note,) = [line for line in finished.said.err.splitlines() if "external weights" in line]
    assert all(f"{arm} ({why})" in note for arm, why in NEEDS.items())
    assert (finished.folder / "run" / "report.html").is_file()


def test_a_claim_on_an_arm_that_is_left_out_is_undecided_and_says_why(finished):
    (verdicts,) = finished.run.claims.values()
    verdicts = {verdict.claim: verdict for verdict in verdicts}
    for arm, why in NEEDS.items():
        assert verdicts[arm].verdict == "undecided"
        assert f"{arm} {why}, which external weights cannot give" in verdicts[arm].reason
    assert verdicts["mean-var"].n == 2
    assert "external" not in verdicts["mean-var"].reason


def test_the_entry_is_packed_checked_and_ranked(finished, weights):
    board = finished.said.out[finished.said.out.index("tiny@1 ") :]
    assert "timm/test_resnet+mine" in board
    submissions = finished.folder / "s"
    packed = cli("submission", "pack", finished.run.folder, "--out", submissions)
    assert packed.code == 0, packed.err
    report = check(Path(packed.out.strip()))
    assert report.ok, str(report)
    publish(finished.run.suite, submissions)
    (table,) = boards(submissions)
    name = f"timm/test_resnet+mine@{file_digest(weights)[:8]}"
    assert [row.cells["entry"] for row in table.rows] == [(name,)]
    assert table.rows[0].cells["rank"] == (1, 1, 1)
    assert table.unranked == ()


# --- submissions ------------------------------------------------------------------------------

MADE = SUITE | {
    "sources": SUITE["sources"] | {"other": SUITE["sources"]["source"]},
    "initializations": SUITE["initializations"] | {
        "half": {"name": "made-statistics", "source": "other", "recipe": "RI-T"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def made_registry(tmp_path_factory):
    return handmade_registry(tmp_path_factory.mktemp("plugins"))


def submitted(folder, registry, suite=MADE, weights="web"):
    entry = entry_of("made-good", weights)
    store = make_run(folder, registry, (entry,), Suite.model_validate(suite))
    return pack(folder / "run", store, entry.name, folder / "s", Declaration(), registry)


def checked(folder, registry):
    report = check(folder, registry)
    return {check.name: check for check in report.checks}["every cell is there once"]


def test_what_external_weights_can_fill_is_still_missed(tmp_path, made_registry):
    store = make_run(tmp_path, made_registry, (entry_of("made-good", "web"),),
                     Suite.model_validate(MADE))  # fmt: skip

    def without_one(rows):
        return [r for r in rows if (r.initialization, r.replicate) != ("RI-T", 2)]

    edit_records(tmp_path / "run", without_one)
    with pytest.raises(SubmissionError) as message:
        pack(tmp_path / "run", store, "made-good+web", tmp_path, Declaration(), made_registry)
    assert "RI-T on digits, none, replicate 2: missing" in str(message.value)
    assert "half" not in str(message.value)


def test_the_suites_own_weights_are_excused_from_nothing(tmp_path, made_registry):
    folder = submitted(tmp_path, made_registry, weights=None)
    assert checked(folder, made_registry).status == "ok"
    edit_records(folder, lambda rows: [row for row in rows if row.initialization != "half"])
    result = checked(sealed(folder), made_registry)
    assert result.status == "failed"
    assert "half on digits, blur-2, replicate 0 is missing" in result.why


def test_a_cell_that_external_weights_cannot_fill_is_refused(tmp_path, made_registry):
    folder = submitted(tmp_path, made_registry)
    assert checked(folder, made_registry).status == "ok"
    edit_records(folder, lambda rows: [
        *rows, next(r for r in rows if r.metric == "test_metric").model_copy(
            update={"initialization": "half"})
    ])  # fmt: skip
    result = checked(sealed(folder), made_registry)
    assert result.status == "failed"
    why = "is not a cell of the suite that external weights can fill"
    assert any(text.startswith("half on ") and text.endswith(why) for text in result.why)


def test_without_the_plugin_of_an_arm_nobody_knows_what_is_missing(tmp_path, made_registry):
    result = checked(submitted(tmp_path, made_registry), load_registry())
    assert result.status == "warning"
    (why,) = result.why
    assert why.startswith("no initialization named 'made-random'; ")
    assert why.endswith(": install its plugin to see what is missing")


def test_a_board_of_initializations_says_why_an_arm_has_no_row(tmp_path, made_registry):
    scoring = MADE["scoring"] | {"ranks": "initializations"}
    submitted(tmp_path, made_registry, MADE | {"scoring": scoring})
    publish(Suite.model_validate(MADE | {"scoring": scoring}), tmp_path / "s")
    (table,) = boards(tmp_path / "s", made_registry)
    assert sorted(row.cells["initialization"][0] for row in table.rows) == ["P-T", "RI-T"]
    (left_out,) = table.unranked
    assert left_out.why == (
        "half needs weights of the suite's other, which external weights cannot give"
    )
    (bare,) = boards(tmp_path / "s", load_registry())
    assert bare.unranked[0].why.startswith("no score of half on digits, replicate 0")
