"""Scores of a source network: on networks with known features, and in complete runs."""

import numpy as np
import pytest
import torch
from fake_subject import FakeSubject, modules_of
from pydantic import ValidationError
from scipy import stats
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from tiny_suite import TINY, tiny_suite
from torch import nn

from transferbench.analysis.evidence import log_evidence
from transferbench.analysis.transferability import h_score, leep, nce
from transferbench.api import run
from transferbench.data.splits import select_training
from transferbench.engine.resources import lru_cache
from transferbench.specs import DiagnosticContext
from transferbench_plugins.diagnostics.training.checkpoint_choice import CHECKPOINT_CHOICE
from transferbench_plugins.diagnostics.transferability._logistic import fit_regressions
from transferbench_plugins.diagnostics.transferability.h_score import H_SCORE
from transferbench_plugins.diagnostics.transferability.knn import KNN
from transferbench_plugins.diagnostics.transferability.leep import LEEP, NCE, NLEEP
from transferbench_plugins.diagnostics.transferability.linear_probe import LINEAR_PROBE
from transferbench_plugins.diagnostics.transferability.logme import LOGME

SCORES = (H_SCORE, KNN, LEEP, LINEAR_PROBE, LOGME, NCE, NLEEP)
CLASS_SCORES = (H_SCORE, KNN, LEEP, NCE, NLEEP)
CONTEXT = DiagnosticContext(device=torch.device("cpu"), generator=None, seed=3)
CLASSES, FEATURES, SOURCE_CLASSES = 4, 6, 5


def network(seed, outputs=SOURCE_CLASSES):
    """A body of one linear layer and softplus on 2 x 2 pixels, and a linear head."""
    net = nn.Sequential()
    net.add_module("body", nn.Sequential(nn.Flatten(), nn.Linear(4, FEATURES), nn.Softplus()))
    net.add_module("head", nn.Linear(FEATURES, outputs))
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data.normal_(generator=generator)
    return net.eval()


def trained(nets, data, **fields):
    """A finished trial or a source network of these networks."""
    labels = data["test"][1]
    logits = np.zeros((len(labels), nets["final"].head.out_features), np.float32)
    return FakeSubject(
        nets, modules_of(nets["final"]), data, labels=labels, logits=logits, **fields
    )


def images(n, classes=CLASSES, seed=0, signal=1.0):
    """Images whose pixels depend on their class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    pixels = rng.normal(size=(n, 1, 2, 2))
    pixels.reshape(n, 4)[np.arange(n), labels % 4] += signal
    return torch.from_numpy(pixels.astype(np.float32)), labels


def epochs_of(*epochs):
    return tuple({"epoch": epoch, "train_metric": 0.5, "test_metric": None} for epoch in epochs)


def source(**more):
    """A source pre-trained for two epochs, with stored epochs 0 and 1."""
    nets = {0: network(0), 1: network(1), "final": network(2)}
    data = {"test": images(50, SOURCE_CLASSES, seed=9)}
    history = ({"epoch": 0}, {"epoch": 1}, {"epoch": 2, "test_metric": 0.5})
    return trained(nets, data, history=history, **more)


def trial(start="final", n=300, data=None, **more):
    """A trial that started from a state of ``source()``, or from another network."""
    data = data or {"train": images(n), "test": images(120, seed=1)}
    labels = data["train"][1]
    outputs = labels.shape[1] if labels.ndim == 2 else CLASSES
    init = network(17, outputs)
    if start is not None:
        init.body.load_state_dict(source().networks[start].body.state_dict())
    return trained({"init": init, "final": network(5, outputs)}, data, **more)


def features_and_logits(net, pixels):
    with torch.no_grad():
        features = net.body(pixels)
        return features.double().numpy(), net.head(features).double().numpy()


def measure(spec, a, b, **params):
    """Measurements by metric, or by (metric, k)."""
    measured = list(spec.measure(spec.parse(params), (a, b), CONTEXT))
    keyed = {(m.metric, m.coordinates.get("k")): m for m in measured}
    assert len(keyed) == len(measured)
    return {metric if k is None else (metric, k): m for (metric, k), m in keyed.items()}


# --- source states ----------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "epoch"), [("final", 2), (0, 0), (1, 1)])
def test_scores_use_the_source_state_that_the_trial_started_from(start, epoch):
    a, b = trial(start), source()
    features, logits = features_and_logits(b.networks[start], a.images("train"))
    labels = a.data["train"][1]
    targets = np.eye(CLASSES)[labels]
    expected = {
        "leep": leep(softmax(logits, axis=1), labels).value,
        "nce": nce(logits.argmax(axis=1), labels).value,
        "h_score": h_score(features, labels).plain,
        "regularised_h_score": h_score(features, labels).regularised,
        "logme": log_evidence(features, targets).mean(),
    }
    got = measure(LEEP, a, b) | measure(NCE, a, b) | measure(H_SCORE, a, b) | measure(LOGME, a, b)
    assert {metric: m.value for metric, m in got.items()} == pytest.approx(expected)
    for metric, m in got.items():
        assert (m.n, m.coordinates, m.flag) == (300, {"checkpoint": epoch}, None), metric
    assert got["leep"].unit == got["nce"].unit == got["logme"].unit == "nats"
    assert got["leep"].interval == got["nce"].interval == "leave-one-out-95"
    assert got["leep"].low < got["leep"].value < got["leep"].high


@pytest.mark.parametrize("spec", SCORES, ids=lambda spec: spec.name)
def test_a_trial_of_another_source_is_flagged_and_scored_by_the_final_state(spec):
    own, other = measure(spec, trial(None), source()), measure(spec, trial("final"), source())
    for metric, m in own.items():
        assert m.value == other[metric].value
        assert m.coordinates["checkpoint"] == 2
        assert "a starts from no kept state of b, whose final one is measured" in m.flag, metric


@pytest.mark.parametrize("spec", SCORES, ids=lambda spec: spec.name)
def test_scores_are_deterministic_and_do_not_modify_networks(spec):
    a, b = trial(), source()
    before = {which: {k: v.clone() for k, v in net.state_dict().items()}
              for which, net in b.networks.items()}  # fmt: skip
    assert measure(spec, a, b) == measure(spec, a, b)
    for which, state in before.items():
        assert all(
            torch.equal(value, b.networks[which].state_dict()[k]) for k, value in state.items()
        )
        assert not b.networks[which].training


# --- undefined scores -------------------------------------------------------------------------


def multi_label(n=300):
    pixels, labels = images(n)
    positive = np.stack([labels == 0, labels < 2, labels == 7], axis=1).astype(np.float32)
    return {"train": (pixels, positive), "test": (pixels[:100] * 1.1, positive[:100])}


@pytest.mark.parametrize("spec", CLASS_SCORES, ids=lambda spec: spec.name)
def test_scores_of_classes_are_undefined_for_multi_label_targets(spec):
    a = trial(data=multi_label(), task="multi-label", metric="auc")
    for m in measure(spec, a, source()).values():
        assert m.value is None
        assert m.flag.endswith("exclude each other; the target has several labels an image")


@pytest.mark.parametrize("spec", [LEEP, NCE], ids=lambda spec: spec.name)
def test_scores_of_source_classes_are_undefined_for_multi_label_sources(spec):
    (m,) = measure(spec, trial(), source(task="multi-label")).values()
    assert m.value is None
    assert m.flag.endswith("exclude each other; the source has several labels an image")
    assert measure(LOGME, trial(), source(task="multi-label"))["logme"].value is not None


def of_classes(*classes, n=300):
    pixels, labels = images(n)
    chosen = np.isin(labels, classes)
    return {"train": (pixels[torch.from_numpy(chosen)], labels[chosen]), "test": images(80, seed=1)}


@pytest.mark.parametrize("spec", CLASS_SCORES, ids=lambda spec: spec.name)
def test_classes_without_a_training_image_are_flagged(spec):
    for m in measure(spec, trial(data=of_classes(0, 3)), source()).values():
        assert m.value is not None
        assert m.flag == "no training image of class 1, 2"


@pytest.mark.parametrize("spec", [*CLASS_SCORES, LINEAR_PROBE], ids=lambda spec: spec.name)
def test_a_single_class_has_no_score(spec):
    for m in measure(spec, trial(data=of_classes(2)), source()).values():
        assert (m.value, m.flag) == (None, "all training images are of one class")


@pytest.mark.parametrize("spec", SCORES, ids=lambda spec: spec.name)
def test_a_diverged_source_has_no_score(spec):
    broken = source()
    broken.networks["final"].body[1].weight.data.fill_(torch.inf)
    a = trial()
    a.networks["init"].body.load_state_dict(broken.networks["final"].body.state_dict())
    for m in measure(spec, a, broken).values():
        assert (m.value, m.n) == (None, 300)
        assert m.flag == "features or logits of the source are not finite"


def test_features_that_do_not_vary_have_no_variance_to_explain():
    flat = source()
    for parameter in flat.networks["final"].body.parameters():
        parameter.data.zero_()
    a = trial()
    a.networks["init"].body.load_state_dict(flat.networks["final"].body.state_dict())
    for spec in (H_SCORE, NLEEP):
        for m in measure(spec, a, flat).values():
            assert (m.value, m.flag) == (None, "the features do not vary")
    chance = -stats.entropy(np.bincount(a.data["train"][1]))
    assert measure(LEEP, a, flat)["leep"].value == pytest.approx(chance)


def test_a_plain_h_score_of_few_images_is_flagged():
    got = measure(H_SCORE, trial(n=6), source())
    assert got["h_score"].value == pytest.approx(3)
    assert (
        got["h_score"].flag == "6 images in 6 dimensions: any labels would reach the largest score"
    )
    assert got["regularised_h_score"].flag is None


# --- LogME of labels, NLEEP -------------------------------------------------------------------


def test_logme_averages_over_labels_without_constant_ones():
    a = trial(data=multi_label(), task="multi-label", metric="auc")
    features, _ = features_and_logits(source().networks["final"], a.images("train"))
    expected = log_evidence(features, a.data["train"][1][:, :2]).mean()
    m = measure(LOGME, a, source())["logme"]
    assert m.value == pytest.approx(expected)
    assert m.flag == "one value on all images, left out: 2"


def test_logme_without_a_varying_label_is_undefined():
    pixels, positive = multi_label()["train"]
    data = {split: (pixels, np.zeros_like(positive)) for split in ("train", "test")}
    m = measure(LOGME, trial(data=data, task="multi-label", metric="auc"), source())["logme"]
    assert m.value is None
    assert m.flag == "no label has both values among the training images"


def test_nleep_is_leep_on_the_posterior_of_a_mixture_of_principal_components():
    a, b = trial(), source()
    features, _ = features_and_logits(b.networks["final"], a.images("train"))
    principal = PCA(0.9, svd_solver="full").fit_transform(features)
    mixture = GaussianMixture(2 * CLASSES, random_state=CONTEXT.seed).fit(principal)
    expected = leep(mixture.predict_proba(principal), a.data["train"][1])
    m = measure(NLEEP, a, b, energy=0.9, per_class=2)["nleep"]
    assert m.value == pytest.approx(expected.value)
    assert (m.low, m.high, m.interval) == (None, None, None)
    assert m.flag is None


def test_a_mixture_of_few_images_is_flagged():
    m = measure(NLEEP, trial(n=40), source())["nleep"]
    assert m.value is not None
    assert m.flag.startswith("20 Gaussians of ")
    assert m.flag.endswith(" dimensions for 40 images")


@pytest.mark.parametrize("n", [12, 39])
def test_a_mixture_with_fewer_than_two_images_a_gaussian_has_no_score(n):
    m = measure(NLEEP, trial(n=n), source())["nleep"]
    assert (m.value, m.low, m.high, m.interval, m.n) == (None, None, None, None, n)
    assert m.flag == (
        f"20 Gaussians for {n} images: with fewer than 2 images each, a Gaussian tells its "
        "images by heart"
    )


# --- nearest neighbours, linear probe ---------------------------------------------------------


def test_neighbours_equal_scikit_learns_with_an_error_over_test_images():
    a, b = trial(), source()
    (train, _), (test, _) = (
        features_and_logits(b.networks["final"], a.images(s)) for s in ("train", "test")
    )
    got = measure(KNN, a, b, neighbours=[3, 1, 400])
    for k in (1, 3):
        peer = KNeighborsClassifier(k, metric="cosine").fit(train, a.data["train"][1])
        m = got["knn_accuracy", k]
        right = round(m.value * 120)
        # Ties: scikit-learn takes the first class, so a few predictions may differ.
        assert m.value == pytest.approx(
            peer.score(test, a.data["test"][1]), abs=1e-9 if k == 1 else 0.1
        )
        expected = stats.binomtest(right, 120).proportion_ci(0.95, method="exact")
        assert (m.low, m.high) == pytest.approx((expected.low, expected.high))
        assert (m.n, m.interval) == (120, "exact-95")
    lacking = got["knn_accuracy", 400]
    assert (lacking.value, lacking.flag) == (None, "400 neighbours among 300 training images")


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strength", [0.5, 1e-3])
def test_a_regression_minimises_the_mean_loss_with_its_penalty(classes, strength):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(80, 5)) * 3 + 1, rng.integers(0, classes, 80)
    (fitted,) = fit_regressions(features, labels, classes, [strength])
    standard = StandardScaler().fit_transform(features)
    peer = LogisticRegression(C=1 / (80 * strength), tol=1e-10, max_iter=10_000)
    expected = peer.fit(standard, labels).predict_proba(standard)
    assert softmax(fitted.logits(features), axis=1) == pytest.approx(expected, abs=1e-4)
    assert fitted.flag is None


def test_a_class_without_training_images_is_never_predicted():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 5)), rng.choice([1, 3], 40)
    for fitted in fit_regressions(features, labels, 5, [1.0, 0.01]):
        named = fitted.logits(rng.normal(size=(500, 5)) * 9).argmax(axis=1)
        assert set(named) == {1, 3}


def test_the_probe_chooses_its_penalty_on_training_images_only():
    a, b = trial(), source()
    strengths = [1.0, 0.1, 0.01, 0.001]
    got = measure(LINEAR_PROBE, a, b, strengths=strengths)
    chosen = got["probe_strength"].value
    assert chosen in strengths
    (train, _), (test, _) = (
        features_and_logits(b.networks["final"], a.images(s)) for s in ("train", "test")
    )
    scaler = StandardScaler().fit(train)
    labels, truth = a.data["train"][1], a.data["test"][1]
    peer = LogisticRegression(C=1 / (300 * chosen), max_iter=5000).fit(
        scaler.transform(train), labels
    )
    assert got["probe_test_metric"].value == pytest.approx(
        peer.score(scaler.transform(test), truth), abs=1.5 / 120
    )
    assert got["probe_train_metric"].value == pytest.approx(
        peer.score(scaler.transform(train), labels), abs=1.5 / 300
    )
    assert (got["probe_test_metric"].n, got["probe_test_metric"].interval) == (120, "exact-95")
    other = trial(data=a.data | {"test": images(120, seed=8)})
    assert measure(LINEAR_PROBE, other, b, strengths=strengths)["probe_strength"].value == chosen


def test_the_penalty_is_the_best_on_validation_and_the_strongest_among_equals():
    strengths, chosen = [3.0, 0.3, 0.03, 3e-3, 3e-4], set()
    for seed in range(4):
        data = {"train": images(80, seed=seed, signal=3.0), "test": images(20)}
        (train, _) = features_and_logits(source().networks["final"], data["train"][0])
        labels = data["train"][1]
        split = select_training(
            labels, np.arange(80), seed=0, labels_per_class=None, validation=0.3,
            validation_limit=None,
        )  # fmt: skip
        scaler = StandardScaler().fit(train[split.train])
        accuracy = {
            strength: LogisticRegression(
                C=1 / (len(split.train) * strength), max_iter=5000, tol=1e-6
            )
            .fit(scaler.transform(train[split.train]), labels[split.train])
            .score(scaler.transform(train[split.validation]), labels[split.validation])
            for strength in strengths
        }
        expected = max(strengths, key=lambda s: (accuracy[s], s))
        got = measure(
            LINEAR_PROBE, trial(data=data), source(), strengths=strengths, validation=0.3
        )["probe_strength"].value
        assert got == expected
        chosen.add(got)
    assert len(chosen) > 1


def test_a_choice_at_the_end_of_the_grid_is_flagged():
    flags = {
        tuple(grid): measure(LINEAR_PROBE, trial(), source(), strengths=grid)["probe_strength"].flag
        for grid in ([1e3, 1e-3], [0.01])
    }
    assert flags == {(1e3, 1e-3): "at an end of the strengths offered", (0.01,): None}


def test_a_probe_with_one_image_per_class_takes_the_strongest_penalty():
    data = {"train": (images(4)[0], np.arange(4)), "test": images(20)}
    m = measure(LINEAR_PROBE, trial(data=data), source())["probe_strength"]
    assert m.value == 1
    assert m.flag == "no image to spare for the choice: the strongest was taken"


def test_a_multi_label_probe_has_the_mean_auc_and_an_error_over_test_images():
    data = multi_label()
    data["test"] = (data["test"][0], data["test"][1].copy())
    a = trial(data=data, task="multi-label", metric="auc")
    got = measure(LINEAR_PROBE, a, source(), resamples=200)
    m = got["probe_test_metric"]
    (train, _), (test, _) = (
        features_and_logits(source().networks["final"], a.images(s)) for s in ("train", "test")
    )
    scaler = StandardScaler().fit(train)
    areas = []
    for k in (0, 1):
        peer = LogisticRegression(C=1 / (300 * got["probe_strength"].value), max_iter=5000)
        peer.fit(scaler.transform(train), data["train"][1][:, k])
        areas.append(
            roc_auc_score(data["test"][1][:, k], peer.decision_function(scaler.transform(test)))
        )
    assert m.value == pytest.approx(np.mean(areas), abs=2e-3)
    assert m.low < m.value < m.high
    assert (m.n, m.interval) == (100, "wilson-effective-95")
    assert m.flag == "one value on all training images: label 2"


def test_a_probe_of_constant_labels_has_no_auc_to_choose_by():
    pixels, positive = multi_label()["train"]
    data = {split: (pixels, np.ones_like(positive)) for split in ("train", "test")}
    a = trial(data=data, task="multi-label", metric="auc")
    got = measure(LINEAR_PROBE, a, source(), resamples=100)
    flag = "no metric on the held-out share: the strongest was taken"
    assert (got["probe_strength"].value, got["probe_strength"].flag) == (1, flag)
    assert got["probe_test_metric"].value is None
    assert got["probe_train_metric"].flag.startswith("not defined for these labels; one value")


def test_a_multi_label_accuracy_has_an_error_over_images():
    a = trial(data=multi_label(), task="multi-label", metric="accuracy")
    m = measure(LINEAR_PROBE, a, source(), resamples=200)["probe_test_metric"]
    assert 0.5 < m.low < m.value < m.high <= 1
    assert m.interval == "items-t-95"


@pytest.mark.parametrize(
    ("spec", "params", "message"),
    [
        (KNN, {"neighbours": []}, "at least 1 item"),
        (KNN, {"neighbours": [0]}, "greater than or equal to 1"),
        (LINEAR_PROBE, {"strengths": [0]}, "greater than 0"),
        (LINEAR_PROBE, {"strengths": []}, "at least 1 item"),
        (NLEEP, {"energy": 1}, "less than 1"),
    ],
)
def test_invalid_parameters_are_refused(spec, params, message):
    with pytest.raises(ValidationError, match=message):
        spec.parse(params)


# --- checkpoint choice ------------------------------------------------------------------------

HISTORY = (
    {"epoch": 0, "train_metric": 0.2, "test_metric": 0.1},
    {"epoch": 1, "train_metric": 0.4, "test_metric": None},
    {"epoch": 2, "train_metric": 0.8, "test_metric": 0.7},
)


def test_a_trial_has_its_checkpoint_and_the_metrics_of_both_tasks():
    a, b = trial(1, history=HISTORY), source()
    got = measure(CHECKPOINT_CHOICE, a, b)
    pixels, labels = b.data["test"]
    right = (features_and_logits(b.networks[1], pixels)[1].argmax(axis=1) == labels).sum()
    values = {metric: (m.value, m.n) for metric, m in got.items()}
    assert values == {
        "checkpoint": (1, 1),
        "target_metric": (0.7, 120),
        "speed": (pytest.approx(0.6), 2),
        "source_metric": (pytest.approx(right / 50), 50),
    }
    expected = stats.binomtest(int(right), 50).proportion_ci(0.95, method="exact")
    assert (got["source_metric"].low, got["source_metric"].high) == pytest.approx(expected)
    assert {m.coordinates["checkpoint"] for m in got.values()} == {1}
    assert got["checkpoint"].unit == "epochs"


def test_the_source_metric_is_taken_from_the_history_if_evaluated():
    m = measure(CHECKPOINT_CHOICE, trial("final", history=HISTORY), source())["source_metric"]
    assert (m.value, m.coordinates) == (0.5, {"checkpoint": 2})


def test_a_trial_of_another_source_has_no_checkpoint_but_a_target_metric():
    got = measure(CHECKPOINT_CHOICE, trial(None, history=HISTORY), source())
    for metric in ("checkpoint", "source_metric"):
        assert got[metric].value is None
        assert got[metric].flag == "a starts from no kept state of b"
    assert (got["target_metric"].value, got["speed"].value) == (0.7, pytest.approx(0.6))


def test_a_trial_without_a_test_metric_is_flagged():
    diverged = ({"epoch": 0, "train_metric": 0.1, "test_metric": None},)
    m = measure(CHECKPOINT_CHOICE, trial("final", history=diverged), source())["target_metric"]
    assert m.value is None
    assert m.flag == "the test metric is not defined: not evaluated, or diverged"


def test_a_diverged_trial_does_not_keep_the_metric_of_an_earlier_epoch():
    history = (*HISTORY, {"epoch": 3, "train_metric": None, "test_metric": None})
    got = measure(CHECKPOINT_CHOICE, trial("final", history=history), source())
    m = got["target_metric"]
    assert (m.value, m.flag) == (
        None,
        "the test metric is not defined: not evaluated, or diverged",
    )
    assert (got["speed"].value, got["speed"].flag) == (
        None,
        "diverged: nothing finite from epoch 3 on",
    )


# --- complete runs ----------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["fixup-resnet8", "timm/test_resnet", "timm/test_vit"])
def test_a_run_measures_each_arm_with_its_source(backbone, tmp_path):
    arms = ["P-T", "P0-T"]
    pairs = [{"a": arm, "b": "P", "replicates": "same"} for arm in arms]
    image = {"size": 16, "channels": 1, "mean": [0.5], "std": [0.5]} if "vit" in backbone else None
    recipe = TINY["recipes"]["short"] | {"epochs": 1}
    suite = tiny_suite(
        **({"image": image} if image else {}),
        recipes={"short": recipe},
        perturbations={"none": {"name": "identity"}},
        initializations=TINY["initializations"]
        | {"P0-T": {"name": "pretrained", "params": {"checkpoint": 0}, "recipe": "short"}},
        replicates=1,
        trials=[{"initializations": [*arms, "RI-T"]}],
        diagnostics={
            spec.name: {"name": spec.name, "pairs": pairs, "params": spec.tiny}
            for spec in (*SCORES, CHECKPOINT_CHOICE)
        },
        claims={},
    )
    finished = run(suite, out=tmp_path / "run", jobs=1, device="cpu", backbones=[backbone])
    assert not finished.failed
    table = finished.measurements
    table = table[table["diagnostic"] != "trial"]
    assert set(table["diagnostic"]) == {spec.name for spec in (*SCORES, CHECKPOINT_CHOICE)}
    assert set(table["other_initialization"]) == {"P"}
    for arm, epoch in zip(arms, (1, 0), strict=True):
        own = table[table["initialization"] == arm]
        assert set(own["checkpoint"]) == {epoch}
        assert own["value"].notna().all()


def test_all_scores_of_a_checkpoint_share_one_forward_pass_per_split():
    shared = CONTEXT._replace(once=lru_cache(2**20))
    first, counted, other = trial(), source(job="source"), source()
    for spec in SCORES:
        params = spec.parse(spec.tiny)
        measurements = list(spec.measure(params, (first, counted), shared))
        assert measurements == list(spec.measure(params, (first, other), CONTEXT))
    assert counted.loaded.count("final") == 2
