"""L2-regularised logistic regression of classes or labels.

Shape letters: N images, D features, K classes or labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Regression", "fit_regressions"]

MAX_ITERATIONS = 1000

TOLERANCE = 1e-5
"""The optimiser stops when the largest derivative of the mean loss is below this."""


class Regression(NamedTuple):
    """Logits ``((x - mean) / scale) weights + bias``; -inf for classes without a training image.

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


class Coefficients(NamedTuple):
    """Coefficients (D, C) and intercepts (C,) of C classes or labels."""

    weights: np.ndarray
    bias: np.ndarray
    converged: bool


def fit_regressions(
    features: np.ndarray, labels: np.ndarray, classes: int, strengths: Sequence[float]
) -> list[Regression]:
    """The minimum of mean log loss + s/2 |w|^2 for each strength s; the bias is not penalised.

    Features are standardised, so that strengths are comparable between networks. Each fit is
    warm-started from the previous one: pass the strongest first.
    Shapes: features (N, D); labels (N,) of classes, or (N, L) of 0 and 1 with L = ``classes``,
    NaN where unknown: the regression of a label is fitted to the images where it is known.
    Source: Kornblith, Shlens, Le 2019, arXiv 1805.08974, Appendix, for the protocol.
    """
    mean_D, spread_D = features.mean(axis=0), features.std(axis=0)
    # Constant features carry no information and must not divide by zero.
    scale_D = np.where(spread_D > 0, spread_D, 1.0)
    standard_ND = (features - mean_D) / scale_D
    fit = _classes if labels.ndim == 1 else _labels
    stopped = f"a regression did not converge in {MAX_ITERATIONS} steps"
    return [
        Regression(mean_D, scale_D, weights, bias, None if converged else stopped)
        for weights, bias, converged in fit(standard_ND, labels, classes, strengths)
    ]


def _classes(
    features: np.ndarray, labels: np.ndarray, classes: int, strengths: Sequence[float]
) -> list[Coefficients]:
    present = np.unique(labels)
    fits = []
    # For two classes scikit-learn fits one column, the logit of the second over the first.
    columns = present[1:] if len(present) == 2 else present
    for part in _regularisation_path(features, labels, strengths):
        weights_DK = np.zeros((features.shape[1], classes))
        bias_K = np.full(classes, -np.inf)
        bias_K[present] = 0.0
        weights_DK[:, columns], bias_K[columns] = part.weights, part.bias
        fits.append(Coefficients(weights_DK, bias_K, part.converged))
    return fits


def _labels(
    features: np.ndarray, labels: np.ndarray, classes: int, strengths: Sequence[float]
) -> list[Coefficients]:
    paths = []
    for k in range(classes):
        known_N = ~np.isnan(labels[:, k])
        part = features if known_N.all() else features[known_N]
        paths.append(_label(part, labels[known_N, k] > 0.5, strengths))
    return [
        Coefficients(
            np.concatenate([part.weights for part in parts], axis=1),
            np.concatenate([part.bias for part in parts]),
            all(part.converged for part in parts),
        )
        for parts in zip(*paths, strict=True)
    ]


def _label(
    features: np.ndarray, label: np.ndarray, strengths: Sequence[float]
) -> list[Coefficients]:
    if label.any() and not label.all():
        return _regularisation_path(features, label, strengths)
    constant = np.array([0.0 if not len(label) else 1.0 if label.all() else -1.0])
    return [Coefficients(np.zeros((features.shape[1], 1)), constant, converged=True)] * len(
        strengths
    )


def _regularisation_path(
    features: np.ndarray, labels: np.ndarray, strengths: Sequence[float]
) -> list[Coefficients]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=MAX_ITERATIONS, tol=TOLERANCE, warm_start=True)
    fits = []
    for strength in strengths:
        model.set_params(C=1 / (strength * len(labels)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a flag instead
            model.fit(features, labels)
        converged = bool((model.n_iter_ < MAX_ITERATIONS).all())
        fits.append(Coefficients(model.coef_.T.copy(), model.intercept_.copy(), converged))
    return fits
