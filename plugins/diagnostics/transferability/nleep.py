"""NLEEP: LEEP with a Gaussian mixture of the features in the place of the source's head."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from transferbench.analysis.transferability import leep
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench.statistics import Interval
from transferbench_plugins.diagnostics._flags import join_flags
from transferbench_plugins.diagnostics.transferability._source_view import (
    Score,
    View,
    score_classes,
)

__all__ = ["NLEEP", "NleepParams"]


FEWEST = 2
"""Images for each Gaussian. With one, each image is its own: the score is 0 for every source."""


class NleepParams(Params):
    """``energy``: the share of the features' variance that the principal components keep.

    ``per_class``: Gaussians of the mixture for each class of the target.
    """

    energy: Annotated[float, Field(gt=0, lt=1)] = 0.8
    per_class: Annotated[int, Field(ge=1)] = 5


def measure(
    params: NleepParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """One number of b's features on a's training images; larger promises more. Units: nats.

    Error: infinitesimal jackknife over the training images, for this source network and mixture;
    what another mixture would give is not in it. No value for fewer than ``FEWEST`` images a
    Gaussian.
    """
    return score_classes(
        subjects, context, {"nleep": "nats"}, partial(_score, params, context.seed)
    )


def _score(params: NleepParams, seed: int, view: View) -> dict[str, Score]:
    if not np.ptp(view.features, axis=0).any():
        none = Interval(None, None, None, len(view.labels), "none", "the features do not vary")
        return {"nleep": Score(none)}
    n, gaussians = len(view.labels), params.per_class * len(np.unique(view.labels))
    if n < FEWEST * gaussians:
        why = (
            f"{gaussians} Gaussians for {n} images: with fewer than {FEWEST} images each, a "
            "Gaussian tells its images by heart"
        )
        return {"nleep": Score(Interval(None, None, None, n, "none", why))}
    posterior_NG, flag = _mixture(params.energy, gaussians, seed, view)
    return {"nleep": Score(leep(posterior_NG, view.labels), flag)}


def _mixture(energy: float, gaussians: int, seed: int, view: View) -> tuple[np.ndarray, str | None]:
    """The probability of each Gaussian for each image, and what to flag about the mixture."""
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    n = len(view.labels)
    principal = PCA(n_components=energy, svd_solver="full").fit_transform(view.features)
    mixture = GaussianMixture(gaussians, random_state=seed)
    with warnings.catch_warnings():
        # What it warns of is flagged below: k-means on repeated images, and too few steps.
        warnings.simplefilter("ignore", ConvergenceWarning)
        posterior_NG = mixture.fit(principal).predict_proba(principal)
    few = n < gaussians * (principal.shape[1] + 1)
    return posterior_NG, join_flags(
        f"{gaussians} Gaussians of {principal.shape[1]} dimensions for {n} images" if few else None,
        None if mixture.converged_ else "the mixture did not converge",
    )


NLEEP = DiagnosticSpec(
    name="nleep",
    version=2,
    summary="LEEP on a Gaussian mixture of the source's principal components",
    source="Li et al., Ranking Neural Checkpoints, CVPR 2021, arXiv 2011.11200",
    license="Apache-2.0",
    params=NleepParams,
    tiny={"per_class": 1},
    measure=measure,
    subjects="pair",
    needs=frozenset({"init_state", "trajectory", "history", "logits", "features", "images"}),
    cost=lambda params: 1.0,
)
