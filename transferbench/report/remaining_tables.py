"""Tables of what a suite measured besides the report's own figures: any diagnostic, any metric."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from transferbench.report.formats import significant
from transferbench.report.summaries import (
    Measured,
    Summary,
    mean_per_replicate,
    summarize,
    summarize_pairs,
)
from transferbench.report.tables import Cell, Table

__all__ = ["other_tables"]

INTERVALS = (
    "Brackets: 95% interval over n replicates, Student-t for single networks, jackknife for pairs."
)
PLACES = {
    "target": "target",
    "perturbation": "perturbation",
    "initialization": "arm",
    "other_initialization": "other arm",
}
MOST_ROWS = 60


def other_rows(rows: pd.DataFrame, places: Sequence[str]) -> Iterable[tuple[Cell, ...]]:
    """The mean over replicates of each metric in each place, in the order of the records."""
    for values, group in rows.groupby([*places, "metric", "unit"], sort=False, dropna=False):
        if one := summary_of(group):
            labels = [Cell(place_text(value)) for value in values]
            yield (*labels, Cell(significant(one.mean), other_detail(one), kind="number"))


def summary_of(group: pd.DataFrame) -> Summary | None:
    """The mean over replicates, or over pairs of networks where there are pairs."""
    values = mean_per_replicate(group.to_dict("records"))
    paired = group["other_replicate"].notna().any()
    return summarize_pairs(values) if paired else summarize(values.values())


def place_text(value: object) -> str:
    """A label as it is, a coordinate without needless digits, nothing where there is none."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:g}"
    return "" if value is None else str(value)


def other_detail(one: Summary) -> str:
    """The interval of a number whose size is not known beforehand."""
    if one.low is None or one.high is None:
        return f"no interval, n {one.n}"
    return f"[{significant(one.low)}, {significant(one.high)}] n {one.n}"


def other_table(rows: pd.DataFrame, known: Sequence[str]) -> Table:
    """Every metric of one diagnostic that has no place of its own."""
    coordinates = [name for name in rows.columns if name not in known]
    places = [name for name in (*PLACES, *coordinates) if rows[name].notna().any()]
    numbers = rows.groupby([*places, "metric", "unit"], sort=False, dropna=False).ngroup()
    # Of a large diagnostic only what is shown is averaged.
    lines = tuple(other_rows(rows[numbers < MOST_ROWS], places))
    note, count = INTERVALS, int(numbers.max()) + 1
    if count > MOST_ROWS:
        note += f" The first {MOST_ROWS} of {count} rows; the records hold all of them."
    head = [PLACES.get(name, name) for name in places]
    return Table((*head, "metric", "unit", "mean"), lines, note)


def other_tables(
    measured: Measured, known: Sequence[str], shown: Mapping[str, Collection[str]]
) -> dict[str, Table]:
    """A table for each diagnostic with metrics that are shown nowhere else.

    ``known``: the columns of a record that are not coordinates; ``shown``: the metrics of each
    diagnostic that have a place of their own.
    """
    rows = measured.frame[measured.frame["value"].notna()]
    tables = {}
    for name, part in rows.groupby("diagnostic", sort=True):
        rest = part[~part["metric"].isin(list(shown.get(str(name), ())))]
        if not rest.empty:
            tables[str(name)] = other_table(rest, known)
    return tables
