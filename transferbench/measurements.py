"""A run's table of measurements: rows selected by their labels, values by replicate and network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

import numpy as np

from transferbench.records import Record
from transferbench.statistics import Range
from transferbench.suite import TRIAL

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ALONE",
    "GroupKey",
    "LabelValue",
    "Measurements",
    "MetricRanges",
    "Network",
    "PairValues",
    "ReplicateValues",
    "frame_of",
    "mean_of",
    "range_of_metric",
]

LabelValue: TypeAlias = str | int | float | None

MetricRanges: TypeAlias = Mapping[tuple[Any, ...], Range]
"""Label of a diagnostic and its metric -> the least and the largest value."""

GroupKey: TypeAlias = tuple[Any, ...]
"""The labels that rows were grouped by; None where the rows of a group have none."""

ReplicateValues: TypeAlias = dict[int, float]
"""Replicate -> value."""

PairValues: TypeAlias = dict[tuple[int, int], float]
"""Replicate, and that of the pair's other network or ``ALONE`` -> value."""

ALONE = -1
"""In the place of a second replicate where a value belongs to one network, not to a pair."""

RANGES: Mapping[str, Range] = {"kappa": (-1.0, 1.0), "correlation": (-1.0, 1.0)}
"""Units whose values lie in a range. Fractions may be signed, except those of trials."""
OF_TRIALS = frozenset({"test_metric", "best_test_metric", "train_metric"})
"""Metrics of trials that are in [0, 1]."""

LARGE = 2**31
"""Numbers of groups below it can be multiplied by any number of labels."""


def range_of_metric(metric: GroupKey, ranges: MetricRanges) -> Range | None:
    """The least and the largest value of a diagnostic's metric, where they are known.

    ``ranges``: those that diagnostics declare.
    """
    if metric[0] == TRIAL and metric[1] in OF_TRIALS:
        return 0.0, 1.0
    return ranges.get(metric)


class Network(NamedTuple):
    """An arm of an entry: it has one value a replicate."""

    entry: str
    initialization: str


def frame_of(records: Iterable[Record]) -> pd.DataFrame:
    """A tidy table: one row for each record, a column for each coordinate."""
    import pandas as pd  # slow to import

    rows = [record.row() for record in records]
    # A table without rows has its columns too, so that a selection finds them.
    return pd.DataFrame(rows, columns=None if rows else list(Record.model_fields))


def mean_of(series: Collection[Mapping[int, float]]) -> ReplicateValues:
    """The mean over several series, at each replicate that all of them have."""
    shared = set.intersection(*map(set, series)) if series else set()
    return {k: fmean(values[k] for values in series) for k in sorted(shared)}


class Measurements:
    """Rows of ``Record.row()``, those without a value too; a column for each coordinate.

    A selection is one as well: it shares the columns of the table that it was made from.
    ``ranges``: those that diagnostics declare (``transferbench.suite.ranges``).
    """

    def __init__(self, frame: pd.DataFrame, ranges: MetricRanges | None = None) -> None:
        self._table = _Table(frame, ranges or {})
        self._positions = np.arange(len(frame))

    @classmethod
    def of_records(cls, records: Iterable[Record], ranges: MetricRanges | None = None) -> Self:
        """The measurements that these records hold."""
        return cls(frame_of(records), ranges)

    def __len__(self) -> int:
        return len(self._positions)

    def __or__(self, other: Self) -> Self:
        """The rows of either selection, in the order of the table.

        Raises: ``ValueError`` where they are not of one table.
        """
        if self._table is not other._table:
            raise ValueError("rows of two tables have no common order")
        return self._at(np.union1d(self._positions, other._positions))

    def _at(self, positions: np.ndarray) -> Self:
        selection = object.__new__(type(self))
        selection._table, selection._positions = self._table, positions
        return selection

    # --- rows ---------------------------------------------------------------------------------

    def select(self, /, **labels: LabelValue | Collection[LabelValue]) -> Self:
        """The rows with these labels and coordinates, in order.

        None selects the rows that have none; a tuple, list or set those with one of its members.
        """
        positions, rest = self._positions, dict(labels)
        metric = labels.get("diagnostic"), labels.get("metric")
        if all(isinstance(label, str) for label in metric):
            positions = self._by_metric.get(metric, positions[:0])
            del rest["diagnostic"], rest["metric"]
        for name, label in rest.items():
            positions = positions[self._table.column(name).equals(label, positions)]
        return self._at(positions)

    @cached_property
    def _by_metric(self) -> dict[GroupKey, np.ndarray]:
        """The rows of each metric of a diagnostic: they are selected thousands of times."""
        return self._table.groups(("diagnostic", "metric"), self._positions)

    def valued(self) -> Self:
        """The rows that have a value."""
        return self._at(self._positions[~np.isnan(self.to_numpy())])

    def without_coordinates(self) -> Self:
        """The rows that have no coordinate."""
        return self.select(**dict.fromkeys(self._table.coordinates))

    def matching(self, first: str, second: str) -> Self:
        """The rows that have equal labels in two columns."""
        groups = self._table.groups((first, second), self._positions)
        equal = [rows for (a, b), rows in groups.items() if a == b and a is not None]
        return self._at(np.sort(np.concatenate([self._positions[:0], *equal])))

    def groups(self, *columns: str) -> dict[GroupKey, Self]:
        """The rows of each combination of labels, in the order of appearance."""
        groups = self._table.groups(columns, self._positions)
        return {key: self._at(positions) for key, positions in groups.items()}

    def group_codes(self, *columns: str) -> np.ndarray:
        """A number for each combination of labels, in the order of appearance. Shapes: (M,)."""
        return self._table.codes(columns, self._positions)

    # --- columns ------------------------------------------------------------------------------

    @cached_property
    def frame(self) -> pd.DataFrame:
        """These rows as a table."""
        return self._table.frame.iloc[self._positions]

    def to_numpy(self) -> np.ndarray:
        """The values, NaN where a measurement has none. Shapes: (M,)."""
        return self._table.numbers[self._positions]

    @property
    def replicates(self) -> np.ndarray:
        """Of the network, or of both of a pair (NaN: there is no second). Shapes: (M, 2)."""
        return self._table.replicates[self._positions]

    @property
    def networks(self) -> int:
        """From how many source networks these replicates start, replicate k from k % their number.

        1 where they share one or the source has no part in it.
        """
        network_M, replicate_M = self._table.networks[self._positions], self.replicates[:, 0]
        several_M = ~np.isnan(network_M)
        if not several_M.any():
            return 1
        replicate_M, network_M = replicate_M[several_M], network_M[several_M]
        apart = int(np.gcd.reduce((replicate_M - network_M).astype(np.int64)))
        return apart or int(replicate_M.max()) + 1

    @property
    def first_replicates(self) -> list[int]:
        """The first replicate from each source network; what others say of the network is equal."""
        networks = self.networks
        first = {k % networks: k for k in sorted(self.distinct("replicate"), reverse=True)}
        return [int(first[network]) for network in sorted(first)]

    @property
    def coordinates(self) -> list[str]:
        """The coordinates that some row has."""
        return [name for name in self._table.coordinates if self.distinct(name)]

    def distinct(self, column: str) -> list[Any]:
        """The labels that occur, in the order of appearance."""
        encoded = self._table.column(column)
        codes, first = np.unique(encoded.codes[self._positions], return_index=True)
        return [encoded.labels[code] for code in codes[np.argsort(first)] if code >= 0]

    def labels(self, column: str) -> list[Any]:
        """The label of each row, None where it has none."""
        return self._table.column(column).at(self._positions)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The range of the values: that of trials, as declared, or as their unit tells it."""
        ranges, units = {*map(self._table.range_of, self._by_metric)}, self.distinct("unit")
        declared = ranges.pop() if len(ranges) == 1 else None
        return declared or (RANGES.get(units[0]) if len(units) == 1 else None)

    # --- values -------------------------------------------------------------------------------

    def by_replicate(self) -> ReplicateValues:
        """One value a replicate: the mean over what else varies, missing values left out."""
        groups = self.valued().groups("replicate")
        return {int(k): fmean(rows.to_numpy()) for (k,), rows in groups.items()}

    def by_pair(self) -> PairValues:
        """One value a replicate, or a pair of them: the mean over what else varies."""
        return self.by_group().get((), {})

    def by_group(self, *columns: str) -> dict[GroupKey, PairValues]:
        """``by_pair`` of each combination of labels, in the order of appearance."""
        positions = self._positions[~np.isnan(self.to_numpy())]
        codes_M = self._table.codes((*columns, "replicate", "other_replicate"), positions)
        means_G = np.bincount(codes_M, self._table.numbers[positions]) / np.bincount(codes_M)
        first_G = positions[np.unique(codes_M, return_index=True)[1]]
        pairs_G2 = np.nan_to_num(self._table.replicates[first_G], nan=ALONE).astype(np.int64)
        groups: dict[GroupKey, PairValues] = {}
        keys = self._table.keys(columns, first_G)
        for key, (first, second), mean in zip(keys, pairs_G2.tolist(), means_G, strict=True):
            groups.setdefault(key, {})[first, second] = float(mean)
        return groups

    def by_network(self) -> dict[Network, ReplicateValues]:
        """One value a replicate for each network, missing values left out.

        Raises: ``ValueError`` where a network has several values in one replicate.
        """
        networks: dict[Network, ReplicateValues] = {}
        groups = self.valued().groups("entry", "initialization", "replicate")
        for (entry, arm, replicate), rows in groups.items():
            if len(rows) > 1:
                raise ValueError(_several(entry, arm, replicate, rows))
            values = networks.setdefault(Network(entry, arm), {})
            values[int(replicate)] = float(rows.to_numpy()[0])
        return networks


def _several(entry: str, arm: str, replicate: int, rows: Measurements) -> str:
    columns = ("diagnostic", "metric", "target", "perturbation", "other_initialization")
    differing = [name for name in (*columns, *rows.coordinates) if len(set(rows.labels(name))) > 1]
    return (
        f"{arm} of {entry} has {len(rows)} values of {', '.join(rows.distinct('metric'))} in "
        f"replicate {replicate}, which differ in {', '.join(differing) or 'no label'}; select one"
    )


# --- the table --------------------------------------------------------------------------------


class _Column(NamedTuple):
    """A column as numbers: where each cell's label stands in ``labels``, -1 where it is empty.

    Shapes: codes (N,).
    """

    codes: np.ndarray
    labels: list[Any]
    code_of: dict[Any, int]

    def equals(
        self, label: LabelValue | Collection[LabelValue], positions: np.ndarray
    ) -> np.ndarray:
        """Which cells hold ``label``, or one of several. Shapes: (M,) to bool (M,)."""
        codes = self.codes[positions]
        if isinstance(label, str) or not isinstance(label, Collection):
            equal: np.ndarray = codes == self._code(label)
            return equal
        return np.isin(codes, [self._code(member) for member in label])

    def _code(self, label: LabelValue) -> int:
        return -1 if label is None else self.code_of.get(label, -2)

    def at(self, positions: np.ndarray) -> list[Any]:
        """The labels of these cells, None where they are empty."""
        codes: list[int] = self.codes[positions].tolist()
        return [None if code < 0 else self.labels[code] for code in codes]


class _Table:
    """A frame whose columns are encoded when they are first selected by.

    Numbers compare and group faster than labels, and a selection of rows copies none of them.
    """

    def __init__(self, frame: pd.DataFrame, ranges: MetricRanges) -> None:
        self.frame, self._ranges = frame, ranges
        self.coordinates = [str(name) for name in frame if name not in Record.model_fields]
        self._columns: dict[str, _Column] = {}

    def range_of(self, metric: GroupKey) -> Range | None:
        """Of a diagnostic's metric: the least and the largest value, where they are known."""
        return range_of_metric(metric, self._ranges)

    def column(self, name: str) -> _Column:
        """A column; one that the frame does not have is empty."""
        if name not in self._columns:
            codes, labels = np.full(len(self.frame), -1), list[Any]()
            if name in self.frame:
                codes, uniques = self.frame[name].factorize()
                labels = uniques.tolist()
            code_of = {label: code for code, label in enumerate(labels)}
            self._columns[name] = _Column(codes, labels, code_of)
        return self._columns[name]

    @cached_property
    def numbers(self) -> np.ndarray:
        """The values, NaN where there is none. Shapes: (N,)."""
        return self._floats("value")

    @cached_property
    def replicates(self) -> np.ndarray:
        """Shapes: (N, 2)."""
        return np.stack([self._floats("replicate"), self._floats("other_replicate")], axis=1)

    @cached_property
    def networks(self) -> np.ndarray:
        """Which of several source networks, NaN without several. Shapes: (N,)."""
        return self._floats("network")

    def _floats(self, name: str) -> np.ndarray:
        if name not in self.frame:
            return np.full(len(self.frame), np.nan)
        return self.frame[name].to_numpy(dtype=np.float64, na_value=np.nan)

    def codes(self, columns: Sequence[str], positions: np.ndarray) -> np.ndarray:
        """A number for each combination of labels, in the order of appearance.

        Shapes: (M,) to (M,).
        """
        combined_M = np.zeros(len(positions), dtype=np.int64)
        for column in map(self.column, columns):
            if combined_M.max(initial=0) >= LARGE:
                combined_M = np.unique(combined_M, return_inverse=True)[1]
            combined_M = combined_M * (len(column.labels) + 1) + column.codes[positions] + 1
        _, first, codes_M = np.unique(combined_M, return_index=True, return_inverse=True)
        ranks = np.empty_like(first)
        ranks[np.argsort(first)] = np.arange(len(first))
        ranked_M: np.ndarray = ranks[codes_M]
        return ranked_M

    def groups(self, columns: Sequence[str], positions: np.ndarray) -> dict[GroupKey, np.ndarray]:
        """The positions of each combination of labels, in the order of appearance."""
        codes = self.codes(columns, positions)
        ordered = positions[np.argsort(codes, kind="stable")]
        parts = np.split(ordered, np.cumsum(np.bincount(codes))[:-1]) if len(codes) else []
        first = np.array([part[0] for part in parts], dtype=np.int64)
        return dict(zip(self.keys(columns, first), parts, strict=True))

    def keys(self, columns: Sequence[str], positions: np.ndarray) -> list[GroupKey]:
        """The labels of each row."""
        if not columns:
            return [()] * len(positions)
        return list(zip(*(self.column(name).at(positions) for name in columns), strict=True))
