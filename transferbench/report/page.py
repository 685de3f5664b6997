"""A report as one HTML page, from its templates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from transferbench.claims import image_counts, scope_of, tally
from transferbench.errors import TransferbenchError
from transferbench.measurements import Measurements
from transferbench.plan.tuning import RATE
from transferbench.registry import blamed
from transferbench.report.absences import NONE_ABSENT
from transferbench.report.comparisons import STUDENT, name_selves
from transferbench.report.data import data_sections
from transferbench.report.drawing import draw
from transferbench.report.headline import answer
from transferbench.report.inputs import ReportInput
from transferbench.report.parts import Drawing, Part, Scope
from transferbench.report.run_tables import (
    budgets_table,
    entries_table,
    failures_table,
    remaining_tables,
)
from transferbench.report.tables import Table
from transferbench.report.trials import DRAWN, arms_part, transfer_part
from transferbench.report.tuning import TUNED, tuning_part
from transferbench.report.verdicts import ClaimGroup, claim_groups
from transferbench.specs import DiagnosticSpec
from transferbench.suite import TRIAL, TUNING, Suite
from transferbench.suite.ranges import metric_ranges

__all__ = ["diagnostic_parts", "page", "scopes_of"]

PACKAGE = "transferbench.report"
GLOSSARY = {
    "source, target": "the task pre-trained on, and the task fine-tuned on",
    "P, RI": "pre-trained weights; random initialization",
    "P-T, RI-T": "the target networks trained from P and from RI",
    "arm": "one way to start: an initialization with its recipe",
    "entry": "what a suite compares: a backbone with its weights",
    "test metric": "accuracy, or mean area under the ROC curve for multi-label targets, unless the "
    "suite names another metric of a target, on the fixed test subset after the last epoch",
    "train metric": "the same on clean train images in eval mode",
    "gain": "test metric of the pre-trained arm minus its baseline's, paired by replicate",
    "replicate": "a training repeated with other seeds; at one replicate all arms and backbones "
    "see the same data order",
    "chance": "the test metric of guessing",
    "P & P-T": "a pair of networks: here the source network itself and one fine-tuned from it",
    "published": "numbers of Neyshabur, Sedghi, Zhang 2020 (arXiv 2008.11687), printed there or "
    "digitised from its figures; its scale and data differ, so that orders compare and absolute "
    "numbers do not",
    "*": "a number whose measurement was flagged; the flags are listed below the tables",
    "95% interval": f"{STUDENT}, over replicates unless said otherwise; it covers the seeds, not "
    "the choice of test images; where n counts networks, of arms that start from several source "
    "networks, it covers other pre-trainings too",
    "given P": "the replicates behind an interval all start from one source network, and what "
    "another pre-training would change is not in it",
    "ranged-t-95, wide-t-95, ranged-fieller-95, pairs-95": "how a 95% interval was made: "
    "from the spread of the replicates, reaching further where a quantity is near the end of its "
    "range; wide, since a quantity without a range may be skewed; of a share, from every value "
    "that these do not rule out; of a rank correlation, from the pairs of levels whose order is "
    "established; with -networks, all replicates of one source network are left out at once",
    "verdict": "reproduced where the whole interval meets the claim's condition, contradicted "
    "where the whole interval misses it, undecided otherwise",
    "family": "the claims of the suite that are one claim of the paper: reproduced where all of "
    "them are, contradicted where one is",
    "p, adjusted": "the smallest error (1 - level, two-sided) at which the interval decides; of a "
    "family that of all its claims, or of one of them failing; adjusted by Holm's correction over "
    "the families of the entry",
    "control": "a claim that holds in any sound run; within a margin an equivalence test (two "
    "one-sided tests at 2.5%). Underpowered: undecided, since the interval is too wide",
}


class Section(NamedTuple):
    """A part of the page as it is shown."""

    title: str
    anchor: str
    html: Markup


class EntrySection(NamedTuple):
    """Everything the page shows of one entry."""

    name: str
    anchor: str
    answer: str
    claims: list[ClaimGroup]
    tally: str
    sections: list[Section]
    remaining: dict[str, Table]


def page(results: ReportInput) -> str:
    """The HTML of the report; equal input gives equal text."""
    environment = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scopes = scopes_of(results)
    glossary = dict(GLOSSARY)
    macros = environment.get_template("macros.html.j2").module
    # The position tells two entries apart whose names differ in signs alone.
    entries = [
        _Writer(macros, results, scope, f"entry-{position}-{_slug(scope.entry)}", glossary).entry()
        for position, scope in enumerate(scopes, start=1)
    ]
    css = resources.files(PACKAGE).joinpath("report.css").read_text("utf-8")
    return environment.get_template("report.html.j2").render(
        suite=results.suite,
        entries=entries,
        comparison=entries_table(scopes, results.suite) if len(scopes) > 1 else None,
        budgets=budgets_table(results.suite),
        failures=failures_table(results.statuses),
        jobs=_job_counts(results.statuses),
        provenance=results.provenance,
        changed=results.changed,
        notes=results.notes,
        data=list(data_sections(results.cards, results.sheets)),
        scope=list(
            scope_of(
                results.suite, image_counts(Measurements(results.measurements)), results.external
            )
        ),
        glossary=glossary,
        css=Markup(css),  # noqa: S704 - our own file
    )


def scopes_of(results: ReportInput) -> list[Scope]:
    """What the parts of each entry are made from."""
    ranges = metric_ranges(results.suite, results.diagnostics)
    measurements = Measurements(name_selves(results.measurements), ranges)
    return [
        Scope(
            results.suite,
            name,
            measurements.select(entry=name),
            classes=results.classes,
            absences=results.absences.get(name, NONE_ABSENT),
        )
        for name in results.entries
    ]


def diagnostic_parts(
    suite: Suite, diagnostics: Mapping[str, DiagnosticSpec]
) -> dict[Callable[[Scope], Part | None], dict[str, str]]:
    """The parts that the diagnostics of ``suite`` bring: how to build each, and for which labels.

    In the order of the suite; label -> name of the plugin.
    """
    parts: dict[Callable[[Scope], Part | None], dict[str, str]] = {}
    for label, use in suite.diagnostics.items():
        spec = diagnostics.get(use.name)
        if spec is not None and spec.report is not None:
            parts.setdefault(spec.report.build, {})[label] = use.name
    return parts


@dataclass
class _Writer:
    """Writes one entry; ``glossary`` collects the words that its parts explain."""

    macros: Any
    results: ReportInput
    scope: Scope
    anchor: str
    glossary: dict[str, str]
    anchors: Counter[str] = field(default_factory=lambda: Counter(("claims", "others")))
    drawn: dict[str, frozenset[str]] = field(
        default_factory=lambda: {TRIAL: DRAWN | {RATE}, TUNING: TUNED}
    )

    def entry(self) -> EntrySection:
        """Claims, the trials, the parts of diagnostics in the suite's order, and all the rest."""
        name, suite = self.scope.entry, self.results.suite
        verdicts = self.results.verdicts.get(name, ())
        sections = [
            self._section(transfer_part(self.scope)),
            *self._diagnostic_sections(),
            self._section(arms_part(self.scope)),
            *map(self._section, filter(None, [tuning_part(self.scope, self._seconds())])),
        ]
        return EntrySection(
            name=name,
            anchor=self.anchor,
            answer=answer(self.scope),
            claims=claim_groups(suite, verdicts),
            tally=tally(verdicts) or "not judged",
            sections=sections,
            remaining=remaining_tables(self.scope.measurements, self.drawn),
        )

    def _seconds(self) -> dict[str, float]:
        """The time that each finished job took."""
        statuses = self.results.statuses
        if not {"job", "wall_seconds"} <= set(statuses.columns):
            return {}
        timed = statuses.dropna(subset=["wall_seconds"])
        return dict(zip(timed["job"], timed["wall_seconds"].astype(float), strict=True))

    def _diagnostic_sections(self) -> Iterator[Section]:
        """The parts of diagnostics; a plugin's failure costs its part alone."""
        diagnostics = self.results.diagnostics
        for build, labels in diagnostic_parts(self.results.suite, diagnostics).items():
            plugins = dict.fromkeys(labels.values())
            owner = f"diagnostic {', '.join(map(repr, plugins))}"
            scope = replace(self.scope, plugins=frozenset(plugins))
            try:
                with blamed(owner, role="the report of "):
                    section = self._built(build, scope)
            except TransferbenchError as error:
                yield self._section(Part(", ".join(labels), (), [str(error)]))
                continue
            if section is not None:
                for label, plugin in labels.items():
                    report = diagnostics[plugin].report
                    self.drawn[label] = report.metrics if report else frozenset()
                yield section

    def _built(self, build: Callable[[Scope], Part | None], scope: Scope) -> Section | None:
        part = build(scope)
        if part is not None and not isinstance(part, Part):
            raise TypeError(f"build gave {type(part).__name__}, not a reporting.Part or None")
        return self._section(part) if part else None

    def _section(self, part: Part) -> Section:
        """A part as HTML, its figures drawn."""
        slug = _slug(part.title)
        self.anchors[slug] += 1
        number = self.anchors[slug]
        anchor = f"{self.anchor}-{slug}" if number == 1 else f"{self.anchor}-{slug}-{number}"
        blocks = [
            (block.caption, draw(block.figure, f"{anchor}-{position}"), None, False)
            if isinstance(block, Drawing)
            else (block.caption, None, block.table, block.published)
            for position, block in enumerate(part.blocks)
        ]
        html = self.macros.part(part, anchor, blocks)
        self.glossary |= {word: text for word, text in part.words.items() if word not in GLOSSARY}
        return Section(part.title, anchor, Markup(html))  # noqa: S704 - escaped by the template


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


def _job_counts(statuses: pd.DataFrame) -> dict[str, int]:
    """How many jobs ended in which status, in order of name."""
    if "status" not in statuses.columns:
        return {}
    return dict(sorted(Counter(statuses["status"].astype(str)).items()))
