"""Penalised logistic regression of classes or labels, as a linear map to logits.

Shape letters: N images, D features, K classes or labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Regression", "regressions"]

STEPS = 1000
"""Of the optimiser at most."""

TOLERANCE = 1e-5
"""The largest derivative of the mean loss at which the optimiser may stop."""


class Regression(NamedTuple):
    """Logits ``((x - mean) / scale) weights + bias``; of a class never seen they are -inf.

    Shapes: mean and scale (D,), weights (D, K), bias (K,).
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    flag: str | None

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Shapes: (N, D) to (N, K)."""
        logits_NK: np.ndarray = (features - self.mean) / self.scale @ self.weights + self.bias
        return logits_NK


class Columns(NamedTuple):
    """A part of the map: coefficients (D, C) and intercepts (C,) of some of the columns."""

    weights: np.ndarray
    bias: np.ndarray
    converged: bool


def regressions(
    features: np.ndarray, labels: np.ndarray, classes: int, strengths: Sequence[float]
) -> list[Regression]:
    """One for each strength s: the mean log loss + s/2 |w|^2, the bias free, at its minimum.

    Features are standardised, so that a strength means the same for every network. Each fit
    starts from the one before: give the strongest first.
    Shapes: features (N, D); labels (N,) of classes, or (N, L) of 0 and 1 with L = ``classes``.
    Source: Kornblith, Shlens, Le 2019, arXiv 1805.08974, Appendix, for the protocol.
    """
    mean_D, spread_D = features.mean(axis=0), features.std(axis=0)
    # A feature that is the same everywhere says nothing here, and may not divide by zero.
    scale_D = np.where(spread_D > 0, spread_D, 1.0)
    standard_ND = (features - mean_D) / scale_D
    fit = _classes if labels.ndim == 1 else _labels
    return [
        Regression(mean_D, scale_D, part.weights, part.bias, _flag(part))
        for part in fit(standard_ND, labels, classes, strengths)
    ]


def _flag(part: Columns) -> str | None:
    return None if part.converged else f"a regression did not converge in {STEPS} steps"


def _classes(
    features: np.ndarray, labels: np.ndarray, classes: int, strengths: Sequence[float]
) -> list[Columns]:
    known = np.unique(labels)
    found = []
    for part in _path(features, labels, strengths):
        weights_DK = np.zeros((features.shape[1], classes))
        bias_K = np.full(classes, -np.inf)
        # Two classes share one column, the logit of the second over the first.
        columns = known[1:] if len(known) == 2 else known
        bias_K[known] = 0.0
        weights_DK[:, columns], bias_K[columns] = part.weights, part.bias
        found.append(Columns(weights_DK, bias_K, part.converged))
    return found


def _labels(
    features: np.ndarray, labels: np.ndarray, classes: int, strengths: Sequence[float]
) -> list[Columns]:
    paths = [_label(features, labels[:, k] > 0.5, strengths) for k in range(classes)]
    return [
        Columns(
            np.concatenate([part.weights for part in parts], axis=1),
            np.concatenate([part.bias for part in parts]),
            all(part.converged for part in parts),
        )
        for parts in zip(*paths, strict=True)
    ]


def _label(features: np.ndarray, label: np.ndarray, strengths: Sequence[float]) -> list[Columns]:
    if label.any() and not label.all():
        return _path(features, label, strengths)
    constant = np.array([1.0 if label.all() else -1.0])
    return [Columns(np.zeros((features.shape[1], 1)), constant, converged=True)] * len(strengths)


def _path(features: np.ndarray, labels: np.ndarray, strengths: Sequence[float]) -> list[Columns]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=STEPS, tol=TOLERANCE, warm_start=True)
    found = []
    for strength in strengths:
        model.set_params(C=1 / (strength * len(labels)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told by a flag instead
            model.fit(features, labels)
        converged = bool((model.n_iter_ < STEPS).all())
        found.append(Columns(model.coef_.T.copy(), model.intercept_.copy(), converged))
    return found
