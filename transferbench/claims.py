"""The verdicts: what a suite claims, judged by what was measured.

An effect is an average of averages: over the coordinates of a measurement, over the places
(target, perturbation) of a term, then a weighted sum. Its interval is the jackknife over
replicates: the paired Student-t where every value belongs to one network, and still right for
pairs that share networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from transferbench.records import Record
from transferbench.statistics import Estimator, Interval, jackknife, jackknife_ratio
from transferbench.suite import Claim, Grid, Suite, Term

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Verdict", "judge"]

# So many missing measurements are named in a reason; the rest are counted.
NAMED = 3


class Verdict(BaseModel):
    """What became of a claim: its effect between two bounds, from ``n`` replicates.

    ``reason`` says why a claim is undecided and what is to know about its measurements.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str
    statement: str
    source: str
    control: bool
    effect: float | None
    unit: str
    low: float | None
    high: float | None
    n: int
    interval: str
    threshold: float
    relation: Literal["above", "below", "within"]
    verdict: Literal["reproduced", "contradicted", "undecided"]
    reason: str


def judge(suite: Suite, frame: pd.DataFrame, entry: str) -> list[Verdict]:
    """A verdict on each claim of ``suite``, in its order, for one entry.

    ``frame`` holds ``Record.row()`` of one run, a column for each coordinate. Only replicates
    with a value at every place of every term count, so that nothing but the claim's own contrast
    tells its terms apart. A rank correlation that every replicate left out keeps at 1 has an
    interval of no width: it says that the order is stable, not that it is certain.
    """
    own = frame[frame["entry"] == entry].reset_index(drop=True) if len(frame) else frame
    return [_judge(suite, label, claim, own) for label, claim in suite.claims.items()]


def _judge(suite: Suite, label: str, claim: Claim, frame: pd.DataFrame) -> Verdict:
    sums = [
        [_sample(suite, term, frame) for term in terms]
        for terms in claim.order or (claim.terms, claim.relative_to)
    ]
    samples = [sample for summands in sums for sample in summands]
    replicates = sorted(set.intersection(*(sample.complete() for sample in samples)))
    interval = _interval(claim, sums, replicates)
    verdict, why = _decide(claim, interval)
    return Verdict(
        claim=label,
        statement=claim.statement,
        source=claim.source,
        control=claim.control,
        effect=interval.value,
        unit="rank correlation" if claim.order else claim.unit,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        interval=interval.method,
        threshold=claim.threshold,
        relation=claim.relation,
        verdict=verdict,
        reason="; ".join([*why, *_notes(suite, samples, frame, len(replicates))]),
    )


# --- the measurements of a term ---------------------------------------------------------------


class _Sample(NamedTuple):
    """The values that a term averages.

    A cell is one coordinate at one place. ``rows``: where in the frame, also those without a
    value; ``missing``: the places without a value, in words.
    Shapes: values (M,); replicates (M, 2) of the network, or of both of a pair (NaN: there is no
    second); cells (M,), the cell of a value; places (C,), the place of a cell.
    """

    weight: float
    values: np.ndarray
    replicates: np.ndarray
    cells: np.ndarray
    places: np.ndarray
    rows: frozenset[int]
    missing: tuple[str, ...]

    def complete(self) -> set[int]:
        """The replicates that have a value at every place."""
        place_M = self.places[self.cells]
        found = [
            {int(k) for k in self.replicates[place_M == place].ravel() if not np.isnan(k)}
            for place in np.unique(place_M)
        ]
        return set.intersection(*found) if found and not self.missing else set()

    def mean(self, replicates: Sequence[int]) -> float | None:
        """Over values whose networks are of ``replicates``; None where a place has none."""
        apart_M2 = ~np.isnan(self.replicates) & ~np.isin(self.replicates, replicates)
        inside_M = ~apart_M2.any(axis=1)
        cells, mean = _means(self.cells[inside_M], self.values[inside_M])
        places, mean = _means(self.places[cells], mean)
        return float(mean.mean()) if len(places) == len(np.unique(self.places)) else None


def _means(group: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The groups that occur, and the mean of each."""
    groups, place = np.unique(group, return_inverse=True)
    return groups, np.bincount(place, value) / np.bincount(place)


def _sample(suite: Suite, term: Term, frame: pd.DataFrame) -> _Sample:
    rows = _matching(term, frame)
    valued = rows[rows["value"].notna()] if len(rows) else rows
    place = ["target", "perturbation", "other_initialization"]
    cell_M = _codes(valued, [*place, *_coordinates(valued)])
    place_C = np.zeros(cell_M.max(initial=-1) + 1, dtype=np.int64)
    place_C[cell_M] = _codes(valued, place)
    return _Sample(
        weight=term.weight,
        values=_numbers(valued, "value"),
        replicates=np.stack(
            [_numbers(valued, "replicate"), _numbers(valued, "other_replicate")], axis=1
        ),
        cells=cell_M,
        places=place_C,
        rows=frozenset(rows.index),
        missing=tuple(_missing(suite, term, valued)),
    )


def _matching(term: Term, frame: pd.DataFrame) -> pd.DataFrame:
    wanted = term.model_dump(exclude={"coordinates", "weight"}, exclude_none=True)
    wanted |= term.coordinates
    for column, value in wanted.items():
        if column not in frame:
            return frame.iloc[:0]
        frame = frame[frame[column] == value]
    return frame


def _coordinates(rows: pd.DataFrame) -> list[str]:
    extra = [column for column in rows.columns if column not in Record.model_fields]
    return [column for column in extra if rows[column].notna().any()]


def _codes(rows: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """A number for each distinct row of ``columns``, in the order of appearance. Shapes: (M,)."""
    if rows.empty:
        return np.zeros(0, dtype=np.int64)
    return rows.groupby(columns, dropna=False, sort=False).ngroup().to_numpy(dtype=np.int64)


def _numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    if rows.empty:
        return np.zeros(0)
    return rows[column].to_numpy(dtype=np.float64, na_value=np.nan)


def _missing(suite: Suite, term: Term, valued: pd.DataFrame) -> list[str]:
    """The places where the suite measures ``term`` and no replicate has a value, in words."""
    arms = f"{term.initialization} & {term.other_initialization}"
    what = f"{term.diagnostic} {term.metric} of "
    what += arms if term.other_initialization else term.initialization
    if term.coordinates:
        what += f" at {', '.join(f'{k}={v}' for k, v in term.coordinates.items())}"
    if valued.empty:
        return [what]
    found = set(zip(valued["target"], valued["perturbation"], strict=True))
    return [f"{what} on {', '.join(place)}" for place in _places(suite, term) if place not in found]


def _places(suite: Suite, term: Term) -> list[tuple[str, str]]:
    """Where the suite trains all arms of ``term`` and measures them."""
    diagnosis = suite.diagnostics.get(term.diagnostic)
    on = diagnosis.on if diagnosis else Grid()
    targets = [term.target] if term.target else _chosen(on.targets, suite.targets)
    perturbations = (
        [term.perturbation] if term.perturbation else _chosen(on.perturbations, suite.perturbations)
    )
    arms = [arm for arm in (term.initialization, term.other_initialization) if arm is not None]
    return [
        (target, perturbation)
        for target, perturbation in product(targets, perturbations)
        if all(suite.trains(target, perturbation, arm) for arm in arms)
    ]


def _chosen(wanted: tuple[str, ...] | None, known: Iterable[str]) -> list[str]:
    return list(known if wanted is None else wanted)


# --- the effect -------------------------------------------------------------------------------


def _interval(
    claim: Claim, sums: Sequence[Sequence[_Sample]], replicates: Sequence[int]
) -> Interval:
    missing = [place for summands in sums for sample in summands for place in sample.missing]
    if missing:
        return _undetermined(f"no measurement: {_listed(dict.fromkeys(missing))}")
    if not replicates:
        return _undetermined("no replicate has a value at every place")
    if claim.order:
        return _bounded(jackknife(_correlation(sums), replicates), 1.0)
    effect, divisor = sums
    if not divisor:
        return jackknife(_sum(effect), replicates)
    return jackknife_ratio(_sum(effect), _sum(divisor), replicates)


def _undetermined(reason: str) -> Interval:
    return Interval(None, None, None, 0, "jackknife-95", reason)


def _listed(missing: Iterable[str]) -> str:
    names = list(missing)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return "; ".join(names[:NAMED]) + more


def _sum(samples: Sequence[_Sample]) -> Estimator:
    def estimate(replicates: Sequence[int]) -> float | None:
        total = 0.0
        for sample in samples:
            mean = sample.mean(replicates)
            if mean is None:
                return None
            total += sample.weight * mean
        return total

    return estimate


def _correlation(sums: Sequence[Sequence[_Sample]]) -> Estimator:
    """Spearman's rank correlation of the effects with their position; None where all are equal."""
    estimators = [_sum(samples) for samples in sums]

    def estimate(replicates: Sequence[int]) -> float | None:
        effects = [value for e in estimators if (value := e(replicates)) is not None]
        if len(effects) < len(estimators) or len(set(effects)) < 2:
            return None
        return float(np.corrcoef(_ranks(effects), np.arange(len(effects)))[0, 1])

    return estimate


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks, equal values sharing their mean rank. Shapes: (M,)."""
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    mean_rank: np.ndarray = np.cumsum(counts) - (counts - 1) / 2
    ranks: np.ndarray = mean_rank[place]
    return ranks


def _bounded(interval: Interval, limit: float) -> Interval:
    if interval.low is None or interval.high is None:
        return interval
    return interval._replace(low=max(interval.low, -limit), high=min(interval.high, limit))


# --- the verdict ------------------------------------------------------------------------------


def _decide(
    claim: Claim, interval: Interval
) -> tuple[Literal["reproduced", "contradicted", "undecided"], list[str]]:
    low, high, threshold = interval.low, interval.high, claim.threshold
    if low is None or high is None:
        return "undecided", [interval.reason or ""]
    holds, fails = {
        "above": (low > threshold, high < threshold),
        "below": (high < threshold, low > threshold),
        "within": (
            -threshold < low and high < threshold,
            low > threshold or high < -threshold,
        ),
    }[claim.relation]
    if holds:
        return "reproduced", []
    if fails:
        return "contradicted", []
    limit = f"-{threshold:g} or {threshold:g}" if claim.relation == "within" else f"{threshold:g}"
    return "undecided", [f"the interval includes {limit}"]


def _notes(
    suite: Suite, samples: Sequence[_Sample], frame: pd.DataFrame, complete: int
) -> list[str]:
    """What is to know about the measurements of a claim, decided or not."""
    rows = frame.loc[sorted(frozenset().union(*(sample.rows for sample in samples)))]
    notes = []
    if complete < suite.replicates:
        notes.append(f"{complete} of {suite.replicates} replicates are complete")
    if rows.empty:
        return notes
    if without := int(rows["value"].isna().sum()):
        notes.append(f"{without} of {len(rows)} measurements have no value and were left out")
    for flag, count in rows["flag"].dropna().value_counts().sort_index().items():
        notes.append(f"{count} of {len(rows)} measurements are flagged: {flag}")
    return notes
