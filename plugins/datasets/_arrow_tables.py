"""Tables of Arrow with a column of pictures: parquet files, saved folders, and the hub.

Shape letters: N rows.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from transferbench.data.folders import printable
from transferbench.errors import DataError
from transferbench_plugins.datasets._paths import content_of_folder

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArrowRows", "local_rows", "rows_of_table"]


class ArrowRows(NamedTuple):
    """The rows of one split.

    ``features``: what the dataset says of its columns, by name. ``names``: the columns.
    ``column(name)``: the values of one, without pictures; ``cell(name, i)``: one value.
    """

    features: Mapping[str, Any]
    names: Sequence[str]
    column: Callable[[str], list[Any]]
    cell: Callable[[str, int], Any]


def local_rows(folder: Path, split: str) -> ArrowRows:
    """A split in a folder: parquet files, or what ``save_to_disk`` wrote.

    Raises: ``DataError`` where there is neither, with what is there.
    """
    for saved in (folder / split, folder):
        if (saved / "state.json").is_file() and (saved == folder / split or split == "train"):
            return _saved(saved)
    files = sorted({*folder.glob(f"{split}*.parquet"), *folder.glob(f"**/{split}*.parquet"),
                    *folder.glob(f"**/{split}/*.parquet")})  # fmt: skip
    if not files:
        raise DataError(
            f"dataset 'huggingface': no split {split!r} in {printable(str(folder))}, neither "
            f"{split}-*.parquet nor a folder {split}/ of save_to_disk; {content_of_folder(folder)}"
        )
    try:
        return _parquet(files)
    except (OSError, ValueError) as error:  # what pyarrow raises is one of these
        raise DataError(
            f"dataset 'huggingface': {printable(str(files[0]))} cannot be read ({error}): get it "
            "again"
        ) from error


def rows_of_table(table: pa.Table) -> ArrowRows:
    """A table in memory, or mapped from a file."""
    return ArrowRows(
        _features(table.schema.metadata), table.column_names,
        lambda name: list(table.column(name).to_pylist()),
        lambda name, i: table.column(name)[i].as_py(),
    )  # fmt: skip


def _saved(folder: Path) -> ArrowRows:
    import pyarrow as pa  # slow to import

    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
        tables = [pa.ipc.open_stream(pa.memory_map(str(folder / name))).read_all()
                  for name in names]  # fmt: skip
        rows = rows_of_table(pa.concat_tables(tables))
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"dataset 'huggingface': {printable(str(folder))} is no whole folder of save_to_disk "
            f"({error}): save it again"
        ) from error
    if state.get("_indices_data_files"):
        raise DataError(
            f"dataset 'huggingface': {printable(str(folder))} was saved with a selection of rows: "
            "save flatten_indices() of it"
        )
    return rows._replace(features=info.get("features") or rows.features)


def _parquet(files: Sequence[Path]) -> ArrowRows:
    """Parquet files, whose pictures are read one row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    readers = [pq.ParquetFile(path) for path in files]
    groups = [(reader, index, reader.metadata.row_group(index).num_rows)
              for reader in readers for index in range(reader.num_row_groups)]  # fmt: skip
    ends = np.cumsum([size for *_, size in groups])
    lock = threading.Lock()
    latest: dict[tuple[int, str], Any] = {}

    def column(name: str) -> list[Any]:
        tables = [reader.read(columns=[name]) for reader in readers]
        return list(pa.concat_tables(tables).column(name).to_pylist())

    def cell(name: str, position: int) -> Any:
        group = int(np.searchsorted(ends, position, side="right"))
        reader, index, size = groups[group]
        with lock:  # threads read neighbours: each group is read once
            if (group, name) not in latest:
                latest.clear()
                latest[group, name] = reader.read_row_group(index, columns=[name]).column(name)
            values = latest[group, name]
        return values[position - int(ends[group]) + size].as_py()

    schema = readers[0].schema_arrow
    return ArrowRows(_features(schema.metadata), schema.names, column, cell)


def _features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """What the library ``datasets`` wrote of the columns; nothing where another did."""
    try:
        info = json.loads((metadata or {})[b"huggingface"])
        features: Mapping[str, Any] = info["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features
