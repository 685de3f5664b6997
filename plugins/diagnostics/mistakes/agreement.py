"""Agreement of two networks: their common and uncommon mistakes, corrected for chance.

Source: Neyshabur et al. 2020, arXiv 2008.11687, Section 3.2, for common and uncommon mistakes;
Geirhos, Meding, Wichmann 2020, arXiv 2006.16736, for error consistency.

Shape letters: B resamples, C distinct rows of outcomes, L labels (1 for multi-class tasks),
N items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from transferbench.metrics import predict
from transferbench.records import Measurement
from transferbench.specs import (
    DiagnosticContext,
    DiagnosticSpec,
    Params,
    ReportPart,
    Subject,
    SubmittedTrial,
)
from transferbench.statistics import Interval, bootstrap, point_estimates
from transferbench_plugins.diagnostics._measurement import with_bounds
from transferbench_plugins.diagnostics._shared_labels import shared_labels
from transferbench_plugins.diagnostics.mistakes._outcome_intervals import outcome_intervals
from transferbench_plugins.diagnostics.mistakes._outcomes import (
    STATISTICS,
    append_label_mean,
    label_measurements,
    members_of,
    outcome_statistics,
    outcome_tables,
    pair_outcomes,
)
from transferbench_plugins.diagnostics.mistakes._reference_entropy import reference_entropy

__all__ = ["AGREEMENT", "AgreementParams"]


class AgreementParams(Params):
    """``resamples``: bootstrap resamples of the test items."""

    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = 1000


def measure(
    params: AgreementParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Common and uncommon mistakes, their overlap, and the ambiguity of the items.

    With M_a the items that a gets wrong: n_common = |M_a & M_b|, uncommon_a = |M_a - M_b|,
    error_jaccard = |M_a & M_b| / |M_a | M_b|, agreement = the share of equal predictions (also
    among M_a & M_b), kappa = (c_obs - c_exp) / (1 - c_exp), where c_obs is the share of items
    that both networks get right or both get wrong, c_exp that share under independent errors.
    Agreement rises with the accuracy of both networks; kappa does not.
    Multi-label: for each label at a probability of one half, then the mean over the labels for
    which a statistic is defined; two networks that are both wrong on a label always agree on it.
    Subjects after the pair are reference networks: see ``reference_entropy``.
    Error: over test items, exact for counts and shares, from exact ones for kappa; for a mean over
    labels, percentile bootstrap.
    """
    labels = shared_labels(subjects)
    a, b, *references = subjects
    predicted_a, predicted_b = (predict(net.logits, labels) for net in (a, b))
    outcomes_NL = pair_outcomes(predicted_a, predicted_b, labels)
    bootstrapped = partial(bootstrap, seed=context.seed, resamples=params.resamples)
    yield from _overlap(
        outcomes_NL, bootstrapped if labels.ndim == 2 else point_estimates, bounded=True
    )
    if references:
        yield from reference_entropy(
            [reference.logits for reference in references],
            outcomes_NL,
            exclusive=labels.ndim == 1,
            seed=context.seed,
            resamples=params.resamples,
        )


def recompute(params: AgreementParams, trials: Sequence[SubmittedTrial]) -> Iterator[Measurement]:
    """All but the ambiguity of the items, which depends on logits."""
    del params  # only intervals depend on it
    labels = shared_labels(trials)
    a, b = trials[:2]
    yield from _overlap(
        pair_outcomes(a.predicted, b.predicted, labels), point_estimates, bounded=False
    )


def _overlap(
    outcomes_NL: np.ndarray, estimate: Callable[..., Sequence[Interval]], *, bounded: bool
) -> Iterator[Measurement]:
    """``estimate``: ``bootstrap`` or ``point_estimates``; each label has intervals of its own."""
    # Items with equal outcomes are interchangeable: resampling their counts is much cheaper.
    outcomes_CL, counts = np.unique(outcomes_NL, axis=0, return_counts=True)

    def statistics(counts_BC: np.ndarray) -> np.ndarray:
        values_BLS = outcome_statistics(outcome_tables(counts_BC, outcomes_CL))
        return append_label_mean(values_BLS).reshape(len(counts_BC), -1)

    intervals = estimate(statistics, counts)
    if bounded:
        (tables_LT,) = outcome_tables(counts[None], outcomes_CL)
        intervals = with_bounds(intervals, outcome_intervals(tables_LT))
    yield from label_measurements(intervals, members_of(outcomes_NL, STATISTICS), STATISTICS)


AGREEMENT = DiagnosticSpec(
    name="agreement",
    version=1,
    summary="Common and uncommon mistakes, error consistency, and ambiguity of the mistakes",
    source="Neyshabur et al. 2020, arXiv 2008.11687, Section 3.2",
    license="Apache-2.0",
    params=AgreementParams,
    tiny={"resamples": 100},
    measure=measure,
    recompute=recompute,
    subjects="pair",
    unknown_labels=True,
    metrics=frozenset({*(s.metric for s in STATISTICS), "reference_entropy"}),
    ranges={
        "kappa": (-1, 1),
        "reference_entropy": (0, math.inf),
        **dict.fromkeys(("error_jaccard", "agreement", "agreement_given_both_wrong"), (0, 1)),
    },
    needs=frozenset({"logits"}),
    identical={
        "uncommon_a": 0,
        "uncommon_b": 0,
        "error_jaccard": 1,
        "agreement": 1,
        "agreement_given_both_wrong": 1,
        "kappa": 1,
    },
    symmetric=frozenset(
        {"n_common", "error_jaccard", "agreement", "agreement_given_both_wrong", "kappa"}
    ),
    report=ReportPart(
        build=f"{__package__}._agreement_report:mistakes",
        metrics=frozenset(
            {s.metric for s in STATISTICS} - {"agreement_given_both_wrong"} | {"reference_entropy"}
        ),
    ),
)
