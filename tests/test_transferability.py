"""Transferability scores against their formulas, scipy and scikit-learn; checkpoints."""

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import softmax
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import KNeighborsClassifier
from t_intervals import OF_SHARES, of_difference

from transferbench.analysis.evidence import TOLERANCE, log_evidence
from transferbench.analysis.transferability import (
    correlate,
    correlations,
    h_score,
    leep,
    nce,
    nearest_classes,
)
from transferbench.measurements import Measurements, Network
from transferbench.statistics import Summand, concordance, mean_of_replicates
from transferbench_plugins.diagnostics.training._earliest_checkpoint import (
    earliest_sufficient,
    margins,
)


def sample(n=60, d=7, classes=4, signal=1.0, seed=0):
    """Features correlated with the labels, and labels of equal frequency."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    features = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 3
    features[:, :classes] += signal * np.eye(classes)[labels]
    return features, labels


def source(n=60, outputs=5, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    logits = rng.normal(size=(n, outputs)) * 2
    logits[:, :classes] += 2 * np.eye(classes)[labels][:, :outputs]
    return softmax(logits, axis=1), labels


# --- LEEP and NCE -----------------------------------------------------------------------------


def leep_by_loops(probabilities, labels):
    n, outputs = probabilities.shape
    classes = sorted(set(labels.tolist()))
    joint = {(y, z): 0.0 for y in classes for z in range(outputs)}
    for row, y in zip(probabilities, labels.tolist(), strict=True):
        for z in range(outputs):
            joint[y, z] += row[z] / n
    total = 0.0
    for row, y in zip(probabilities, labels.tolist(), strict=True):
        likelihood = 0.0
        for z in range(outputs):
            of_z = sum(joint[other, z] for other in classes)
            likelihood += joint[y, z] / of_z * row[z]
        total += math.log(likelihood)
    return total / n


def test_leep_equals_the_formula_in_loops():
    probabilities, labels = source()
    interval = leep(probabilities, labels)
    assert interval.value == pytest.approx(leep_by_loops(probabilities, labels), rel=1e-12)
    assert (interval.n, interval.method) == (60, "leave-one-out-95")


def test_leep_is_zero_for_a_perfect_source_and_minus_the_entropy_for_an_uninformative_one():
    labels = np.array([4, 4, 4, 9, 9, 1])
    perfect = np.eye(10)[labels]
    assert leep(perfect, labels).value == pytest.approx(0, abs=1e-15)
    uninformative = np.full((6, 3), 1 / 3)
    assert leep(uninformative, labels).value == pytest.approx(-stats.entropy([3, 2, 1]))


def weighted_leep(probabilities, labels, weights):
    joint = (np.eye(labels.max() + 1)[labels] * weights[:, None]).T @ probabilities
    likelihood = ((joint / joint.sum(axis=0))[labels] * probabilities).sum(axis=1)
    return weights @ np.log(likelihood)


def test_the_error_of_leep_is_that_of_its_influence_function():
    probabilities, labels = source(n=80)
    interval, even, step = leep(probabilities, labels), np.full(80, 1 / 80), 1e-6
    reweighted = [
        weighted_leep(probabilities, labels, (1 - t) * even + t * np.eye(80)[k])
        for k in range(80)
        for t in (-step, step)
    ]
    influence = np.diff(np.reshape(reweighted, (80, 2)), axis=1) / (2 * step)
    half = stats.t.ppf(0.975, 79) * influence.std(ddof=1) / math.sqrt(80)
    assert interval.high - interval.value == pytest.approx(half, rel=1e-5)


def test_the_lower_bound_of_leep_is_that_of_the_score_with_the_table_of_the_other_images():
    probabilities, labels = source(n=240)
    interval, left_out = leep(probabilities, labels), []
    for k, y in enumerate(labels):
        others = np.arange(240) != k
        joint = np.eye(4)[labels[others]].T @ probabilities[others] + 1 / 4
        left_out.append(math.log(((joint / joint.sum(axis=0))[y] * probabilities[k]).sum()))
    half = stats.t.ppf(0.975, 239) * np.std(left_out, ddof=1) / math.sqrt(240)
    half = max(half, interval.high - interval.value)
    assert np.mean(left_out) < interval.value
    assert interval.low == pytest.approx(np.mean(left_out) - half)


def least_by_loops(predicted, labels):
    """The least NCE of a source with the share of errors that the exact interval ends at."""
    n, errors = len(labels), 0
    for k, (z, y) in enumerate(zip(predicted, labels, strict=True)):
        others = [w for m, w in enumerate(labels) if m != k and predicted[m] == z]
        # An image whose class does not lead alone among the others is an error.
        errors += any(others.count(w) >= others.count(y) for w in set(labels) - {y})
    share = stats.beta.ppf(0.975, errors + 1, n - errors)
    others = len(set(labels)) - 1
    return -stats.entropy([share, 1 - share]) - share * math.log(others)


@pytest.mark.parametrize("errors", [0, 1, 3, 5])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_lower_bound_of_a_source_that_hardly_errs_is_that_of_its_share_of_errors(
    classes, errors
):
    labels = np.repeat(np.arange(classes), 15)
    predicted = labels.copy()
    predicted[:errors] = 1
    interval = nce(predicted, labels)
    assert interval.low == pytest.approx(least_by_loops(predicted.tolist(), labels.tolist()))
    assert interval.low < interval.value <= interval.high


def test_a_source_with_many_errors_has_the_lower_bound_of_the_jackknife():
    labels = np.arange(400) % 4
    predicted = np.maximum(labels, 1)
    interval = nce(predicted, labels)
    assert interval.low > least_by_loops(predicted.tolist(), labels.tolist())


def test_no_score_is_below_the_least_one_of_its_share_of_errors():
    """Of all images, so that the share is known: Fano's inequality, for drawn classes."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        labels = rng.integers(0, 4, 2000)
        logits = 3 * rng.normal(size=(2000, 5)) + rng.uniform(0, 9) * np.eye(4, 5)[labels]
        probabilities = softmax(logits, axis=1)
        joint = np.eye(4)[labels].T @ probabilities / 2000
        share = 1 - joint.max(axis=0).sum()
        least = -stats.entropy([share, 1 - share]) - share * math.log(3)
        assert leep(probabilities, labels).value >= least


def test_the_interval_of_leep_and_nce_ends_at_zero_and_one_image_has_none():
    for interval in (leep(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 2])),
                     nce(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 2]))):  # fmt: skip
        assert interval.high == 0
        assert interval.low < -0.1
    assert leep(np.ones((1, 2)) / 2, np.zeros(1, int))[1:3] == (None, None)
    one_class = nce(np.array([0, 1, 2, 2]), np.zeros(4, int))
    assert (one_class.low, one_class.reason) == (None, "all images are of one class")


def test_errors_may_be_on_classes_of_the_task_without_an_image():
    labels = np.repeat([0, 1], 50)
    share = 1 - 0.025 ** (1 / 100)
    entropy = stats.entropy([share, 1 - share])
    assert nce(labels, labels).low == pytest.approx(-entropy)
    assert nce(labels, labels, classes=12).low == pytest.approx(-entropy - share * math.log(11))
    assert leep(np.eye(2)[labels], labels, classes=1) == nce(labels, labels)


def test_the_error_of_leep_is_close_to_the_jackknife():
    probabilities, labels = source(n=240)
    interval = leep(probabilities, labels)
    left_out = [leep(probabilities[k], labels[k]).value for k in ~np.eye(240, dtype=bool)]
    half = stats.t.ppf(0.975, 239) * np.std(left_out, ddof=1) * 239 / math.sqrt(240)
    assert interval.high - interval.value == pytest.approx(half, rel=0.03)


def leep_likelihoods(probabilities, labels):
    joint = np.eye(labels.max() + 1)[labels].T @ probabilities
    return ((joint / joint.sum(axis=0))[labels] * probabilities).sum(axis=1)


def test_nce_is_minus_the_conditional_entropy():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    predicted = np.where(rng.random(200) < 0.6, labels + 7, rng.integers(7, 12, 200))
    pairs, alone = Counter(zip(predicted, labels, strict=True)), Counter(predicted)
    expected = sum(c / 200 * math.log(c / alone[z]) for (z, _), c in pairs.items())
    assert nce(predicted, labels).value == pytest.approx(expected, rel=1e-12)
    assert nce(labels, labels).value == 0
    assert nce(np.zeros(200, int), labels).value == pytest.approx(
        -stats.entropy(np.bincount(labels))
    )


def test_the_error_of_nce_is_that_of_a_mean_of_log_likelihoods():
    # The first-order effect of the table cancels in a plug-in entropy.
    rng = np.random.default_rng(2)
    labels, predicted = rng.integers(0, 3, 300), rng.integers(0, 4, 300)
    likelihoods = leep_likelihoods(np.eye(4)[predicted], labels)
    half = stats.t.ppf(0.975, 299) * np.log(likelihoods).std(ddof=1) / math.sqrt(300)
    interval = nce(predicted, labels)
    assert interval.high - interval.value == pytest.approx(half, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_scores_do_not_depend_on_the_order_of_images_or_the_names_of_classes(seed):
    rng = np.random.default_rng(seed)
    features, labels = sample(n=40, seed=seed)
    probabilities, _ = source(n=40, seed=seed)
    order, names = rng.permutation(40), rng.permutation(9)
    reordered = features[order], names[labels[order]]
    assert leep(probabilities[order], reordered[1]).value == pytest.approx(
        leep(probabilities, labels).value
    )
    assert leep(probabilities, labels).value <= 1e-12
    assert h_score(*reordered)[:3] == pytest.approx(h_score(features, labels)[:3])
    targets = np.eye(4)[labels]
    assert log_evidence(features[order], targets[order]) == pytest.approx(
        log_evidence(features, targets)
    )


# --- H-score ----------------------------------------------------------------------------------


def between_classes(features, labels):
    means = {y: features[labels == y].mean(axis=0) for y in set(labels.tolist())}
    return np.cov(np.array([means[y] for y in labels.tolist()]), rowvar=False, bias=True)


def test_h_score_equals_its_formula():
    features, labels = sample()
    total = np.cov(features, rowvar=False, bias=True)
    expected = np.trace(np.linalg.inv(total) @ between_classes(features, labels))
    assert h_score(features, labels).plain == pytest.approx(expected)


@pytest.mark.parametrize(("n", "d"), [(60, 7), (20, 40), (30, 1)])
def test_the_regularised_h_score_uses_the_covariance_of_ledoit_and_wolf(n, d):
    features, labels = sample(n=n, d=max(d, 4))
    features = features[:, :d]
    fitted = LedoitWolf().fit(features)
    between = np.atleast_2d(between_classes(features, labels))
    expected = (1 - fitted.shrinkage_) * np.trace(np.linalg.inv(fitted.covariance_) @ between)
    result = h_score(features, labels)
    assert result.shrinkage == pytest.approx(fitted.shrinkage_)
    assert result.regularised == pytest.approx(expected)
    assert result.regularised <= result.plain + 1e-12


def test_features_that_determine_the_class_have_the_maximum_h_score():
    labels = np.arange(30) % 5
    assert h_score(np.eye(5)[labels], labels).plain == pytest.approx(4)
    # So does noise with more dimensions than images, unless regularised.
    noise = np.random.default_rng(0).normal(size=(30, 50))
    assert h_score(noise, labels).plain == pytest.approx(4)
    assert h_score(noise, labels).regularised < 2


def test_constant_features_have_h_score_and_rank_0():
    assert h_score(np.full((10, 3), 7.0), np.arange(10) % 2) == (0, 0, 0, 0)


# --- LogME ------------------------------------------------------------------------------------


def evidence(features, target, log_a, log_b):
    n = len(target)
    covariance = np.eye(n) / math.exp(log_b) + features @ features.T / math.exp(log_a)
    return stats.multivariate_normal(np.zeros(n), covariance).logpdf(target) / n


def highest_evidence(features, target):
    result = optimize.minimize(
        lambda x: -evidence(features, target, *x),
        x0=[0.0, 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-12},
    )
    return -result.fun


@pytest.mark.parametrize("shape", [(60, 7), (50, 20)])
def test_logme_equals_the_maximum_evidence_by_direct_search(shape):
    features, labels = sample(*shape, signal=2.0)
    targets = np.eye(4)[labels]
    result = log_evidence(features, targets)
    expected = [highest_evidence(features, target) for target in targets.T]
    assert result == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(24, 40), (40, 40), (80, 60)])
@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_logme_is_within_its_tolerance_of_the_largest_evidence_of_a_fine_grid(shape, decay):
    """The fixed point iteration of earlier versions ended below it, and did not converge."""
    features, labels = sample(*shape, signal=0.5)
    features = np.maximum(features, 0) * np.arange(1.0, shape[1] + 1) ** -decay
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    selected = singular > singular[0] * max(shape) * np.finfo(float).eps
    left, variance = left[:, selected], singular[selected] ** 2
    grid = np.geomspace(variance.min() * 1e-12, variance.max() * 1e12, 40_001)
    for target, value in zip(np.eye(4).T[:, labels], log_evidence(features, np.eye(4)[labels]),
                             strict=True):  # fmt: skip
        inside = left.T @ target
        outside = ((target - left @ inside) ** 2).sum()
        free = 1 / (1 + variance / grid[:, None])
        noise = (outside + free @ inside**2) / len(target)
        evidence = np.log(2 * np.pi * noise) + 1 - np.log(free).sum(axis=1) / len(target)
        assert value == pytest.approx(-0.5 * evidence.min(), abs=TOLERANCE)


def test_logme_does_not_depend_on_the_scale_of_the_features():
    features, labels = sample(200, 300)
    targets = np.eye(4)[labels]
    expected = log_evidence(features, targets)
    for scale in (1e-3, 1e3):
        assert log_evidence(features * scale, targets) == pytest.approx(expected, abs=2e-6)


def test_logme_of_uninformative_features_is_the_evidence_of_noise():
    target = np.array([1.0, -1, 1, -1, 1, -1])
    noise = -0.5 * (math.log(2 * math.pi) + 1)
    for features in (np.zeros((6, 2)), np.ones((6, 1))):
        result = log_evidence(features, target[:, None])
        assert result == pytest.approx(noise)


def test_logme_of_features_that_determine_the_target_is_finite():
    labels = np.arange(40) % 4
    result = log_evidence(np.eye(4)[labels] * 100, np.eye(4)[labels])
    assert np.isfinite(result).all()
    assert (result > 5).all()


# --- nearest neighbours -----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 7])
def test_nearest_classes_equal_scikit_learn(k):
    features, labels = sample(n=1500, classes=2)
    others, _ = sample(n=1100, classes=2, seed=3)
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(features, labels)
    np.testing.assert_array_equal(
        nearest_classes(features, labels, others, [k, 1])[0], model.predict(others)
    )


def test_a_tie_goes_to_the_class_with_the_nearer_neighbours():
    angles = np.radians([0, 30, 40, 50])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    other = 7 * np.array([[np.cos(np.radians(34)), np.sin(np.radians(34))]])
    for near, far in ((5, 0), (0, 5)):
        labels = np.array([far, near, near, far])
        assert nearest_classes(features, labels, other, [4, 2]).tolist() == [[near], [near]]


def test_no_counts_give_no_rows():
    features, labels = sample()
    assert nearest_classes(features, labels, features, []).shape == (0, 60)


# --- against the truth ------------------------------------------------------------------------


def replicated(values):
    return [dict(enumerate(row)) for row in values]


SCORES = np.array([[1.0, 1.2, 0.9], [2.0, 2.2, 1.4], [1.5, 3.0, 2.5], [4.0, 3.1, 4.4], [3, 5, 3.6]])
TRUTH = np.array(
    [[0.5, 0.6, 0.5], [0.7, 0.6, 0.8], [0.6, 0.7, 0.6], [0.8, 0.9, 0.8], [0.7, 1, 0.9]]
)


def by_scipy(scores, truth):
    return {
        "kendall": stats.kendalltau(scores, truth)[0],
        "weighted-kendall": stats.weightedtau(scores, truth)[0],
        "pearson": stats.pearsonr(scores, truth)[0],
    }


@pytest.mark.parametrize("over", ["replicates", "networks"])
def test_correlations_equal_scipy(over):
    intervals = correlations(replicated(SCORES), replicated(TRUTH), over=over)
    expected = by_scipy(SCORES.mean(1), TRUTH.mean(1))
    assert {name: interval.value for name, interval in intervals.items()} == pytest.approx(expected)
    assert {interval.n for interval in intervals.values()} == {3 if over == "replicates" else 5}
    weighted = intervals.pop("weighted-kendall")
    assert (weighted.low, weighted.reason) == (
        None, "describes the sample: no interval is known that holds",
    )  # fmt: skip
    if over == "replicates":
        pearson = intervals.pop("pearson")
        assert (pearson.low, pearson.reason) == (
            None, "the spread of replicates lowers it: no interval is known that holds",
        )  # fmt: skip
    for interval in intervals.values():
        assert -1 <= interval.low < interval.value < interval.high <= 1


def test_over_replicates_taus_error_is_that_of_pairs():
    ranges = (-np.inf, np.inf), (0.0, 1.0)
    kendall = correlations(replicated(SCORES), replicated(TRUTH), ranges=ranges)["kendall"]
    score, truth = (
        [[Summand(1.0, mean_of_replicates(v), ends)] for v in replicated(side)]
        for side, ends in zip((SCORES, TRUTH), ranges, strict=True)
    )
    expected = concordance(score, truth, range(3))
    assert (kendall.low, kendall.high) == pytest.approx((expected.low, expected.high))
    assert (kendall.method, kendall.n) == (expected.method, expected.n)


def test_over_networks_pearsons_error_is_fishers_and_taus_is_that_of_its_largest_variance():
    intervals = correlations(replicated(SCORES), replicated(TRUTH), over="networks")
    expected = stats.pearsonr(SCORES.mean(1), TRUTH.mean(1)).confidence_interval(0.95)
    pearson, kendall = intervals["pearson"], intervals["kendall"]
    assert (pearson.low, pearson.high) == pytest.approx(tuple(expected))
    for bound in (kendall.low, kendall.high):  # the score test's bounds solve this equation
        variance = 2 * (1 - bound**2) / 5
        assert (kendall.value - bound) ** 2 == pytest.approx(stats.norm.ppf(0.975) ** 2 * variance)


@pytest.mark.parametrize("over", ["replicates", "networks"])
def test_a_perfect_order_has_an_interval_with_width(over):
    scores = np.arange(5.0)[:, None] + 0.1 * np.sin(np.arange(15)).reshape(5, 3)
    kendall = correlations(replicated(scores), replicated(scores), over=over)["kendall"]
    assert kendall.value == pytest.approx(1)
    assert kendall.low < kendall.high == 1


def test_only_replicates_that_all_networks_have_are_used():
    scores, truth = replicated(SCORES), replicated(TRUTH)
    scores[2].pop(1)
    common = [0, 2]
    expected = by_scipy(SCORES[:, common].mean(1), TRUTH[:, common].mean(1))
    intervals = correlations(scores, truth)
    assert intervals["pearson"].value == pytest.approx(expected["pearson"])
    assert intervals["pearson"].n == 2


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (SCORES[:2], TRUTH[:2]),
        (np.ones((4, 3)), TRUTH[:4]),
        ([], []),
        (SCORES[:, :0], TRUTH[:, :0]),
    ],
)
def test_an_undefined_correlation_has_a_reason(scores, truth):
    for interval in correlations(replicated(scores), replicated(truth)).values():
        assert interval.value is interval.low is None
        assert interval.reason == "not defined by these replicates"


def test_scores_and_truth_must_have_the_same_length():
    with pytest.raises(ValueError, match="zip"):
        correlations(replicated(SCORES), replicated(TRUTH[:4]))


def rows(diagnostic, metric, values, arms, **more):
    return [
        {
            "diagnostic": diagnostic, "metric": metric, "target": "far", "perturbation": "none",
            "entry": "net", "initialization": arm, "replicate": k, "value": value, **more,
        }
        for arm, of_arm in zip(arms, values, strict=True)
        for k, value in enumerate(of_arm)
    ]  # fmt: skip


TRIALS = {"diagnostic": "trial", "metric": "test_metric"}
ARMS = ["P0-T", "P1-T", "P2-T", "P4-T", "P-T"]


def test_scores_and_truth_are_matched_by_arm():
    lines = rows("trial", "test_metric", TRUTH, ARMS) + rows("leep", "leep", SCORES, ARMS)
    lines += rows("trial", "test_metric", [[0.1, 0.2, 0.3]], ["RI-T"])
    elsewhere = [row | {"target": "near", "value": 0.0} for row in lines]
    far = Measurements(pd.DataFrame(elsewhere + lines)).select(target="far", perturbation="none")
    intervals = correlate(far.select(diagnostic="leep", metric="leep"), far.select(**TRIALS))
    expected = correlations(replicated(SCORES), replicated(TRUTH))
    for name, interval in intervals.items():
        assert interval[:3] == pytest.approx(expected[name][:3])


def test_the_interval_of_tau_knows_the_ranges_of_score_and_metric():
    values = np.arange(5)[:, None] / 10 + 0.005 * np.sin(np.arange(15)).reshape(5, 3)
    lines = rows("leep", "kappa", values, ARMS, unit="kappa")
    lines += rows("trial", "kappa", values, ARMS, unit="kappa")
    table = Measurements(pd.DataFrame(lines))
    scores, truth = (table.select(diagnostic=name) for name in ("leep", "trial"))
    kendall = correlate(scores, truth)["kendall"]
    sides = replicated(values), replicated(values)
    within, without = (
        correlations(*sides, ranges=(ends, ends))["kendall"] for ends in ((-1.0, 1.0), None)
    )
    assert kendall[1:3] == pytest.approx(within[1:3])
    assert within.high - within.low < without.high - without.low


def test_a_score_with_coordinates_must_be_selected_by_them():
    lines = rows("knn", "acc", SCORES, ARMS, k=1.0) + rows("knn", "acc", TRUTH, ARMS, k=5.0)
    table = Measurements(pd.DataFrame(lines + rows("trial", "test_metric", TRUTH, ARMS)))
    scores, truth = table.select(diagnostic="knn", metric="acc"), table.select(**TRIALS)
    assert correlate(scores.select(k=5), truth)["pearson"].value == pytest.approx(1)
    message = "P0-T of net has 2 values of acc in replicate 0, which differ in k; select one"
    with pytest.raises(ValueError, match=message):
        correlate(scores, truth)
    assert correlate(scores.select(block=2), truth)["kendall"].value is None


def test_a_missing_value_is_no_value():
    lines = rows("trial", "test_metric", [[0.5, None, 0.7]], ["P-T"])
    expected = {Network("net", "P-T"): {0: 0.5, 2: 0.7}}
    assert Measurements(pd.DataFrame(lines)).by_network() == expected


# --- checkpoints ------------------------------------------------------------------------------

EPOCHS = dict(zip(ARMS, [0, 1, 2, 4, 9], strict=True))
SELECTION = {"entry": "net", "target": "far", "perturbation": "none"}


def earliest(values, arms=EPOCHS, **more):
    frame = pd.DataFrame(rows("trial", "test_metric", values, list(arms)))
    return earliest_sufficient(Measurements(frame), arms, **SELECTION, **more)


GRID = np.array([
    [0.50, 0.51, 0.52, 0.49],
    [0.70, 0.74, 0.76, 0.78],
    [0.79, 0.80, 0.83, 0.78],
    [0.81, 0.79, 0.84, 0.80],
    [0.80, 0.79, 0.83, 0.79],
])  # fmt: skip


def test_margins_of_several_source_networks_are_over_the_networks():
    means = GRID.reshape(5, 2, 2).mean(axis=1)
    margin_of = margins(by_epoch(GRID), 0.01, networks=2)
    for margin, row in zip(margin_of.values(), means, strict=True):
        expected = of_difference(row, 0.99 * means[-1])
        assert margin[:3] == pytest.approx(expected)
        assert (margin.n, margin.method) == (2, "wide-t-networks-95")


def test_the_earliest_sufficient_checkpoint_is_the_first_within_a_hundredth_of_the_last():
    interval = earliest(GRID)
    margin_of = margins(by_epoch(GRID), 0.01, ends=OF_SHARES)
    low, mean, high = np.array([[m.low, m.value, m.high] for m in margin_of.values()]).T
    assert mean == pytest.approx((GRID - 0.99 * GRID[-1]).mean(axis=1))
    # Epoch 0 is insufficient, 1 undecided, 2 sufficient on average, 4 significantly sufficient.
    assert (high >= 0).tolist() == [False, True, True, True, True]
    assert (mean >= 0).tolist() == [False, False, True, True, True]
    assert (low >= 0).tolist() == [False, False, False, True, True]
    assert (interval.low, interval.value, interval.high) == (1, 2, 4)
    assert (interval.n, interval.method, interval.reason) == (4, "ranged-t-95", None)


def by_epoch(values):
    return dict(zip(EPOCHS.values(), replicated(values), strict=True))


def test_an_insufficient_checkpoint_after_a_sufficient_one_raises_the_upper_bound():
    values = np.array([[0.8, 0.81, 0.8], [0.5, 0.51, 0.5], [0.8, 0.81, 0.8]])
    interval = earliest(values, {"a": 0, "b": 3, "c": 9})
    assert (interval.value, interval.low, interval.high) == (0, 0, 9)


def test_checkpoints_with_equal_replicates_are_not_certain():
    interval = earliest(np.array([[0.5] * 3, [0.8] * 3, [0.8] * 3]), {"a": 0, "b": 3, "c": 9})
    assert (interval.value, interval.low, interval.high) == (3, 0, 9)


def test_more_tolerance_allows_an_earlier_checkpoint():
    assert earliest(GRID, tolerance=0.1).value == 1
    assert earliest(GRID, tolerance=0.5).value == 0


def test_the_order_of_the_arms_and_other_entries_do_not_matter():
    frame = pd.DataFrame(rows("trial", "test_metric", GRID, ARMS))
    other = frame.assign(entry="other", value=0.0)
    arms = dict(reversed(EPOCHS.items()))
    assert earliest_sufficient(
        Measurements(pd.concat([other, frame])), arms, **SELECTION
    ) == earliest(GRID)


def test_a_single_replicate_has_a_checkpoint_and_no_interval():
    interval = earliest(GRID[:, :1])
    assert (interval.value, interval.low, interval.high) == (4, None, None)
    assert interval.reason == "an interval needs two or more, found 1"


def test_arms_without_a_value_or_a_common_replicate_are_the_reason():
    frame = pd.DataFrame(rows("trial", "test_metric", GRID[:2], ARMS[:2]))
    interval = earliest_sufficient(Measurements(frame), EPOCHS, **SELECTION)
    assert interval.value is None
    assert interval.reason == "no test_metric of P-T, P2-T, P4-T of net on far"
    apart = pd.DataFrame(
        [row for row in rows("trial", "test_metric", GRID[:2], ARMS[:2])
         if (row["initialization"] == "P0-T") == (row["replicate"] == 0)]
    )  # fmt: skip
    interval = earliest_sufficient(Measurements(apart), {"P0-T": 0, "P1-T": 1}, **SELECTION)
    assert (interval.value, interval.n) == (None, 0)
    assert interval.reason == "no replicate was fine-tuned from every checkpoint"


def test_the_interval_covers_a_checkpoint_close_to_the_tolerance():
    # The second checkpoint is just insufficient and the third just sufficient: the worst case.
    rng = np.random.default_rng(0)
    truth = np.array([0.6, 0.7919, 0.7921, 0.80, 0.80])
    covered = 0
    for _ in range(300):
        values = truth[:, None] + rng.normal(size=(5, 4)) * 0.01 + rng.normal(size=4) * 0.05
        interval = earliest(values)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= 2 <= interval.high
    # Three standard errors below 95%.
    assert covered / 300 >= 0.912
