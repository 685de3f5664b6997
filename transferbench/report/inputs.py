"""What a report is made from: a suite, its measurements, verdicts and job statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transferbench.claims import Verdict
from transferbench.report.absences import Absences
from transferbench.runner.contact_sheet import Sheet
from transferbench.runner.data_card import DataCard
from transferbench.specs import DiagnosticSpec
from transferbench.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ReportInput"]


@dataclass(frozen=True)
class ReportInput:
    """Everything that a report shows.

    ``measurements``: rows of ``Record.row()``. ``verdicts``: per entry, in the suite's order.
    ``statuses``: columns job, kind, label, status, wall_seconds, message, a row for each job.
    ``changed``: the overrides of a changed suite, empty where it is the published one.
    ``diagnostics``: the plugins, by name, that draw the parts of their diagnostics; those of a
    diagnostic without one go to the tables of the remaining measurements.
    ``notes``: what readers should know of the data. ``classes``: target -> names of its classes.
    ``cards``: what each dataset is made of. ``sheets``: what networks see of its images.
    ``external``: entries with external weights. ``absences``: what an entry goes without, and why.
    """

    suite: Suite
    entries: Sequence[str]
    measurements: pd.DataFrame
    verdicts: Mapping[str, Sequence[Verdict]]
    statuses: pd.DataFrame
    provenance: Mapping[str, str]
    changed: Sequence[str]
    diagnostics: Mapping[str, DiagnosticSpec]
    notes: Sequence[str] = ()
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cards: Mapping[str, DataCard] = field(default_factory=dict)
    sheets: Sequence[Sheet] = ()
    external: Sequence[str] = ()
    absences: Mapping[str, Absences] = field(default_factory=dict)
