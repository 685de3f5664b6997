"""Tables of pictures: CSV, TSV and lists, read as columns of text.

Shape letters: N rows.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transferbench.data.folders import printable
from transferbench.errors import DataError, suggestion
from transferbench_plugins.datasets._paths import content_of_folder

__all__ = ["Table", "read_table"]

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
"""By the ending of a file. In all others, such as lists, spaces separate the values."""


class Table(NamedTuple):
    """A table: its file, its columns, text (N,) each, and the lines of its rows, int64 (N,)."""

    path: Path
    columns: Mapping[str, np.ndarray]
    lines: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """The values of a column. Raises: ``DataError`` where there is none of that name."""
        if name not in self.columns:
            raise DataError(
                f"{self} has no column {name!r}; {suggestion(name, list(self.columns))}"
            )
        return self.columns[name]

    def rows(self, selected: np.ndarray) -> Table:
        """Some of the rows. Shapes: bool (N,), or positions."""
        columns = {name: values[selected] for name, values in self.columns.items()}
        return Table(self.path, columns, self.lines[selected])

    def __str__(self) -> str:
        return printable(str(self.path))


def read_table(path: Path, names: Sequence[str] = ()) -> Table:
    """The table in a file, plain or packed as ``.gz``. ``names``: of the columns without a header.

    Raises: ``DataError`` where there is no such file, it is no table, or has no rows.
    """
    if not path.is_file():
        raise DataError(
            f"there is no file {printable(str(path))}; {content_of_folder(path.parent)}"
        )
    stat = path.stat()
    return _parsed(path, tuple(names), stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)  # a dataset asks once for its classes, its notes and each split
def _parsed(path: Path, names: tuple[str, ...], *state: int) -> Table:
    """The table in a file that has this state. Raises: as ``read_table``."""
    del state
    rows = list(_rows(path, len(names)))
    header = list(names) if names else rows.pop(0)[1] if rows else []
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise DataError(f"{printable(str(path))} has two columns {', '.join(map(repr, twice))}")
    if not rows:
        raise DataError(f"{printable(str(path))} has no rows")
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"line {line} of {printable(str(path))} has {len(row)} values, and there are "
                f"{len(header)} columns ({', '.join(header)}): correct the line, or the columns"
            )
    values = zip(*(row for _, row in rows), strict=True)
    columns = {name: np.array(column, str) for name, column in zip(header, values, strict=True)}
    return Table(path, columns, np.array([line for line, _ in rows], np.int64))


def _rows(path: Path, count: int) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, with their lines; ``count`` of values in those of a list."""
    packed = path.suffix == ".gz"
    ending = path.with_suffix("").suffix if packed else path.suffix
    try:
        content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        if separator := SEPARATORS.get(ending.lower()):
            reader = csv.reader(text, delimiter=separator)
            yield from ((reader.line_num, row) for row in reader if row)
            return
        for line, values in enumerate(text, 1):
            # The first value is a path, which may have spaces itself.
            if row := values.strip().rsplit(maxsplit=count - 1 if count else -1):
                yield line, row
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{printable(str(path))} cannot be read as a table ({error}): it must be text in UTF-8"
        ) from error
