"""The files of a submission and how they are read: as data only, with size limits.

Records are compressed since schema version 2; before, they were plain text. ``submission.json``
holds the sha256 of every other file; the submission's id is the digest of ``submission.json``
without the id. Changing a byte anywhere changes the id.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from transferbench.claims import Verdict
from transferbench.errors import SubmissionError
from transferbench.identity import Sha256, digest, file_digest
from transferbench.plan import JobKind
from transferbench.records import LARGEST, Overlap, Record, count_lines, read_records
from transferbench.specs import Preprocessing, Weights
from transferbench.submission.images import ImageSets, read_images
from transferbench.submission.limits import bounded_memory
from transferbench.submission.predictions import Predictions, read_predictions
from transferbench.suite import Suite

__all__ = [
    "CLAIMS",
    "ENVIRONMENT",
    "IMAGES",
    "MAX_BYTES",
    "MAX_RECORD_BYTES",
    "OPTIONAL",
    "PLAN",
    "PREDICTIONS",
    "RECORDS",
    "SCHEMA_VERSION",
    "SUBMISSION",
    "VISIBLE",
    "Bundle",
    "Declaration",
    "EntryFacts",
    "PlannedJob",
    "PlannedJobs",
    "Problem",
    "Submission",
    "content_digests",
    "file_problems",
    "is_visible",
    "options_explained",
    "parse_json",
    "read_bundle",
    "slug",
    "submission_id",
]

SUBMISSION = "submission.json"
RECORDS = "records.jsonl.gz"
PLAIN_RECORDS = "records.jsonl"
PREDICTIONS = "predictions.parquet"
ENVIRONMENT = "environment.json"
PLAN = "plan.json"
CLAIMS = "claims.json"
IMAGES = "images.parquet"
"""Where the suite pre-trains, and the store has the decoded images; earlier versions had none."""

MAX_BYTES = {
    SUBMISSION: 2**20,
    RECORDS: 2**27,
    PREDICTIONS: 2**29,
    ENVIRONMENT: 2**20,
    PLAN: 2**26,
    CLAIMS: 2**24,
    IMAGES: 2**26,
}
"""The files of a submission, and their size limits."""
OPTIONAL = frozenset({IMAGES})
"""Files that a submission may lack."""
MAX_RECORD_BYTES = 2**28
"""The size limit of the decompressed records."""
MAX_RECORDS = 350_000
"""Of the largest submission so far there are 200,000; each takes 5 kB of memory in the check."""
MAX_COORDINATES = 64
"""Names of coordinates in the records, each of which is a column of a table of all records."""
MAX_VALUES = 2_000_000
"""The limit of the values in a JSON file, each of which takes up to 100 bytes of memory."""
MAX_MEMORY = 3 * 2**30
"""Bytes that reading a submission may take, where the system can be told so."""

Table = TypeVar("Table")

SCHEMA_VERSION: Literal[2] = 2

VERDICTS = TypeAdapter(tuple[Verdict, ...])

VISIBLE = r"^[^\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\p{Noncharacter_Code_Point}\u{feff}]*$"
"""No character that steers a terminal, turns the order of text around, or is none in XML."""
UNSEEN = "it holds a line break or another character that cannot be seen"
LONGEST_TEXT = 300
Line = Annotated[str, StringConstraints(pattern=VISIBLE)]
LINE: TypeAdapter[str] = TypeAdapter(Line)
Text = Annotated[Line, StringConstraints(min_length=1, max_length=LONGEST_TEXT)]
TEXT: TypeAdapter[str] = TypeAdapter(Text)
TAG_AND_DIGEST = TypeAdapter(tuple[Annotated[str, Field(max_length=LONGEST_TEXT)], Sha256 | None])
"""Of external weights."""
EntryName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@:+-]*$", max_length=200)
]


@contextmanager
def options_explained(option: str = "") -> Iterator[None]:
    """A block that makes a model of options; the first that is refused is an error that names it.

    ``option``: the name, where a single value is made. Raises: ``SubmissionError``.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        why = UNSEEN if first["type"] == "string_pattern_mismatch" else first["msg"]
        raise SubmissionError(f"--{option or first['loc'][0]}: {why}") from error


def is_visible(value: str, longest: int = LONGEST_TEXT) -> bool:
    """Whether boards can show it: one line of visible characters, of limited length."""
    try:
        LINE.validate_python(value)
    except ValidationError:
        return False
    return len(value) <= longest


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Declaration(_Strict):
    """Facts that only the submitter knows.

    ``license``: of the weights. ``overlap``: target -> whether its images were in the weights'
    pre-training; targets that are left out are unknown.
    """

    submitter: Text | None = None
    license: Text | None = None
    overlap: dict[str, Overlap] = {}


class EntryFacts(_Strict):
    """The measured backbone and its external weights (None: the suite pre-trained it)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: EntryName
    backbone: dict[str, Any]
    license: Text
    source: Text
    weights: Weights | None = None
    preprocessing: Preprocessing | None = None
    parameters: Annotated[int, Field(ge=0, lt=LARGEST, strict=True)] | None = None

    @field_validator("weights")
    @classmethod
    def _texts_are_visible(cls, weights: Weights | None) -> Weights | None:
        # A plugin's texts may be of any form; these stand on boards. The tag may be a file's name,
        # of which boards show one line.
        if weights is not None:
            for text in (weights.origin, weights.license, weights.pretrained_on):
                TEXT.validate_python(text)
            TAG_AND_DIGEST.validate_python((weights.tag, weights.sha256))
        return weights

    @property
    def weightless_name(self) -> str:
        """The name without that of external weights."""
        if self.weights is None:
            return self.name
        # Before part of the digest was in it, a name ended in the tag.
        current, former = (f"+{text}" for text in (self.weights.label, self.weights.tag))
        return self.name.removesuffix(current).removesuffix(former)

    @property
    def label(self) -> str:
        """The name that the entry has today: with part of the digest of external weights."""
        weights = self.weights
        return f"{self.weightless_name}+{weights.label}" if weights else self.name


class PlannedJob(_Strict):
    """A node of the plan: its id is the hash of its kind and payload."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Sha256
    kind: JobKind
    payload: dict[str, Any]
    requires: tuple[Sha256, ...] = ()


class PlannedJobs(_Strict):
    """The suite that was run, and the jobs of this entry."""

    suite: Suite
    jobs: tuple[PlannedJob, ...]

    @cached_property
    def by_id(self) -> dict[str, PlannedJob]:
        """Id -> job."""
        return {job.id: job for job in self.jobs}


class Submission(_Strict):
    """The head of a submission.

    ``plugins``: plugin -> its distribution. ``outputs``: trial -> sha256 of its logits, to detect
    equal networks. ``severities``: perturbation -> its severity.
    """

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    suite: Text
    suite_digest: Sha256
    entry: EntryFacts
    plugins: dict[str, str] = {}
    declaration: Declaration
    trust: Literal["reported"] = "reported"
    severities: dict[str, float] = {}
    outputs: dict[str, Sha256]
    files: dict[str, Sha256]
    id: Sha256

    @property
    def board(self) -> str:
        """``name@MAJOR``: the board that it is for."""
        return self.suite.partition(".")[0]

    @property
    def minor(self) -> int:
        """The suite's MINOR."""
        return int(self.suite.rpartition(".")[2])


class Bundle(NamedTuple):
    """The content of a submission."""

    path: Path
    submission: Submission
    plan: PlannedJobs
    records: tuple[Record, ...]
    predictions: Mapping[str, Predictions]
    verdicts: tuple[Verdict, ...]
    environment: Mapping[str, Any]
    images: ImageSets


class Problem(NamedTuple):
    """Why a check fails; with ``warning``, the submission is still accepted."""

    why: str
    warning: bool = False


def submission_id(head: Mapping[str, Any]) -> str:
    """The id of a submission with this content of ``submission.json``."""
    return digest({key: value for key, value in head.items() if key != "id"})


def slug(entry: str) -> str:
    """An entry's name as a folder: ``timm/resnet10t`` is ``timm+resnet10t``."""
    return re.sub(r"[^A-Za-z0-9._-]", "+", entry).lstrip(".") or "+"


def parse_json(path: Path) -> Any:
    """A JSON file's value; duplicate keys and NaN are refused.

    Raises: ``SubmissionError`` naming the file.
    """
    try:
        text = _bounded(path.read_bytes()).decode()
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise SubmissionError(f"{path.name} is not a JSON file: {error}") from error


def _bounded(content: bytes) -> bytes:
    # An upper bound, before anything is allocated: the characters of texts count, too.
    if sum(map(content.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise ValueError(f"it holds more than {MAX_VALUES} values")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError("it has a duplicate key")
    return unique


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def file_problems(folder: Path) -> Iterator[Problem]:
    """The problems of a submission's files that show before any is opened."""
    if folder.is_symlink():
        yield Problem("the folder is a link")
    files = {entry.name: entry.lstat() for entry in folder.iterdir()}
    limits = _limits(folder)
    for name in sorted(set(files) - set(limits)):
        yield Problem(f"{_safe(name)} does not belong to a submission")
    for name, limit in limits.items():
        if name not in files:
            if name in OPTIONAL:
                continue
            yield Problem(f"{name} is missing")
        elif not stat.S_ISREG(files[name].st_mode):
            yield Problem(f"{name} is not a plain file")
        elif files[name].st_size > limit:
            yield Problem(f"{name} has {files[name].st_size} bytes, more than {limit}")


def _safe(name: str) -> str:
    """A name of somebody else's as one line of visible characters."""
    return name if re.fullmatch(r"[A-Za-z0-9@+._-]{1,80}", name) else ascii(name[:80])


def _limits(folder: Path) -> dict[str, int]:
    """The names and size limits of the files that ``folder`` must hold."""
    plain = (folder / PLAIN_RECORDS).exists() and not (folder / RECORDS).exists()
    limits = MAX_BYTES | {PLAIN_RECORDS: MAX_RECORD_BYTES}
    del limits[RECORDS if plain else PLAIN_RECORDS]
    return limits


def read_bundle(folder: Path) -> Bundle:
    """The content of a folder without ``file_problems``.

    Raises: ``TransferbenchError`` or ``ValueError`` for content of another shape, ``MemoryError``
    for one that takes more than ``MAX_MEMORY``.
    """
    with bounded_memory(MAX_MEMORY):
        return _read_bundle(folder)


def _read_bundle(folder: Path) -> Bundle:
    environment = parse_json(folder / ENVIRONMENT)
    if not isinstance(environment, dict):
        raise SubmissionError(f"{ENVIRONMENT} is not a JSON object")
    submission = Submission.model_validate(parse_json(folder / SUBMISSION))
    version = submission.schema_version
    records, other = (PLAIN_RECORDS, RECORDS) if version == 1 else (RECORDS, PLAIN_RECORDS)
    if not (folder / records).exists():
        raise SubmissionError(f"schema version {version} has {records}, not {other}")
    return Bundle(
        path=folder,
        submission=submission,
        plan=PlannedJobs.model_validate(parse_json(folder / PLAN)),
        records=tuple(_bounded_records(folder / records)),
        predictions=_named(read_predictions, folder / PREDICTIONS),
        verdicts=VERDICTS.validate_python(parse_json(folder / CLAIMS)),
        environment=environment,
        images=_named(read_images, folder / IMAGES) if (folder / IMAGES).exists() else {},
    )


def _named(read: Callable[[Path], Table], path: Path) -> Table:
    """What ``read`` gives; its errors name the file."""
    try:
        return read(path)
    except (SubmissionError, ValueError, OSError) as error:
        raise SubmissionError(f"{path.name}: {error}") from error


def _bounded_records(path: Path) -> Iterator[Record]:
    """The records, counted before any is parsed. Raises: as ``read_records``."""
    lines = count_lines(path, MAX_RECORD_BYTES)
    if lines > MAX_RECORDS:
        raise SubmissionError(f"{path.name} holds {lines} records, more than {MAX_RECORDS}")
    return _narrow(read_records(path, MAX_RECORD_BYTES), path)


def _narrow(records: Iterable[Record], path: Path) -> Iterator[Record]:
    names: set[str] = set()
    for record in records:
        names |= record.coordinates.keys()
        if len(names) > MAX_COORDINATES:
            raise SubmissionError(f"{path.name} names more than {MAX_COORDINATES} coordinates")
        yield record


def content_digests(folder: Path) -> dict[str, str]:
    """File name -> sha256 of every file but the head."""
    absent = {name for name in OPTIONAL if not (folder / name).exists()}
    names = _limits(folder).keys() - {SUBMISSION} - absent
    return {name: file_digest(folder / name) for name in sorted(names)}
