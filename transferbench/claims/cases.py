"""What a claim is judged on: its samples, case by case, and the replicates that count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from transferbench.claims.terms import Sample, sample_of, select_term
from transferbench.measurements import Measurements
from transferbench.statistics import Estimator
from transferbench.suite import Axis, Claim, Suite, Term

__all__ = ["Case", "Draws", "cases_of", "draws_of", "effect_of"]

Sums: TypeAlias = Sequence[Sequence[Sample]]


class Case(NamedTuple):
    """The samples of a claim at one value of its ``each`` coordinate, or as a whole (None)."""

    at: str | None
    sums: Sums
    against: Sums = ()

    @property
    def samples(self) -> list[Sample]:
        return [sample for summands in (*self.sums, *self.against) for sample in summands]


def cases_of(suite: Suite, claim: Claim, own: Measurements) -> list[Case]:
    """One for each measured value of ``each``; without, the claim as a whole."""

    def sampled(sums: Iterable[Sequence[Term]]) -> Sums:
        return [[sample_of(suite, term, own) for term in terms] for terms in sums]

    if claim.order:
        return [Case(None, sampled(claim.order), sampled(claim.against))]
    if claim.along and (values := _values(claim.terms, claim.along, own)):
        return [Case(None, sampled(_placed(claim.terms, claim.along, value) for value in values))]
    both = claim.terms, claim.relative_to
    if claim.each and (values := _values(claim.terms, claim.each, own)):
        return [
            Case(str(value), sampled(_placed(terms, claim.each, value) for terms in both))
            for value in values
        ]
    return [Case(None, sampled(both))]


def _values(terms: Sequence[Term], axis: Axis, own: Measurements) -> list[Any]:
    """The values of ``axis`` at which the first term was measured, in that order."""
    groups = select_term(terms[0], own).groups(*axis.coordinates)
    values = dict.fromkeys(first for first, *rest in groups if {*rest} <= {first})
    return [value for value in values if value is not None and value not in axis.without]


def _placed(terms: Sequence[Term], axis: Axis, value: Any) -> list[Term]:
    point = dict.fromkeys(axis.coordinates, value)
    return [term.model_copy(update={"coordinates": term.coordinates | point}) for term in terms]


class Draws(NamedTuple):
    """The replicates that count, those lost, and the source networks that they start from.

    ``planned``: the replicates that every cell has in the suite.
    """

    replicates: Sequence[int]
    lost: Sequence[int]
    networks: int
    planned: int


def draws_of(samples: Sequence[Sample]) -> Draws:
    """The replicates of a claim with these samples."""
    planned = min(sample.planned for sample in samples)
    replicates = sorted(set.intersection(*(sample.complete() for sample in samples)))
    networks = max(sample.networks for sample in samples)
    return Draws(replicates, _lost(samples, replicates, planned), networks, planned)


def _lost(samples: Sequence[Sample], replicates: Sequence[int], planned: int) -> list[int]:
    """Replicates that were trained and have no value in some cell, of those that every cell has."""
    trained_M = np.concatenate([sample.rows.replicates.ravel() for sample in samples])
    trained = {int(k) for k in trained_M[~np.isnan(trained_M)]}
    return sorted(k for k in trained - set(replicates) if k < planned)


def effect_of(samples: Sequence[Sample]) -> Estimator:
    """The weighted sum of the means of samples; each set of replicates is computed once."""

    @cache
    def estimate(replicates: tuple[int, ...]) -> float | None:
        total = 0.0
        for sample in samples:
            mean = sample.mean(replicates)
            if mean is None:
                return None
            total += sample.weight * mean
        return total

    return lambda replicates: estimate(tuple(replicates))
