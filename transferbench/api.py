"""The same things as on the command line, as Python calls.

finished = transferbench.run("quickstart", backbones=["timm/resnet10t"])
finished.measurements, finished.claims, finished.report()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from transferbench.claims import Verdict
from transferbench.errors import DataError, StoreError, SubmissionError, TransferbenchError
from transferbench.files import atomic_path, disk_errors_explained
from transferbench.leaderboard import boards, show
from transferbench.measurements import frame_of
from transferbench.plan import Job
from transferbench.records import read_records
from transferbench.registry import Registry
from transferbench.report import ReportInput, render_report
from transferbench.runner.execution import execute_plan
from transferbench.runner.executors import Outcome
from transferbench.runner.folder import (
    CLAIMS,
    ENVIRONMENT,
    RECORDS,
    RUN,
    read_json,
    read_statuses,
)
from transferbench.runner.request import Options, Planned, open_registry, plan_run
from transferbench.runner.scheduler import Watcher
from transferbench.statistics import paired_difference
from transferbench.store import Store
from transferbench.submission import Declaration, pack
from transferbench.suite import TRIAL, Suite

__all__ = ["Run", "compare_runs", "export_run", "finish", "pack_run", "plan_run", "run"]

REPORT = "report.html"
PLACE = ["entry", "target", "perturbation", "initialization", "metric", "unit", "replicate"]
"""What the measurements of two trials must share to be compared."""

UNDECLARED = Declaration(submitter=None, license=None, overlap={})
"""By whom, under which licence: for a board that is shown and not published."""


class Silent:
    """A watcher that tells nobody."""

    def planned(self, total: int, done: int) -> None:
        """Do nothing."""

    def started(self, job: Job) -> None:
        """Do nothing."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Do nothing."""


class Run:
    """A run in its folder: its numbers, its verdicts, its report and its failures.

    ``registry``: the plugins it ran with (None: those that are installed now).
    Raises: ``StoreError`` where the folder holds no run.
    """

    def __init__(self, folder: str | Path, registry: Registry | None = None) -> None:
        self.folder = Path(folder)
        self.registry = registry
        self.described: Mapping[str, Any] = read_json(self.folder / RUN)

    @cached_property
    def suite(self) -> Suite:
        """The suite as it was run."""
        return Suite.model_validate(self.described["suite"])

    @cached_property
    def store(self) -> Store:
        """The store of its jobs' artefacts."""
        return Store(self.folder / self.described["store"])

    @cached_property
    def measurements(self) -> pd.DataFrame:
        """A tidy table: one row for each measurement, a column for each coordinate."""
        path = self.folder / RECORDS
        if not path.is_file():
            raise StoreError(
                f"{self.folder} has no {RECORDS}: the run did not come to its end; run the suite "
                "again with this folder as --out to go on"
            )
        return frame_of(read_records(path))

    @cached_property
    def claims(self) -> dict[str, list[Verdict]]:
        """The verdicts on the suite's claims, for each entry."""
        found = read_json(self.folder / CLAIMS)
        return {name: [Verdict.model_validate(one) for one in given]
                for name, given in found.items()}  # fmt: skip

    @cached_property
    def statuses(self) -> pd.DataFrame:
        """One row for each job."""
        return pd.DataFrame(read_statuses(self.folder))

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The jobs that did not finish, with the reason."""
        return [one for one in read_statuses(self.folder) if one["status"] != "ok"]

    @property
    def entries(self) -> list[str]:
        """The names of the entries."""
        return [entry["name"] for entry in self.described["entries"]]

    def report(self) -> Path:
        """Write the report, one HTML file, and say where it is."""
        path = self.folder / REPORT
        with atomic_path(path) as temporary:
            render_report(
                ReportInput(
                    suite=self.suite,
                    entries=self.entries,
                    measurements=self.measurements,
                    verdicts=self.claims,
                    statuses=self.statuses,
                    provenance=_provenance(self.folder, self.described),
                    changed=self.described["changed"],
                ),
                temporary,
            )
        return path

    def board(self) -> str:
        """The board of this run's entries as text; why there is none, where there is none."""
        packed = self.folder / "submissions"
        registry = self.registry or open_registry(())
        try:
            with disk_errors_explained(packed):
                for name in self.entries:
                    pack(self.folder, self.store, name, packed, UNDECLARED, registry,
                         private=True)  # fmt: skip
        except TransferbenchError as error:
            return f"no board: {error}"
        shown = [show(board) for board in boards(packed, registry)]
        if changed := ", ".join(self.described["changed"]):
            shown.append(
                f"the suite was changed ({changed}): this board is of this run alone, and its rows"
                " cannot be submitted"
            )
        return "\n\n".join(shown)

    def summary(self) -> dict[str, Any]:
        """What a program wants to know of a finished run."""
        return {
            "suite": self.suite.id,
            "folder": str(self.folder),
            "entries": self.entries,
            "changed": list(self.described["changed"]),
            "jobs": len(self.statuses),
            "failed": self.failed,
            "claims": {name: [one.model_dump(mode="json") for one in found]
                       for name, found in self.claims.items()},
        }  # fmt: skip


def run(suite: str | Suite, watcher: Watcher | None = None, **options: Any) -> Run:
    """Run ``suite`` and write its folder and report. Options as ``planning.Options``.

    What is already in the store is not computed again; an interrupted run goes on.
    """
    return finish(plan_run(suite, Options(**options)), watcher or Silent())


def finish(planned: Planned, watcher: Watcher) -> Run:
    """Execute a plan and write its report."""
    execute_plan(planned, watcher)
    finished = Run(planned.folder, planned.registry)
    finished.report()
    return finished


def pack_run(
    folder: str | Path,
    out: str | Path,
    entries: Sequence[str] = (),
    submitter: str | None = None,
    weights_license: str | None = None,
    overlap: Sequence[str] = (),
    registry: Registry | None = None,
) -> list[Path]:
    """Pack entries of a run (all of them where none is named) into submissions below ``out``.

    ``overlap``: ``TARGET=yes|no|unknown``, whether the weights have seen the target's images.
    """
    found, out = Run(folder), Path(out)
    registry = registry or open_registry(())
    declaration = Declaration(
        submitter=submitter, license=weights_license, overlap=_overlap(overlap)
    )
    with disk_errors_explained(out):
        return [
            pack(found.folder, found.store, name, out, declaration, registry)
            for name in entries or found.entries
        ]


def _overlap(given: Sequence[str]) -> dict[str, Any]:
    pairs = [one.partition("=") for one in given]
    for target, _, answer in pairs:
        if answer not in {"yes", "no", "unknown"}:
            raise SubmissionError(
                f"--overlap {target}={answer}: the answer must be yes, no or unknown"
            )
    return {target: answer for target, _, answer in pairs}


def export_run(folder: str | Path, to: str | Path) -> int:
    """Write a run's measurements as csv, parquet or json, and say how many rows there are."""
    table, to = Run(folder).measurements, Path(to)
    writers: dict[str, Callable[[Path], None]] = {
        ".csv": lambda path: table.to_csv(path, index=False),
        ".parquet": lambda path: table.to_parquet(path, index=False),
        ".json": lambda path: table.to_json(path, orient="records", indent=1),
    }
    if to.suffix not in writers:
        raise DataError(f"cannot export to {to.name!r}: its ending must be one of "
                        f"{', '.join(writers)}")  # fmt: skip
    with atomic_path(to) as temporary:
        writers[to.suffix](temporary)
    return len(table)


def compare_runs(first: str | Path, second: str | Path) -> list[dict[str, Any]]:
    """What the trials of two runs measured in the same places: both means and the difference.

    The interval is a paired Student-t over the replicates that both have.
    """
    tables = [_single_values(Run(folder).measurements) for folder in (first, second)]
    joined = tables[0].merge(tables[1], left_index=True, right_index=True, suffixes=("_a", "_b"))
    levels = [name for name in joined.index.names if name != "replicate"]
    return [
        dict(zip(map(str, levels), place, strict=True)) | _difference(group)
        for place, group in joined.groupby(level=levels, sort=False)
    ]


def _difference(group: pd.DataFrame) -> dict[str, Any]:
    a, b = group["value_a"].to_numpy(float), group["value_b"].to_numpy(float)
    interval = paired_difference(list(a), list(b))
    return {
        "a": float(a.mean()), "b": float(b.mean()), "a - b": interval.value,
        "low": interval.low, "high": interval.high, "n": len(a),
    }  # fmt: skip


def _single_values(table: pd.DataFrame) -> pd.DataFrame:
    """What the trials themselves measured, one value a place and replicate."""
    trials = table[(table["diagnostic"] == TRIAL) & table["value"].notna()]
    return trials.set_index(PLACE)[["value"]]


def _provenance(folder: Path, described: Mapping[str, Any]) -> dict[str, str]:
    facts = read_json(folder / ENVIRONMENT)
    packages = ", ".join(f"{name} {found}" for name, found in facts["packages"].items())
    return {
        "suite": f"{described['suite_id']} (sha256 {described['suite_digest'][:16]})",
        "python": facts["python"],
        "platform": facts["platform"],
        "packages": packages,
        **{f"jobs: {name}": ", ".join(found) for name, found in facts["jobs"].items()},
    }
