"""A report as one HTML page: what goes where, filled into the template."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from importlib import resources

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from transferbench.records import Record
from transferbench.report.aggregates import LABEL
from transferbench.report.figures import curves_figure, severity_figure
from transferbench.report.headline import answer
from transferbench.report.inputs import ReportInput
from transferbench.report.mistakes import mistakes_figure
from transferbench.report.parts import parts_of, shown_in_parts
from transferbench.report.parts.arms import arms_part
from transferbench.report.parts.part import Part, Scope, paper
from transferbench.report.published import CURVES, SHUFFLING
from transferbench.report.remaining_tables import other_tables
from transferbench.report.summaries import SHOWN, Measured
from transferbench.report.tables import (
    Table,
    budgets_table,
    comparison_table,
    failures_table,
    mistakes_table,
    transfer_table,
)
from transferbench.report.verdicts import ClaimRow, claim_rows

__all__ = ["page"]

FOLDER = resources.files("transferbench.report")
VERDICTS = ("reproduced", "contradicted", "undecided", "not judged")
GLOSSARY = {
    "source, target": "the task pre-trained on, and the task fine-tuned on",
    "P, RI": "pre-trained weights; random initialization",
    "P-T, RI-T": "the target networks trained from P and from RI",
    "arm": "one way to start: an initialization with its recipe",
    "entry": "what a suite compares: a backbone with its weights",
    "test metric": "accuracy, or mean area under the ROC curve for multi-label targets, on the "
    "fixed test subset after the last epoch",
    "gain": "test metric of the pre-trained arm minus its baseline's, paired by replicate",
    "relative drop": "100 (A of P-T minus A of RI-T) / (A of P-T): how much of the test metric "
    "is lost without pre-training",
    "speed": "the train metric, clean images in eval mode, averaged over the epochs",
    "replicate": "a training repeated with other seeds; at one replicate all arms and backbones "
    "see the same data order",
    "\N{GREEK SMALL LETTER KAPPA} of errors": "agreement about which images are wrong, corrected "
    "for the agreement that two networks of these accuracies have by chance (Cohen)",
    "error Jaccard": "images both get wrong, divided by images at least one gets wrong",
    "reference entropy": "how unsure an independent network is about a set of images: a stand-in "
    "for their ambiguity",
    "chance": "the test metric of guessing",
    "P & P-T": "a pair of networks: here the source network itself and one fine-tuned from it",
    "published": "numbers of Neyshabur, Sedghi, Zhang 2020 (arXiv 2008.11687), printed there or "
    "digitised from its figures; its scale and data differ, so that orders compare and absolute "
    "numbers do not",
    "*": "a number whose measurement was flagged; what with stands below the tables",
    "95% interval": "Student-t over replicates unless said otherwise; it covers the seeds, not "
    "the choice of test images",
    "student-t-95, jackknife-95, fieller-95": "how a 95% interval was made: from the spread of the "
    "replicates; from the estimates that leave one replicate out, which holds for pairs that share "
    "networks; or, of a share, from every value that these do not rule out",
    "verdict": "reproduced where the whole interval meets the claim's condition, contradicted "
    "where the whole interval misses it, undecided otherwise",
}


@dataclass(frozen=True)
class EntrySection:
    """Everything the page shows of one entry."""

    name: str
    anchor: str
    answer: str
    claims: list[ClaimRow]
    tally: str
    judged: bool
    curves: Markup | None
    severity: dict[str, Markup]
    mistakes: Markup | None
    transfer: Table | None
    mistakes_table: Table | None
    parts: list[Part]
    others: dict[str, Table]


def tally_of(claims: list[ClaimRow]) -> str:
    """How many claims ended in which verdict."""
    counts = Counter(claim.verdict for claim in claims)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])


def entry_section(given: ReportInput, name: str, place: int) -> EntrySection:
    """One entry's figures and tables; ``place`` keeps the anchors of entries apart."""
    suite, measured = given.suite, Measured(given.measurements, name)
    anchor = f"entry-{place}-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}"
    claims = claim_rows(suite, given.verdicts.get(name, ()))
    scope = Scope(suite, name, anchor, measured)
    severity = {
        target: severity_figure(measured, suite, target, anchor) for target in suite.targets
    }
    return EntrySection(
        name=name,
        anchor=anchor,
        answer=answer(measured, suite),
        claims=claims,
        tally=tally_of(claims),
        judged=any(claim.plot for claim in claims),
        curves=curves_figure(measured, suite, anchor),
        severity={target: figure for target, figure in severity.items() if figure},
        mistakes=mistakes_figure(measured, suite, anchor),
        transfer=transfer_table(measured, suite),
        mistakes_table=mistakes_table(measured, suite),
        parts=[*parts_of(scope), arms_part(scope)],
        others=other_tables(
            measured, [*Record.model_fields, LABEL], {**SHOWN, **shown_in_parts(scope)}
        ),
    )


def job_counts(statuses: pd.DataFrame) -> dict[str, int]:
    """How many jobs ended in which status, in order of name."""
    if "status" not in statuses.columns:
        return {}
    return dict(sorted(Counter(statuses["status"].astype(str)).items()))


def _by_plugin(given: ReportInput) -> ReportInput:
    """``given`` with each diagnostic under its plugin's name, whatever the suite calls it.

    Its label stands in a column of its own.
    """
    table = given.measurements
    if table.empty:
        return given
    names = {label: use.name for label, use in given.suite.diagnostics.items()}
    labels = table["diagnostic"]
    named = table.assign(**{"diagnostic": labels.replace(names), LABEL: labels})
    return replace(given, measurements=named)


def page(given: ReportInput) -> str:
    """The HTML of the report; equal input gives equal text."""
    given = _by_plugin(given)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(FOLDER.joinpath("report.html.j2").read_text("utf-8"))
    every = [(name, Measured(given.measurements, name)) for name in given.entries]
    return template.render(
        suite=given.suite,
        entries=[
            entry_section(given, name, place) for place, name in enumerate(given.entries, start=1)
        ],
        comparison=comparison_table(every, given.suite) if len(every) > 1 else None,
        budgets=budgets_table(given.suite),
        failures=failures_table(given.statuses),
        jobs=job_counts(given.statuses),
        provenance=given.provenance,
        changed=given.changed,
        glossary=GLOSSARY,
        published={"curves": paper(CURVES), "shuffling": paper(SHUFFLING)},
        css=Markup(FOLDER.joinpath("report.css").read_text("utf-8")),  # noqa: S704 - our own file
    )
