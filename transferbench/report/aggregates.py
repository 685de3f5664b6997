"""Many measurements at once: means over replicates group by group, and what was flagged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import pandas as pd

from transferbench.report.summaries import (
    ALONE,
    ReplicateValues,
    Summary,
    summarize,
    summarize_pairs,
)
from transferbench.suite import Diagnosis, Suite

__all__ = [
    "ITSELF",
    "LABEL",
    "Aggregate",
    "Aggregates",
    "Place",
    "View",
    "aggregate",
    "difference_name",
    "differences",
    "ensured",
    "flag_notes",
    "ordered",
    "places_of",
    "views_of",
]

ITSELF = "itself"
"""Stands for the other arm where a network is compared with itself."""

LABEL = "diagnostic_label"
"""The column that keeps a diagnostic's label in the suite beside its plugin's name."""

NUMBER = r"\d[\d.,]*(?:e[-+]?\d+)?"
REPLICATES = ("replicate", "other_replicate")
NETWORKS = ("initialization", "other_initialization")


class Aggregate(NamedTuple):
    """The mean over replicates of one group, and what its measurements were flagged with.

    ``missing``: how many of the group's measurements have no value.
    """

    summary: Summary | None
    flags: tuple[str, ...] = ()
    missing: int = 0


Key: TypeAlias = tuple[Any, ...]
Aggregates: TypeAlias = dict[Key, Aggregate]


class Place(NamedTuple):
    """A target under a perturbation, and how a report calls it."""

    target: str
    perturbation: str
    name: str

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows measured here."""
        here = (rows["target"] == self.target) & (rows["perturbation"] == self.perturbation)
        return rows[here]


@dataclass(frozen=True)
class View:
    """What an entry has of one diagnostic with one set of parameters.

    ``rows``: every measurement, those without a value too, with a column for each of the
    coordinates that were asked for. ``absent``: what the suite names and nobody measured.
    """

    labels: tuple[str, ...]
    params: Mapping[str, Any]
    rows: pd.DataFrame
    absent: tuple[str, ...]


def views_of(
    suite: Suite, frame: pd.DataFrame, plugin: str, coordinates: Iterable[str]
) -> list[View]:
    """The views of a diagnostic; labels of a suite with equal parameters are one.

    ``frame``: the measurements of one entry, their labels in ``LABEL`` where they differ.
    """
    uses: dict[str, dict[str, Diagnosis]] = {}
    for label, use in suite.diagnostics.items():
        if use.name == plugin:
            uses.setdefault(json.dumps(use.params, sort_keys=True), {})[label] = use
    rows = frame[frame["diagnostic"] == plugin]
    found = []
    for group in uses.values():
        part = rows[rows[LABEL].isin(list(group))] if LABEL in rows else rows
        part = _with_selves(ensured(part, coordinates))
        params = next(iter(group.values())).params
        found.append(View(tuple(group), params, part, tuple(_absent(group.values(), part))))
    return found


def _with_selves(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with a network compared with itself told apart from two networks of its arm."""
    arm, other = (rows[name] for name in NETWORKS)
    one = (arm == other) & (rows["replicate"] == rows["other_replicate"])
    return rows.assign(**{NETWORKS[1]: other.mask(one, ITSELF)}) if one.any() else rows


def _absent(uses: Iterable[Diagnosis], rows: pd.DataFrame) -> list[str]:
    """The pairs or arms that the suite asks for and that no measurement names."""
    asked = [
        (pair.a, ITSELF if pair.a == pair.b and pair.replicates == "same" else pair.b)
        for use in uses
        for pair in use.pairs
    ]
    if asked:
        seen = set(zip(rows[NETWORKS[0]], rows[NETWORKS[1]], strict=True))
        return [f"{a} & {b}" for a, b in dict.fromkeys(asked) if (a, b) not in seen]
    alone = set(rows[NETWORKS[0]])
    return [arm for use in uses for arm in use.of or () if arm not in alone]


def ensured(rows: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """``rows`` with these columns, empty where no record had such a coordinate."""
    missing = [name for name in columns if name not in rows.columns]
    return rows.reindex(columns=[*rows.columns, *missing]) if missing else rows


def aggregate(rows: pd.DataFrame, by: Sequence[str]) -> Aggregates:
    """The mean over replicates of each group of rows, in the order of the rows.

    A coordinate that a row does not have is None in its key.
    Error: Student-t over replicates; jackknife where the values belong to pairs of networks.
    """
    values: dict[Key, ReplicateValues] = {}
    for (*place, replicate, other), value in _means(rows, [*by, *REPLICATES]):
        pair = (int(replicate), ALONE if other is None else int(other))
        values.setdefault(tuple(place), {})[pair] = value
    flags: dict[Key, dict[str, int]] = {}
    told = rows[rows["flag"].notna()]
    lost = (
        told["value"]
        .isna()
        .groupby([told[name] for name in [*by, "flag"]], sort=False, dropna=False)
        .sum()
    )
    for key, count in lost.items():
        *place, flag = _without_nan(key)
        flags.setdefault(tuple(place), {})[str(flag)] = int(count)
    return {
        group: Aggregate(
            _summary(values.get(group, {})),
            tuple(flags.get(group, ())),
            sum(flags.get(group, {}).values()),
        )
        for group in dict.fromkeys([*values, *flags])
    }


def differences(rows: pd.DataFrame, by: Sequence[str], arms: tuple[str, str]) -> Aggregates:
    """First arm minus second in each group, under the name of the difference before its key.

    Error: Student-t over the replicates that both have, paired.
    """
    values: dict[Key, dict[str, dict[int, float]]] = {}
    alone = rows[rows["initialization"].isin(arms)]
    for (*place, arm, replicate), value in _means(alone, [*by, "initialization", "replicate"]):
        values.setdefault(tuple(place), {}).setdefault(str(arm), {})[int(replicate)] = value
    first, second = arms
    found = {}
    for group, known in values.items():
        a, b = known.get(first, {}), known.get(second, {})
        if one := summarize(a[k] - b[k] for k in a if k in b):
            found[difference_name(arms), *group] = Aggregate(one)
    return found


def difference_name(arms: tuple[str, str]) -> str:
    """How a table calls the difference of two arms."""
    return " \N{MINUS SIGN} ".join(arms)


def _means(rows: pd.DataFrame, keys: Sequence[str]) -> Iterator[tuple[Key, float]]:
    """The mean value at each key, rows without a value left out."""
    known = rows[rows["value"].notna()]
    for key, value in known.groupby(list(keys), sort=False, dropna=False)["value"].mean().items():
        yield _without_nan(key), float(value)


def _without_nan(key: Any) -> Key:
    return tuple(None if part != part else part for part in key)  # noqa: PLR0124 - only NaN differs


def _summary(values: ReplicateValues) -> Summary | None:
    if not values:
        return None
    if any(other != ALONE for _, other in values):
        return summarize_pairs(values)
    return summarize(values.values())


def ordered(rows: pd.DataFrame, column: str) -> list[Any]:
    """The values that occur, in the order of the records."""
    return list(rows[column].dropna().unique())


def places_of(rows: pd.DataFrame, suite: Suite) -> list[Place]:
    """Where the rows were measured, in the suite's order; without perturbation the bare target."""
    seen = set(zip(rows["target"], rows["perturbation"], strict=True))
    return [
        Place(
            target, label, target if label == suite.scoring.perturbation else f"{target}, {label}"
        )
        for label in suite.perturbations
        for target in suite.targets
        if (target, label) in seen
    ]


def flag_notes(rows: pd.DataFrame) -> list[str]:
    """What measurements were flagged with, how many of them, and how many have no value.

    Flags that differ in their numbers alone are told once.
    """
    flagged = rows[rows["flag"].notna()]
    if flagged.empty:
        return []
    kinds = flagged["flag"].astype(str).str.replace(NUMBER, "0", regex=True)
    found: dict[str, list[str]] = {}
    for _, part in flagged.groupby([kinds, flagged["metric"]], sort=True):
        first, metric = part["flag"].iloc[0], part["metric"].iloc[0]
        more = " and the like" if len(set(part["flag"])) > 1 else ""
        total, lost = int((rows["metric"] == metric).sum()), int(part["value"].isna().sum())
        told = f", {lost} without a value" if lost else ""
        found.setdefault(f"{first}{more}", []).append(f"{metric}, {len(part)} of {total}{told}")
    return [f"{flag} ({'; '.join(where)})" for flag, where in found.items()]
