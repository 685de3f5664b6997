"""Transferability scores of features and source outputs, and their correlation with the truth.

All in float64, on arrays.

Rejected: tllib.ranking, which has LEEP, NCE, H-score and LogME without intervals.

Shape letters: N images, M other images, D features, R their rank, Z source classes, K target
classes that occur, T targets, P networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from transferbench.analysis.evidence import spectrum
from transferbench.measurements import Measurements
from transferbench.metrics import ratio
from transferbench.statistics import (
    Interval,
    Range,
    Summand,
    concordance,
    exact_share,
    mean_of_replicates,
    student_t,
)
from transferbench.statistics.intervals import method_name, wilson_bounds

__all__ = [
    "CORRELATIONS",
    "HScore",
    "correlate",
    "correlations",
    "h_score",
    "leep",
    "nce",
    "nearest_classes",
]

CORRELATIONS = ("kendall", "weighted-kendall", "pearson")
"""The correlation coefficients, in the order of a report."""

DESCRIPTIVE = "describes the sample: no interval is known that holds"
"""Why a weighted tau has no bounds."""
LOWERED = "the spread of replicates lowers it: no interval is known that holds"
"""Why Pearson's correlation of fixed networks has no bounds."""

BLOCK = 1024
"""Number of images whose similarities to all others are in memory at a time."""

FEW_ERRORS = 50
"""Number of errors of a source in a sample up to which the jackknife of its score is too narrow
where the score is skewed (two classes, one with 90% of the images)."""

EPS = float(np.finfo(np.float64).eps)


# --- from the outputs of a source head --------------------------------------------------------


def leep(
    probabilities: np.ndarray,
    labels: np.ndarray,
    level: float = 0.95,
    classes: int | None = None,
) -> Interval:
    """LEEP: the mean log-likelihood of the labels under a joint table of source and target class.

    With P(y, z) the mean of the source's probabilities over images of target class y:
    mean over n of log sum_z P(y_n | z) p(z | x_n). 0 where the source separates the classes.

    ``classes``: of the task, where some may have no image here; without it those that occur.
    Shapes: (N, Z) and (N,). Units: nats.
    Error: for the score of all images of the task. The score of a sample is too high, as its table
    is fitted to the labels that it predicts; with a table of the other images it is too low. The
    upper bound is that of the first, the lower bound that of the second, each by the infinitesimal
    jackknife over the images, including their effect on the table. Of a source that hardly errs a
    sample has few errors or none, which no jackknife can see beyond: there the lower bound is at
    most ``_least_for_errors``. An interval around the score covers 0 to 6% for 50 images and 10
    classes; this one about 95% and more (``make coverage``), without the bound for few errors 23%
    to 94% of scores of -0.03 to -0.2 of 2 classes and 50 images. Without ``classes`` it covers 52%
    to 90% where most classes of a task have no image in the sample and the source knows none of
    them.
    Source: Nguyen et al. 2020, arXiv 2002.12462, Equations 1 and 2.
    """
    source_NZ = np.asarray(probabilities, dtype=np.float64)
    _, class_N = np.unique(labels, return_inverse=True)
    log_N, pseudo_N = _influences(source_NZ, class_N)
    value, n, method = float(log_N.mean()), len(log_N), method_name("leave-one-out", level)
    own = student_t(pseudo_N.tolist(), level)
    if own.high is None or not class_N.any():
        return Interval(value, None, None, n, method, own.reason or "all images are of one class")
    others_N = _leave_one_out(source_NZ, class_N)
    left_out = student_t(others_N.tolist(), level)
    error = own.high - (own.value or 0.0)
    low = float(others_N.mean()) - max(error, (left_out.high or 0.0) - (left_out.value or 0.0))
    # The table of the other images may by chance be the better one.
    low = min(low, value - error, _least_for_errors(source_NZ, class_N, level, classes))
    return Interval(value, low, min(value + error, 0.0), n, method)


def _least_for_errors(
    source_NZ: np.ndarray, class_N: np.ndarray, level: float, of_task: int | None
) -> float:
    """The least score that a source with at most ``FEW_ERRORS`` can have; 0 of one with more.

    An error: the target class that the source class drawn from the source's probabilities has most
    often among the other images is not the image's; counted in expectation over that draw. Of a
    source whose share of errors is e the score is at least -h(e) - e log(K - 1), h the entropy of a
    binary variable: that is Fano's inequality for NCE of the drawn class, and LEEP is never below
    (Jensen). e is the upper bound of the share's exact interval, and K counts the classes of the
    task: errors may be on classes without an image in the sample.
    Source: Fano 1961; Cover and Thomas 2006, Elements of Information Theory, Section 2.10.
    """
    joint_KZ = _class_sums(source_NZ, class_N)
    classes, n = max(len(joint_KZ), of_task or 0), len(class_N)
    second_Z, first_Z = np.sort(joint_KZ, axis=0)[-2:]
    most_of_others_KZ = np.where(joint_KZ == first_Z, second_Z, first_Z)
    error_NZ = joint_KZ[class_N] - source_NZ <= most_of_others_KZ[class_N]
    errors = float((source_NZ * error_NZ).sum())
    if errors > FEW_ERRORS:
        return 0.0
    share = min(exact_share(errors, n, level).high or 0.0, 1 - 1 / classes)
    entropy = -share * math.log(share) - (1 - share) * math.log1p(-share)
    return -entropy - share * math.log(classes - 1)


def _influences(source_NZ: np.ndarray, class_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log-likelihood of each image, and the pseudo-values of their mean. Shapes: (N,) both."""
    joint_KZ = _class_sums(source_NZ, class_N) / len(class_N)
    source_Z = joint_KZ.sum(axis=0)
    # A source class without probability on any image adds nothing to the likelihood.
    conditional_KZ = ratio(joint_KZ, source_Z, undefined=0)
    likelihood_N = np.einsum("nz,nz->n", source_NZ, conditional_KZ[class_N])
    # The derivatives of the score by P(y | z), then by P(y, z).
    by_conditional_KZ = _class_sums(source_NZ / likelihood_N[:, None], class_N) / len(class_N)
    by_joint_KZ = ratio(
        by_conditional_KZ - (by_conditional_KZ * conditional_KZ).sum(axis=0), source_Z, undefined=0
    )
    log_N = np.log(likelihood_N)
    return log_N, log_N + np.einsum("nz,nz->n", source_NZ, by_joint_KZ[class_N])


def _leave_one_out(source_NZ: np.ndarray, class_N: np.ndarray) -> np.ndarray:
    """The log-likelihood of each image under the table of the others. Shapes: (N,).

    Each source class has one image more, divided equally among the target classes, so that no
    label is impossible.
    """
    joint_KZ = _class_sums(source_NZ, class_N)
    own_NZ = joint_KZ[class_N] - source_NZ + 1 / len(joint_KZ)
    conditional_NZ = own_NZ / (joint_KZ.sum(axis=0) - source_NZ + 1)
    log_N: np.ndarray = np.log(np.einsum("nz,nz->n", source_NZ, conditional_NZ))
    return log_N


def nce(
    source_classes: np.ndarray,
    labels: np.ndarray,
    level: float = 0.95,
    classes: int | None = None,
) -> Interval:
    """NCE: minus the conditional entropy of the labels given the source's predicted class.

    ``classes``, and error: as ``leep``, which it equals for one-hot probabilities.
    Shapes: (N,) both. Units: nats.
    Source: Tran, Nguyen, Hassner 2019, arXiv 1908.08142, Equation 4.
    """
    predicted, source_N = np.unique(source_classes, return_inverse=True)
    return leep(np.eye(len(predicted))[source_N], labels, level, classes)


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
    left_NR, variance_R = spectrum(centred_ND)
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
    return correlations(
        [score_of[n] for n in networks],
        [truth_of[n] for n in networks],
        over=over,
        ranges=(scores.bounds, truth.bounds),
    )


def correlations(
    scores: Sequence[Replicated],
    truth: Sequence[Replicated],
    *,
    over: SamplingUnit = "replicates",
    level: float = 0.95,
    ranges: tuple[Range | None, Range | None] = (None, None),
) -> dict[str, Interval]:
    """``CORRELATIONS`` over networks between mean scores and mean metrics after fine-tuning.

    ``scores[i]`` and ``truth[i]`` are of network i; only replicates that all networks have are
    used. Weighted tau gives more weight to exchanges among the best networks. ``over``: the
    sampling unit, the replicates of fixed networks (a grid of checkpoints) or the networks (a zoo
    of backbones); ``n`` counts its units. ``ranges``: the least and the largest value that a score
    and that a metric can have; one without may be as skewed as an exponential one.
    Error: Kendall's tau over replicates by ``concordance``; over networks Wilson's interval with
    the largest variance that tau can have, 2 (1 - tau^2) / P. Pearson's over networks by Fisher's
    z, 1 / sqrt(P - 3), for normal values; over replicates it has no interval: their spread lowers a
    correlation of means, by more than any error, and the jackknife of its z covers 50% to 99%.
    Weighted tau describes the sample and has no interval: a jackknife of it, as of tau, has no
    width where leaving out any unit changes no order.
    Source: Kendall 1938; Kendall 1970, Rank Correlation Methods, Section 5.9, for the variance;
    Fisher 1915; Vigna 2015, doi:10.1145/2736277.2741088, for the weighted tau.
    Raises: ``ValueError`` where scores and truth have different numbers of networks.
    """
    pairs = list(zip(scores, truth, strict=True))
    sides = [set(side) for pair in pairs for side in pair]
    common = sorted(set.intersection(*sides)) if sides else []
    values_PR2 = np.array([[(s[k], t[k]) for k in common] for s, t in pairs])
    values_PR2 = values_PR2.reshape(len(pairs), len(common), 2)
    n = values_PR2.shape[1 if over == "replicates" else 0]
    values = {name: _correlation(name, values_PR2) for name in CORRELATIONS}
    undefined = "not defined by these replicates"
    if None in values.values():
        return {name: Interval(None, None, None, n, "none", undefined) for name in CORRELATIONS}
    tau, correlation = values["kendall"] or 0.0, values["pearson"] or 0.0
    if over == "replicates":
        kendall = _tau_over_replicates(values_PR2, tau, level, ranges)
        pearson = Interval(correlation, None, None, n, "none", LOWERED)
    else:
        kendall, pearson = _over_networks(values_PR2, tau, correlation, level)
    weighted = Interval(values["weighted-kendall"], None, None, n, "none", DESCRIPTIVE)
    return {"kendall": kendall, "weighted-kendall": weighted, "pearson": pearson}


def _tau_over_replicates(
    values_PR2: np.ndarray,
    kendall: float,
    level: float,
    ranges: tuple[Range | None, Range | None],
) -> Interval:
    """Kendall's tau of fixed networks."""

    def effect_of(network: int, side: int) -> list[Summand]:
        values = dict(enumerate(values_PR2[network, :, side].tolist()))
        return [Summand(1.0, mean_of_replicates(values), ranges[side])]

    networks, replicates = range(len(values_PR2)), range(values_PR2.shape[1])
    of_score, of_truth = ([effect_of(network, side) for network in networks] for side in (0, 1))
    tau = concordance(of_score, of_truth, replicates, level)
    # Of equal values one tau counts half a pair, the other none.
    if tau.low is not None and tau.high is not None:
        tau = tau._replace(low=min(tau.low, kendall), high=max(tau.high, kendall))
    return tau._replace(value=kendall)


def _over_networks(
    values_PR2: np.ndarray, kendall: float, pearson: float, level: float
) -> tuple[Interval, Interval]:
    """Kendall's tau and Pearson's correlation, of a sample of networks."""
    from scipy.special import ndtri  # slow to import

    n = len(values_PR2)
    low, high = wilson_bounds((1 + kendall) / 2, n / 2, level)
    tau = Interval(kendall, 2 * low - 1, 2 * high - 1, n, method_name("wilson-tau", level))
    method = method_name("fisher-z", level)
    if n < 4:
        reason = f"an interval needs four or more networks, found {n}"
        return tau, Interval(pearson, None, None, n, method, reason)
    # Finite also for a perfect correlation.
    z, half = math.atanh(min(max(pearson, EPS - 1), 1 - EPS)), float(ndtri((1 + level) / 2))
    low, high = (math.tanh(z + sign * half / math.sqrt(n - 3)) for sign in (-1, 1))
    return tau, Interval(pearson, min(low, pearson), max(high, pearson), n, method)


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
