"""Tables of Arrow with a column of pictures: parquet files, saved folders, and the hub.

Shape letters: N rows.
"""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from transferbench.data.folders import printable
from transferbench.errors import DataError, listing
from transferbench_plugins.datasets._paths import content_of_folder

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArrowRows", "local_rows", "rows_of_table"]

LISTED = 10
NUMBER = r"(\d+)(?:-of-(\d+)(?:-[0-9a-f]+)?)?"
"""The number of a file of a split, and how many there are, as ``datasets`` writes them."""
COUNTED = re.compile(r"(\d+)-of-(\d+)")


class ArrowRows(NamedTuple):
    """The rows of one split.

    ``features``: what the dataset says of its columns, by name. ``names``: the columns.
    ``column(name)``: the values of one, without pictures; ``cell(name, i)``: one value.
    """

    features: Mapping[str, Any]
    names: Sequence[str]
    column: Callable[[str], list[Any]]
    cell: Callable[[str, int], Any]


class _Source(NamedTuple):
    """The folder of a split, and its parquet files there; none where ``save_to_disk`` wrote it."""

    folder: Path
    files: Sequence[Path] = ()


def local_rows(folder: Path, split: str, other: str) -> ArrowRows:
    """A split in a folder: parquet files, or what ``save_to_disk`` wrote.

    ``other``: the split that it is used with, of the same task.

    Raises: ``DataError`` where there is neither, with what is there, and where there are several.
    """
    home, files = _source(folder, split)
    beside = _source(folder, other).folder
    if beside not in (home, folder / str(home.relative_to(folder)).replace(split, other)):
        raise DataError(
            f"dataset 'huggingface': split {split!r} is in {_below(folder, home)} and {other!r} in "
            f"{_below(folder, beside)}: put both into one folder, unless they are of two tasks"
        )
    if not files:
        return _saved(home)
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


# --- files of a split ---------------------------------------------------------------------------


def _source(folder: Path, split: str) -> _Source:
    """Where a split is. Raises: ``DataError`` where it is nowhere, or in several folders."""
    candidates = {folder / split, folder} if split == "train" else {folder / split}
    saved = [_Source(path) for path in sorted(candidates) if (path / "state.json").is_file()]
    sources = [*saved, *_parquet_sources(folder, split)]
    if not sources:
        raise DataError(
            f"dataset 'huggingface': no split {split!r} in {printable(str(folder))}, neither "
            f"{split}.parquet, {split}-00000-of-00001.parquet or the like, nor a folder {split}/ "
            f"of parquet files or of save_to_disk; {content_of_folder(folder)}"
        )
    if len(sources) > 1:
        folders = sorted(_below(folder, source.folder) for source in sources)
        raise DataError(
            f"dataset 'huggingface': split {split!r} is in {listing(folders, LISTED)}: name one of "
            "these folders with the parameter configuration, or move the others away"
        )
    return sources[0]


def _parquet_sources(folder: Path, split: str) -> Iterator[_Source]:
    """The folders with files of a split.

    They are called ``train`` with or without a number, or lie in a folder of that name. Rejected:
    whatever begins with the name, or has it between separators, as ``datasets`` accepts it:
    ``train_unlabelled`` is another split.
    """
    own = re.compile(rf"{re.escape(split)}(?:(?:[-_. ]|(?<!\d)){NUMBER})?")
    below = defaultdict(list)
    for path in sorted(folder.rglob("*.parquet")):
        parts = path.relative_to(folder).parts
        if not any(part.startswith((".", "__")) for part in parts):  # left by systems and tools
            below[path.parent].append(path)
    for parent, paths in below.items():
        files = [path for path in paths if own.fullmatch(path.stem)]
        if not files and parent != folder and parent.name == split:
            files = paths
        if files:
            _refuse_gaps(split, files, own)
            yield _Source(parent, files)


def _refuse_gaps(split: str, files: Sequence[Path], own: re.Pattern[str]) -> None:
    """Raises: ``DataError`` for numbered files that are too few, or of more than one kind."""
    matches = [own.fullmatch(path.stem) or COUNTED.search(path.stem) for path in files]
    numbers = sorted(int(match[1]) for match in matches if match and match[1])
    counts = {int(match[2]) for match in matches if match and match[2]}
    complete = {tuple(range(first, first + len(files))) for first in (0, 1)}
    if numbers and not (tuple(numbers) in complete and counts <= {len(files)}):
        names = listing([printable(path.name) for path in files], LISTED)
        raise DataError(
            f"dataset 'huggingface': {printable(str(files[0].parent))} has {names} of split "
            f"{split!r}, not all its files from the first to the last: get what is missing, remove "
            "what is of another version, or name one of them in full as the split"
        )


def _below(folder: Path, path: Path) -> str:
    return printable(str(path.relative_to(folder)))


# --- content ------------------------------------------------------------------------------------


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

    schemas = [reader.schema_arrow for reader in readers]
    features = [_features(schema.metadata) for schema in schemas]
    for path, declared in zip(files, features, strict=True):
        if declared != features[0]:
            raise DataError(
                f"dataset 'huggingface': {printable(str(path))} declares other columns or classes "
                f"than {printable(files[0].name)}: they are of two tasks or versions; use one"
            )
    return ArrowRows(features[0], schemas[0].names, column, cell)


def _features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """What the library ``datasets`` wrote of the columns; nothing where another did."""
    try:
        info = json.loads((metadata or {})[b"huggingface"])
        features: Mapping[str, Any] = info["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features
