"""Samples of test images and of source networks: metrics of small data, scores, correlations."""

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import logsumexp, softmax
from simulated import Simulation
from sum_simulations import ANY

from transferbench.analysis.metric_intervals import metric_interval
from transferbench.analysis.transferability import correlations, leep, nce
from transferbench.statistics import Interval, mean_of_shares

__all__ = [
    "correlations_of_scores",
    "metrics_of_classes",
    "metrics_of_labels",
    "scores_of_unseen_classes",
    "scores_with_few_errors",
    "shares_of_classes",
    "transferability_scores",
]

UNBALANCED = {"25 and 25": (25, 25), "45 and 5": (45, 5), "10, 10 and 10": (10, 10, 10),
              "45, 12 and 3": (45, 12, 3)}  # fmt: skip
"""Items of each class."""
SIGNALS = {0.0: "no signal", 3.0: "strong signal"}


def metrics_of_classes() -> Iterator[Simulation]:
    """Balanced accuracies and macro AUCs of a few items of classes of unequal size.

    The logits are normal, that of the true class is higher by the signal.
    """
    for setting, sizes in UNBALANCED.items():
        labels, classes = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
        for signal, name in SIGNALS.items():
            shift = signal * np.eye(classes)[labels]
            for metric in ("balanced-accuracy", "macro-auc"):

                def draw(rng: np.random.Generator, metric: Any = metric, labels: Any = labels,
                         shift: Any = shift) -> Interval:  # fmt: skip
                    interval = metric_interval(metric, rng.normal(size=shift.shape) + shift, labels)
                    assert interval is not None
                    return interval

                yield Simulation(metric, f"{setting} items, {name}", len(labels), draw,
                                 _true_metric(metric, classes, signal), fewer=2)  # fmt: skip


@cache
def _true_metric(metric: str, classes: int, signal: float) -> float:
    """Of normal logits: P(the true class has the largest), by quadrature over its logit; or the
    area under the curve of a class against the rest, from a large sample.
    """
    if metric == "balanced-accuracy":
        x, width = np.linspace(-9, 9, 4001, retstep=True)
        below = stats.norm.cdf(x) ** (classes - 1)
        return float((stats.norm.pdf(x - signal) * below).sum() * width)
    rng, n = np.random.default_rng(0), 100_000
    scores = []
    for true_class in (0, 1):
        logits = rng.normal(size=(n, classes)) + signal * np.eye(classes)[true_class]
        scores.append(logits[:, 0] - logsumexp(logits[:, 1:], axis=1))
    return float(np.searchsorted(np.sort(scores[1]), scores[0]).mean() / n)


def metrics_of_labels() -> Iterator[Simulation]:
    """The mean AUC of several labels of an image that say nearly the same, or are independent."""
    for labels, positive, n, area in ((14, 5, 50, 0.9), (14, 5, 300, 0.7), (5, 30, 300, 0.99)):
        for words, correlation in (("alike", 0.95), ("independent", 0.0)):

            def draw(rng: np.random.Generator, shape: Any = (n, labels), positive: int = positive,
                     area: float = area, correlation: float = correlation) -> Interval:  # fmt: skip
                own = np.arange(shape[0])[:, None] < np.full(shape, positive)
                own = own if correlation else rng.permuted(own, axis=0)
                noise = np.sqrt(correlation) * rng.normal(size=(shape[0], 1))
                noise = noise + np.sqrt(1 - correlation) * rng.normal(size=shape)
                logits = noise + np.sqrt(2) * stats.norm.ppf(area) * own
                interval = metric_interval("auc", logits, own.astype(float))
                assert interval is not None
                return interval

            setting = f"AUC {area:g} of {labels} labels, {words}, {positive} of {n} items each"
            yield Simulation("auc", setting, n, draw, area, fewer=4)


CLASSES = {
    "10 classes of 20": ((20,) * 10, (0.98,) * 10),
    "90 classes of 10": ((10,) * 90, (0.99,) * 90),
    "30 classes of 2": ((2,) * 30, (0.8,) * 30),
    "30 classes of 2, half of them harder": ((2,) * 30, (0.99,) * 15 + (0.6,) * 15),
    "5 classes of 150 and 5 harder ones of 4": ((150,) * 5 + (4,) * 5, (1.0,) * 5 + (0.95,) * 5),
    "45, 12 and 3, the last harder": ((45, 12, 3), (1.0, 1.0, 0.5)),
}
"""Items and shares of the classes."""


def shares_of_classes() -> Iterator[Simulation]:
    """Balanced accuracies of many classes, near 1 too, and of some that are harder."""
    for setting, (sizes, shares) in CLASSES.items():

        def draw(rng: np.random.Generator, sizes: Any = sizes, shares: Any = shares) -> Interval:
            return mean_of_shares(rng.binomial(sizes, shares), np.array(sizes))

        truth = float(np.mean(shares))
        yield Simulation("balanced-accuracy", f"{setting}, mean {truth:g}", sum(sizes), draw, truth,
                         fewer=2)  # fmt: skip


def transferability_scores() -> Iterator[Simulation]:
    """LEEP and NCE of N images, against the score of a hundred thousand."""
    for signal, name in ((1.0, "weak source"), (3.0, "strong source")):
        for classes, outputs in ((3, 3), (10, 26)):
            for score in (leep, nce):
                truth = _true_score(score, classes, outputs, signal)
                for n in (50, 200):

                    def draw(rng: np.random.Generator, n: int = n, score: Any = score,
                             task: Any = (classes, outputs, signal)) -> Interval:  # fmt: skip
                        return score(*_source(score, rng, n, *task))

                    setting = f"{classes} classes from {outputs} outputs of a {name}"
                    yield Simulation(score.__name__, setting, n, draw, truth, fewer=2)


def _source(score: Any, rng: np.random.Generator, n: int, classes: int, outputs: int,
            signal: float) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """What ``score`` takes: probabilities or predicted classes of a source, and labels."""
    labels = rng.integers(0, classes, n)
    logits = 1.5 * rng.normal(size=(n, outputs)) + signal * np.eye(classes, outputs)[labels]
    return softmax(logits, axis=1) if score is leep else logits.argmax(axis=1), labels


RARE_ERRORS = {
    "2 classes, 1.6% errors": ((0.5, 0.5), 0.016),
    "2 classes, 5% errors": ((0.5, 0.5), 0.05),
    "classes of 90% and 10%, 1% errors": ((0.9, 0.1), 0.01),
    "classes of 90% and 10%, 5% errors": ((0.9, 0.1), 0.05),
    "10 classes, 5% errors": ((0.1,) * 10, 0.05),
}
"""Shares of the classes, and of images whose class another one is drawn for."""


def scores_with_few_errors() -> Iterator[Simulation]:
    """NCE of a source that hardly errs, and LEEP of one that gives its class 99%."""
    for setting, task in RARE_ERRORS.items():
        for score in (nce, leep):
            truth = score(*_rarely_wrong(score, np.random.default_rng(0), 100_000, *task)).value
            for n in (50, 200, 500):

                def draw(rng: np.random.Generator, n: int = n, score: Any = score,
                         task: Any = task) -> Interval:  # fmt: skip
                    return score(*_rarely_wrong(score, rng, n, *task))

                # A sample of one class has no interval.
                yield Simulation(score.__name__, setting, n, draw, float(truth), fewer=2,
                                 bounded=1 - sum(share**n for share in task[0]))  # fmt: skip


def scores_of_unseen_classes() -> Iterator[Simulation]:
    """NCE of a source that takes all of 200 rare classes for one of two: few of them are seen."""
    rare = np.full(200, 0.02 / 200)
    share_K = np.array([0.5, 0.48, *rare])
    # Half of the images are of the other source class, which has a class of its own.
    truth = float((share_K[1:] * np.log(share_K[1:] / 0.5)).sum())
    for n in (100, 200, 500):

        def draw(rng: np.random.Generator, n: int = n) -> Interval:
            labels = rng.choice(len(share_K), n, p=share_K)
            return nce(labels > 0, labels, classes=len(share_K))

        yield Simulation("nce", "2 classes and 200 rare ones of 2%", n, draw, truth, fewer=4)


def _rarely_wrong(score: Any, rng: np.random.Generator, n: int, shares: tuple[float, ...],
                  errors: float) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """What ``score`` takes of a source that names the class, but for a share of errors."""
    classes = len(shares)
    labels = rng.choice(classes, n, p=shares)
    others = (labels + rng.integers(1, classes, n)) % classes
    predicted = np.where(rng.random(n) < errors, others, labels)
    sure = np.where(np.eye(classes)[predicted] == 1, 0.99, 0.01 / (classes - 1))
    return (sure if score is leep else predicted), labels


@cache
def _true_score(score: Any, classes: int, outputs: int, signal: float) -> float:
    values = score(*_source(score, np.random.default_rng(0), 100_000, classes, outputs, signal))
    return float(values.value)


def correlations_of_scores() -> Iterator[Simulation]:
    """Scores against fine-tuned metrics: of fixed networks over replicates, and of networks."""
    levels = {
        "rising": (np.arange(5.0), np.array([0, 2.5, 2, 4.5, 4])),
        "without relation": (np.array([0.0, 2, 1, 1, 2]), np.array([1.0, 0, 2, 2, 1])),
        "the same order, far apart": (8 * np.arange(5.0), 8 * np.arange(5.0)),
    }
    for setting, (scores, truth) in levels.items():
        # Equal levels are neither concordant nor discordant.
        signs = [np.sign(np.subtract.outer(side, side)) for side in (scores, truth)]
        tau = float((signs[0] * signs[1]).sum() / (5 * 4))
        for n, ends in product((3, 5, 10), (ANY, None)):

            def fixed(
                rng: np.random.Generator, n: int = n, sides: Any = (scores, truth), ends: Any = ends
            ) -> Interval:
                pair = (side[:, None] + rng.normal(size=(5, n)) for side in sides)
                return _correlated(*pair, ranges=(ends, ends))["kendall"]

            text = f"tau of 5 fixed networks, {setting}{'' if ends else ', no range'}"
            yield Simulation("pairs", text, n, fixed, tau, 0.0, fewer=4)
    for rho in (0.0, 0.9):
        for n in (5, 10, 20):
            for name, truth in (("pearson", rho), ("kendall", 2 / np.pi * np.arcsin(rho))):

                def sampled(rng: np.random.Generator, n: int = n, rho: float = rho,
                            name: str = name) -> Interval:  # fmt: skip
                    x = rng.normal(size=(n, 1))
                    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(n, 1))
                    return _correlated(x, y, over="networks")[name]

                kind = "fisher-z" if name == "pearson" else "wilson-tau"
                yield Simulation(kind, f"normal networks, correlation {rho:g}", n, sampled,
                                 float(truth))  # fmt: skip


def _correlated(scores: np.ndarray, truth: np.ndarray, **options: Any) -> dict[str, Interval]:
    sides = [[dict(enumerate(network)) for network in side.tolist()] for side in (scores, truth)]
    return correlations(*sides, **options)
