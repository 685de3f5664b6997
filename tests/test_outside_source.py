"""External weights as the source network P: what is measured of them, what is said of the rest."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from command_line import SMALL, cli, suite_file
from handmade_run import publish
from html_page import Page
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from transferbench.analysis.transferability import leep
from transferbench.api import Run
from transferbench.identity import file_digest
from transferbench.leaderboard import boards
from transferbench.registry import load_registry
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.submission import check
from transferbench.suite import Suite

SCORES = ("leep", "nce", "h-score", "logme", "nleep", "linear-probe", "knn")
OF_P = {
    **{name: {"name": name, "pairs": [{"a": "P-T", "b": "P", "replicates": "same"}]}
       for name in SCORES},
    **{name: {"name": name, "pairs": [{"a": arm, "b": "P", "replicates": "same"}
                                      for arm in ("P-T", "RI-T")]}
       for name in ("cka", "distance")},
    "spectrum": {"name": "spectrum", "of": ["P-T", "P"]},
    "checkpoint-choice": {
        "name": "checkpoint-choice", "pairs": [{"a": "P-T", "b": "P", "replicates": "same"}]
    },
    "misalignment": {"name": "misalignment", "of": ["P"]},
}  # fmt: skip
CLAIM = {
    "statement": "the first filters of P are aligned with the images",
    "terms": [{"diagnostic": "misalignment", "metric": "misalignment", "initialization": "P"}],
    "relation": "below",
}
SUITE = SMALL | {"diagnostics": OF_P, "claims": {"aligned": CLAIM}, "replicates": 2}
NO_TRAINING = "needs the training of P, and external weights are a final state alone"
NO_HEAD = "needs the classifier of P, and none is known of these weights"
SOURCE_CLASSES = 7


def weights_file(folder, *, head=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = timm.create_model("test_resnet", in_chans=1, num_classes=SOURCE_CLASSES)
    state = net.state_dict()
    if not head:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    save_file(state, folder / "mine.safetensors")
    return folder / "mine.safetensors"


def planned_with(folder, file):
    options = Options(backbones=["timm/test_resnet"], weights=str(file), out=folder / "run")
    return plan_suite(Suite.model_validate(SUITE), options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    file = weights_file(folder)
    said = cli("run", suite_file(folder, SUITE), "--backbone", "timm/test_resnet", "--weights",
               file, "--out", folder / "run", "--jobs", 1, "--device", "cpu")  # fmt: skip
    assert said.code == 0, said.err
    run = Run(folder / "run")
    return SimpleNamespace(run=run, folder=folder, file=file, said=said, table=run.measurements)


# --- the plan ---------------------------------------------------------------------------------


def test_every_diagnosis_that_needs_no_training_of_p_is_planned(tmp_path):
    plan = planned_with(tmp_path, weights_file(tmp_path)).plan
    (weights,) = plan.of_kind("weights")
    assert weights.payload["classes"] == SOURCE_CLASSES
    of_p = {cell.diagnostic for cell in plan.measured
            if weights.id in plan.jobs[cell.job].requires}  # fmt: skip
    assert of_p == {*SCORES, "cka", "distance", "spectrum"}
    assert len([cell for cell in plan.measured if cell.diagnostic == "cka"]) == 4


def test_plan_names_what_cannot_be_measured_with_the_reason(tmp_path):
    planned = planned_with(tmp_path, weights_file(tmp_path))
    name = planned.plan.entries[0].name
    note = f"{name}: not measured of P: checkpoint-choice, misalignment ({NO_TRAINING})"
    assert note in planned.notes


def test_scores_of_the_head_are_not_measured_where_the_weights_have_none(tmp_path):
    planned = planned_with(tmp_path, weights_file(tmp_path, head=False))
    (note,) = [note for note in planned.notes if "not measured of P" in note]
    assert note.endswith(
        f": leep, nce ({NO_HEAD}); checkpoint-choice, misalignment ({NO_TRAINING})"
    )
    (weights,) = planned.plan.of_kind("weights")
    assert weights.payload["classes"] is None


def test_weights_of_which_nothing_is_measured_are_no_job(tmp_path):
    suite = Suite.model_validate(SMALL)
    options = Options(backbones=["timm/test_resnet"], weights=str(weights_file(tmp_path)),
                      out=tmp_path / "run")  # fmt: skip
    assert not plan_suite(suite, options).plan.of_kind("weights")


def test_a_file_tells_the_classes_of_its_head(tmp_path):
    registry = load_registry()
    spec, values = registry.resolve_backbone("timm/test_resnet")
    params = spec.parse(values)
    file = str(weights_file(tmp_path))
    assert spec.classes_in(params, file) == SOURCE_CLASSES
    fixup = registry.backbone("fixup-resnet8")
    net = fixup.build(fixup.parse({"width": 4}), 5, 1, 8)
    torch.save(net.state_dict(), tmp_path / "fixup.pth")
    assert fixup.classes_in(fixup.parse({"width": 4}), str(tmp_path / "fixup.pth")) == 5
    headless = str(weights_file(tmp_path, head=False))
    assert spec.classes_in(params, headless) is None


# --- the numbers ------------------------------------------------------------------------------


def outputs_of(finished):
    """Features and logits of P on a target's images, computed here by timm alone."""
    planned = planned_with(finished.folder, finished.file)
    (trial, *_) = [cell.job for cell in planned.plan.cells if cell.initialization == "P-T"]
    from transferbench.engine.finished_trial import FinishedTrial
    from transferbench.engine.resources import Machine, WorkerResources

    machine = Machine(planned.store.root, planned.store.datasets, None, "cpu")
    subject = FinishedTrial(WorkerResources(planned.registry, planned.store, machine), trial)
    net = timm.create_model("test_resnet", in_chans=1, num_classes=SOURCE_CLASSES).eval()
    net.load_state_dict(load_file(finished.file))
    outputs = []
    for split in ("train", "test"):
        images = subject.images(split)
        with torch.no_grad():
            features = net.forward_head(net.forward_features(images), pre_logits=True)
            logits = net(images)
        outputs.append((features.double().numpy(), logits.double().numpy(),
                        subject.targets(split).numpy()))  # fmt: skip
    return outputs


def value(finished, diagnostic, metric, **where):
    rows = finished.table.query(
        f"diagnostic == '{diagnostic}' and metric == '{metric}' and replicate == 0"
        " and other_initialization == 'P' and initialization == 'P-T'"
    )
    for column, expected in where.items():
        rows = rows[rows[column] == expected]
    (row,) = rows.to_dict("records")
    return row


def test_leep_is_that_of_the_weights_own_classifier(finished):
    (_, logits, labels), _ = outputs_of(finished)
    expected = leep(softmax(logits, axis=1), labels).value
    assert value(finished, "leep", "leep")["value"] == pytest.approx(expected, rel=1e-4)


def test_the_probe_is_a_regression_on_the_features_of_the_weights(finished):
    (features, _, labels), (tested, _, truth) = outputs_of(finished)
    strength = value(finished, "linear-probe", "probe_strength")["value"]
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=1 / (strength * len(labels)), max_iter=5000, tol=1e-6)
    model.fit(scaler.transform(features), labels)
    expected = np.mean(model.predict(scaler.transform(tested)) == truth)
    row = value(finished, "linear-probe", "probe_test_metric")
    assert row["value"] == pytest.approx(expected, abs=0.5 / len(truth) + 1e-9)


def test_the_distance_to_p_is_that_of_the_files(finished):
    row = value(finished, "distance", "l2", module="body")
    trials = [job for job in finished.run.job_rows if job["label"].startswith("P-T of")]
    final = load_file(finished.run.store.artefact(trials[0]["job"]).path("final.safetensors"))
    source = load_file(finished.file)
    net = timm.create_model("test_resnet", in_chans=1, num_classes=SOURCE_CLASSES)
    names = [name for name, _ in net.named_parameters() if not name.startswith("fc.")]
    expected = sum(float((final[n].double() - source[n]).square().sum()) for n in names) ** 0.5
    assert row["value"] == pytest.approx(expected, rel=1e-6)


def test_what_p_started_from_is_not_known(finished):
    rows = finished.table.query("diagnostic == 'distance' and metric == 'cosine'")
    assert set(rows["initialization"]) == {"RI-T"}
    assert rows["value"].isna().all()
    unknown = "b is external weights, and what they were trained from is not known"
    assert set(rows["flag"]) == {unknown}
    spectra = finished.table.query("diagnostic == 'spectrum' and initialization == 'P'")
    assert set(spectra["flag"].dropna()) == {"external weights are a final state alone"}
    assert spectra.query("metric == 'stable_rank' and of == 'final'")["value"].notna().all()


def test_weights_have_no_checkpoint_coordinate(finished):
    rows = finished.table[finished.table["diagnostic"].isin(SCORES)]
    assert "checkpoint" not in rows.dropna(axis=1, how="all").columns
    assert set(rows["diagnostic"]) == set(SCORES)


# --- what is said -----------------------------------------------------------------------------


def test_the_report_says_why_and_not_to_see_the_jobs(finished):
    words = Page((finished.run.folder / "report.html").read_text(encoding="utf-8")).words
    assert f"checkpoint-choice: this run holds no measurement of it; it {NO_TRAINING}" in words
    assert "see the jobs" not in words


def test_a_claim_on_what_is_not_measured_says_why(finished):
    ((verdict,),) = finished.run.claims.values()
    assert verdict.verdict == "undecided"
    assert f"misalignment {NO_TRAINING}" in verdict.reason


def test_the_run_is_packed_checked_and_the_board_says_what_it_lacks(finished):
    submissions = finished.folder / "s"
    packed = cli("submission", "pack", finished.run.folder, "--out", submissions)
    assert packed.code == 0, packed.err
    report = check(submissions.joinpath(packed.out.strip()))
    assert report.ok, str(report)
    publish(finished.run.suite, submissions)
    (table,) = boards(submissions)
    name = f"timm/test_resnet+mine@{file_digest(finished.file)[:8]}"
    line = f"{name}: not measured of P: checkpoint-choice, misalignment ({NO_TRAINING})."
    assert line in table.flags


def test_the_job_is_named_and_verified_with_the_others(finished):
    kinds = {row["kind"] for row in finished.run.job_rows}
    assert kinds == {"weights", "trial", "diagnosis"}
    (row,) = [row for row in finished.run.job_rows if row["kind"] == "weights"]
    artefact = finished.run.store.artefact(row["job"])
    artefact.path("final.safetensors").write_bytes(b"damaged")
    said = cli("verify", finished.run.store.root, "--weights", finished.file, "--jobs", 1,
               "--device", "cpu")  # fmt: skip
    assert said.code == 0, said
    assert load_file(finished.run.store.artefact(row["job"]).path("final.safetensors"))
