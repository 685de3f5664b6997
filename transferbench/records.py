"""What is published: a measurement, and a record that says where it comes from."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from transferbench.errors import StoreError

__all__ = ["Measurement", "Record", "read_records", "write_records"]

Coordinate = str | int | float
COMPRESSED = ".gz"


class Measurement(BaseModel):
    """One number out of a diagnostic or a trial.

    ``value`` is in ``unit``, computed from ``n`` items; it is None only where ``flag`` says why.
    ``low`` and ``high`` bound it as ``interval`` names (such as ``wilson-95`` over test items).
    ``coordinates`` place it: epoch, module, lambda, block ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Annotated[str, Field(min_length=1)]
    value: float | None = None
    unit: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=0)]
    coordinates: dict[str, Coordinate] = {}
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    flag: str | None = None

    @field_validator("value", "low", "high")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("is not finite: give None and a flag that says why")
        return value

    @model_validator(mode="after")
    def _explained(self) -> Self:
        if self.value is None and not self.flag:
            raise ValueError(f"{self.metric}: a missing value needs a flag that says why")
        if (self.low is None) != (self.high is None) or (self.low is None) != (
            self.interval is None
        ):
            raise ValueError(f"{self.metric}: low, high and interval come together")
        return self

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        # In a table of records a coordinate is a column beside these.
        if taken := sorted(self.coordinates.keys() & Record.model_fields.keys()):
            raise ValueError(
                f"{self.metric}: {', '.join(taken)} says where a record comes from; give the "
                "coordinate another name"
            )
        return self


class Record(Measurement):
    """A measurement with its full identity, as published.

    A pair's second network is named by ``other_initialization`` and ``other_replicate``.
    ``job`` is the id of the job that measured, ``subjects`` the ids of the jobs it measured.
    A record holds no time, host or path: an undisturbed and a resumed run publish equal bytes.
    """

    schema_version: int = 1
    suite: str
    entry: str
    target: str
    perturbation: str
    initialization: str
    replicate: int
    other_initialization: str | None = None
    other_replicate: int | None = None
    diagnostic: str
    diagnostic_version: int
    job: str
    subjects: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """This record as one row of a tidy table, a column for each coordinate."""
        fields = self.model_dump(exclude={"coordinates", "subjects", "schema_version"})
        return fields | self.coordinates


def write_records(records: Iterable[Record], path: Path) -> int:
    """Write one record a line, in the order given; compressed where the name ends in ``.gz``.

    Gives the number of bytes of text.
    """
    size = 0
    with ExitStack() as files:
        stream: Any = files.enter_context(path.open("wb"))
        if path.suffix == COMPRESSED:
            # Neither a name nor a time: equal records give equal bytes.
            packed = gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0)
            stream = files.enter_context(packed)
        for record in records:
            size += stream.write(f"{record.model_dump_json(exclude_none=True)}\n".encode())
    return size


def read_records(path: Path, limit: int | None = None) -> Iterator[Record]:
    """The records of a file, in order; a name that ends in ``.gz`` is decompressed.

    ``limit``: how many bytes of text there may be at most.

    Raises: ``StoreError`` naming the file and what is wrong with it, the line where one is no
    record.
    """
    for number, line in enumerate(_lines(path, limit), start=1):
        try:
            yield Record.model_validate_json(line)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise StoreError(f"{path}:{number} is not a record: {reason}") from error


def _lines(path: Path, limit: int | None) -> Iterator[bytes]:
    opened = gzip.open if path.suffix == COMPRESSED else open
    left = -1 if limit is None else limit
    try:
        with opened(path, "rb") as stream:
            # A line is read no further than to the first byte too many.
            while line := stream.readline(left + 1 if limit is not None else -1):
                if limit is not None and (left := left - len(line)) < 0:
                    raise StoreError(f"{path} holds more than {limit} bytes of text")
                yield line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise StoreError(f"{path} cannot be decompressed: {error}") from error
