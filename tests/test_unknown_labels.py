"""Labels that are unknown (NaN): left out of loss, metric and diagnoses, against plain float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_subject import FakeSubject
from scipy.special import expit
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score
from test_planned_data import HANDWRITING, planned
from test_training import CPU, Linear, recipe_of, split_of

from transferbench.analysis.landscape import Criterion, Examples, evaluate_states
from transferbench.analysis.metric_intervals import metric_interval
from transferbench.data.pipeline import mixup
from transferbench.data.strata import strata_of
from transferbench.errors import SubmissionError, SuiteError
from transferbench.metrics import (
    accuracy,
    balanced_accuracy,
    chance_level,
    hits,
    mean_auc,
    weighted_score,
)
from transferbench.networks.losses import label_loss
from transferbench.specs import DiagnosticContext
from transferbench.submission.predictions import (
    Predictions,
    read_predictions,
    recompute_metric,
    write_predictions,
)
from transferbench.training import Execution, TaskData, Training, evaluate
from transferbench_plugins.diagnostics import transferbench_diagnostics

RNG = np.random.default_rng(0)
N, L = 120, 3
TRUE_NL = (RNG.random((N, L)) < [0.2, 0.5, 0.8]).astype(np.float32)
LOGITS_NL = (RNG.normal(size=(N, L)) + TRUE_NL).round(1).astype(np.float32)
KNOWN_NL = RNG.random((N, L)) < [0.9, 0.6, 0.5]
KNOWN_NL[:4] = False  # images of which nothing is known
LABELS_NL = np.where(KNOWN_NL, TRUE_NL, np.float32(np.nan))
DIAGNOSTICS = {spec.name: spec for spec in transferbench_diagnostics()}


def by_label(measure):
    """The mean over labels of ``measure(truth, logits)`` on the images where each is known."""
    values = [
        measure(TRUE_NL[KNOWN_NL[:, k], k], LOGITS_NL[KNOWN_NL[:, k], k].astype(np.float64))
        for k in range(L)
    ]
    return np.mean(values)


def losses(logits, labels):
    """Plain binary cross-entropy in float64."""
    p = expit(logits.astype(np.float64))
    return -np.log(np.where(labels > 0.5, p, 1 - p))


# --- metrics ------------------------------------------------------------------------------------


def test_areas_and_balanced_accuracy_are_those_of_the_known_labels():
    auc, balanced = mean_auc(LOGITS_NL, LABELS_NL), balanced_accuracy(LOGITS_NL, LABELS_NL)
    assert auc == pytest.approx(by_label(roc_auc_score), abs=1e-12)
    recall = by_label(lambda truth, logits: balanced_accuracy_score(truth, logits > 0))
    assert balanced == pytest.approx(recall, abs=1e-12)
    assert metric_interval("auc", LOGITS_NL, LABELS_NL).value == pytest.approx(auc, abs=1e-12)


def test_the_accuracy_of_an_image_is_that_of_its_known_labels():
    expected = [accuracy_score(TRUE_NL[n, row], LOGITS_NL[n, row] > 0) if row.any() else np.nan
                for n, row in enumerate(KNOWN_NL)]  # fmt: skip
    assert np.array_equal(hits(LOGITS_NL, LABELS_NL), expected, equal_nan=True)
    assert accuracy(LOGITS_NL, LABELS_NL) == pytest.approx(np.nanmean(expected), abs=1e-12)
    assert accuracy(LOGITS_NL[:4], LABELS_NL[:4]) is None


@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy", "auc"])
def test_a_weight_counts_an_image_so_many_times(metric):
    outputs = LOGITS_NL if metric == "auc" else LOGITS_NL > 0
    weights = RNG.integers(0, 3, N)
    repeated = np.repeat(np.arange(N), weights)
    once = np.ones((1, len(repeated)))
    expected = weighted_score(metric, outputs[repeated], LABELS_NL[repeated], once)
    value = weighted_score(metric, outputs, LABELS_NL, weights[None])
    assert value == pytest.approx(expected, abs=1e-12)


def test_chance_is_the_best_constant_prediction():
    constants = np.array(np.meshgrid(*[[-1.0, 1.0]] * L)).reshape(L, -1).T
    reached = [accuracy(np.tile(row, (N, 1)), LABELS_NL) for row in constants]
    assert chance_level("accuracy", LABELS_NL) == pytest.approx(max(reached), abs=1e-12)
    assert chance_level("auc", LABELS_NL) == 0.5


# --- the loss -----------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_the_known_labels_and_moves_no_unknown_logit():
    logits = torch.from_numpy(LOGITS_NL).double().requires_grad_()
    loss = label_loss(logits, torch.from_numpy(LABELS_NL).double(), partly_known=True)
    expected = losses(LOGITS_NL, TRUE_NL)[KNOWN_NL].mean()
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    loss.backward()
    slopes = (expit(LOGITS_NL.astype(np.float64)) - TRUE_NL) * KNOWN_NL / KNOWN_NL.sum()
    assert logits.grad.numpy() == pytest.approx(slopes, abs=1e-12)
    nothing = label_loss(torch.ones(2, 3), torch.full((2, 3), torch.nan), partly_known=True)
    assert nothing.item() == 0


def data_of(labels):
    split = split_of(len(labels), labels=labels)
    return TaskData("multi-label", "auc", labels.shape[1], split, split, None)


def test_evaluations_leave_unknown_labels_out():
    data, net = data_of(LABELS_NL), Linear(L)
    indices = torch.arange(N)
    logits = net(data.train.pipeline.batch(indices)).detach().numpy()
    evaluation = evaluate(net, data.train, data, CPU)
    expected = losses(logits, TRUE_NL)[KNOWN_NL].mean()
    assert evaluation.loss == pytest.approx(expected, rel=1e-5)
    assert evaluation.metric == mean_auc(logits, LABELS_NL)
    examples = Examples(data.train.pipeline.batch(indices), data.train.labels)
    (at,) = evaluate_states(net, [net.state_dict()], {"all": examples},
                            Criterion("multi-label", "auc"))  # fmt: skip
    assert at["all"].loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("micro_batch", [None, 7])
def test_a_step_of_training_equals_numpy(micro_batch):
    data = data_of(LABELS_NL[:30])
    recipe = recipe_of(batch_size=30, epochs=1, label_smoothing=0.1, learning_rate=0.5)
    torch.manual_seed(0)
    net = Linear(L)
    weight = net.head.weight.detach().double().numpy().copy()
    bias = net.head.bias.detach().double().numpy().copy()
    images = data.train.pipeline.batch(torch.arange(30)).flatten(1).double().numpy()
    Training(net, data, recipe, Execution(torch.device("cpu"), micro_batch=micro_batch)).train(
        data_seed=0, augmentation_seed=0
    )
    smooth = np.nan_to_num(LABELS_NL[:30]) * 0.9 + 0.05
    known_N = KNOWN_NL[:30]
    slopes = (expit(images @ weight.T + bias) - smooth) * known_N / known_N.sum()
    assert net.head.weight.detach().numpy() == pytest.approx(weight - 0.5 * slopes.T @ images,
                                                             abs=1e-6)  # fmt: skip
    assert net.head.bias.detach().numpy() == pytest.approx(bias - 0.5 * slopes.sum(0), abs=1e-6)


def test_without_unknown_labels_the_loss_is_that_of_torch_bit_for_bit():
    logits, labels = torch.from_numpy(LOGITS_NL), torch.from_numpy(TRUE_NL)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert label_loss(logits, labels, partly_known=False).equal(plain)


def test_a_label_that_is_unknown_in_one_of_two_mixed_images_is_unknown():
    labels = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        _, mixed = mixup(torch.rand(2, 1, 2, 2), labels, 0.5, generator)
        assert torch.isfinite(mixed[:, 0]).all()
        assert torch.isnan(mixed[0, 1])


# --- selections and submissions -----------------------------------------------------------------


def test_images_with_the_same_labels_and_gaps_are_one_stratum():
    labels = np.array([[1, np.nan], [1, np.nan], [1, 0], [np.nan, 0]], np.float32)
    assert strata_of(labels).tolist() in ([1, 1, 0, 2], [0, 0, 1, 2])


def test_predictions_keep_what_is_unknown(tmp_path):
    path = tmp_path / "predictions.parquet"
    trial = Predictions(np.arange(N), LABELS_NL, LOGITS_NL)
    write_predictions({"a" * 64: trial}, path)
    again = read_predictions(path)["a" * 64]
    assert np.array_equal(again.labels, LABELS_NL, equal_nan=True)
    assert recompute_metric("auc", again) == mean_auc(LOGITS_NL, LABELS_NL)
    assert recompute_metric("accuracy", again) == accuracy(LOGITS_NL, LABELS_NL)


def test_predictions_with_other_labels_are_refused(tmp_path):
    path = tmp_path / "predictions.parquet"
    labels = np.where(KNOWN_NL, 1, 7).astype(np.int8)
    write_predictions({"a" * 64: Predictions(np.arange(N), labels, LOGITS_NL)}, path)
    with pytest.raises(SubmissionError, match="labels are 0, 1, or -1 for an unknown one"):
        read_predictions(path)


# --- diagnoses ----------------------------------------------------------------------------------


def trial_of(logits, labels):
    return FakeSubject(task="multi-label", metric="auc", labels=labels, logits=logits, chance=0.5)


def measured(name, *subjects, **params):
    spec = DIAGNOSTICS[name]
    context = DiagnosticContext(torch.device("cpu"), torch.Generator(), 0)
    return list(spec.measure(spec.parse(params), subjects, context))


OTHER_NL = (RNG.normal(size=(N, L)) + TRUE_NL).round(1).astype(np.float32)


def test_mistakes_of_a_label_are_those_on_its_known_images():
    rows = measured("agreement", trial_of(LOGITS_NL, LABELS_NL), trial_of(OTHER_NL, LABELS_NL),
                    resamples=100)  # fmt: skip
    values = {(row.metric, row.coordinates.get("label")): row.value for row in rows}
    for k in range(L):
        known_N = KNOWN_NL[:, k]
        a, b = (logits[known_N, k] > 0 for logits in (LOGITS_NL, OTHER_NL))
        wrong_a, wrong_b = a != (TRUE_NL[known_N, k] > 0), b != (TRUE_NL[known_N, k] > 0)
        assert values["n_common", k] == (wrong_a & wrong_b).sum()
        assert values["agreement", k] == pytest.approx((a == b).mean(), abs=1e-12)
        observed = (wrong_a == wrong_b).mean()
        p, q = wrong_a.mean(), wrong_b.mean()
        chance = p * q + (1 - p) * (1 - q)
        assert values["kappa", k] == pytest.approx((observed - chance) / (1 - chance), abs=1e-12)


def test_classes_are_judged_on_their_known_images():
    rows = measured("per-class", trial_of(LOGITS_NL, LABELS_NL))
    values = {(row.metric, row.coordinates["class"]): row for row in rows}
    for k in range(L):
        known_N = KNOWN_NL[:, k]
        truth, scores = TRUE_NL[known_N, k] > 0, LOGITS_NL[known_N, k]
        area, named = values["class_auc", k], scores > 0
        assert area.value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        assert area.n == known_N.sum()
        right = (truth & named).sum()
        assert values["recall", k].value == pytest.approx(right / truth.sum(), abs=1e-12)
        assert values["precision", k].value == pytest.approx(right / named.sum(), abs=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "auc"])
def test_the_gain_is_that_of_the_known_labels(metric):
    history = [{"epoch": 0, "train_metric": 0.5, "train_loss": 1.0, "test_metric": 0.5,
                "test_loss": 1.0, "validation_metric": None}]  # fmt: skip
    history += [history[0] | {"epoch": 1, "train_metric": 0.9}]
    pair = [trial_of(logits, LABELS_NL) for logits in (LOGITS_NL, OTHER_NL)]
    for subject in pair:
        subject.metric, subject.history = metric, history
    rows = measured("relative-drop", *pair, resamples=100)
    gain = next(row for row in rows if row.metric == "gain")
    a, b = (weighted_score(metric, o if metric == "auc" else o > 0, LABELS_NL, np.ones((1, N)))[0]
            for o in (LOGITS_NL, OTHER_NL))  # fmt: skip
    assert gain.value == pytest.approx(a - b, abs=1e-12)


def test_the_loss_under_perturbations_is_that_of_the_training():
    net = Linear(L)
    images = split_of(N, labels=LABELS_NL).pipeline.batch(torch.arange(N))
    logits = net(images).detach().numpy()
    subject = trial_of(logits, LABELS_NL)
    subject.networks, subject.perturb = {"final": net}, lambda *_: images
    rows = measured("robustness", subject, resamples=100,
                    perturbations=[{"name": "identity", "settings": [{}]}])  # fmt: skip
    expected = losses(logits, TRUE_NL)[KNOWN_NL].mean()
    values = [row for row in rows if row.metric == "test_loss"]
    assert [row.value for row in values] == pytest.approx([expected] * 2, rel=1e-6)
    assert all(row.low < expected < row.high for row in values)


def test_scores_of_features_use_the_images_where_a_label_is_known():
    from sklearn.linear_model import LogisticRegression

    from transferbench.analysis.evidence import log_evidence
    from transferbench_plugins.diagnostics.transferability import logme
    from transferbench_plugins.diagnostics.transferability._logistic import fit_regressions

    features = RNG.normal(size=(N, 5)) + TRUE_NL[:, :1]
    (fitted,) = fit_regressions(features, LABELS_NL, L, [0.1])
    standard = (features - features.mean(0)) / features.std(0)
    for k in range(L):
        known_N = KNOWN_NL[:, k]
        plain = LogisticRegression(C=1 / (0.1 * known_N.sum()), max_iter=1000, tol=1e-8)
        plain.fit(standard[known_N], TRUE_NL[known_N, k])
        assert fitted.weights[:, k] == pytest.approx(plain.coef_[0], abs=1e-3)
    evidence = logme._evidence(features, LABELS_NL)
    for k in range(L):
        alone = log_evidence(features[KNOWN_NL[:, k]], TRUE_NL[KNOWN_NL[:, k]][:, [k]])
        assert evidence[k] == pytest.approx(alone[0], abs=1e-12)
    nowhere = np.full((N, 1), np.nan)
    (blank,) = fit_regressions(features, nowhere, 1, [0.1])
    assert not blank.weights.any()
    assert not blank.bias.any()


# --- plans --------------------------------------------------------------------------------------

PLUGIN = """
import numpy as np
from transferbench.hookspecs import hookimpl
from transferbench.specs import DatasetSpec, DatasetSplit, DiagnosticSpec

ABOUT = {{"version": 1, "summary": "s", "source": "s", "license": "l"}}


def load(params, split, root, image_size):
    draws = np.random.default_rng(len(split))
    labels = (draws.random((40, 2)) < 0.5).astype(np.float32)
    labels[draws.random((40, 2)) < 0.3] = np.nan
    images = draws.integers(0, 256, (40, image_size, image_size, 1)).astype(np.uint8)
    return DatasetSplit(images, labels, np.array([f"{{split}}{{n}}" for n in range(40)]))


@hookimpl
def transferbench_datasets():
    yield DatasetSpec(name="gaps", **ABOUT, load=load, classes=lambda params, root: ("a", "b"),
                      channels=1, grouping="an image", task="multi-label", metric="auc")


@hookimpl
def transferbench_diagnostics():
    yield DiagnosticSpec(name="own", **ABOUT, measure=lambda *_: (), subjects="one", {declared})
"""


@pytest.mark.parametrize("declared", ["", "unknown_labels=True"])
def test_a_diagnostic_that_is_not_made_for_unknown_labels_is_refused_by_the_plan(
    tmp_path, declared
):
    plugin = tmp_path / "gaps.py"
    plugin.write_text(PLUGIN.format(declared=declared))
    target = HANDWRITING | {"dataset": {"name": "gaps"}}
    chosen = {"diagnostics": {"mine": {"name": "own"}, "curve": {"name": "learning-curve"}},
              "claims": {}}  # fmt: skip
    if declared:
        assert planned(tmp_path, target, [plugin], **chosen).plan.of_kind("diagnosis")
        return
    with pytest.raises(SuiteError) as caught:
        planned(tmp_path, target, [plugin], **chosen)
    assert str(caught.value) == (
        "target:handwriting: some of its labels are unknown, and diagnostic 'own' does not say "
        "that it leaves them out (DiagnosticSpec.unknown_labels); choose another policy than "
        "ignore, or leave the diagnostic out"
    )
