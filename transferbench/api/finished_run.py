"""A run in its folder: its numbers, its verdicts, its report, and how it is shown."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from html import escape
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from pydantic_core import to_jsonable_python
from tabulate import tabulate

from transferbench.claims import (
    Family,
    Verdict,
    control_word,
    controls_of,
    counts_of,
    families_of,
    family_of,
    tally,
)
from transferbench.errors import TransferbenchError
from transferbench.files import disk_errors_explained
from transferbench.identity import digest
from transferbench.leaderboard import boards, show
from transferbench.measurements import Measurements, frame_of
from transferbench.registry import Distributions, Registry, open_registry
from transferbench.report import ReportInput, render_report
from transferbench.report.absences import Absences
from transferbench.report.headline import answer
from transferbench.report.page import scopes_of
from transferbench.report.tuning import choices_in, planned_trainings
from transferbench.runner.collect import JobState, finished_codes, job_states
from transferbench.runner.contact_sheet import read_sheets
from transferbench.runner.entries import has_several_entries
from transferbench.runner.folder import (
    CLAIMS,
    ENVIRONMENT,
    RECORDS,
    REPORT,
    RUN,
    SUBMISSIONS,
    RunDescription,
    RunJob,
    read_claims,
    read_environment,
    read_json,
    read_run,
    read_run_records,
    refuse_cut_records,
)
from transferbench.runner.other_code import Difference, differences
from transferbench.runner.planning import Planned
from transferbench.runner.run import Results
from transferbench.runner.run_store import find_store
from transferbench.statistics import replicate_mean
from transferbench.store import Store
from transferbench.submission import Declaration, pack, suite_as_packed
from transferbench.suite import TRIAL, Suite
from transferbench.suite.published import KnownSuites

if TYPE_CHECKING:
    from transferbench.reporting import Panel

__all__ = ["VERDICT_COLUMNS", "Run", "verdict_row"]

UNDECLARED = Declaration(submitter=None, license=None, overlap={})
"""For a board that is shown and not published."""
VERDICT_COLUMNS = ("claim", "family", "verdict", "effect", "95% interval", "n", "statement")
MAX_REASON = 300
"""Characters of the reason why a folder cannot be read."""
SETTLE_SECONDS = 0.5
"""How long another process takes at most to write the files of a run, one after another."""
MAX_PANELS = 8
PANEL_COLUMNS = 4


class Run:
    """A run in its folder.

    ``registry``: the plugins it ran with (None: those that are installed now). ``store``: where its
    artefacts are, if they are not where they were nor beside the folder.
    Raises: ``StoreError`` where the folder holds no run.
    """

    def __init__(
        self,
        folder: str | Path,
        registry: Registry | None = None,
        store: str | Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.registry = registry
        self._explicit_store = None if store is None else Path(store)
        self._versions = _versions(self.folder)
        self.described: Mapping[str, Any] = read_json(self.folder / RUN)

    @classmethod
    def of_results(cls, planned: Planned, results: Results) -> Self:
        """The run that has just written its folder, without reading all of it again."""
        run = cls(planned.folder, planned.registry)
        run.store = planned.store  # which has verified what a board reads
        if run.entries != list(results.verdicts):
            return run  # another process has joined its entries since
        run.measurements = results.measurements
        run.claims = dict(results.verdicts)
        run.job_rows = run._job_rows(results.collected.states)
        return run

    @cached_property
    def _run(self) -> RunDescription:
        return read_run(self.folder)

    @property
    def suite(self) -> Suite:
        """The suite as it was run."""
        return self._run.suite

    @cached_property
    def store(self) -> Store:
        """The store of its jobs' artefacts. Raises: ``StoreError`` where it cannot be located."""
        return find_store(self.folder, self._run, self._explicit_store)

    @cached_property
    def measurements(self) -> pd.DataFrame:
        """A tidy table: one row for each measurement, a column for each coordinate."""
        return frame_of(read_run_records(self.folder, self._run))

    def table(self, metric: str = "test_metric") -> pd.DataFrame:
        """The mean of what the trials measured: a row for each entry, target, perturbation, arm.

        Error: ``low`` and ``high`` bound a 95% interval over ``n`` replicates, or source networks
        where an arm starts from several, by ``transferbench.statistics.replicate_mean``.
        """
        rows = Measurements(self.measurements).select(diagnostic=TRIAL, metric=metric).valued()
        groups = rows.groups("entry", "target", "perturbation", "initialization")
        means = {
            axes: replicate_mean(group.by_replicate(), group.networks, ends=group.bounds)
            for axes, group in groups.items()
        }
        table = pd.DataFrame(
            [(*axes, mean.value, mean.low, mean.high, mean.n) for axes, mean in means.items()],
            columns=["entry", "target", "perturbation", "arm", "mean", "low", "high", "n"],
        )
        return table.astype({"mean": float, "low": float, "high": float})

    def rates(self) -> pd.DataFrame:
        """The learning rates that were tried: a row for each entry, target, arm and rate.

        ``validation_metric``: the mean over ``n`` tuning replicates, of which ``lost`` have none
        and count as 0. ``chosen``: whether the trials have this rate, once all were tried;
        ``flag``: what makes the choice doubtful.
        """
        rows = []
        for (entry, target, arm), choice in choices_in(Measurements(self.measurements)).items():
            is_complete = choice.trainings == planned_trainings(self.suite, target, arm)
            for rate in choice.tried:
                chosen = is_complete and rate == choice.best
                flag = "; ".join(choice.flags) if chosen else ""
                rows.append((entry, target, arm, rate.learning_rate, rate.mean, len(rate.values),
                             rate.lost, chosen, flag))  # fmt: skip
        columns = ["entry", "target", "arm", "learning_rate", "validation_metric", "n", "lost",
                   "chosen", "flag"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def claims(self) -> dict[str, list[Verdict]]:
        """The verdicts on the suite's claims, for each entry."""
        return read_claims(self.folder, self._run)

    @property
    def families(self) -> dict[str, list[Family]]:
        """The verdicts counted per claim of the paper, with Holm's correction, for each entry."""
        return {entry: families_of(verdicts) for entry, verdicts in self.claims.items()}

    @cached_property
    def job_rows(self) -> list[dict[str, Any]]:
        """How each job ended: job, kind, label, status, wall_seconds, message of a failure."""
        return self._job_rows(job_states(self._jobs, self.store))

    def _job_rows(self, states: Mapping[str, JobState]) -> list[dict[str, Any]]:
        return [
            {"job": job, "kind": row.kind, "label": row.label, **states[job]._asdict()}
            for job, row in self._jobs.items()
        ]

    @cached_property
    def other_code(self) -> tuple[Difference, ...]:
        """What finished jobs were computed by that is not the code of their plugins now."""
        installed = Distributions()
        now = {used.plugin: used.now(installed) or used for used in self._run.code.plugins}
        return differences(finished_codes(self._jobs, self.store), now)

    @property
    def code_notes(self) -> tuple[str, ...]:
        """``other_code`` in words, and the codes that are mixed in one entry."""
        return (*map(str, self.other_code), *self._run.code.mixtures)

    @property
    def _jobs(self) -> dict[str, RunJob]:
        return {row.id: row for row in self._run.jobs}

    @property
    def statuses(self) -> pd.DataFrame:
        """``job_rows`` as a table."""
        return pd.DataFrame(self.job_rows)

    def refuse_cut_records(self) -> None:
        """Raise ``StoreError`` where records were written of which lines are gone."""
        self._settled(Run._refuse_cut_records)

    def _refuse_cut_records(self) -> None:
        refuse_cut_records(self.folder, self._run)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The jobs that did not finish, with the reason."""
        return [row for row in self.job_rows if row["status"] != "ok"]

    @property
    def _external(self) -> list[str]:
        """The entries with external weights."""
        described = self.described.get("entries", ())
        return [entry["name"] for entry in described if entry.get("weights")]

    @property
    def entries(self) -> list[str]:
        """The names of the entries."""
        return [entry.name for entry in self._run.entries]

    def report(self) -> Path:
        """Write the report, one HTML file; returns its path."""
        self._settled(Run._write_report)
        return self.folder / REPORT

    def _settled(self, work: Callable[[Run], None]) -> None:
        """Do ``work``, and again where another process wrote the folder meanwhile."""
        run, versions = self, self._versions
        while True:
            try:
                work(run)
            except TransferbenchError:
                if not has_several_entries(self.folder):
                    raise
                time.sleep(SETTLE_SECONDS)
                if versions == _versions(self.folder):
                    raise
            else:
                if versions == _versions(self.folder):
                    return
            versions = _versions(self.folder)
            run = Run(self.folder, self.registry, self._explicit_store)

    def _write_report(self) -> None:
        render_report(self._report_input(), self.folder / REPORT)

    def _report_input(self) -> ReportInput:
        registry = self.registry or open_registry()
        return ReportInput(
            suite=self.suite.with_chance(self._run.data.chance),
            entries=self.entries,
            measurements=self.measurements,
            verdicts=self.claims,
            statuses=self.statuses,
            provenance=self._provenance(),
            changed=self._run.changed,
            diagnostics=registry.diagnostics,
            notes=(*self._run.data.notes, *self._run.code.notes),
            classes=self._run.data.classes,
            cards=self._run.data.cards,
            sheets=read_sheets(self.folder),
            external=self._external,
            absences={
                entry.name: Absences(entry.left_out, entry.unmeasured, not self.failed)
                for entry in self._run.entries
            },
        )

    @property
    def answers(self) -> dict[str, str]:
        """Entry -> the sentences that its report begins with: what pre-training brings."""
        return {scope.entry: answer(scope) for scope in scopes_of(self._report_input())}

    def board(self) -> str:
        """The board of this run's entries as text, or the reason why there is none."""
        try:
            self._settled(Run._pack_entries)
            registry = self.registry or open_registry()
            own = KnownSuites(others=[suite_as_packed(self.folder)])
            texts = [show(board) for board in boards(self.folder / SUBMISSIONS, registry, own)]
        except TransferbenchError as error:
            return f"no board: {error}"
        if changed := ", ".join(self._run.changed):
            texts.append(
                f"the suite was changed ({changed}): this board is of this run alone, and its rows"
                " cannot be submitted"
            )
        return "\n\n".join(texts)

    def _pack_entries(self) -> None:
        packed = self.folder / SUBMISSIONS
        registry = self.registry or open_registry()
        with disk_errors_explained(packed):
            for name in self.entries:
                pack(self.folder, self.store, name, packed, UNDECLARED, registry, private=True)

    def summary(self) -> dict[str, Any]:
        """The outcome of the run as plain data, for programs."""
        return {
            "suite": self.suite.id,
            "folder": str(self.folder),
            "entries": self.entries,
            "changed": list(self._run.changed),
            "jobs": len(self.statuses),
            "failed": self.failed,
            "code": list(self._run.code.notes),
            "rates": self.rates().to_dict("records"),
            "claims": to_jsonable_python(self.claims),
            "families": {
                entry: [_family_facts(family) for family in families]
                for entry, families in self.families.items()
            },
            "controls": {
                entry: controls_of(verdicts).control_facts
                for entry, verdicts in self.claims.items()
            },
        }

    def __repr__(self) -> str:
        try:
            return f"<Run {self._described()}; {self.folder}>"
        except Exception as error:  # noqa: BLE001  # a repr shows whatever is left of a folder
            return f"<Run {self.folder}; cannot be read: {_short(error)}>"

    def _described(self) -> str:
        """Suite, entries, jobs and verdicts in a line."""
        statuses = Counter(row["status"] for row in self.job_rows)
        jobs = ", ".join(f"{count} {status}" for status, count in statuses.items())
        facts = [f"{self._run.suite_id} of {', '.join(self.entries)}", f"jobs: {jobs}"]
        if (self.folder / CLAIMS).is_file():
            counts = counts_of(family.verdict for family in chain(*self.families.values()))
            facts.append(f"claims: {counts.words}")
        return "; ".join(facts)

    def _repr_html_(self) -> str:
        title = repr(self)
        if not (self.folder / CLAIMS).is_file():
            return f"<p>{escape(title)}</p>"
        try:
            return _notebook_view(title, self.claims, self.table(), self.suite)
        except Exception as error:  # noqa: BLE001  # as __repr__
            return f"<p>{escape(title)}</p><p>{escape(_short(error))}</p>"

    def _provenance(self) -> dict[str, str]:
        facts = read_environment(self.folder)
        packages = ", ".join(f"{name} {version}" for name, version in facts.packages.items())
        return {
            "suite": f"{self._run.suite_id} (sha256 {self._run.suite_digest[:16]})",
            "python": facts.python,
            "platform": facts.platform,
            "packages": packages,
            **{f"jobs: {name}": ", ".join(values) for name, values in facts.jobs.items()},
        }


def _versions(folder: Path) -> list[tuple[int, int] | None]:
    """What changes whenever a file of a run is written."""
    return [_version(folder / name) for name in (RUN, RECORDS, CLAIMS, ENVIRONMENT)]


def _version(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_mtime_ns
    return None


def _short(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}", MAX_REASON)


# --- how a run is shown ---------------------------------------------------------------------


def verdict_row(verdict: Verdict) -> tuple[str, str, str, str, str, int, str]:
    """A verdict as a row of a table with ``VERDICT_COLUMNS``."""
    if verdict.control:
        family, word = "control", control_word(verdict.verdict)
    else:
        family = family_of(verdict.claim, verdict.family, verdict.source)
        word = verdict.verdict
    word = ", ".join((word, *verdict.flags))
    texts = (verdict.effect_text, verdict.bounds_text)
    return verdict.claim, family, word, *texts, verdict.n, verdict.statement


def _family_facts(family: Family) -> dict[str, Any]:
    """A family as plain data; its claims by label."""
    facts = family._asdict()
    return facts | {"verdicts": {v.claim: v.verdict for v in family.verdicts}}


def _notebook_view(
    title: str, claims: Mapping[str, Sequence[Verdict]], table: pd.DataFrame, suite: Suite
) -> str:
    """HTML without references to other files; ``table``: of ``Run.table``."""
    parts = [f"<p>{escape(title)}</p>"]
    for entry, verdicts in claims.items():
        rows = [verdict_row(verdict) for verdict in verdicts]
        parts.append(f"<p>{escape(f'{entry}: {tally(verdicts)}')}</p>")
        parts.append(tabulate(rows, VERDICT_COLUMNS, tablefmt="html", disable_numparse=True))
    groups = list(table.groupby(["target", "entry"], sort=False))[:MAX_PANELS]
    if panels := [_panel(f"{entry} on {target}", rows, suite) for (target, entry), rows in groups]:
        parts.append(_picture(panels, name=f"run-{digest(title)[:8]}"))
    return "\n".join(parts)


def _panel(title: str, means: pd.DataFrame, suite: Suite) -> Panel:
    """The scored arm and its baseline under each perturbation, with their intervals."""
    from transferbench.reporting import Panel, Series, Summary, arm_styles

    labels = list(suite.perturbations)
    styles = arm_styles(suite)
    series = []
    for arm in (suite.scoring.initialization, suite.scoring.baseline):
        rows: list[Any] = list(means[means["arm"] == arm].itertuples())
        summaries = [Summary(row.mean, row.low, row.high, row.n, "") for row in rows]
        positions = [labels.index(row.perturbation) for row in rows]
        series.append(Series(arm, positions, summaries, styles[arm]))
    return Panel(title, series, y_label="test metric", bars=True, ticks=labels)


def _picture(panels: Sequence[Panel], name: str) -> str:
    from transferbench.report.drawing import draw
    from transferbench.reporting import PanelFigure, in_rows

    description = "The test metric of the scored arm and its baseline under each perturbation"
    # White under the drawing: its ink would not show in a notebook with a dark theme.
    svg = draw(PanelFigure(description, in_rows(panels, PANEL_COLUMNS), height=2.2), name)
    return f'<div style="background: white">{svg}</div>'
