"""Files of a submission that would fill memory or time: each is refused within both."""

from __future__ import annotations

import gzip
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transferbench.errors import StoreError, SubmissionError
from transferbench.records import Record, write_records
from transferbench.submission import bundle, images, limits, predictions
from transferbench.submission.bundle import parse_json
from transferbench.submission.limits import bounded_memory
from transferbench.submission.predictions import SCHEMA, read_predictions

PUBLISHED = Path(__file__).parents[1] / "leaderboard" / "submissions" / "quickstart@2"
SECONDS, BYTES = 20, 2 * 2**30


def _table(rows: int, **columns: Any) -> pa.Table:
    filled = {field.name: pa.nulls(rows, field.type) for field in SCHEMA}
    codes = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x"]))
    filled |= {"job": codes, "item": pa.array(np.arange(rows))} | columns
    return pa.table(filled, schema=SCHEMA)


def long_lists(path: Path, width: int = 2_000_000, rows: int = 60) -> None:
    """Lists of zeros: a page of a few bytes for each row, gigabytes when they are decoded."""
    chunk = pa.ListArray.from_arrays([0, width], pa.array(np.zeros(width, np.int8)))
    scores = pa.ListArray.from_arrays([0, width], pa.array(np.zeros(width, np.float32)))
    table = _table(1, labels=chunk, scores=scores)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for _ in range(rows):
            writer.write_table(table)


def many_names(path: Path, count: int = 2_000_000) -> None:
    names = pa.array([f"{k:064x}" for k in range(count)])
    codes = pa.DictionaryArray.from_arrays(pa.array(np.arange(count, dtype=np.int32)), names)
    values = pa.array(np.zeros(count, np.int32))
    table = _table(count, job=codes, label=values, prediction=values)
    pq.write_table(table, path, compression="zstd")


def many_records(path: Path, count: int = 1_000_000) -> None:
    line = gzip.decompress(next(PUBLISHED.glob("*/*/records.jsonl.gz")).read_bytes())
    line = line.splitlines(keepends=True)[0]
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for _ in range(count // 1000):
            stream.write(line * 1000)


def long_header(path: Path) -> None:
    """A name of 120 MB before the text, which gzip's own reader reads letter by letter."""
    member = gzip.compress(b"{}\n")
    path.write_bytes(member[:3] + b"\x08" + member[4:10] + b"x" * 120_000_000 + b"\0" + member[10:])


def many_row_groups(path: Path, count: int = 40_000) -> None:
    with pq.ParquetWriter(path, SCHEMA, compression="none", use_dictionary=False) as writer:
        for _ in range(count):
            writer.write_table(_table(1))


def many_datasets(path: Path, count: int = 4000, rows: int = 2_000_000) -> None:
    """Names in runs of rows, of which a pass over all rows for each takes a minute."""
    codes, items = np.divmod(np.arange(rows), rows // count)
    names = pa.array([f"{k:x}" for k in range(count)])
    zeros = pa.array(np.zeros(rows, np.uint64))
    columns = (pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), names),
               pa.array(np.zeros(rows, bool)), pa.array(items), zeros, zeros,
               pa.nulls(rows, pa.uint64()))  # fmt: skip
    table = pa.table(dict(zip(images.SCHEMA.names, columns, strict=True)), schema=images.SCHEMA)
    pq.write_table(table, path, compression="zstd", row_group_size=rows)


def many_lists(path: Path, count: int = 20_000_000) -> None:
    path.write_text('{"suite": {}, "jobs": [' + "[]," * count + "[]]}")


def deep_lists(path: Path, depth: int = 20_000_000) -> None:
    path.write_text("[" * depth)


BOMBS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "long lists": ("predictions.parquet", long_lists),
    "many names": ("predictions.parquet", many_names),
    "many records": ("records.jsonl.gz", many_records),
    "long header": ("records.jsonl.gz", long_header),
    "many row groups": ("predictions.parquet", many_row_groups),
    "many datasets": ("images.parquet", many_datasets),
    "many lists": ("plan.json", many_lists),
    "deep lists": ("plan.json", deep_lists),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_bomb_is_refused_in_bounded_time_and_memory(tmp_path: Path, name: str) -> None:
    """In a process of its own, which the system would end at the limits."""
    folder = tmp_path / "submissions" / "quickstart@2" / "fixup-resnet8" / "0"
    folder.mkdir(parents=True)
    for file in next(PUBLISHED.glob("fixup-resnet8/*")).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    file_name, write = BOMBS[name]
    write(folder / file_name)
    code = textwrap.dedent(f"""
        import resource, time
        from pathlib import Path
        from transferbench.registry import load_registry
        from transferbench.submission import check
        registry, start = load_registry(), time.monotonic()
        report = check(Path({str(folder)!r}), registry)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(report.ok, time.monotonic() - start, peak * 1024)
    """)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            check=False)  # fmt: skip  # our own code
    accepted, seconds, peak = result.stdout.split()
    assert accepted == "False", result.stderr
    assert float(seconds) < SECONDS
    assert float(peak) < BYTES


def test_long_lists_are_counted_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_lists(tmp_path / "p.parquet", width=500, rows=4)
    monkeypatch.setattr(predictions, "MAX_VALUES", 4000)
    with pytest.raises(SubmissionError, match="4 rows of 4016 values are more than is accepted"):
        read_predictions(tmp_path / "p.parquet")


def test_names_of_trials_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many_names(tmp_path / "p.parquet", 60)
    monkeypatch.setattr(predictions, "MAX_TRIALS", 50)
    with pytest.raises(SubmissionError, match="it holds 60 trials, more than 50"):
        read_predictions(tmp_path / "p.parquet")
    monkeypatch.setattr(predictions, "MAX_NAMES_BYTES", 1000)
    with pytest.raises(SubmissionError, match=r"the names of its trials take \d+ bytes, more"):
        read_predictions(tmp_path / "p.parquet")


def test_a_footer_is_measured_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_lists(tmp_path / "p.parquet", width=5, rows=40)
    monkeypatch.setattr(limits, "MAX_FOOTER_BYTES", 10_000)
    with pytest.raises(SubmissionError, match=r"its footer has \d{5} bytes, more than 10000"):
        read_predictions(tmp_path / "p.parquet")


def test_records_are_counted_before_they_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_records(tmp_path / "records.jsonl.gz", 2000)
    monkeypatch.setattr(bundle, "MAX_RECORDS", 1999)
    with pytest.raises(SubmissionError, match=r"records\.jsonl\.gz holds 2000 records, more than"):
        bundle._bounded_records(tmp_path / "records.jsonl.gz")
    monkeypatch.setattr(bundle, "MAX_RECORD_BYTES", 1000)
    with pytest.raises(StoreError, match="holds more than 1000 bytes of text"):
        bundle._bounded_records(tmp_path / "records.jsonl.gz")


def test_names_of_coordinates_are_counted(tmp_path: Path) -> None:
    def rows(names: int) -> Iterator[Record]:
        for k in range(100):
            yield Record(
                metric="m", value=0.5, unit="1", n=1, coordinates={f"c{k % names}": k},
                suite="s@1.0", entry="e", target="t", perturbation="p", initialization="P-T",
                replicate=0, diagnostic="d", diagnostic_version=1, job="j", subjects=("j",),
            )  # fmt: skip

    path = tmp_path / "records.jsonl.gz"
    write_records(rows(64), path)
    assert len(list(bundle._bounded_records(path))) == 100
    write_records(rows(65), path)
    with pytest.raises(SubmissionError, match=r"records\.jsonl\.gz names more than 64 coordinates"):
        list(bundle._bounded_records(path))


def test_values_of_json_are_counted_before_they_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    many_lists(path, 100)
    monkeypatch.setattr(bundle, "MAX_VALUES", 200)
    with pytest.raises(SubmissionError, match="it holds more than 200 values"):
        parse_json(path)
    monkeypatch.setattr(bundle, "MAX_VALUES", 300)
    assert len(parse_json(path)["jobs"]) == 101
    deep_lists(path, 200)
    with pytest.raises(SubmissionError, match=r"plan\.json is not a JSON file"):
        parse_json(path)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system enforces the limit")
def test_memory_is_bounded_and_free_again() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with bounded_memory(2**26), pytest.raises(MemoryError):
        bytearray(2**33)  # more than a long-lived process may hold free
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert len(bytearray(2**28)) == 2**28
