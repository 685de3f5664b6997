"""Transferability scores against formulas written out, scipy and scikit-learn; checkpoints."""

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

from transferbench.analysis.checkpoints import earliest_sufficient, margins
from transferbench.analysis.transferability import (
    correlate,
    correlations,
    h_score,
    leep,
    log_evidence,
    nce,
    nearest_classes,
)
from transferbench.measurements import Measurements, Network


def sample(n=60, d=7, classes=4, signal=1.0, seed=0):
    """Features that say something of the labels, and some labels each."""
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


def test_leep_is_the_formula_written_as_loops():
    probabilities, labels = source()
    found = leep(probabilities, labels)
    assert found.value == pytest.approx(leep_by_loops(probabilities, labels), rel=1e-12)
    assert (found.n, found.method) == (60, "infinitesimal-jackknife-95")


def test_leep_is_zero_for_a_source_that_knows_the_classes_and_their_entropy_for_one_that_does_not():
    labels = np.array([4, 4, 4, 9, 9, 1])
    known = np.eye(10)[labels]
    assert leep(known, labels).value == pytest.approx(0, abs=1e-15)
    blind = np.full((6, 3), 1 / 3)
    assert leep(blind, labels).value == pytest.approx(-stats.entropy([3, 2, 1]))


def weighted_leep(probabilities, labels, weights):
    joint = (np.eye(labels.max() + 1)[labels] * weights[:, None]).T @ probabilities
    likelihood = ((joint / joint.sum(axis=0))[labels] * probabilities).sum(axis=1)
    return weights @ np.log(likelihood)


def test_the_error_of_leep_is_how_it_moves_with_the_weight_of_each_image():
    probabilities, labels = source(n=80)
    found, even, step = leep(probabilities, labels), np.full(80, 1 / 80), 1e-6
    moved = [
        weighted_leep(probabilities, labels, (1 - t) * even + t * np.eye(80)[k])
        for k in range(80)
        for t in (-step, step)
    ]
    influence = np.diff(np.reshape(moved, (80, 2)), axis=1) / (2 * step)
    half = stats.t.ppf(0.975, 79) * influence.std(ddof=1) / math.sqrt(80)
    assert found.high - found.value == pytest.approx(half, rel=1e-5)
    assert found.value - found.low == pytest.approx(half, rel=1e-5)


def test_the_error_of_leep_is_nearly_that_of_leaving_each_image_out():
    probabilities, labels = source(n=240)
    found = leep(probabilities, labels)
    left_out = [leep(probabilities[k], labels[k]).value for k in ~np.eye(240, dtype=bool)]
    half = stats.t.ppf(0.975, 239) * np.std(left_out, ddof=1) * 239 / math.sqrt(240)
    assert found.high - found.value == pytest.approx(half, rel=0.03)


def leep_likelihoods(probabilities, labels):
    shown = np.eye(labels.max() + 1)[labels]
    joint = shown.T @ probabilities
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


def test_the_error_of_nce_is_that_of_a_mean_of_log_shares():
    # Known of the plug-in entropy: the first-order effect of its table cancels.
    rng = np.random.default_rng(2)
    labels, predicted = rng.integers(0, 3, 300), rng.integers(0, 4, 300)
    shares = leep_likelihoods(np.eye(4)[predicted], labels)
    half = stats.t.ppf(0.975, 299) * np.log(shares).std(ddof=1) / math.sqrt(300)
    found = nce(predicted, labels)
    assert found.high - found.value == pytest.approx(half, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_no_score_depends_on_the_order_of_the_images_or_the_names_of_classes(seed):
    rng = np.random.default_rng(seed)
    features, labels = sample(n=40, seed=seed)
    probabilities, _ = source(n=40, seed=seed)
    order, names = rng.permutation(40), rng.permutation(9)
    moved = features[order], names[labels[order]]
    assert leep(probabilities[order], moved[1]).value == pytest.approx(
        leep(probabilities, labels).value
    )
    assert leep(probabilities, labels).value <= 1e-12
    assert h_score(*moved)[:3] == pytest.approx(h_score(features, labels)[:3])
    targets = np.eye(4)[labels]
    assert log_evidence(features[order], targets[order]).per_image == pytest.approx(
        log_evidence(features, targets).per_image
    )


# --- H-score ----------------------------------------------------------------------------------


def between_classes(features, labels):
    means = {y: features[labels == y].mean(axis=0) for y in set(labels.tolist())}
    return np.cov(np.array([means[y] for y in labels.tolist()]), rowvar=False, bias=True)


def test_h_score_is_the_trace_written_out():
    features, labels = sample()
    whole = np.cov(features, rowvar=False, bias=True)
    expected = np.trace(np.linalg.inv(whole) @ between_classes(features, labels))
    assert h_score(features, labels).plain == pytest.approx(expected)


@pytest.mark.parametrize(("n", "d"), [(60, 7), (20, 40), (30, 1)])
def test_the_regularised_h_score_takes_the_covariance_of_ledoit_and_wolf(n, d):
    features, labels = sample(n=n, d=max(d, 4))
    features = features[:, :d]
    fitted = LedoitWolf().fit(features)
    between = np.atleast_2d(between_classes(features, labels))
    expected = (1 - fitted.shrinkage_) * np.trace(np.linalg.inv(fitted.covariance_) @ between)
    found = h_score(features, labels)
    assert found.shrinkage == pytest.approx(fitted.shrinkage_)
    assert found.regularised == pytest.approx(expected)
    assert found.regularised <= found.plain + 1e-12


def test_features_that_determine_the_class_score_one_less_than_the_classes():
    labels = np.arange(30) % 5
    assert h_score(np.eye(5)[labels], labels).plain == pytest.approx(4)
    # As any do in as many dimensions as there are images: which regularisation tells apart.
    noise = np.random.default_rng(0).normal(size=(30, 50))
    assert h_score(noise, labels).plain == pytest.approx(4)
    assert h_score(noise, labels).regularised < 2


def test_features_that_do_not_vary_score_nothing_and_have_no_rank():
    assert h_score(np.full((10, 3), 7.0), np.arange(10) % 2) == (0, 0, 0, 0)


# --- LogME ------------------------------------------------------------------------------------


def evidence(features, target, log_a, log_b):
    n = len(target)
    covariance = np.eye(n) / math.exp(log_b) + features @ features.T / math.exp(log_a)
    return stats.multivariate_normal(np.zeros(n), covariance).logpdf(target) / n


def highest_evidence(features, target):
    found = optimize.minimize(
        lambda x: -evidence(features, target, *x),
        x0=[0.0, 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-12},
    )
    return -found.fun


@pytest.mark.parametrize("shape", [(60, 7), (50, 20)])
def test_logme_is_the_highest_evidence_that_direct_search_finds(shape):
    features, labels = sample(*shape, signal=2.0)
    targets = np.eye(4)[labels]
    found = log_evidence(features, targets)
    assert found.converged.all()
    expected = [highest_evidence(features, target) for target in targets.T]
    assert found.per_image == pytest.approx(expected, abs=1e-6)


def test_logme_with_more_features_than_images_is_the_highest_evidence_to_a_hair():
    features, labels = sample(24, 40, signal=2.0)
    targets = np.eye(4)[labels]
    found = log_evidence(features, targets)
    expected = [highest_evidence(features, target) for target in targets.T]
    assert found.per_image == pytest.approx(expected, abs=2e-5)
    assert not found.converged.all()


def test_logme_does_not_depend_on_the_scale_of_the_features():
    features, labels = sample(200, 300)
    targets = np.eye(4)[labels]
    expected = log_evidence(features, targets).per_image
    for scale in (1e-3, 1e3):
        assert log_evidence(features * scale, targets).per_image == pytest.approx(expected)


def test_logme_of_features_that_say_nothing_is_the_evidence_of_noise():
    target = np.array([1.0, -1, 1, -1, 1, -1])
    noise = -0.5 * (math.log(2 * math.pi) + 1)
    for features in (np.zeros((6, 2)), np.ones((6, 1))):
        found = log_evidence(features, target[:, None])
        assert found.per_image == pytest.approx(noise)
        assert found.converged.all()


def test_logme_of_features_that_say_everything_is_finite():
    labels = np.arange(40) % 4
    found = log_evidence(np.eye(4)[labels] * 100, np.eye(4)[labels])
    assert np.isfinite(found.per_image).all()
    assert (found.per_image > 5).all()


# --- nearest neighbours -----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 7])
def test_neighbours_vote_as_in_scikit_learn(k):
    features, labels = sample(n=1500, classes=2)
    others, _ = sample(n=1100, classes=2, seed=3)
    peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(features, labels)
    np.testing.assert_array_equal(
        nearest_classes(features, labels, others, [k, 1])[0], peer.predict(others)
    )


def test_of_two_classes_with_as_many_neighbours_the_nearer_wins():
    angles = np.radians([0, 30, 40, 50])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    other = 7 * np.array([[np.cos(np.radians(34)), np.sin(np.radians(34))]])
    for near, far in ((5, 0), (0, 5)):
        labels = np.array([far, near, near, far])
        assert nearest_classes(features, labels, other, [4, 2]).tolist() == [[near], [near]]


def test_no_count_of_neighbours_gives_no_row():
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
def test_correlations_are_those_of_scipy_with_the_jackknife_as_error(over):
    found = correlations(replicated(SCORES), replicated(TRUTH), over=over)
    whole = by_scipy(SCORES.mean(1), TRUTH.mean(1))
    assert {name: interval.value for name, interval in found.items()} == pytest.approx(whole)
    axis, n = (1, 3) if over == "replicates" else (0, 5)
    for name, interval in found.items():
        parts = [
            by_scipy(np.delete(SCORES, k, axis).mean(1), np.delete(TRUTH, k, axis).mean(1))[name]
            for k in range(n)
        ]
        pseudo = n * whole[name] - (n - 1) * np.array(parts)
        half = stats.t.ppf(0.975, n - 1) * pseudo.std(ddof=1) / math.sqrt(n)
        assert interval.low == pytest.approx(max(whole[name] - half, -1))
        assert interval.high == pytest.approx(min(whole[name] + half, 1))
        assert (interval.n, interval.method) == (n, "jackknife-95")


@pytest.mark.parametrize(("sign", "end"), [(-1, "low"), (1, "high")])
def test_no_correlation_lies_beyond_one(sign, end):
    found = correlations(replicated(sign * SCORES), replicated(TRUTH))["pearson"]
    assert getattr(found, end) == sign


def test_only_replicates_that_every_network_has_count():
    scores, truth = replicated(SCORES), replicated(TRUTH)
    scores[2].pop(1)
    kept = [0, 2]
    expected = by_scipy(SCORES[:, kept].mean(1), TRUTH[:, kept].mean(1))
    found = correlations(scores, truth)
    assert found["pearson"].value == pytest.approx(expected["pearson"])
    assert found["pearson"].n == 2


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (SCORES[:2], TRUTH[:2]),
        (np.ones((4, 3)), TRUTH[:4]),
        ([], []),
        (SCORES[:, :0], TRUTH[:, :0]),
    ],
)
def test_a_correlation_that_is_not_defined_says_so(scores, truth):
    for interval in correlations(replicated(scores), replicated(truth)).values():
        assert interval.value is None
        assert interval.reason == "not defined by these replicates"


def test_scores_and_truth_are_of_the_same_networks():
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


def test_a_frame_gives_scores_and_truth_of_the_same_arms():
    lines = rows("trial", "test_metric", TRUTH, ARMS) + rows("leep", "leep", SCORES, ARMS)
    lines += rows("trial", "test_metric", [[0.1, 0.2, 0.3]], ["RI-T"])
    elsewhere = [row | {"target": "near", "value": 0.0} for row in lines]
    far = Measurements(pd.DataFrame(elsewhere + lines)).select(target="far", perturbation="none")
    found = correlate(far.select(diagnostic="leep", metric="leep"), far.select(**TRIALS))
    expected = correlations(replicated(SCORES), replicated(TRUTH))
    for name, interval in found.items():
        assert interval[:3] == pytest.approx(expected[name][:3])


def test_a_score_with_coordinates_is_one_of_them():
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
PLACE = {"entry": "net", "target": "far", "perturbation": "none"}


def earliest(values, arms=EPOCHS, **more):
    frame = pd.DataFrame(rows("trial", "test_metric", values, list(arms)))
    return earliest_sufficient(Measurements(frame), arms, **PLACE, **more)


GRID = np.array([
    [0.50, 0.51, 0.52, 0.49],
    [0.70, 0.74, 0.76, 0.78],
    [0.79, 0.80, 0.83, 0.78],
    [0.81, 0.79, 0.84, 0.80],
    [0.80, 0.79, 0.83, 0.79],
])  # fmt: skip


def test_the_earliest_sufficient_checkpoint_is_the_first_within_a_hundredth_of_the_last():
    found = earliest(GRID)
    mean = (GRID - 0.99 * GRID[-1]).mean(axis=1)
    half = stats.t.ppf(0.975, 3) * (GRID - 0.99 * GRID[-1]).std(axis=1, ddof=1) / 2
    got = margins(by_epoch(GRID), 0.01)
    assert [one.value for one in got.values()] == pytest.approx(mean)
    assert [one.low for one in got.values()] == pytest.approx(mean - half)
    # 0 is shown to lack, 1 may lack, 2 suffices on average, 4 is shown to suffice.
    assert (mean + half >= 0).tolist() == [False, True, True, True, True]
    assert (mean >= 0).tolist() == [False, False, True, True, True]
    assert (mean - half >= 0).tolist() == [False, False, False, True, True]
    assert (found.low, found.value, found.high) == (1, 2, 4)
    assert (found.n, found.method, found.reason) == (4, "paired-student-t-95", None)


def by_epoch(values):
    return dict(zip(EPOCHS.values(), replicated(values), strict=True))


def test_a_gap_behind_a_good_checkpoint_keeps_it_from_being_shown():
    values = np.array([[0.8, 0.81, 0.8], [0.5, 0.51, 0.5], [0.8, 0.81, 0.8]])
    found = earliest(values, {"a": 0, "b": 3, "c": 9})
    assert (found.value, found.low, found.high) == (0, 0, 9)


def test_more_tolerance_allows_an_earlier_checkpoint():
    assert earliest(GRID, tolerance=0.1).value == 1
    assert earliest(GRID, tolerance=0.5).value == 0


def test_the_order_of_the_arms_does_not_matter_and_other_entries_do_not_count():
    frame = pd.DataFrame(rows("trial", "test_metric", GRID, ARMS))
    other = frame.assign(entry="other", value=0.0)
    arms = dict(reversed(EPOCHS.items()))
    assert earliest_sufficient(Measurements(pd.concat([other, frame])), arms, **PLACE) == earliest(
        GRID
    )


def test_one_replicate_has_a_checkpoint_and_no_interval():
    found = earliest(GRID[:, :1])
    assert (found.value, found.low, found.high) == (4, None, None)
    assert found.reason == "an interval needs two or more, found 1"


def test_arms_without_a_value_or_a_common_replicate_are_told():
    frame = pd.DataFrame(rows("trial", "test_metric", GRID[:2], ARMS[:2]))
    found = earliest_sufficient(Measurements(frame), EPOCHS, **PLACE)
    assert found.value is None
    assert found.reason == "no test_metric of P-T, P2-T, P4-T of net on far"
    apart = pd.DataFrame(
        [row for row in rows("trial", "test_metric", GRID[:2], ARMS[:2])
         if (row["initialization"] == "P0-T") == (row["replicate"] == 0)]
    )  # fmt: skip
    found = earliest_sufficient(Measurements(apart), {"P0-T": 0, "P1-T": 1}, **PLACE)
    assert (found.value, found.n) == (None, 0)
    assert found.reason == "no replicate was fine-tuned from every checkpoint"


def test_the_interval_covers_a_true_checkpoint_that_hardly_suffices():
    # The second checkpoint lacks and the third suffices by a hair, where each bound fails most.
    rng = np.random.default_rng(0)
    truth = np.array([0.6, 0.7919, 0.7921, 0.80, 0.80])
    covered = 0
    for _ in range(300):
        values = truth[:, None] + rng.normal(size=(5, 4)) * 0.01 + rng.normal(size=4) * 0.05
        found = earliest(values)
        assert found.low <= found.value <= found.high
        covered += found.low <= 2 <= found.high
    # Three standard errors below 95%.
    assert covered / 300 >= 0.912
