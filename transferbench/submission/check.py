"""The check of a submission, the same for submitters and for maintainers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

from transferbench.errors import SubmissionError, TransferbenchError, shortened
from transferbench.plan import Plan
from transferbench.records import Overlap
from transferbench.registry import Registry, load_registry
from transferbench.registry.guard import only_plugins_run
from transferbench.streams import printable
from transferbench.submission import integrity, recompute
from transferbench.submission.bundle import SUBMISSION, Bundle, Problem, file_problems, read_bundle
from transferbench.submission.certificate import Certificate, certificates_of, is_valid_for
from transferbench.submission.diagnoses import (
    Recomputation,
    check_diagnoses_follow_from_trials,
    recompute_diagnoses,
)
from transferbench.submission.labels import check_labels_are_pinned
from transferbench.submission.origins import Origins, origins_of
from transferbench.submission.overlap import (
    Shared,
    check_overlap_is_computed,
    near_sentence,
    overlaps_of,
    shared_images,
)
from transferbench.submission.trials import check_labels_are_classes, check_trials_are_whole
from transferbench.submission.tuning import check_rates_follow_from_tuning
from transferbench.submission.verdicts import check_verdicts_follow_from_records
from transferbench.suite.published import KnownSuites, suites_beside

__all__ = ["Check", "CheckReport", "Trust", "check"]

CheckStatus = Literal["ok", "warning", "failed"]
Trust = Literal["reported", "recomputed", "spot-checked"]
Finder = Callable[[Bundle], Iterator[Problem]]

MAX_LISTED = 5
"""Problems of a check that are listed."""

MAX_PROBLEMS = 1000
"""Failures of a check that are counted, and warnings."""
LONGEST_WHY = 2000
"""Characters of a problem."""

UNTOUCHED = "content is untouched"
PUBLISHED = "suite is the published one"
PINNED = "labels are those of the dataset"
RECOMPUTING = ("predictions belong together", "metrics follow from predictions", PINNED)


@dataclass(frozen=True)
class Check:
    """A named property of a submission; ``why``: the problems."""

    name: str
    status: CheckStatus
    why: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n    ".join((f"{self.status:<8} {self.name}", *self.why))


@dataclass(frozen=True)
class CheckReport:
    """The checks of a submission, in a fixed order; ``bundle``: its content, if it can be read.

    Of one that can be published, ``origins``: where its values come from; ``certificates``: those
    beside it that another than its submitter made; ``overlaps``: of its targets with the
    pre-training; ``shared``: by its own digests, what their test images share with it.
    """

    path: Path
    checks: tuple[Check, ...]
    bundle: Bundle | None = field(default=None, repr=False)
    origins: Origins | None = field(default=None, repr=False)
    certificates: tuple[Certificate, ...] = field(default=(), repr=False)
    overlaps: Mapping[str, Overlap] = field(default_factory=dict, repr=False)
    shared: Mapping[str, Shared] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the submission can be published; warnings do not prevent it."""
        return all(check.status != "failed" for check in self.checks)

    @property
    def content(self) -> Bundle:
        """The content. Raises: ``SubmissionError`` where it cannot be read."""
        if self.bundle is None:
            raise SubmissionError(f"{self.path} cannot be read")
        return self.bundle

    @property
    def folder(self) -> str:
        """Its folder, relative to that of all submissions."""
        return "/".join(self.path.parts[-3:])

    @property
    def is_untouched(self) -> bool:
        """Whether it is, accepted or not, what its id stands for: else nothing it says counts."""
        broken = any(each.name == UNTOUCHED and each.status == "failed" for each in self.checks)
        return self.bundle is not None and not broken

    @property
    def is_of_known_suite(self) -> bool:
        """Whether its suite is, byte for byte, one that boards are of."""
        return any(check.name == PUBLISHED and check.status == "ok" for check in self.checks)

    @property
    def trust(self) -> Trust:
        """``recomputed`` if every test metric follows from the predictions and pinned labels.

        ``spot-checked`` if some of its trials were trained again besides, by another.
        """
        passed = {check.name for check in self.checks if check.status == "ok"}
        if not (self.ok and passed.issuperset(RECOMPUTING)):
            return "reported"
        return "spot-checked" if self.certificates else "recomputed"

    def refused_for(self, error: Exception) -> CheckReport:
        """This report with one more check, which failed by ``error``."""
        failed = Check("it can be shown", "failed", (_error_line(error),))
        return replace(self, checks=(*self.checks, failed))

    def __str__(self) -> str:
        verdict = f"accepted, {self.trust}" if self.ok else "refused"
        values = [f"values: {self.origins.text}"] if self.origins else []
        near = [near_sentence(self.shared)] if self.shared else []
        return "\n".join((*map(str, self.checks), *values, *near, f"{self.path}: {verdict}"))


def check(
    path: Path, registry: Registry | None = None, suites: KnownSuites | None = None
) -> CheckReport:
    """Check the submission in the folder ``path``; bad content is a failed check, never an error.

    ``suites``: those that a board may be of; by default the package's, and those beside the folder
    of submissions that it is in.
    Raises: ``SubmissionError`` if there is no submission.
    """
    if not os.path.lexists(path / SUBMISSION):  # a link to nowhere is a bad file of a submission
        raise SubmissionError(
            f"{path} is not a submission: it has no {SUBMISSION}; give the folder that"
            " 'transferbench submission pack' printed"
        )
    files = _check("the files are those of a submission", partial(file_problems, path))
    if files.status == "failed":
        return CheckReport(path, (files,))
    try:
        bundle = read_bundle(path)
    except Exception as error:  # noqa: BLE001  # untrusted bytes may raise anything
        why = _error_line(error).replace(f"{path}/", "")
        return CheckReport(path, (files, Check("every file can be read", "failed", (why,))))
    suites = suites or suites_beside(path.absolute().parents[2])
    registry = registry or load_registry()
    with only_plugins_run():
        once = cache(lambda: recompute_diagnoses(bundle, registry))
        shared = cache(lambda: shared_images(bundle))
        planned = cache(lambda: integrity.planned_again(bundle, registry))
        named = _named_checks(registry, suites, once, shared, planned)
        checks = [_check(name, partial(finder, bundle)) for name, finder in named.items()]
        report = CheckReport(path, (files, Check("every file can be read", "ok"), *checks), bundle)
        if not report.ok:
            return report
        beside = certificates_of(path.absolute().parents[2], bundle.submission.id)
        valid = tuple(each for each in beside if is_valid_for(each, bundle))
        return replace(report, origins=origins_of(bundle, once()), certificates=valid,
                       shared=shared(), overlaps=overlaps_of(bundle, suites, shared()))  # fmt: skip


def _named_checks(
    registry: Registry,
    suites: KnownSuites,
    recomputed: Callable[[], Recomputation],
    shared: Callable[[], Mapping[str, Shared]],
    planned: Callable[[], Plan],
) -> dict[str, Finder]:
    def registered(check: Callable[[Bundle, Registry], Iterator[Problem]]) -> Finder:
        return lambda bundle: check(bundle, registry)

    def replanned(check: Callable[..., Iterator[Problem]]) -> Finder:
        return lambda bundle: check(bundle, registry, planned)

    return {
        UNTOUCHED: integrity.check_content_is_untouched,
        PUBLISHED: partial(integrity.check_suite_is_the_published_one, suites=suites),
        "job ids follow from payloads": integrity.check_job_ids_follow_from_payloads,
        "every cell is there once": registered(integrity.check_every_cell_is_there_once),
        "plan can be made again": replanned(integrity.check_plan_can_be_made_again),
        "predictions belong together": recompute.check_predictions_belong_together,
        "metrics follow from predictions": recompute.check_metrics_follow_from_predictions,
        "labels are classes": check_labels_are_classes,
        PINNED: partial(check_labels_are_pinned, suites=suites),
        "trials are whole": check_trials_are_whole,
        "rates follow from tuning": check_rates_follow_from_tuning,
        "diagnoses follow from their trials": lambda bundle: check_diagnoses_follow_from_trials(
            bundle, recomputed()
        ),
        "numbers are possible": registered(recompute.check_numbers_are_possible),
        "settings did something": recompute.check_settings_did_something,
        "verdicts follow from records": replanned(check_verdicts_follow_from_records),
        "controls are at chance": recompute.check_controls_are_at_chance,
        "licence and overlap are declared": integrity.check_licence_and_overlap_are_declared,
        "overlap is computed": partial(check_overlap_is_computed, suites=suites, shared=shared),
    }


def _check(name: str, find: Callable[[], Iterator[Problem]]) -> Check:
    """Run a check; content that it cannot read is a failure."""
    failures, warnings = list[str](), list[str]()
    try:
        for problem in find():
            # Each has its own limit, so that no number of warnings hides a failure.
            reasons = warnings if problem.warning else failures
            if len(reasons) < MAX_PROBLEMS:
                reasons.append(printable(problem.why[:LONGEST_WHY]))
            elif reasons is failures:
                break
    except Exception as error:  # noqa: BLE001  # untrusted content may raise anything
        return Check(name, "failed", (f"it could not be checked: {_error_line(error)}",))
    status: CheckStatus = "failed" if failures else "warning" if warnings else "ok"
    return Check(name, status, tuple(shortened([*failures, *warnings], MAX_LISTED)))


def _error_line(error: Exception) -> str:
    """The message in a line of limited length."""
    text = printable(" ".join(str(error).split()))
    kind = "" if isinstance(error, TransferbenchError) else f"{type(error).__name__}: "
    return (kind + text)[:300]
