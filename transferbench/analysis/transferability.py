"""Transferability scores of features and source outputs, and their correlation with the truth.

All in float64, on arrays.

Rejected: tllib.ranking, which has LEEP, NCE, H-score and LogME without intervals.

Shape letters: N images, M other images, D features, R their rank, Z source classes, K target
classes that occur, T targets, P networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from transferbench.measurements import Measurements
from transferbench.metrics import ratio
from transferbench.statistics import Interval, jackknife, student_t

__all__ = [
    "CORRELATIONS",
    "Evidence",
    "HScore",
    "correlate",
    "correlations",
    "h_score",
    "leep",
    "log_evidence",
    "nce",
    "nearest_classes",
]

CORRELATIONS = ("kendall", "weighted-kendall", "pearson")
"""The correlation coefficients, in the order of a report."""

MAX_ITERATIONS = 11
"""Of LogME's fixed point iteration. Source: You et al. 2021, arXiv 2102.11005, Section 4.4."""

TOLERANCE = 1e-3
"""Relative change of LogME's penalty at convergence, as in the released code."""

GRID_SIZE, GRID_MARGIN = 41, 1e4
"""Number of penalties of the initial grid search, and its range beyond the variances."""

BLOCK = 1024
"""Number of images whose similarities to all others are in memory at a time."""

EPS = float(np.finfo(np.float64).eps)


# --- from the outputs of a source head --------------------------------------------------------


def leep(probabilities: np.ndarray, labels: np.ndarray, level: float = 0.95) -> Interval:
    """LEEP: the mean log-likelihood of the labels under a joint table of source and target class.

    With P(y, z) the mean of the source's probabilities over images of target class y:
    mean over n of log sum_z P(y_n | z) p(z | x_n). 0 where the source separates the classes.

    Shapes: (N, Z) and (N,). Units: nats.
    Error: infinitesimal jackknife over the images, including their effect on the table.
    Source: Nguyen et al. 2020, arXiv 2002.12462, Equations 1 and 2.
    """
    source_NZ = np.asarray(probabilities, dtype=np.float64)
    _, class_N = np.unique(labels, return_inverse=True)
    joint_KZ = _class_sums(source_NZ, class_N) / len(class_N)
    source_Z = joint_KZ.sum(axis=0)
    # A source class without probability on any image adds nothing to the likelihood.
    conditional_KZ = ratio(joint_KZ, source_Z, undefined=0)
    likelihood_N = np.einsum("nz,nz->n", source_NZ, conditional_KZ[class_N])
    log_N = np.log(likelihood_N)
    # The derivatives of the score by P(y | z), then by P(y, z).
    by_conditional_KZ = _class_sums(source_NZ / likelihood_N[:, None], class_N) / len(class_N)
    by_joint_KZ = ratio(
        by_conditional_KZ - (by_conditional_KZ * conditional_KZ).sum(axis=0), source_Z, undefined=0
    )
    pseudo_N = log_N + np.einsum("nz,nz->n", source_NZ, by_joint_KZ[class_N])
    # The derivatives sum to zero over the images, so that the mean is the score itself.
    return _centred(float(log_N.mean()), student_t(pseudo_N.tolist(), level), level)


def _centred(value: float, interval: Interval, level: float) -> Interval:
    """``interval`` moved to the centre ``value``."""
    method = f"infinitesimal-jackknife-{100 * level:g}"
    if interval.low is None or interval.high is None:
        return interval._replace(value=value, method=method)
    half = (interval.high - interval.low) / 2
    return interval._replace(value=value, low=value - half, high=value + half, method=method)


def nce(source_classes: np.ndarray, labels: np.ndarray, level: float = 0.95) -> Interval:
    """NCE: minus the conditional entropy of the labels given the source's predicted class.

    Shapes: (N,) both. Units: nats. Error: as ``leep``, which it equals for one-hot probabilities.
    Source: Tran, Nguyen, Hassner 2019, arXiv 1908.08142, Equation 4.
    """
    classes, source_N = np.unique(source_classes, return_inverse=True)
    return leep(np.eye(len(classes))[source_N], labels, level)


def _class_sums(values: np.ndarray, class_N: np.ndarray) -> np.ndarray:
    """Sums over the images of each class 0..K-1, none empty. Shapes: (N, X) to (K, X)."""
    order = np.argsort(class_N, kind="stable")
    starts = np.searchsorted(class_N[order], np.arange(class_N.max() + 1))
    sums: np.ndarray = np.add.reduceat(values[order], starts, axis=0)
    return sums


# --- from features ----------------------------------------------------------------------------


class HScore(NamedTuple):
    """``regularised`` uses the covariance with ``shrinkage`` in [0, 1]."""

    plain: float
    regularised: float
    shrinkage: float
    rank: int


def h_score(features: np.ndarray, labels: np.ndarray) -> HScore:
    """The variance between classes relative to the total: tr(cov(f)^-1 cov(E[f | y])).

    Between 0 and K - 1, which it reaches where features determine the class linearly, and for any
    labels once N <= D. The regularised score uses Ledoit and Wolf's covariance
    (1 - a) cov(f) + a tr(cov(f)) / D and weights the signal by (1 - a).

    Shapes: (N, D) and (N,). Units: none. Error: pseudo-inverse, of the rank returned.
    Source: Bao et al. 2019, doi:10.1109/ICIP.2019.8803726; Ibrahim et al. 2021, arXiv
    2110.06893, for the regularised score; Ledoit and Wolf 2004 for the shrinkage.
    """
    centred_ND = np.asarray(features, dtype=np.float64)
    centred_ND = centred_ND - centred_ND.mean(axis=0)
    _, class_N, size_K = np.unique(labels, return_inverse=True, return_counts=True)
    left_NR, variance_R = _spectrum(centred_ND)
    # tr(U' Q U) with Q the projection onto the classes needs no inverse of the covariance.
    between_R = (_class_sums(left_NR, class_N) ** 2 / size_K[:, None]).sum(axis=0)
    shrinkage, mean = _ledoit_wolf(centred_ND, variance_R)
    signal_R = (1 - shrinkage) * variance_R / len(class_N)
    weighted = float((signal_R / (signal_R + shrinkage * mean) * between_R).sum())
    return HScore(float(between_R.sum()), weighted, shrinkage, len(variance_R))


def _ledoit_wolf(centred_ND: np.ndarray, variance_R: np.ndarray) -> tuple[float, float]:
    """The shrinkage towards the mean variance of the features, and that mean.

    ``variance_R``: the squared singular values. Source: Ledoit and Wolf 2004, Section 3.2.
    """
    n, d = centred_ND.shape
    mean = variance_R.sum() / (n * d)
    squares = (variance_R**2).sum() / n**2
    distance = squares - d * mean**2
    if distance <= EPS * squares:  # all directions have equal variance
        return 0.0, float(mean)
    noise = ((np.einsum("nd,nd->n", centred_ND, centred_ND) ** 2).sum() / n - squares) / n
    return float(min(noise / distance, 1.0)), float(mean)


class Evidence(NamedTuple):
    """Log evidence per image, and whether the fixed point converged. Shapes: (T,) both."""

    per_image: np.ndarray
    converged: np.ndarray


def log_evidence(features: np.ndarray, targets: np.ndarray) -> Evidence:
    """LogME: the evidence of a Bayesian linear regression of each target on the features.

    max over a, b of log p(y | F) / N, y ~ Normal(0, I / b + F F' / a), by MacKay's fixed point in
    t = a / b, given which the optimal b is N / (|Fm - y|^2 + t |m|^2).

    Shapes: (N, D) and (N, T); no target is 0 everywhere. Units: nats per image.
    Error: after at most ``MAX_ITERATIONS`` steps from the best of a grid; measured on random
    features of 24 to 1,000 images: less than 0.00001 nats too low, also where t did not converge.
    Source: You et al. 2021, arXiv 2102.11005; You et al. 2022, arXiv 2110.10545, Algorithm 3.
    """
    target_NT = np.asarray(targets, dtype=np.float64)
    left_NR, variance_R = _spectrum(np.asarray(features, dtype=np.float64))
    inside_RT = left_NR.T @ target_NT
    # A difference of squares would be dominated by rounding where the features explain everything.
    outside_T = ((target_NT - left_NR @ inside_RT) ** 2).sum(axis=0)
    fit = _Regression(len(target_NT), variance_R[:, None], inside_RT**2, outside_T)
    penalty_T = fit.start()
    for _ in range(MAX_ITERATIONS):
        before_T, penalty_T = penalty_T, fit.step(penalty_T)
        converged_T = np.abs(penalty_T - before_T) <= TOLERANCE * before_T
        if converged_T.all():
            break
    return Evidence(fit.evidence(penalty_T) / len(target_NT), converged_T)


class _Regression(NamedTuple):
    """Targets in the basis of the features; m are the weights at penalty t.

    Shapes: variance (R, 1), squared components of the targets inside (R, T) and outside (T,) the
    span of the features; penalties (T,).
    """

    n: int
    variance: np.ndarray
    inside: np.ndarray
    outside: np.ndarray

    def errors(self, penalty_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(|Fm - y|^2, |m|^2). Shapes: (T,) both."""
        total_RT = self.variance + penalty_T
        error_T = self.outside + (self.inside * (penalty_T / total_RT) ** 2).sum(axis=0)
        return error_T, (self.inside * self.variance / total_RT**2).sum(axis=0)

    def start(self) -> np.ndarray:
        """The best penalty of a grid from negligible to complete shrinkage.

        From t = 1, as published, the result of 11 steps depends on the scale of the features: for
        200 images in 512 dimensions it was 0.22 nats too low, from here 0.000003.
        Shapes: returns (T,).
        """
        if not len(self.variance):
            return np.ones_like(self.outside)
        ends = self.variance.min() / GRID_MARGIN, self.variance.max() * GRID_MARGIN
        grid_G = np.geomspace(*ends, GRID_SIZE)
        evidence_GT = np.stack([self.evidence(np.full_like(self.outside, t)) for t in grid_G])
        best_T: np.ndarray = grid_G[evidence_GT.argmax(axis=0)]
        return best_T

    def step(self, penalty_T: np.ndarray) -> np.ndarray:
        """The next t = a / b: a = g / |m|^2, b = (N - g) / |Fm - y|^2, g effective parameters."""
        if not len(self.variance):
            return penalty_T
        error_T, weight_T = self.errors(penalty_T)
        free_RT = penalty_T / (self.variance + penalty_T)
        free_T = self.n - len(self.variance) + free_RT.sum(axis=0)
        # Beyond these limits the evidence is that of pure noise, or of no noise.
        low, high = EPS * self.variance.min(), self.variance.max() / EPS
        next_T = np.full_like(penalty_T, high)
        bottom_T = free_T * weight_T
        np.divide((1 - free_RT).sum(axis=0) * error_T, bottom_T, out=next_T, where=bottom_T > 0)
        np.clip(next_T, low, high, out=next_T)
        return next_T

    def evidence(self, penalty_T: np.ndarray) -> np.ndarray:
        """The log of p(y | F) at penalty t and the optimal noise. Shapes: (T,)."""
        error_T, weight_T = self.errors(penalty_T)
        noise_T = (error_T + penalty_T * weight_T) / self.n
        shrunk_T = np.log1p(self.variance / penalty_T).sum(axis=0)
        evidence_T: np.ndarray = -0.5 * (self.n * (np.log(2 * np.pi * noise_T) + 1) + shrunk_T)
        return evidence_T


def _spectrum(features_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The left singular vectors and squared singular values above rounding.

    Shapes: (N, R) and (R,).
    """
    from scipy.linalg import svd  # slow to import

    left_NR, singular_R, _ = svd(features_ND, full_matrices=False)
    nonzero = singular_R > singular_R.max(initial=0.0) * max(features_ND.shape) * EPS
    return left_NR[:, nonzero], singular_R[nonzero] ** 2


def nearest_classes(
    features: np.ndarray, labels: np.ndarray, others: np.ndarray, counts: Sequence[int]
) -> np.ndarray:
    """Predictions of k nearest neighbours by cosine similarity, for each k of ``counts``.

    Of classes with equally many neighbours, the one with the nearer neighbours.
    Shapes: features (N, D) with labels (N,), others (M, D); returns (len(counts), M) labels.
    """
    if not counts:
        return np.empty((0, len(others)), labels.dtype)
    classes, class_N = np.unique(labels, return_inverse=True)
    unit_ND, unit_MD = _unit_rows(features), _unit_rows(others)
    winners = [
        _vote(unit_MD[start : start + BLOCK] @ unit_ND.T, class_N, counts)
        for start in range(0, len(unit_MD), BLOCK)
    ]
    predictions: np.ndarray = classes[np.concatenate(winners, axis=1)]
    return predictions


def _vote(similarity_MN: np.ndarray, class_N: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Shapes: returns (len(counts), M)."""
    near_Mk = np.argsort(-similarity_MN, axis=1, kind="stable")[:, : max(counts)]
    similarity_Mk = np.take_along_axis(similarity_MN, near_Mk, axis=1)
    rows = np.arange(len(near_Mk))[:, None]
    winners = []
    for k in counts:
        votes_MK = np.zeros((len(near_Mk), class_N.max() + 1))
        # Similarities of k neighbours sum to [-k, k]: scaled like this, they only break ties.
        weight_Mk = 1 + similarity_Mk[:, :k] / (2 * k + 1)
        np.add.at(votes_MK, (rows, class_N[near_Mk[:, :k]]), weight_Mk)
        winners.append(votes_MK.argmax(axis=1))
    return np.stack(winners)


def _unit_rows(features: np.ndarray) -> np.ndarray:
    values = np.asarray(features, dtype=np.float64)
    return ratio(values, np.linalg.norm(values, axis=1, keepdims=True), undefined=0)


# --- against the truth ------------------------------------------------------------------------

Replicated: TypeAlias = Mapping[int, float]
"""A value for each replicate."""

SamplingUnit: TypeAlias = Literal["replicates", "networks"]


def correlate(
    scores: Measurements, truth: Measurements, *, over: SamplingUnit = "replicates"
) -> dict[str, Interval]:
    """``correlations`` of a score with a metric of the same networks after fine-tuning.

    Both hold one value per replicate and network. ``scores``: of a diagnostic of pairs (a trial,
    its source), identified by the trial. Networks without either are left out.
    """
    score_of, truth_of = scores.by_network(), truth.by_network()
    networks = sorted(score_of.keys() & truth_of.keys())
    return correlations([score_of[n] for n in networks], [truth_of[n] for n in networks], over=over)


def correlations(
    scores: Sequence[Replicated],
    truth: Sequence[Replicated],
    *,
    over: SamplingUnit = "replicates",
    level: float = 0.95,
) -> dict[str, Interval]:
    """``CORRELATIONS`` over networks between mean scores and mean metrics after fine-tuning.

    ``scores[i]`` and ``truth[i]`` are of network i; only replicates that all networks have are
    used. Weighted tau gives more weight to exchanges among the best networks. ``over``: the
    sampling unit, the replicates of fixed networks (a grid of checkpoints) or the networks (a zoo
    of backbones); ``n`` counts its units.
    Error: jackknife over the units, clipped to [-1, 1]. Tau is coarse: where leaving out any unit
    changes nothing, the interval has width 0, which means a stable order, not a certain one.
    Source: Kendall 1938; Vigna 2015, doi:10.1145/2736277.2741088, for the weighted tau.
    Raises: ``ValueError`` where scores and truth have different numbers of networks.
    """
    pairs = list(zip(scores, truth, strict=True))
    sides = [set(side) for pair in pairs for side in pair]
    common = sorted(set.intersection(*sides)) if sides else []
    values_PR2 = np.array([[(s[k], t[k]) for k in common] for s, t in pairs])
    values_PR2 = values_PR2.reshape(len(pairs), len(common), 2)
    axis = 1 if over == "replicates" else 0

    def estimator(name: str) -> Callable[[Sequence[int]], float | None]:
        return lambda subset: _correlation(name, values_PR2.take(subset, axis=axis))

    units = range(values_PR2.shape[axis])
    return {name: _clipped(jackknife(estimator(name), units, level)) for name in CORRELATIONS}


def _correlation(name: str, values_PR2: np.ndarray) -> float | None:
    """None for fewer than three networks, and where scores or truth are constant."""
    from scipy import stats  # slow to import

    if len(values_PR2) < 3 or not values_PR2.shape[1]:
        return None
    score_P, truth_P = values_PR2.mean(axis=1).T
    if not np.ptp(score_P) or not np.ptp(truth_P):
        return None
    if name == "pearson":
        return float(np.corrcoef(score_P, truth_P)[0, 1])
    tau = stats.kendalltau if name == "kendall" else stats.weightedtau
    return float(tau(score_P, truth_P).statistic)


def _clipped(interval: Interval) -> Interval:
    if interval.low is None or interval.high is None:
        return interval
    return interval._replace(low=max(interval.low, -1.0), high=min(interval.high, 1.0))
