"""Measurements, and the records published of them: measurements with their full identity."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from transferbench.errors import StoreError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = [
    "LARGEST",
    "Coordinate",
    "Measurement",
    "MeasurementKey",
    "Overlap",
    "Record",
    "count_lines",
    "read_records",
    "write_records",
]

Coordinate = str | int | FiniteFloat
MeasurementKey = tuple[str, frozenset[tuple[str, Coordinate]]]
Overlap = Literal["yes", "no", "unknown"]
"""Whether images of a target were among those that a network was trained on before."""
LARGEST = 2**53
"""Integers below it are exact in every reader of JSON."""
COMPRESSED = ".gz"
BLOCK_BYTES = 2**16


class Measurement(BaseModel):
    """One number from a diagnostic or a trial.

    ``value`` is in ``unit``, computed from ``n`` items; None requires a ``flag`` with the reason.
    ``low`` and ``high`` are the bounds of the ``interval`` (such as ``exact-95`` over test items).
    ``coordinates`` index it: epoch, module, lambda, block ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Annotated[str, Field(min_length=1)]
    """Name by which claims and boards select it."""
    value: float | None = None
    unit: Annotated[str, Field(min_length=1)]
    n: Annotated[int, Field(ge=0, lt=LARGEST)]
    coordinates: dict[str, Coordinate] = {}
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    flag: str | None = None

    @property
    def key(self) -> MeasurementKey:
        """The metric and the coordinates: what tells the measurements of one job apart."""
        return self.metric, frozenset(self.coordinates.items())

    @field_validator("value", "low", "high")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("is not finite: give None and a flag that says why")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.value is None and not self.flag:
            raise ValueError(f"{self.metric}: a missing value needs a flag that says why")
        if (self.low is None) != (self.high is None) or (self.low is None) != (
            self.interval is None
        ):
            raise ValueError(f"{self.metric}: low, high and interval come together")
        return self

    @model_validator(mode="after")
    def _coordinates_are_no_fields(self) -> Self:
        # In a table of records both are columns.
        if reserved := sorted(self.coordinates.keys() & Record.model_fields.keys()):
            raise ValueError(
                f"{self.metric}: {', '.join(reserved)} is a field of every record; rename the "
                "coordinate"
            )
        return self


class Record(Measurement):
    """A measurement with its full identity, as published.

    ``other_initialization`` and ``other_replicate`` identify the second network of a pair.
    ``job`` is the id of the job that measured, ``subjects`` the ids of the jobs it measured.
    A record holds no time, host or path: an uninterrupted and a resumed run publish equal bytes.
    """

    schema_version: Literal[1] = 1
    """Version of this format."""
    suite: str
    """``name@MAJOR.MINOR``."""
    entry: str
    """The backbone with its weights."""
    target: str
    """Label of the target in the suite."""
    perturbation: str
    """Label of the perturbation in the suite."""
    initialization: str
    """Label of the arm in the suite."""
    replicate: Annotated[int, Field(lt=LARGEST)]
    """Index of the replicate, from 0."""
    other_initialization: str | None = None
    other_replicate: int | None = None
    network: int | None = None
    """Which of several source networks, or shared draws, the replicate starts from, from 0."""
    diagnostic: str
    """Label of the diagnosis in the suite, or ``trial``."""
    diagnostic_version: int
    """``version`` of the diagnostic's plugin."""
    job: str
    subjects: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """This record as a row of a tidy table, with one column per coordinate."""
        unused = {"network"} if self.network is None else set()
        fields = self.model_dump(exclude={"coordinates", "subjects", "schema_version"} | unused)
        return fields | self.coordinates


def write_records(records: Iterable[Record], path: Path) -> int:
    """Write one record per line, in order; compressed where the name ends in ``.gz``.

    Returns the number of uncompressed bytes.
    """
    size = 0
    with ExitStack() as files:
        stream: Any = files.enter_context(path.open("wb"))
        if path.suffix == COMPRESSED:
            # Without file name and time, equal records give equal bytes.
            compressed = gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0)
            stream = files.enter_context(compressed)
        for record in records:
            size += stream.write(f"{record.model_dump_json(exclude_none=True)}\n".encode())
    return size


def read_records(path: Path, limit: int | None = None) -> Iterator[Record]:
    """The records of a file, in order; decompressed where the name ends in ``.gz``.

    ``limit``: the maximum number of uncompressed bytes.

    Raises: ``StoreError`` with the file and the problem, and the line where it is no valid record.
    """
    for number, line in enumerate(_lines(path, limit), start=1):
        try:
            yield Record.model_validate_json(line, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise StoreError(f"{path}:{number} is not a record: {reason}") from error


def count_lines(path: Path, limit: int) -> int:
    """The number of lines of a file of records, which are not parsed.

    Raises: ``StoreError`` where it has more than ``limit`` uncompressed bytes.
    """
    return sum(1 for _ in _lines(path, limit))


class _Member(io.RawIOBase):
    """The text of a gzip file that is one member, as ``write_records`` makes it.

    Rejected: ``gzip.open``, which reads a header letter by letter and takes any number of members:
    a header of 100 MB, or millions of empty members, take minutes.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # with gzip's header

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Raises: ``EOFError`` where the file is cut, ``zlib.error`` where it is something else."""
        target, inflate = memoryview(buffer), self._inflate
        while not inflate.eof:
            if not (block := inflate.unconsumed_tail or self._stream.read(BLOCK_BYTES)):
                raise EOFError("it ends too early")
            if text := inflate.decompress(block, len(target)):
                target[: len(text)] = text
                return len(text)
        if inflate.unused_data or self._stream.read(1):
            raise zlib.error("something stands behind its end")
        return 0


def _lines(path: Path, limit: int | None) -> Iterator[bytes]:
    remaining = -1 if limit is None else limit
    try:
        with ExitStack() as files:
            stream: IO[bytes] = files.enter_context(path.open("rb"))
            if path.suffix == COMPRESSED:
                stream = io.BufferedReader(_Member(stream), BLOCK_BYTES)
            # Stops at the first byte beyond the limit, also inside a long line.
            while line := stream.readline(remaining + 1 if limit is not None else -1):
                if limit is not None and (remaining := remaining - len(line)) < 0:
                    raise StoreError(f"{path} holds more than {limit} bytes of text")
                yield line
    except (EOFError, zlib.error) as error:
        raise StoreError(f"{path} cannot be decompressed: {error}") from error
