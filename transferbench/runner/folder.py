"""The folder of a run as it is read: files that may be damaged, each checked before it is used."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import from_json

from transferbench.claims import Verdict
from transferbench.errors import StoreError, listing
from transferbench.identity import Sha256
from transferbench.plan import JobKind
from transferbench.records import Record, read_records
from transferbench.runner.data_card import DataCard
from transferbench.runner.other_code import UsedCode
from transferbench.specs import Frozen
from transferbench.suite import SOURCE, TRIAL, TUNING, WHOLE_IMAGES, Suite

__all__ = [
    "CLAIMS",
    "ENVIRONMENT",
    "PICTURES",
    "RECORDS",
    "REPORT",
    "RESULTS",
    "RUN",
    "SUBMISSIONS",
    "Environment",
    "RunDescription",
    "RunJob",
    "axes_of",
    "read_claims",
    "read_environment",
    "read_json",
    "read_run",
    "read_run_records",
    "refuse_cut_records",
    "unreadable",
]

RUN = "run.json"
RECORDS = "records.jsonl"
CLAIMS = "claims.json"
ENVIRONMENT = "environment.json"
REPORT = "report.html"
PICTURES = "pictures.json"
"""What networks see of test images, for the report."""
SUBMISSIONS = "submissions"
"""The entries as they are packed for the run's own board."""
RESULTS = (RECORDS, CLAIMS, ENVIRONMENT, REPORT, PICTURES, SUBMISSIONS)
"""What a run leaves beside ``run.json``."""

SCHEMA_VERSION = 1
SHORT = 60
NAMED = 3
"""Faults of a file that a message names."""

T = TypeVar("T")
FolderPath = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]+$")]
Replicate = Annotated[int, Field(ge=0, lt=2**53)]


class _Read(Frozen):
    """Content of a file: nothing is coerced, and fields of later versions are left alone."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class RunJob(_Read):
    """A cell of the run with its job; a pre-training has an entry alone."""

    id: Sha256
    kind: JobKind
    label: str
    status: str = ""
    entry: str
    target: str | None = None
    perturbation: str | None = None
    initialization: str | None = None
    replicate: Replicate | None = None
    diagnostic: str = TRIAL
    other_initialization: str | None = None
    other_replicate: Replicate | None = None
    records: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    """Lines of the cell in the records; None before they are written, and in older folders."""

    @property
    def axes(self) -> tuple[Any, ...]:
        """What a record of this cell has, too."""
        return axes_of(self, self.id)


class RunEntry(_Read):
    """An entry of the run; ``left_out`` and ``unmeasured``: what it goes without, and why."""

    name: str
    left_out: dict[str, str] = Field(default_factory=dict)
    unmeasured: dict[str, str] = Field(default_factory=dict)


class RunCode(_Read):
    """The code of the plugins of the run, and what its finished jobs were computed by instead.

    ``notes``: also on the ``mixtures`` of codes in one entry.
    """

    plugins: tuple[UsedCode, ...] = ()
    notes: tuple[str, ...] = ()
    mixtures: tuple[str, ...] = ()


class RunData(_Read):
    """What the run knows of its data.

    ``chance``: target -> the chance level of its metric, where the suite leaves it to the data.
    ``classes``: target -> the names of its classes. ``cards``: what each dataset is made of.
    """

    notes: tuple[str, ...] = ()
    chance: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    cards: dict[str, DataCard] = Field(default_factory=dict)


class RunDescription(_Read):
    """The part of ``run.json`` that showing a run reads."""

    schema_version: Literal[1]
    suite_id: str
    suite_digest: Sha256
    changed: tuple[str, ...]
    store: FolderPath
    store_absolute: FolderPath | None = None
    entries: tuple[RunEntry, ...]
    jobs: tuple[RunJob, ...]
    suite: Suite
    code: RunCode = RunCode()
    data: RunData = RunData()

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        suite = self.suite
        if suite.id != self.suite_id:
            raise ValueError(f"suite_id is {self.suite_id!r}, and the suite is {suite.id!r}")
        arms = {None, SOURCE, *suite.initializations}
        labels: dict[str, set[str | None]] = {
            "entry": {entry.name for entry in self.entries},
            "target": {None, *suite.targets},
            "perturbation": {None, WHOLE_IMAGES, *suite.perturbations},
            "initialization": arms,
            "other_initialization": arms,
            "diagnostic": {TRIAL, TUNING, *suite.diagnostics},
        }
        for i, job in enumerate(self.jobs):
            for field, choices in labels.items():
                if getattr(job, field) not in choices:
                    raise ValueError(f"jobs.{i}.{field} is {getattr(job, field)!r}, and the run "
                                     "has none of that name")  # fmt: skip
        return self


class Environment(_Read):
    """What the numbers were computed on and with."""

    python: str
    platform: str
    packages: dict[str, str]
    jobs: dict[str, tuple[str, ...]]


_VERDICTS = TypeAdapter(dict[str, list[Verdict]])


def read_run(folder: Path) -> RunDescription:
    """What a run consists of. Raises: ``StoreError`` naming the file, its faults and the way on."""
    described = read_json(folder / RUN)
    version = described.get("schema_version") if isinstance(described, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise StoreError(
            f"{folder / RUN} is of format {version}, and this transferbench reads format "
            f"{SCHEMA_VERSION}; update transferbench, or run the suite with another --out"
        )
    return _validated(folder / RUN, TypeAdapter(RunDescription))


def read_claims(folder: Path, run: RunDescription) -> dict[str, list[Verdict]]:
    """The verdicts on each entry. Raises: as ``read_run``."""
    path = folder / CLAIMS
    verdicts = _validated(path, _VERDICTS)
    names = {entry.name for entry in run.entries}
    unknown = [entry for entry in verdicts if entry not in names]
    unknown += [
        v.claim for own in verdicts.values() for v in own if v.claim not in run.suite.claims
    ]
    if unknown:
        strangers = listing([name[:SHORT] for name in unknown], NAMED)
        raise _damaged(path, f"{strangers} is neither an entry nor a claim of the run")
    for verdict in (verdict for own in verdicts.values() for verdict in own):
        numbers = (verdict.effect, verdict.low, verdict.high, verdict.threshold,
                   verdict.p_reproduced, verdict.p_contradicted)  # fmt: skip
        if not all(math.isfinite(number) for number in numbers if number is not None):
            raise _damaged(path, f"a number of {verdict.claim} is not finite")
    return verdicts


def read_environment(folder: Path) -> Environment:
    """The environment of the run. Raises: as ``read_run``."""
    return _validated(folder / ENVIRONMENT, TypeAdapter(Environment))


def read_run_records(folder: Path, run: RunDescription) -> Iterator[Record]:
    """The records of the run, in order, each of a cell of it, none twice and none missing.

    Raises: ``StoreError`` naming the file, the line, its fault and the way on.
    """
    path = folder / RECORDS
    _refuse_absent(path)
    missing = {job.axes: job.records or 0 for job in run.jobs}
    measured: set[tuple[Any, ...]] = set()
    for number, record in enumerate(_records(path), start=1):
        axes = axes_of(record, record.job)
        if axes not in missing:
            raise _damaged(path, f"line {number} is of a job that {RUN} does not list")
        key = (*axes, record.metric, *sorted(record.coordinates.items()))
        if key in measured:
            raise _damaged(path, f"line {number} repeats a measurement")
        measured.add(key)
        missing[axes] -= 1
        yield record
    if short := sum(left > 0 for left in missing.values()):
        finished = sum(bool(job.records) for job in run.jobs)
        raise _damaged(path, f"of {short} of {finished} finished jobs it has not all lines")


def refuse_cut_records(folder: Path, run: RunDescription) -> None:
    """Raise ``StoreError`` where records that were written lack lines; reads few of them whole."""
    path = folder / RECORDS
    if not os.path.lexists(path):
        return  # the run has not come to its end
    _refuse_absent(path)
    try:
        with path.open("rb") as lines:
            is_cut = sum(1 for _ in lines) < sum(job.records or 0 for job in run.jobs)
    except OSError as error:
        raise unreadable(path, error) from error
    if is_cut:
        for _ in read_run_records(folder, run):
            pass


def _records(path: Path) -> Iterator[Record]:
    try:
        yield from read_records(path)
    except OSError as error:
        raise unreadable(path, error) from error
    except StoreError as error:
        raise StoreError(f"{error}; {_again(path)}") from error


def axes_of(cell: RunJob | Record, job: str) -> tuple[Any, ...]:
    """What a cell of a run and its records have in common."""
    return (
        job, cell.entry, cell.target, cell.perturbation, cell.initialization, cell.replicate,
        cell.diagnostic, cell.other_initialization, cell.other_replicate,
    )  # fmt: skip


# --- files ------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """The value of a file of a run. Raises: ``StoreError`` where it is none, or damaged."""
    content = _content(path)
    try:
        return from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise _damaged(path, f"it is not JSON ({error})") from error


def _content(path: Path) -> bytes:
    _refuse_absent(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _refuse_absent(path: Path) -> None:
    try:
        if path.is_file():
            return
    except OSError as error:
        raise unreadable(path, error) from error
    if os.path.lexists(path):
        raise _damaged(path, "it is not a regular file; move it away")
    if path.name == RUN:
        raise StoreError(
            f"{path.parent} is not a run's folder: it has no {RUN}; give the folder that "
            "'transferbench run' wrote its report to"
        )
    raise StoreError(
        f"{path.parent} has no {path.name}: the run did not come to its end; run the suite "
        "again with this folder as --out to go on"
    )


def unreadable(path: Path, error: OSError) -> StoreError:
    """What to do about a file of a run that the system refuses to read."""
    if isinstance(error, PermissionError):
        return StoreError(
            f"cannot read {path}: {error.strerror}; let this user read it (chmod), or run the "
            "suite with another --out"
        )
    return _damaged(path, f"it cannot be read ({error.strerror})")


def _damaged(path: Path, fault: str) -> StoreError:
    return StoreError(f"{path} is damaged: {fault}; {_again(path)}")


def _again(path: Path) -> str:
    return (
        f"run the suite again with --out {path.parent}, which writes the file again and computes "
        "nothing that is in the store"
    )


def _validated(path: Path, adapter: TypeAdapter[T]) -> T:
    try:
        return adapter.validate_json(_content(path), strict=True)
    except ValidationError as error:
        faults = [
            ": ".join(filter(None, (".".join(map(str, detail["loc"])),
                                    detail["msg"].removeprefix("Value error, "))))
            for detail in error.errors(include_url=False, include_input=False)
        ]  # fmt: skip
        raise _damaged(path, listing(faults, NAMED, "; ")) from error
