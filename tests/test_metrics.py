"""Metrics against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from transferbench.metrics import (
    accuracy,
    balanced_accuracy,
    chance_level,
    hits,
    macro_auc,
    mean_auc,
    score,
    weighted_mean_auc,
    weighted_score,
)

RNG = np.random.default_rng(0)
LABELS_N = RNG.integers(0, 5, 200)
LOGITS_NK = RNG.normal(size=(200, 5)).astype(np.float32)
LABELS_NL = (RNG.random((200, 3)) < [0.1, 0.5, 0.8]).astype(np.float32)
# Rounded, so that equal scores occur.
LOGITS_NL = (RNG.normal(size=(200, 3)) + LABELS_NL).round(1).astype(np.float32)


def test_accuracy_equals_scikit_learn():
    expected = accuracy_score(LABELS_N, LOGITS_NK.argmax(1))
    assert accuracy(LOGITS_NK, LABELS_N) == pytest.approx(expected, abs=1e-12)
    assert score("accuracy", LOGITS_NK, LABELS_N) == accuracy(LOGITS_NK, LABELS_N)


def test_multi_label_accuracy_thresholds_probabilities_at_one_half():
    expected = np.mean([accuracy_score(LABELS_NL[:, k], LOGITS_NL[:, k] > 0) for k in range(3)])
    assert accuracy(LOGITS_NL, LABELS_NL) == pytest.approx(expected, abs=1e-12)
    assert hits(LOGITS_NL, LABELS_NL).shape == (200,)


def test_of_equal_logits_the_first_class_is_predicted():
    assert accuracy(np.zeros((2, 3)), np.array([0, 2])) == 0.5


def test_mean_auc_equals_scikit_learn_with_ties():
    expected = roc_auc_score(LABELS_NL, LOGITS_NL, average="macro")
    assert mean_auc(LOGITS_NL, LABELS_NL) == pytest.approx(expected, abs=1e-12)
    assert score("auc", LOGITS_NL, LABELS_NL) == mean_auc(LOGITS_NL, LABELS_NL)


def test_weighted_mean_auc_equals_scikit_learn():
    weights_BN = RNG.integers(0, 4, (6, 200))
    for auc, weights_N in zip(
        weighted_mean_auc(LOGITS_NL, LABELS_NL, weights_BN), weights_BN, strict=True
    ):
        expected = roc_auc_score(LABELS_NL, LOGITS_NL, sample_weight=weights_N)
        assert auc == pytest.approx(expected, abs=1e-12)


def test_a_label_with_a_single_value_is_excluded_from_the_mean():
    labels = LABELS_NL.copy()
    labels[:, 1] = 1
    expected = roc_auc_score(labels[:, [0, 2]], LOGITS_NL[:, [0, 2]])
    assert mean_auc(LOGITS_NL, labels) == pytest.approx(expected, abs=1e-12)


# Few items of the last classes, as in small and unbalanced data.
FEW_N = RNG.choice(5, 60, p=[0.6, 0.2, 0.1, 0.06, 0.04])
FEW_NK = (RNG.normal(size=(60, 5)) + 2 * np.eye(5)[FEW_N]).round(1).astype(np.float32)


def test_balanced_accuracy_equals_scikit_learn():
    expected = balanced_accuracy_score(FEW_N, FEW_NK.argmax(1))
    assert balanced_accuracy(FEW_NK, FEW_N) == pytest.approx(expected, abs=1e-12)
    assert score("balanced-accuracy", FEW_NK, FEW_N) == balanced_accuracy(FEW_NK, FEW_N)
    each = [balanced_accuracy_score(LABELS_NL[:, k], LOGITS_NL[:, k] > 0) for k in range(3)]
    assert balanced_accuracy(LOGITS_NL, LABELS_NL) == pytest.approx(np.mean(each), abs=1e-12)


def test_macro_auc_equals_scikit_learn_one_against_rest():
    probability_NK = softmax(FEW_NK.astype(np.float64), axis=1)
    expected = roc_auc_score(FEW_N, probability_NK, multi_class="ovr", average="macro")
    assert macro_auc(FEW_NK, FEW_N) == pytest.approx(expected, abs=1e-12)
    assert score("macro-auc", FEW_NK, FEW_N) == macro_auc(FEW_NK, FEW_N)


def test_macro_auc_ranks_items_whose_probabilities_round_to_one():
    logits = np.array([[0, 800], [0, 900], [0, 850], [0, 700]], np.float32)
    assert macro_auc(logits, np.array([0, 1, 1, 0])) == 1


def test_a_class_without_items_is_excluded_from_both_means():
    wider = np.concatenate([FEW_NK, np.full((60, 1), -9, np.float32)], axis=1)
    for metric in (balanced_accuracy, macro_auc):
        assert metric(wider, FEW_N) == pytest.approx(metric(FEW_NK, FEW_N), abs=1e-6)


@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy", "macro-auc"])
def test_a_weighted_metric_is_that_of_repeated_items(metric):
    weights_BN = RNG.integers(0, 3, (4, 60))
    outputs = FEW_NK if metric == "macro-auc" else FEW_NK.argmax(1)
    for value, weights_N in zip(
        weighted_score(metric, outputs, FEW_N, weights_BN), weights_BN, strict=True
    ):
        repeated = np.repeat(np.arange(60), weights_N)
        assert value == pytest.approx(score(metric, FEW_NK[repeated], FEW_N[repeated]), abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "level"), [("accuracy", 0.6), ("balanced-accuracy", 1 / 3), ("macro-auc", 0.5)]
)
def test_chance_is_the_metric_of_a_constant_prediction(metric, level):
    labels = np.repeat([0, 2, 3], [60, 30, 10])
    constant = np.tile([1.0, 0, 0, 0], (100, 1)).astype(np.float32)
    assert chance_level(metric, labels) == pytest.approx(level)
    assert score(metric, constant, labels) == pytest.approx(level)


def test_an_undefined_metric_is_none():
    assert macro_auc(FEW_NK, np.zeros(60, int)) is None
    assert macro_auc(np.full((4, 2), np.nan), np.array([0, 1, 0, 1])) is None
    assert macro_auc(FEW_NK[:0], FEW_N[:0]) is balanced_accuracy(FEW_NK[:0], FEW_N[:0]) is None
    assert mean_auc(LOGITS_NL, np.ones_like(LABELS_NL)) is None
    assert mean_auc(LOGITS_NL[:0], LABELS_NL[:0]) is None
    assert accuracy(LOGITS_NK[:0], LABELS_N[:0]) is None


def test_auc_of_a_diverged_network_is_none():
    assert mean_auc(np.full((4, 1), np.nan), np.array([[0.0], [1], [0], [1]])) is None


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30))
@settings(deadline=None)
def test_auc_is_the_fraction_of_pairs_in_order(items):
    scores = np.array([[float(s)] for s, _ in items])
    labels = np.array([[float(p)] for _, p in items])
    pairs = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high, positive in items
        if positive
        for low, other in items
        if not other
    ]
    expected = pytest.approx(sum(pairs) / len(pairs)) if pairs else None
    assert mean_auc(scores, labels) == expected


def test_chance_level_is_the_metric_of_the_best_constant_prediction():
    assert chance_level("accuracy", np.array([0, 1, 1, 2])) == 0.5
    assert chance_level("auc", LABELS_NL) == 0.5
    constant = np.where(LABELS_NL.mean(0) > 0.5, 1.0, -1.0) * np.ones((200, 1))
    assert chance_level("accuracy", LABELS_NL) == pytest.approx(accuracy(constant, LABELS_NL))
