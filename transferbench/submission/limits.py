"""Bounds on the memory that reading somebody else's files may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from transferbench.errors import SubmissionError

try:
    import resource
except ImportError:  # as on Windows
    resource = None  # type: ignore[assignment]  # without the module there is no bound

__all__ = ["Caps", "bounded_memory", "opened_table"]

PAGES = Path("/proc/self/statm")
"""The size of this process in pages, on Linux; other systems do not enforce the limit."""

MAX_FOOTER_BYTES = 2**20
"""Of a parquet table: it describes each row group, of which a writer makes one per million rows."""
TAIL_BYTES = 8
"""The length of the footer, and a mark."""


@contextmanager
def bounded_memory(size_bytes: int) -> Iterator[None]:
    """Let this process allocate at most so much more; what needs more raises ``MemoryError``.

    What a file says of its own sizes is a claim of whoever wrote it. The bound holds for all
    threads of the process, and nowhere but on Linux.
    """
    if resource is None or not PAGES.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(PAGES.read_text().split()[0]) * resource.getpagesize() + size_bytes
    limits = [limit for limit in (*before, size) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class Caps(NamedTuple):
    """The limits of a parquet table.

    ``values``: of all columns, those of lists counted one by one. ``names_bytes``: of the texts in
    the column ``name``, which are the names of its ``what``.
    """

    rows: int
    values: int
    names_bytes: int
    name: str
    what: str


def opened_table(stream: BinaryIO, schema: pa.Schema, caps: Caps) -> pq.ParquetFile:
    """The table in a file, of which no column is decoded yet.

    Raises: ``SubmissionError`` for another schema, or where it says that it is beyond the caps.
    """
    size = stream.seek(0, 2)
    stream.seek(max(size - TAIL_BYTES, 0))
    # Before anything parses it: of a million empty row groups it takes gigabytes.
    footer = int.from_bytes(stream.read(TAIL_BYTES)[:4], "little")
    if footer > MAX_FOOTER_BYTES:
        raise SubmissionError(f"its footer has {footer} bytes, more than {MAX_FOOTER_BYTES}")
    file = pq.ParquetFile(stream)
    if not file.schema_arrow.equals(schema):
        raise SubmissionError(f"its columns are {file.schema_arrow.names}, not {schema.names}")
    _refuse_too_large(file.metadata, caps)
    return file


def _refuse_too_large(meta: pq.FileMetaData, caps: Caps) -> None:
    """Raise ``SubmissionError`` by what a file says of itself, before any column is decoded."""
    chunks = [meta.row_group(i).column(j)
              for i in range(meta.num_row_groups) for j in range(meta.num_columns)]  # fmt: skip
    values = sum(chunk.num_values for chunk in chunks)
    if meta.num_rows > caps.rows or values > caps.values:
        raise SubmissionError(f"{meta.num_rows} rows of {values} values are more than is accepted")
    names = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema == caps.name)
    if names > caps.names_bytes:
        raise SubmissionError(
            f"the names of its {caps.what} take {names} bytes, more than is accepted"
        )
