"""The one check of a submission, the same at home and where it is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

from transferbench.errors import SubmissionError, TransferbenchError, shortened
from transferbench.registry import Registry, load_registry
from transferbench.submission import integrity, recompute
from transferbench.submission.bundle import SUBMISSION, Bundle, file_problems, read_bundle
from transferbench.submission.diagnoses import check_diagnoses_follow_from_trials
from transferbench.submission.integrity import Problem

__all__ = ["Check", "CheckReport", "Trust", "check", "examine"]

Status = Literal["ok", "warning", "failed"]
Trust = Literal["reported", "recomputed"]
Finder = Callable[[Bundle], Iterator[Problem]]

SHOWN = 5
"""How many problems of one check are spelled out."""

RECOMPUTING = ("predictions belong together", "metrics follow from predictions")


@dataclass(frozen=True)
class Check:
    """One named property of a submission, and why it does not hold."""

    name: str
    status: Status
    why: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join((f"{self.status:<8} {self.name}", *self.why))


@dataclass(frozen=True)
class CheckReport:
    """Everything that was checked, in a fixed order."""

    path: Path
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether the submission can be published; warnings do not stand in its way."""
        return all(check.status != "failed" for check in self.checks)

    @property
    def trust(self) -> Trust:
        """``recomputed`` where every test metric was recomputed from the predictions."""
        held = {check.name for check in self.checks if check.status == "ok"}
        return "recomputed" if self.ok and held.issuperset(RECOMPUTING) else "reported"

    def __str__(self) -> str:
        verdict = f"accepted, {self.trust}" if self.ok else "refused"
        return "\n".join((*map(str, self.checks), f"{self.path}: {verdict}"))


def check(path: Path, registry: Registry | None = None) -> CheckReport:
    """Check the submission in the folder ``path``; bad content is a failed check, never an error.

    Raises: ``SubmissionError`` where there is no submission at all.
    """
    return examine(path, registry)[0]


def examine(path: Path, registry: Registry | None = None) -> tuple[CheckReport, Bundle | None]:
    """As ``check``, with the content where it could be read."""
    if not path.is_dir() or not (path / SUBMISSION).exists():
        raise SubmissionError(
            f"{path} is not a submission: it has no {SUBMISSION}; give the folder that"
            " 'transferbench submission pack' printed"
        )
    files = _check("the files are those of a submission", partial(file_problems_found, path))
    if files.status == "failed":
        return CheckReport(path, (files,)), None
    try:
        bundle = read_bundle(path)
    except Exception as error:  # noqa: BLE001  # whatever foreign bytes break, they are refused
        shape = Check("every file can be read", "failed", (_told(error).replace(f"{path}/", ""),))
        return CheckReport(path, (files, shape)), None
    named = _named_checks(registry or load_registry())
    found = tuple(_check(name, partial(finder, bundle)) for name, finder in named.items())
    return CheckReport(path, (files, Check("every file can be read", "ok"), *found)), bundle


def file_problems_found(path: Path) -> Iterator[Problem]:
    """What is wrong with the files before any is opened."""
    return (Problem(why) for why in file_problems(path))


def _named_checks(registry: Registry) -> dict[str, Finder]:
    return {
        "content is untouched": integrity.check_content_is_untouched,
        "suite is the published one": integrity.check_suite_is_the_published_one,
        "job ids follow from payloads": integrity.check_job_ids_follow_from_payloads,
        "every cell is there once": partial(
            integrity.check_every_cell_is_there_once, registry=registry
        ),
        "plan can be made again": partial(
            integrity.check_plan_can_be_made_again, registry=registry
        ),
        "predictions belong together": recompute.check_predictions_belong_together,
        "metrics follow from predictions": recompute.check_metrics_follow_from_predictions,
        "diagnoses follow from their trials": partial(
            check_diagnoses_follow_from_trials, registry=registry
        ),
        "numbers are possible": recompute.check_numbers_are_possible,
        "settings did something": recompute.check_settings_did_something,
        "verdicts follow from records": recompute.check_verdicts_follow_from_records,
        "controls are at chance": recompute.check_controls_are_at_chance,
        "licence and overlap are declared": integrity.check_licence_and_overlap_are_declared,
    }


def _check(name: str, find: Callable[[], Iterator[Problem]]) -> Check:
    """Run one check; what it cannot read is its failure."""
    try:
        problems = list(islice(find(), 1000))
    except Exception as error:  # noqa: BLE001  # whatever foreign content breaks, it is refused
        return Check(name, "failed", (f"it could not be checked: {_told(error)}",))
    grave = [problem.why for problem in problems if not problem.warning]
    mild = [problem.why for problem in problems if problem.warning]
    status: Status = "failed" if grave else "warning" if mild else "ok"
    return Check(name, status, tuple(shortened([*grave, *mild], SHOWN)))


def _told(error: Exception) -> str:
    """An error in one bounded line."""
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, TransferbenchError) else f"{type(error).__name__}: "
    return (kind + text)[:300]
