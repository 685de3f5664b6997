"""Metrics against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, roc_auc_score

from transferbench.metrics import (
    accuracy,
    chance_level,
    hits,
    mean_auc,
    score,
    weighted_mean_auc,
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


def test_an_undefined_metric_is_none():
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
