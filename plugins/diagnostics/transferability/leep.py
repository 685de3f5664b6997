"""LEEP: how well source classes predict the target's classes; with it NCE and NLEEP.

The source classes are those of the source's head, as probabilities (LEEP) or as predicted (NCE),
or the Gaussians of a mixture of its features (NLEEP).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from transferbench.analysis.transferability import leep, nce
from transferbench.records import Measurement
from transferbench.specs import (
    DiagnosticContext,
    DiagnosticSpec,
    NoParams,
    Params,
    ReportPart,
    Subject,
)
from transferbench_plugins.diagnostics._measurement import join_flags
from transferbench_plugins.diagnostics.transferability._source_outputs import (
    SourceOutputs,
    score_measurements,
)

__all__ = ["LEEP", "NCE", "NLEEP", "NleepParams"]

BOTH = ("target", "source")
"""The tasks whose classes must exclude each other."""

MIN_IMAGES = 2
"""Per Gaussian of NLEEP. With one image per Gaussian the score is 0 for any source."""


class NleepParams(Params):
    """``energy``: the share of the features' variance explained by the principal components.

    ``per_class``: Gaussians of the mixture for each class of the target.
    """

    energy: Annotated[float, Field(gt=0, lt=1)] = 0.8
    per_class: Annotated[int, Field(ge=1, le=1000)] = 5


def _measure_leep(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """LEEP of b's head on a's training images; larger is better. Units: nats.

    Error: for this source network; the upper bound is of the score, the lower of that with a table
    of the other images, since the score of a sample is too high.
    """
    del params  # without parameters
    return score_measurements(subjects, context, {"leep": "nats"}, _leep_score, exclusive=BOTH)


def _leep_score(train: SourceOutputs) -> Iterator[Measurement]:
    from scipy.special import softmax  # slow to import

    interval = leep(softmax(train.logits, axis=1), train.labels, classes=train.classes)
    yield train.measurement("leep", interval, "nats", train.missing_classes)


def _measure_nce(
    params: NoParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """NCE of b's predictions on a's training images; larger is better. Units: nats.

    Error: for this source network; the upper bound is of the score, the lower of that with a table
    of the other images, since the score of a sample is too high.
    """
    del params  # without parameters
    return score_measurements(subjects, context, {"nce": "nats"}, _nce_score, exclusive=BOTH)


def _nce_score(train: SourceOutputs) -> Iterator[Measurement]:
    interval = nce(train.logits.argmax(axis=1), train.labels, classes=train.classes)
    yield train.measurement("nce", interval, "nats", train.missing_classes)


def _measure_nleep(
    params: NleepParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """NLEEP of b's features on a's training images; larger is better. Units: nats.

    Undefined with fewer than ``MIN_IMAGES`` images per Gaussian.
    Error: none. The score describes these images: mixture and table are fitted to them, and what
    the mixture gains by that is not known.
    """
    return score_measurements(
        subjects, context, {"nleep": "nats"}, partial(_nleep_score, params, context.seed)
    )


def _nleep_score(params: NleepParams, seed: int, train: SourceOutputs) -> Iterator[Measurement]:
    n, gaussians = len(train.labels), params.per_class * len(np.unique(train.labels))
    value = None
    if not np.ptp(train.features, axis=0).any():
        flag: str | None = "the features do not vary"
    elif n < MIN_IMAGES * gaussians:
        flag = (
            f"{gaussians} Gaussians for {n} images: with fewer than {MIN_IMAGES} images each, a "
            "Gaussian tells its images by heart"
        )
    else:
        posterior_NG, flag = _mixture(params.energy, gaussians, seed, train.features)
        value = leep(posterior_NG, train.labels).value
    yield train.measurement("nleep", value, "nats", flag, train.missing_classes)


def _mixture(
    energy: float, gaussians: int, seed: int, features: np.ndarray
) -> tuple[np.ndarray, str | None]:
    """The posterior of each Gaussian for each image, and the flag of the mixture, or None."""
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    principal = PCA(n_components=energy, svd_solver="full").fit_transform(features)
    mixture = GaussianMixture(gaussians, random_state=seed)
    with warnings.catch_warnings():
        # Flagged below instead: duplicate images in k-means, and too few iterations.
        warnings.simplefilter("ignore", ConvergenceWarning)
        posterior_NG = mixture.fit(principal).predict_proba(principal)
    n, size = principal.shape
    few = n < gaussians * (size + 1)
    return posterior_NG, join_flags(
        f"{gaussians} Gaussians of {size} dimensions for {n} images" if few else None,
        None if mixture.converged_ else "the mixture did not converge",
    )


LEEP = DiagnosticSpec(
    name="leep",
    version=1,
    summary="Log expected empirical prediction of the target's classes from the source's",
    source="Nguyen, Hassner, Seeger, Archambeau, ICML 2020, arXiv 2002.12462",
    license="Apache-2.0",
    measure=_measure_leep,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"leep"}),
    ranges={"leep": (-math.inf, 0)},
    needs=frozenset({"init_state", "trajectory", "history", "logits", "images"}),
    needs_of_source="head",
    cost=lambda params: 1.0,
    report=ReportPart(build=f"{__package__}._scores_report:scores", metrics=frozenset({"leep"})),
)

NCE = DiagnosticSpec(
    name="nce",
    version=1,
    summary="Negative conditional entropy of the target's classes given the source's",
    source="Tran, Nguyen, Hassner, ICCV 2019, arXiv 1908.08142",
    license="Apache-2.0",
    measure=_measure_nce,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"nce"}),
    ranges={"nce": (-math.inf, 0)},
    needs=frozenset({"init_state", "trajectory", "history", "logits", "images"}),
    needs_of_source="head",
    cost=lambda params: 1.0,
    report=ReportPart(build=f"{__package__}._scores_report:scores", metrics=frozenset({"nce"})),
)

NLEEP = DiagnosticSpec(
    name="nleep",
    version=2,
    summary="LEEP on a Gaussian mixture of the source's principal components",
    source="Li et al., Ranking Neural Checkpoints, CVPR 2021, arXiv 2011.11200",
    license="Apache-2.0",
    params=NleepParams,
    tiny={"per_class": 1},
    measure=_measure_nleep,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({"nleep"}),
    ranges={"nleep": (-math.inf, 0)},
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    needs_of_source="state",
    cost=lambda params: 1.0,
    report=ReportPart(build=f"{__package__}._scores_report:scores", metrics=frozenset({"nleep"})),
)
