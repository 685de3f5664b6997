"""Diagnostics of histories, predictions and features against their formulas in float64 numpy.

Each formula is that of the documentation, written for single images and classes.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from fake_subject import FakeSubject
from references_numpy import CLASSES, forward, log_softmax, measured, subject
from sklearn.cluster import KMeans

from transferbench_plugins.diagnostics.mistakes.agreement import AGREEMENT
from transferbench_plugins.diagnostics.mistakes.per_class import PER_CLASS
from transferbench_plugins.diagnostics.training.checkpoint_choice import CHECKPOINT_CHOICE
from transferbench_plugins.diagnostics.training.learning_curve import LEARNING_CURVE
from transferbench_plugins.diagnostics.training.relative_drop import RELATIVE_DROP
from transferbench_plugins.diagnostics.training.speed import SPEED
from transferbench_plugins.diagnostics.transferability.knn import KNN
from transferbench_plugins.diagnostics.transferability.leep import LEEP, NCE, NLEEP

RNG = np.random.default_rng(4)
LABELS = RNG.integers(0, CLASSES, 120)
EPOCHS = (0, 1, 2, 4, 7)
METRICS = [dict(zip(EPOCHS, RNG.random(5), strict=True)) for _ in range(4)]


def history(test, train):
    """Rows of epochs 0 to 7, of which some were not evaluated."""
    return [{"epoch": t, "test_metric": test.get(t), "train_metric": train.get(t)}
            for t in range(8)]  # fmt: skip


def trial(seed: int, signal: float) -> FakeSubject:
    """Noisy logits of ``LABELS``, and a history."""
    noise = np.random.default_rng(seed).normal(size=(120, CLASSES))
    logits = (noise + signal * np.eye(CLASSES)[LABELS]).astype(np.float32)
    rows = history(METRICS[seed], METRICS[seed + 2])
    return FakeSubject(labels=LABELS, logits=logits, history=rows, job=f"trial-{seed}")


A, B = trial(0, 2.0), trial(1, 1.0)


# --- histories --------------------------------------------------------------------------------


def height(curve: dict[int, float], epoch: float) -> float:
    """The curve at an epoch, linear between the evaluated ones."""
    before, after = max(t for t in curve if t <= epoch), min(t for t in curve if t >= epoch)
    share = 0 if before == after else (epoch - before) / (after - before)
    return (1 - share) * curve[before] + share * curve[after]


def first_crossing(curve: dict[int, float], threshold: float) -> float | None:
    if curve[0] >= threshold:
        return 0
    for t, u in pairwise(EPOCHS):
        if curve[t] < threshold <= curve[u]:
            return t + (u - t) * (threshold - curve[t]) / (curve[u] - curve[t])
    return None


def mean_train_metric(curve: dict[int, float]) -> float:
    return sum(height(curve, t) for t in range(1, 8)) / 7


@pytest.mark.parametrize("seed", [0, 1])
def test_a_learning_curve_has_the_area_and_crossings_of_its_formula(seed):
    curve, thresholds = METRICS[seed], (0.1, 0.5, 0.8)
    best = max(curve.values())
    expected = {
        ("area",): sum((u - t) * (curve[t] + curve[u]) / 2 for t, u in pairwise(EPOCHS)) / (7 - 0),
        ("best",): best,
        ("best_epoch",): min(t for t in EPOCHS if curve[t] == best),
    } | {("epochs_to_threshold", x): first_crossing(curve, x) for x in thresholds}
    got = measured(LEARNING_CURVE, (A, B)[seed], thresholds=thresholds)
    assert {key: got[key] for key in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_speed_is_the_mean_of_the_interpolated_train_metrics(seed):
    got = measured(SPEED, (A, B)[seed])["speed",]
    assert got == pytest.approx(mean_train_metric(METRICS[seed + 2]), rel=1e-6)


def test_the_drop_of_two_trials_is_that_of_their_shares_of_right_predictions():
    a, b = (sum(max(range(CLASSES), key=row.__getitem__) == y
                for row, y in zip(net.logits, LABELS, strict=True)) / 120
            for net in (A, B))  # fmt: skip
    speeds = [mean_train_metric(METRICS[seed + 2]) for seed in (0, 1)]
    expected = {
        ("gain",): a - b,
        ("relative_drop",): 100 * (a - b) / a,
        ("corrected_drop",): 100 * (a - b) / (a - 1 / CLASSES),
        ("speed_gain",): speeds[0] - speeds[1],
    }
    got = measured(RELATIVE_DROP, A, B, resamples=100)
    assert {key: got[key] for key in expected} == pytest.approx(expected, rel=1e-6)


# --- predictions ------------------------------------------------------------------------------


def mistakes_in_common(predictions, truth) -> dict[str, float]:
    """The statistics of two sets of mistakes among (item, label) pairs of one label."""
    n = len(truth)
    a, b = ({i for i in range(n) if p[i] != truth[i]} for p in predictions)
    observed = 1 - len(a ^ b) / n
    expected = (1 - len(a) / n) * (1 - len(b) / n) + len(a) * len(b) / n**2
    return {
        "n_common": len(a & b),
        "uncommon_a": len(a - b),
        "uncommon_b": len(b - a),
        "error_jaccard": len(a & b) / len(a | b),
        "agreement": sum(predictions[0][i] == predictions[1][i] for i in range(n)) / n,
        "kappa": (observed - expected) / (1 - expected),
    }


def entropies(references) -> np.ndarray:
    """The entropy of the mean softmax of each item."""
    mean = sum(np.exp(log_softmax(net.logits)) for net in references) / len(references)
    return np.array([-sum(p * math.log(p) for p in row) for row in mean])


def test_agreement_and_entropy_are_those_of_the_sets_of_mistakes():
    references = [trial(0, 0.5), trial(1, 3.0)]
    got = measured(AGREEMENT, A, B, *references, resamples=100)
    predictions = [net.logits.argmax(axis=1) for net in (A, B)]
    expected = {(k,): v for k, v in mistakes_in_common(predictions, LABELS).items()}
    wrong_a, wrong_b = (p != LABELS for p in predictions)
    sets = {
        "all": LABELS >= 0, "common": wrong_a & wrong_b,
        "uncommon_a": wrong_a & ~wrong_b, "uncommon_b": wrong_b & ~wrong_a,
    }  # fmt: skip
    entropy = entropies(references)
    expected |= {("reference_entropy", k): entropy[items].mean() for k, items in sets.items()}
    assert {key: got[key] for key in expected} == pytest.approx(expected, rel=1e-6)


def area_under_roc(scores, positive) -> float:
    """The share of pairs of a positive and a negative item that are in order; ties are halves."""
    pairs = scores[positive][:, None] - scores[~positive]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_the_scores_of_a_class_are_those_of_its_counts():
    got = measured(PER_CLASS, A)
    predicted, log_p = A.logits.argmax(axis=1), log_softmax(A.logits)
    for k in range(CLASSES):
        hits = sum((predicted == k) & (k == LABELS))
        false, missed = sum((predicted == k) & (k != LABELS)), sum((predicted != k) & (k == LABELS))
        expected = {
            ("recall", k): hits / (hits + missed),
            ("precision", k): hits / (hits + false),
            ("f1", k): 2 * hits / (2 * hits + false + missed),
            ("class_auc", k): area_under_roc(log_p[:, k], k == LABELS),
        } | {("confusion", k, j): sum((k == LABELS) & (predicted == j)) for j in range(CLASSES)}
        assert {key: got[key] for key in expected} == pytest.approx(expected, rel=1e-6)


# --- scores of a source -----------------------------------------------------------------------


def scored_pair() -> tuple[FakeSubject, FakeSubject]:
    """A trial that starts from the body of a source, and the source, each with its own task."""
    source = subject(1, history=({"epoch": 0}, {"epoch": 1}, {"epoch": 2}))
    target = subject(0, history=history(METRICS[0], METRICS[2]))
    target.logits = np.zeros((1, CLASSES), np.float32)
    # Classes that depend on the images, so that a score is not that of chance.
    target.data = {split: (images, images.flatten(1)[:, :CLASSES].argmax(1))
                   for split, (images, _) in target.data.items()}  # fmt: skip
    target.alter("init", {k: v for k, v in source.state(1).items() if not k.startswith("head")})
    return target, source


def log_expected_prediction(source, labels) -> float:
    """LEEP in loops over images and classes: the joint table, then the mean log-likelihood."""
    classes, outputs = range(max(labels) + 1), range(source.shape[1])
    joint = {(y, z): sum(source[i, z] for i in range(len(labels)) if labels[i] == y)
             for y in classes for z in outputs}  # fmt: skip
    of = [sum(joint[y, z] for y in classes) for z in outputs]
    return sum(math.log(sum(joint[y, z] / of[z] * source[i, z] for z in outputs if of[z]))
               for i, y in enumerate(labels)) / len(labels)  # fmt: skip


def minus_conditional_entropy(predicted, labels) -> float:
    total = 0.0
    for z, y in zip(predicted, labels, strict=True):
        total += math.log(sum((predicted == z) & (labels == y)) / sum(predicted == z))
    return total / len(labels)


@pytest.mark.parametrize("spec", [LEEP, NCE], ids=lambda spec: spec.name)
def test_scores_of_source_classes_are_their_formulas_on_outputs_in_float64(spec):
    target, source = scored_pair()
    images, labels = target.data["train"]
    logits = forward(source.state(1), images)
    if spec is LEEP:
        expected = log_expected_prediction(np.exp(log_softmax(logits)), labels.tolist())
    else:
        expected = minus_conditional_entropy(logits.argmax(axis=1), labels.numpy())
    assert measured(spec, target, source)[spec.name, 1] == pytest.approx(expected, rel=1e-6)


def vote(train, train_labels, image, k: int) -> int:
    """The class of most of the k images of the largest cosine; of equals, of the largest sum."""
    cosines = [x @ image / math.sqrt((x @ x) * (image @ image)) for x in train]
    votes = {y: [] for y in train_labels}
    for i in sorted(range(len(train)), key=lambda i: -cosines[i])[:k]:
        votes[train_labels[i]].append(cosines[i])
    return max(votes, key=lambda y: (len(votes[y]), sum(votes[y])))


def test_neighbours_vote_as_in_loops_over_features_in_float64():
    target, source = scored_pair()
    train, test = (forward(source.state(1), target.images(split), ("stem", "block"))
                   for split in ("train", "test"))  # fmt: skip
    labels, truth = (target.data[split][1].tolist() for split in ("train", "test"))
    got = measured(KNN, target, source, neighbours=[1, 4, 9])
    for k in (1, 4, 9):
        right = sum(vote(train, labels, x, k) == y for x, y in zip(test, truth, strict=True))
        assert got["knn_accuracy", k, 1] == right / len(truth)


def principal_components(features, energy: float) -> np.ndarray:
    centred = features - features.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    shares = np.cumsum(variances[::-1]) / variances.sum()
    return centred @ axes[:, ::-1][:, : int((shares <= energy).sum()) + 1]


def mixture_posterior(points, gaussians: int, seed: int) -> np.ndarray:
    """Expectation-maximisation from the clusters of k-means, until the gain is below 0.001.

    Covariances have 1e-6 added to their diagonal, as in scikit-learn's mixture.
    """
    clusters = KMeans(gaussians, n_init=1, random_state=seed).fit(points).labels_
    posterior, last, converged = np.eye(gaussians)[clusters], -math.inf, False
    while True:
        log_joint = np.empty_like(posterior)
        for g, share in enumerate(posterior.T):
            centred = points - share @ points / share.sum()
            covariance = (share * centred.T) @ centred / share.sum() + 1e-6 * np.eye(len(points.T))
            squares = (centred @ np.linalg.inv(covariance) * centred).sum(axis=1)
            scale = np.linalg.slogdet(2 * math.pi * covariance)[1]
            log_joint[:, g] = math.log(share.mean()) - (squares + scale) / 2
        log_points = np.logaddexp.reduce(log_joint, axis=1)
        posterior = np.exp(log_joint - log_points[:, None])
        if converged:
            return posterior
        converged, last = abs(log_points.mean() - last) < 1e-3, log_points.mean()


def test_nleep_is_leep_of_a_mixture_fitted_in_float64():
    target, source = scored_pair()
    images, labels = target.data["train"]
    features = forward(source.state(1), images, ("stem", "block"))
    posterior = mixture_posterior(principal_components(features, 0.8), 2 * CLASSES, seed=5)
    expected = log_expected_prediction(posterior, labels.tolist())
    got = measured(NLEEP, target, source, per_class=2)["nleep", 1]
    assert got == pytest.approx(expected, rel=1e-6)


def test_a_checkpoint_has_the_metrics_of_its_networks_in_float64():
    target, source = scored_pair()
    images, labels = source.data["test"]
    right = forward(source.state(1), images).argmax(axis=1) == labels.numpy()
    expected = {
        ("checkpoint", 1): 1,
        ("source_metric", 1): right.mean(),
        ("target_metric", 1): METRICS[0][7],
        ("speed", 1): mean_train_metric(METRICS[2]),
    }
    assert measured(CHECKPOINT_CHOICE, target, source) == pytest.approx(expected, rel=1e-6)
