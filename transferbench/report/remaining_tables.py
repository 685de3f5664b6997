"""Tables of the measurements that no part shows: any diagnostic, any metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from transferbench.measurements import Measurements
from transferbench.report.formats import label_text, significant
from transferbench.report.summaries import summary_of
from transferbench.report.tables import Cell, Table, bounds_text

__all__ = ["remaining_tables"]

INTERVALS = (
    "Brackets: 95% interval over n replicates, Student-t for single networks, jackknife for pairs."
)
LABELS = {
    "target": "target",
    "perturbation": "perturbation",
    "initialization": "arm",
    "other_initialization": "other arm",
}
MOST_ROWS = 60


def remaining_tables(
    measurements: Measurements, drawn: Mapping[str, Collection[str]]
) -> dict[str, Table]:
    """A table for each diagnostic of an entry, of the metrics that no part shows.

    ``drawn``: the metrics of each diagnostic that a part shows.
    """
    tables = {}
    for (name,), rows in sorted(measurements.valued().groups("diagnostic").items()):
        in_part = drawn.get(name, ())
        rest = rows.select(metric=[m for m in rows.distinct("metric") if m not in in_part])
        if len(rest):
            tables[str(name)] = _table(rest)
    return tables


def _table(rows: Measurements) -> Table:
    """The mean over replicates of each metric at each combination of labels."""
    columns = [name for name in (*LABELS, *rows.coordinates) if rows.distinct(name)]
    groups = rows.by_group(*columns, "metric", "unit")
    lines = []
    for labels, values in list(groups.items())[:MOST_ROWS]:
        summary = summary_of(values)
        if summary is not None:
            mean = Cell(significant(summary.mean), bounds_text(summary, significant), kind="number")
            lines.append((*(Cell(label_text(label)) for label in labels), mean))
    note = INTERVALS
    if len(groups) > MOST_ROWS:
        note += f" The first {MOST_ROWS} of {len(groups)} rows; the records hold all of them."
    head = [LABELS.get(name, name) for name in columns]
    return Table((*head, "metric", "unit", "mean"), lines, note)
