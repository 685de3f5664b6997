"""LogME: the evidence of a Bayesian linear regression, at its global maximum.

Shape letters: N images, D features, R their rank, T targets, U penalties.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["log_evidence", "spectrum"]

TOLERANCE = 1e-6
"""Nats per image by which the result may lie below the maximum."""

SPACING = 0.5
"""Of the log penalties that the search begins with."""

EPS = float(np.finfo(np.float64).eps)


def log_evidence(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """LogME: the evidence of a Bayesian linear regression of each target on the features.

    max over a, b of log p(y | F) / N, y ~ Normal(0, I / b + F F' / a). Given t = a / b the optimal
    b is N / (|Fm - y|^2 + t |m|^2), so that one search over u = log t is left: intervals of u that
    may hold a larger value are halved until none is left.

    Shapes: (N, D) and (N, T), no target 0 everywhere; returns (T,). Units: nats per image.
    Error: at most ``TOLERANCE`` below the global maximum over penalties between ``EPS`` times the
    smallest variance of the features and 1 / ``EPS`` times the largest; beyond them the evidence is
    that of pure noise, or of no noise.
    Source: You et al. 2021, arXiv 2102.11005. Rejected: the fixed point iteration of You et al.
    2022, arXiv 2110.10545, Algorithm 3, whose 11 steps ended up to 0.00004 nats too low on features
    with the spectrum of a deep network, and said so of three targets in four.
    """
    target_NT = np.asarray(targets, dtype=np.float64)
    left_NR, variance_R = spectrum(np.asarray(features, dtype=np.float64))
    inside_RT = left_NR.T @ target_NT
    # A difference of squares would be dominated by rounding where the features explain everything.
    outside_T = ((target_NT - left_NR @ inside_RT) ** 2).sum(axis=0)
    fit = _Regression(len(target_NT), np.log(variance_R), inside_RT**2, outside_T)
    penalty_U = fit.first_penalties()
    evidence_UT = fit.evidence(penalty_U)
    while (open_U := fit.may_hold_more(penalty_U, evidence_UT)).any():
        between_U = (penalty_U[1:] + penalty_U[:-1])[open_U] / 2
        penalty_U = np.concatenate([penalty_U, between_U])
        evidence_UT = np.concatenate([evidence_UT, fit.evidence(between_U)])
        order_U = np.argsort(penalty_U)
        penalty_U, evidence_UT = penalty_U[order_U], evidence_UT[order_U]
    largest_T: np.ndarray = evidence_UT.max(axis=0)
    return largest_T


class _Regression(NamedTuple):
    """Targets in the basis of the features.

    Shapes: log variance (R,), squared components of the targets inside (R, T) and outside (T,) the
    span of the features; log penalties (U,).
    """

    n: int
    log_variance: np.ndarray
    inside: np.ndarray
    outside: np.ndarray

    def first_penalties(self) -> np.ndarray:
        """A grid from no shrinkage to complete shrinkage."""
        if not len(self.log_variance):
            return np.zeros(1)
        low, high = self.log_variance.min() + np.log(EPS), self.log_variance.max() - np.log(EPS)
        return np.linspace(low, high, int(np.ceil((high - low) / SPACING)) + 1)

    def evidence(self, penalty_U: np.ndarray) -> np.ndarray:
        """The evidence per image at each penalty and the optimal noise. Shapes: (U, T)."""
        over_UR = self.log_variance - penalty_U[:, None]
        # |Fm - y|^2 + t |m|^2 is the sum of the squared components times t / (variance + t).
        noise_UT = (self.outside + np.exp(-np.logaddexp(0, over_UR)) @ self.inside) / self.n
        shrunk_U = np.logaddexp(0, over_UR).sum(axis=1) / self.n
        evidence_UT: np.ndarray = -0.5 * (np.log(2 * np.pi * noise_UT) + 1 + shrunk_U[:, None])
        return evidence_UT

    def may_hold_more(self, penalty_U: np.ndarray, evidence_UT: np.ndarray) -> np.ndarray:
        """Whether a target's evidence may exceed the largest so far within each interval.

        Between two ends the evidence exceeds the larger by at most c h^2 / 8 where its second
        derivative is at least -c. With s_i = t / (variance_i + t), q = sum inside_i s_i and w_i =
        inside_i s_i / (outside + q), that of log noise is at most m (1 - m), m = sum w (1 - s), and
        that of the shrinkage is sum s (1 - s) / N. Both are at most 1/4, and small in the tails:
        there s or 1 - s is, and m <= q / outside, or 1 - m < s where nothing is outside.
        Shapes: (U - 1,).
        """
        if len(penalty_U) < 2:
            return np.zeros(0, dtype=bool)
        below_U = np.exp(np.minimum(penalty_U[1:] - self.log_variance.min(), 0))[:, None]
        above_U = np.exp(np.minimum(self.log_variance.max() - penalty_U[:-1], 0))[:, None]
        inside_T = self.inside.sum(axis=0)
        small_T = np.ones_like(inside_T)
        np.divide(inside_T, self.outside, out=small_T, where=self.outside > 0)
        noise_UT = np.minimum(0.25, np.minimum(below_U * small_T, above_U))
        share = len(self.log_variance) / self.n
        shrunk_U = share * np.minimum(0.25, np.minimum(below_U, above_U))
        height_UT = (noise_UT + shrunk_U) / 2 * np.diff(penalty_U)[:, None] ** 2 / 8
        most_UT = np.maximum(evidence_UT[1:], evidence_UT[:-1]) + height_UT
        may: np.ndarray = (most_UT > evidence_UT.max(axis=0) + TOLERANCE).any(axis=1)
        return may


def spectrum(features_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The left singular vectors and squared singular values above rounding.

    Shapes: (N, R) and (R,).
    """
    from scipy.linalg import svd  # slow to import

    left_NR, singular_R, _ = svd(features_ND, full_matrices=False)
    nonzero = singular_R > singular_R.max(initial=0.0) * max(features_ND.shape) * EPS
    return left_NR[:, nonzero], singular_R[nonzero] ** 2
