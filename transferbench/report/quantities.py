"""The quantities that a report compares between arms: test metric and the suite's columns."""

from __future__ import annotations

from typing import NamedTuple

from transferbench.measurements import Measurements, ReplicateValues
from transferbench.report.comparisons import Compared, difference
from transferbench.report.tables import (
    WriteCell,
    exact_cell,
    fraction_cell,
    percent_cell,
    points_cell,
)
from transferbench.suite import TRIAL, Suite
from transferbench.suite.columns import columns_of

__all__ = ["TEST", "TRAIN", "UNTRAINED", "Quantity", "quantities_of", "trained_above"]

FRACTION = "fraction"
GAIN = " gain"


class Quantity(NamedTuple):
    """A metric without coordinates; ``diagnostic``: its label in the suite."""

    name: str
    diagnostic: str
    metric: str
    unit: str = FRACTION

    @property
    def of_fractions(self) -> bool:
        """Whether it is written in percent, and its differences in points."""
        return self.unit == FRACTION

    @property
    def write(self) -> WriteCell:
        """How a table writes a value."""
        if self.diagnostic == TRIAL and self.of_fractions:
            return fraction_cell  # what trials measure as fractions are metrics
        return percent_cell if self.of_fractions else exact_cell

    @property
    def write_gain(self) -> WriteCell:
        """How a table writes a difference."""
        return points_cell if self.of_fractions else exact_cell

    def rows(self, measurements: Measurements) -> Measurements:
        """Its measurements."""
        return measurements.select(
            diagnostic=self.diagnostic, metric=self.metric
        ).without_coordinates()

    def of_arm(self, arm: str, name: str = "") -> Compared:
        """Its value, of one arm."""
        labels = {"diagnostic": self.diagnostic, "metric": self.metric}
        return Compared(name or self.name, {"initialization": arm, **labels})

    def gain(self, arms: tuple[str, str], name: str = "") -> Compared:
        """Its difference of two arms, paired."""
        compared = difference(arms, diagnostic=self.diagnostic, metric=self.metric)
        return compared if not name else Compared(name, compared.labels, minus=compared.minus)

    def of_arms(
        self, measurements: Measurements, arms: tuple[str, str]
    ) -> tuple[ReplicateValues, ReplicateValues]:
        """The values of two arms, replicate -> value."""
        rows = self.rows(measurements)
        first, second = (rows.select(initialization=arm).by_replicate() for arm in arms)
        return first, second


TEST = Quantity("test metric", TRIAL, "test_metric")
TRAIN = TEST._replace(name="train metric", metric="train_metric")
UNTRAINED = 0.05
"""A network did not train if its train metric covers no more of the way from chance to 1."""


def trained_above(chance: float) -> float:
    """The train metric above which a network has trained."""
    return chance + UNTRAINED * (1 - chance)


def quantities_of(suite: Suite, measurements: Measurements) -> list[Quantity]:
    """Those in columns of the suite's board, at the scored perturbation; no test metric."""
    quantities: dict[tuple[str, str], Quantity] = {}
    for column in columns_of(suite):
        key = column.diagnostic, column.metric
        if column.under != "clean" or column.of not in {"value", "gain"} or key in quantities:
            continue
        units = measurements.select(diagnostic=key[0], metric=key[1]).distinct("unit")
        name = column.title.removesuffix(GAIN)
        quantities[key] = Quantity(name, *key, unit=units[0] if units else FRACTION)
    return [quantity for key, quantity in quantities.items() if key != (TRIAL, TEST.metric)]
