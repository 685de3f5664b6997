"""Targets judged by another metric than their dataset's, and chance levels from the data."""

import json

import numpy as np
import pytest
from handmade_run import publish
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from tiny_suite import TINY, tiny_suite

from transferbench import run
from transferbench.errors import DataError, SuiteError
from transferbench.leaderboard import boards
from transferbench.registry import load_registry
from transferbench.submission import Declaration, check, pack
from transferbench.submission.bundle import read_bundle
from transferbench.suite.loading import load_suite

TARGET = TINY["targets"]["handwriting"] | {"stratify": "every-class"}
SCORING = TINY["scoring"]


def suite_of(reference=0.9, **changes):
    metrics = {"balanced": "balanced-accuracy", "ranked": "macro-auc"}
    return tiny_suite(
        targets={name: TARGET | {"metric": metric} for name, metric in metrics.items()},
        perturbations={"none": {"name": "identity"}},
        scoring=SCORING
        | {"chance": dict.fromkeys(metrics, "data")}
        | {"reference": {"balanced": reference, "ranked": 0.99}},
        **changes,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(suite_of(), out=tmp_path_factory.mktemp("metrics") / "run", jobs=1, device="cpu")


def trials_of(finished, target):
    rows = finished.measurements
    rows = rows[(rows.target == target) & (rows.diagnostic == "trial")]
    return rows[rows.metric == "test_metric"]


def test_a_trial_has_the_metric_of_its_target_with_an_interval(finished):
    for target, interval in (("balanced", "mean-exact-95"), ("ranked", "wilson-effective-95")):
        rows = trials_of(finished, target)
        assert len(rows) == 4
        assert set(rows.interval) == {interval}
        for row in rows.itertuples():
            outputs = finished.store.artefact(row.job).read("outputs.safetensors", _arrays)
            logits, labels = outputs["logits"].astype(np.float64), outputs["labels"]
            if target == "balanced":
                expected = balanced_accuracy_score(labels, logits.argmax(1))
            else:
                odds = np.exp(logits)
                odds /= odds.sum(axis=1, keepdims=True)
                expected = roc_auc_score(labels, odds, multi_class="ovr")
            assert row.value == pytest.approx(expected, abs=1e-9)
            assert 0 <= row.low <= row.value <= row.high <= 1


def _arrays(path):
    from safetensors.numpy import load_file

    return load_file(path)


def test_metric_and_stratification_are_part_of_the_id(finished):
    jobs = json.loads((finished.folder / "run.json").read_text())["jobs"]
    metrics = {row["payload"]["dataset"]["metric"] for row in jobs if row["kind"] == "trial"}
    assert metrics == {"balanced-accuracy", "macro-auc"}
    ids = {row["target"]: row["id"] for row in jobs if row["kind"] == "trial"}
    assert len(set(ids.values())) == 2
    selections = [row["payload"]["selection"] for row in jobs if row["kind"] == "trial"]
    assert {selection["stratify"] for selection in selections} == {"every-class"}
    assert "stratify" not in tiny_suite().targets["handwriting"].model_dump()


def test_every_class_is_tested(finished):
    for row in trials_of(finished, "balanced").itertuples():
        outputs = finished.store.artefact(row.job).read("outputs.safetensors", _arrays)
        assert set(outputs["labels"]) == set(range(10))


def test_a_submission_holds_what_its_metrics_are_recomputed_from(finished, tmp_path):
    registry = load_registry()
    (entry,) = finished.entries
    folder = pack(finished.folder, finished.store, entry, tmp_path / "s", Declaration(), registry)
    report = check(folder, registry)
    assert report.ok, report
    shapes = {trial.outputs.ndim for trial in read_bundle(folder).predictions.values()}
    assert shapes == {1, 2}
    publish(finished.suite, tmp_path / "s")
    (board,) = boards(tmp_path / "s", registry)
    text = " ".join(board.notes)
    assert "chance is the metric of the best constant prediction" in text
    rows = finished.measurements
    level, best = {"balanced": 0.1, "ranked": 0.5}, {"balanced": 0.9, "ranked": 0.99}
    scored = rows[(rows.metric == "test_metric") & (rows.initialization == "P-T")]
    scored = scored[scored.diagnostic == "trial"]
    scores = [
        (row.value - level[row.target]) / (best[row.target] - level[row.target])
        for row in scored.itertuples()
    ]
    (row,) = board.rows
    assert row.cells["score"][0] == pytest.approx(np.mean(scores))


def test_the_report_draws_chance_from_the_data(finished):
    assert json.loads((finished.folder / "run.json").read_text())["data"]["chance"] == {
        "balanced": pytest.approx(0.1), "ranked": 0.5,
    }  # fmt: skip
    assert finished.report().read_text().count(">chance<") >= 1


def test_a_reference_at_chance_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"its reference 0\.1 is the metric at chance level"):
        run(suite_of(reference=0.1), out=tmp_path / "run", jobs=1, device="cpu")


def test_a_metric_of_another_task_is_refused(tmp_path):
    path = tmp_path / "suite.yaml"
    targets = {"handwriting": TARGET | {"metric": "auc"}}
    path.write_text(json.dumps(TINY | {"targets": targets}))
    with pytest.raises(SuiteError) as caught:
        load_suite(str(path), load_registry())
    assert "targets.handwriting.metric" in str(caught.value)
    assert (
        "digits is multi-class, and auc is no metric of such a task; choose of accuracy, "
        "balanced-accuracy, macro-auc" in str(caught.value)
    )
