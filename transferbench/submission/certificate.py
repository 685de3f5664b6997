"""Certificates: some trials of a submission, trained again, and what they gave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from transferbench.errors import SubmissionError
from transferbench.identity import Sha256, digest
from transferbench.submission.bundle import Bundle, Text, parse_json
from transferbench.submission.integrity import scored_rows

__all__ = [
    "CERTIFICATES",
    "TOLERANCE",
    "Certificate",
    "Repeated",
    "certificates_of",
    "is_valid_for",
]

CERTIFICATES = "certificates"
"""The folder of certificates, beside that of the submissions; in it, one for each submission."""

TOLERANCE = 0.03
"""Of the metric of one trial, a fraction: another machine gives other last bits, and a training
amplifies them. One standard deviation of the accuracy on 1,000 images is at most 0.016."""

MAX_BYTES = 2**20


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
    date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    seed: Annotated[int, Field(ge=0)]
    tolerance: Annotated[float, Field(gt=0, le=0.05)]
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
            if path.is_symlink() or path.stat().st_size > MAX_BYTES:
                continue
            yield Certificate.model_validate(parse_json(path))
        except (OSError, SubmissionError, ValidationError):
            continue


def is_valid_for(certificate: Certificate, bundle: Bundle) -> bool:
    """Whether a certificate is of this submission's own trials, by another than its submitter."""
    head = bundle.submission
    values = {row.job: row.value for row in scored_rows(bundle.records)}
    submitter = head.declaration.submitter
    return (
        (certificate.submission, certificate.suite_digest) == (head.id, head.suite_digest)
        and submitter is not None
        and certificate.by.casefold().split() != submitter.casefold().split()
        and len({trial.job for trial in certificate.trials}) == len(certificate.trials)
        and all(
            trial.job in values and values[trial.job] == trial.submitted
            for trial in certificate.trials
        )
        and certificate.agrees
    )
