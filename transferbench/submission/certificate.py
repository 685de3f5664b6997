"""Certificates: some trials of a submission, trained again, and what they gave."""

from __future__ import annotations

import datetime as dt
import random
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from transferbench.errors import SubmissionError
from transferbench.identity import Sha256, digest
from transferbench.submission.bundle import Bundle, Text, parse_json
from transferbench.submission.integrity import scored_rows
from transferbench.submission.recompute import equal_values

__all__ = [
    "CERTIFICATES",
    "TOLERANCE",
    "Certificate",
    "Repeated",
    "certificates_of",
    "chosen_trials",
    "is_another",
    "is_of",
    "is_valid_for",
]

CERTIFICATES = "certificates"
"""The folder of certificates, beside that of the submissions; in it, one for each submission."""

TOLERANCE = 0.03
"""Of the metric of one trial, a fraction: another machine gives other last bits, and a training
amplifies them. One standard deviation of the accuracy on 1,000 images is at most 0.016."""

MAX_BYTES = 2**20

ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN"})
"""Alphabets with letters that look like those of another."""


def _a_day(text: str) -> str:
    if dt.date.fromisoformat(text).isoformat() != text:
        raise ValueError("is not YEAR-MONTH-DAY")
    return text


CalendarDay = Annotated[str, AfterValidator(_a_day)]
"""A day of the calendar, as YEAR-MONTH-DAY."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Repeated(_Strict):
    """A trial that was trained again: its metric then and now, and how its predictions agree.

    ``equal_predictions``: the share of test images with the same prediction. ``same_bits``: whether
    the logits are equal in every bit.
    """

    job: Sha256
    target: Text
    perturbation: Text
    initialization: Text
    replicate: Annotated[int, Field(ge=0)]
    submitted: FiniteFloat | None
    again: FiniteFloat | None
    equal_predictions: Annotated[float, Field(ge=0, le=1)]
    same_bits: bool

    @property
    def is_possible(self) -> bool:
        """Whether equal logits gave equal predictions, and these an equal metric.

        Logits that are not finite have no metric, and scores from them are equal to nothing.
        """
        equal = self.equal_predictions == 1
        if self.same_bits and not equal and self.again is not None:
            return False
        return not equal or equal_values(self.again, self.submitted)


class Certificate(_Strict):
    """K trials of a submission, chosen by ``seed`` and trained again by ``by`` on ``date``.

    ``environment``: the machine and the versions.
    """

    schema_version: Literal[1] = 1
    submission: Sha256
    suite: Text
    suite_digest: Sha256
    entry: Text
    by: Text
    date: CalendarDay
    seed: Annotated[int, Field(ge=0)]
    tolerance: Annotated[float, Field(gt=0, le=TOLERANCE)]
    trials: Annotated[tuple[Repeated, ...], Field(min_length=1)]
    environment: dict[str, Text]

    @property
    def agrees(self) -> bool:
        """Whether every trial gave its submitted metric within the tolerance."""
        return all(_agrees(trial, self.tolerance) for trial in self.trials)

    @property
    def id(self) -> str:
        """The digest of its content."""
        return digest(self.model_dump(mode="json"))


def _agrees(trial: Repeated, tolerance: float) -> bool:
    if trial.submitted is None or trial.again is None:
        return trial.submitted is trial.again
    return abs(trial.submitted - trial.again) <= tolerance


def certificates_of(submissions: Path, submission: str) -> Iterator[Certificate]:
    """The certificates of a submission, beside the folder of submissions; bad ones are left out."""
    folder = submissions.parent / CERTIFICATES / submission
    for path in sorted(folder.glob("*.json")):
        try:
            if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
                continue
            yield Certificate.model_validate(parse_json(path))
        except (OSError, SubmissionError, ValidationError):
            continue


def chosen_trials(jobs: Iterable[str], count: int, seed: int) -> list[str]:
    """The trials that are trained again, of all that a submission holds."""
    trials = sorted(set(jobs))
    return random.Random(seed).sample(trials, min(count, len(trials)))  # noqa: S311  # told, not secret


def is_valid_for(certificate: Certificate, bundle: Bundle) -> bool:
    """Whether trials of this submission agree by a certificate of another than its submitter."""
    return (
        is_of(certificate, bundle)
        and is_another(certificate.by, bundle.submission.declaration.submitter)
        and certificate.agrees
    )


def is_of(certificate: Certificate, bundle: Bundle) -> bool:
    """Whether a certificate is of this submission, and of the trials that its seed chooses."""
    head = bundle.submission
    own = (head.id, head.suite, head.suite_digest, head.entry.name)
    stated = (certificate.submission, certificate.suite, certificate.suite_digest,
              certificate.entry)  # fmt: skip
    submitted = {
        (row.job, row.target, row.perturbation, row.initialization, row.replicate, row.value)
        for row in scored_rows(bundle.records)
    }
    trials = {(t.job, t.target, t.perturbation, t.initialization, t.replicate, t.submitted)
              for t in certificate.trials}  # fmt: skip
    chosen = chosen_trials((row[0] for row in submitted), len(certificate.trials), certificate.seed)
    return (
        stated == own
        and [trial.job for trial in certificate.trials] == chosen
        and trials <= submitted
        and all(trial.is_possible for trial in certificate.trials)
    )


def is_another(name: str | None, submitter: str | None) -> bool:
    """Whether two people have these names, as far as a reader could tell them apart.

    Cases, spaces, signs and forms of letters do not count; a word with letters of two alphabets,
    which looks like another word, is nobody's name. Nobody checks whose a name is.
    """
    names = [unicodedata.normalize("NFKC", text or "").casefold() for text in (name, submitter)]
    words = " ".join(names).split()
    if any(len(ALIKE.intersection(map(_script, word))) > 1 for word in words):
        return False
    first, second = ("".join(filter(str.isalnum, text)) for text in names)
    return "" not in {first, second} and first != second


def _script(letter: str) -> str:
    """The first word of a letter's name in Unicode, such as LATIN."""
    return unicodedata.name(letter, "").partition(" ")[0]
