"""What a hostile submitter may do to each file of a real submission, from seeds.

A mutator changes a copy of the submission in place, and most copies are sealed again afterwards, as
a forger would do. ``submission_mutants.py`` checks each and builds its board.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from handmade_run import sealed

from transferbench.submission.images import ImageSet, write_images
from transferbench.submission.predictions import SCHEMA, read_predictions

__all__ = ["BOARD", "ENTRY", "MUTATIONS", "NAMES", "PAYLOADS", "honest", "mutated"]

LEADERBOARD = Path(__file__).parents[1] / "leaderboard"
BOARD, ENTRY = "quickstart@2", "fixup-resnet8"
HEAD, PLAN, CLAIMS, ENVIRONMENT = (f"{name}.json" for name in
                                   ("submission", "plan", "claims", "environment"))  # fmt: skip
RECORDS, PREDICTIONS, IMAGES = "records.jsonl.gz", "predictions.parquet", "images.parquet"
JSON_FILES = (HEAD, PLAN, CLAIMS, ENVIRONMENT)
FILES = (*JSON_FILES, RECORDS, PREDICTIONS, IMAGES)

PAYLOADS = (
    "<img src=x onerror=alert(1)>", "</table><script>alert(1)</script>", "\\write18{touch x}",
    "\\input{/etc/passwd}", "=cmd|' /C calc'!A0", "@SUM(1+1)", "\x1b[31mred\x1b[0m", "\x07\x08\x00",
    "[x](javascript:alert(1))", "{{7*7}}${7*7}", "a\u202egnp.exe", "\u200b", "\ud800", "../../../x",
    "/etc/passwd", "C:\\con", "README.md", "submissions", "x" * 100_000, "a\nb | c", "\u0456d", "",
    "__import__('os').system('touch x')", "!!python/object:os.system [ls]", "%s%n%x", "nan", "-0",
)  # fmt: skip
"""Texts that a page, a shell, a spreadsheet, TeX, a terminal or a parser may take for something."""
NUMBERS = (0, -1, 1, 2**31, 2**53, 2**63, 10**400, -(10**30), 0.5, -0.0, 1e308, 1e-320, True, False)
SHAPES: tuple[Any, ...] = (None, [], {}, [[]], [None], {"a": 1}, {"": {}}, [1] * 1000)
RAW = ("NaN", "Infinity", "-Infinity", "1e999", "01", "+1", "0x10", "1_0", "'a'", "[1,]", "{,}",
       '"\\ud800"', '"\\u0000"', "[" * 900 + "]" * 900, "[" * 60_000, "9" * 5000,
       '{"a":1,"a":2}')  # fmt: skip
"""Fragments to stand in the place of a value of JSON."""
NAMES = (
    "<img src=x onerror=alert(1)>", "a b", "\x1b[31m", "..a", "-rf", "README.md", "submissions",
    "quickstart@2.0", "index.html", "a\nb", "\u202eabc", "=1+1", "'; touch x;'", "$(touch x)",
    "%2e%2e",
    "x" * 200, "caf\u00e9", "con", ".hidden", "\\write18", "a|b", "characters@999999999999",
)  # fmt: skip
"""Names of folders."""


def honest(folder: Path) -> Path:
    """A copy of a published submission, with digests of invented images."""
    (published,) = LEADERBOARD.glob(f"submissions/{BOARD}/{ENTRY}/*")
    copy = folder / "submissions" / BOARD / ENTRY / published.name
    shutil.copytree(published, copy)
    draw = np.random.default_rng(0)
    jobs = json.loads((copy / PLAN).read_text())["jobs"]
    data = {job["id"]: job["payload"]["dataset"]["fingerprint"]
            for job in jobs if job["kind"] in {"pretrain", "trial"}}  # fmt: skip
    (source,) = {data[job["id"]] for job in jobs if job["kind"] == "pretrain"}
    items = {(data[job], True): trial.items
             for job, trial in read_predictions(copy / PREDICTIONS).items()}  # fmt: skip
    sets = {
        key: ImageSet(own, *draw.integers(0, 2**63, (2, len(own)), np.uint64), None)
        for key, own in ({(source, False): np.arange(50)} | items).items()
    }
    write_images(sets, copy / IMAGES)
    return sealed(copy)


def mutated(kind: str, seed: int, folder: Path) -> Path:
    """Change the submission in ``folder`` as ``kind`` does; returns where it is then."""
    mutate, seals = MUTATIONS[kind]
    moved = mutate(folder, random.Random(f"{kind} {seed}"))
    folder = moved or folder
    try:
        return sealed(folder) if seals else folder
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ):
        return folder  # what cannot be read cannot be sealed


# --- JSON -------------------------------------------------------------------------------------


def _spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a document."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(
        value, list) else ()  # fmt: skip
    for key, child in pairs:
        yield from _spots(child, (*path, key))


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def _trap(draw: random.Random) -> Any:
    return draw.choice((draw.choice(PAYLOADS), draw.choice(NUMBERS), draw.choice(SHAPES)))


def _spot(document: Any, draw: random.Random) -> tuple[Any, ...]:
    """Of few or many values: each depth is as likely as another."""
    spots = [path for path in _spots(document) if path]
    depth = draw.choice(sorted({len(path) for path in spots}))
    return draw.choice([path for path in spots if len(path) == depth])


def _edit(document: Any, draw: random.Random) -> Any:
    """Another value, name or number of values at one spot."""
    path = _spot(document, draw)
    parent, key = _at(document, path[:-1]), path[-1]
    change = draw.choice(("trap", "trap", "trap", "remove", "add", "swap", "repeat", "rename"))
    if change == "remove":
        del parent[key]
    elif change == "add" and isinstance(parent, dict):
        parent[draw.choice((*PAYLOADS[:4], "value", "__class__", "trust", "id"))] = _trap(draw)
    elif change == "swap":
        other = (
            draw.choice(list(parent)) if isinstance(parent, dict) else draw.randrange(len(parent))
        )
        parent[key], parent[other] = parent[other], parent[key]
    elif change == "repeat" and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif change == "rename" and isinstance(parent, dict):
        parent[draw.choice(PAYLOADS)] = parent.pop(key)
    else:
        parent[key] = _trap(draw)
    return document


def _json_value(name: str) -> Callable[[Path, random.Random], None]:
    def mutate(folder: Path, draw: random.Random) -> None:
        document = json.loads((folder / name).read_text())
        for _ in range(draw.choice((1, 1, 1, 3))):
            document = _edit(document, draw)
        (folder / name).write_text(json.dumps(document))

    return mutate


def json_raw(folder: Path, draw: random.Random) -> None:
    """A fragment that is no JSON, or none that anyone should read, in place of a value."""
    path = folder / draw.choice(JSON_FILES)
    document = json.loads(path.read_text())
    spot = _spot(document, draw)
    _at(document, spot[:-1])[spot[-1]] = "@here@"
    text = json.dumps(document).replace('"@here@"', draw.choice(RAW))
    path.write_bytes(text.encode())


def json_text(folder: Path, draw: random.Random) -> None:
    """The same document in another encoding, or with something before or behind it."""
    path = folder / draw.choice(JSON_FILES)
    content = path.read_bytes()
    text = content.decode()
    path.write_bytes(draw.choice((
        b"\xef\xbb\xbf" + content, text.encode("utf-16"), text.encode("utf-32-be"), content + b"{}",
        content + b"\x00", content.replace(b"a", b"\xff", 1), b"", b" ", b"null", b"[]",
        b"\x80\x04N.",
        content[: draw.randrange(len(content))], content.replace(b"{", b'{"id":1,', 1),
        b"[" * 10**6,
        b'{"a":' * 10**5, text.encode("utf-7"), b"// x\n" + content,
    )))  # fmt: skip


# --- records ----------------------------------------------------------------------------------


def _lines(folder: Path) -> list[str]:
    return gzip.decompress((folder / RECORDS).read_bytes()).decode().splitlines()


def _write_lines(folder: Path, lines: list[str]) -> None:
    (folder / RECORDS).write_bytes(gzip.compress("\n".join(lines).encode() + b"\n", 1))


def record_value(folder: Path, draw: random.Random) -> None:
    lines = _lines(folder)
    for _ in range(draw.choice((1, 1, 5))):
        at = draw.randrange(len(lines))
        lines[at] = json.dumps(_edit(json.loads(lines[at]), draw))
    _write_lines(folder, lines)


def record_lines(folder: Path, draw: random.Random) -> None:
    """Lines removed, repeated, exchanged, or made of something else."""
    lines = _lines(folder)
    at, other = draw.sample(range(len(lines)), 2)
    change = draw.randrange(7)
    if change == 0:
        del lines[at]
    elif change == 1:
        lines.insert(other, lines[at])
    elif change == 2:  # the values of two records change places
        rows = [json.loads(lines[index]) for index in (at, other)]
        rows[0]["value"], rows[1]["value"] = rows[1].get("value"), rows[0].get("value")
        lines[at], lines[other] = map(json.dumps, rows)
    elif change == 3:
        lines[at] = draw.choice((*RAW, "", "null", "[]", "{}", lines[at] + lines[other]))
    elif change == 4:
        lines = lines[: draw.randrange(len(lines))]
    elif change == 5:
        lines[at] = lines[at].replace('"', draw.choice(("'", "\u201c", "\\u0022")), 2)
    else:
        lines = lines * 2
    _write_lines(folder, lines)


def gzip_form(folder: Path, draw: random.Random) -> None:
    path = folder / RECORDS
    content = path.read_bytes()
    text = gzip.decompress(content)
    damaged = bytearray(content)
    damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    path.write_bytes(draw.choice((
        text, content[:-8], content[:-4] + b"\x00\x00\x00\x00", content + b"tail", bytes(damaged),
        gzip.compress(content), gzip.compress(text) + gzip.compress(b"{}\n"), b"", b"\x1f\x8b",
        text[:100],
        gzip.compress(b"\x00" * 2**29, 1), gzip.compress(b"\n" * 10**6),
        gzip.compress(text + b"\xff"),
        gzip.compress(text.replace(b"\n", b"\r")), gzip.compress(b'{"value":' + b"9" * 2**26),
    )))  # fmt: skip


# --- tables -----------------------------------------------------------------------------------


def _table(name: str, change: Callable[[pa.Table, random.Random], pa.Table]) -> Any:
    def mutate(folder: Path, draw: random.Random) -> None:
        path = folder / name
        table = change(pq.read_table(path), draw)
        options: dict[str, Any] = draw.choice((
            {}, {"compression": "none"}, {"use_dictionary": False}, {"row_group_size": 1000},
            {"version": "1.0"}, {"data_page_version": "2.0"}, {"store_schema": False},
        ))  # fmt: skip
        with path.open("wb") as stream:
            pq.write_table(table, stream, **options)

    return mutate


def _other_schema(table: pa.Table, draw: random.Random) -> pa.Table:
    name = draw.choice(table.column_names)
    change = draw.randrange(6)
    if change == 0:
        return table.drop_columns([name])
    if change == 1:
        return table.rename_columns([f"{n}2" if n == name else n for n in table.column_names])
    if change == 2:
        return table.append_column(draw.choice((name, "x", PAYLOADS[0])), table.column(name))
    if change == 3:
        return table.select(draw.sample(table.column_names, len(table.column_names)))
    if change == 4:
        kind = draw.choice(
            (pa.string(), pa.float64(), pa.int8(), pa.binary(), pa.list_(pa.int64()))
        )
        at = table.column_names.index(name)
        return table.set_column(at, name, pa.nulls(len(table), kind))
    # The form in which pandas and Arrow name classes to be made.
    extension = {"ARROW:extension:name": "arrow.py_extension_type",
                 "ARROW:extension:metadata": b"\x80\x04cos\nsystem\n(S'touch x'\ntR."}  # fmt: skip
    fields = [field.with_metadata(extension) for field in table.schema]
    return table.cast(pa.schema(fields, {"pandas": "\x80\x04cos\nsystem\n"}), safe=False)


def _other_rows(table: pa.Table, draw: random.Random) -> pa.Table:
    count = len(table)
    at = draw.randrange(1, count)
    change = draw.randrange(6)
    if change == 0:
        return table.slice(0, 0)
    if change == 1:
        return pa.concat_tables([table.slice(0, at), table.slice(at + 1)])
    if change == 2:
        return pa.concat_tables([table, table.slice(at, draw.choice((1, 1000)))])
    if change == 3:
        return table.take(pa.array(np.random.default_rng(at).permutation(count)))
    if change == 4:
        return table.slice(0, at)
    return pa.concat_tables([table.slice(at), table.slice(0, at)])


def _other_cells(table: pa.Table, draw: random.Random) -> pa.Table:
    """Numbers of one column: extreme ones, holes, or those of the row before."""
    complete = [name for name in table.column_names if table.column(name).null_count == 0]
    numbers = [name for name in complete if pa.types.is_integer(table.schema.field(name).type)]
    name = draw.choice(numbers)
    kind = table.schema.field(name).type
    values = table.column(name).to_numpy().copy()
    rows = np.random.default_rng(draw.randrange(2**32)).permutation(len(values))
    rows = rows[: draw.choice((1, 50, len(values)))]
    lowest, highest = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
    change = draw.choice(("extreme", "shift", "roll", "null"))
    if change == "roll":
        values = np.roll(values, 1)
    elif change == "shift":
        values[rows] += values.dtype.type(draw.choice((1, 7)))
    else:
        values[rows] = draw.choice((lowest, highest, lowest + 1 if lowest < 0 else 3))
    mask = np.isin(np.arange(len(values)), rows) if change == "null" else None
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(name), pa.array(values, kind, mask=mask))


def job_names(folder: Path, draw: random.Random) -> None:
    """Trials of other names, or two that exchange theirs."""
    path = folder / PREDICTIONS
    table = pq.read_table(path)
    column = table.column("job").combine_chunks()
    names = column.dictionary.to_pylist()
    first, second = draw.sample(range(len(names)), 2)
    if draw.random() < 0.5:
        names[first], names[second] = names[second], names[first]
    else:
        text = draw.choice([text for text in PAYLOADS if "\ud800" not in text])
        names[first] = draw.choice((text, names[second], names[first].upper()))
    codes = pa.DictionaryArray.from_arrays(column.indices, pa.array(names, pa.string()), safe=False)
    with path.open("wb") as stream:
        pq.write_table(table.set_column(0, SCHEMA.field("job"), codes), stream)


# --- the head, the entry and its certificates -------------------------------------------------


def head_claim(folder: Path, draw: random.Random) -> None:
    """Something better, in the form that it should have."""
    head = json.loads((folder / HEAD).read_text())
    weights = {"tag": "imagenet", "origin": "afar", "license": "MIT", "pretrained_on": "everything"}
    changes: tuple[tuple[tuple[str, ...], Any], ...] = (
        (("trust",), draw.choice(("reproduced", "spot-checked", "recomputed"))),
        (("schema_version",), draw.choice((1, 3, 9, "2", 2.0, True))),
        (("suite",), draw.choice(("quickstart@2.1", "quickstart@3.0", "other@1.0", "x@2"))),
        (("suite_digest",), draw.choice(("0" * 64, head["suite_digest"].upper(), ""))),
        (("entry", "weights"), weights),
        (("entry", "name"), draw.choice((*PAYLOADS, "better-net"))),
        (("entry", "backbone", "name"), draw.choice((*PAYLOADS, "fixup-resnet14"))),
        (("entry", "backbone", "params"), {"width": draw.choice((1, 17, "16"))}),
        (("severities", "block-1"), draw.choice((0.0, 1e9, -1.0))),
        (("outputs",), dict.fromkeys(head["outputs"], "0" * 64)), (("plugins",), {}),
        (("files",), {}), (("declaration", "overlap", "handwriting"), "maybe"),
    )  # fmt: skip
    path, value = draw.choice(changes)
    _at(head, path[:-1])[path[-1]] = value
    (folder / HEAD).write_text(json.dumps(head))


def renamed_entry(folder: Path, draw: random.Random) -> Path:
    """The same network under another name."""
    name = draw.choice(("better-net", "timm/resnet50", "fixup-resnet14", f"{ENTRY}+x-0123456789"))
    head = json.loads((folder / HEAD).read_text())
    head["entry"]["name"] = name
    (folder / HEAD).write_text(json.dumps(head))
    _write_lines(folder, [line.replace(f'"entry":"{ENTRY}"', f'"entry":"{name}"')
                          for line in _lines(folder)])  # fmt: skip
    to = folder.parents[1] / name.replace("/", "+") / folder.name
    to.parent.mkdir(parents=True, exist_ok=True)
    return folder.rename(to)


def certificate(folder: Path, draw: random.Random) -> None:
    """One that raises no trust: of the submitter, of other values, or broken."""
    head = json.loads((folder / HEAD).read_text())
    row = next(row for line in _lines(folder)
               if (row := json.loads(line))["metric"] == "test_metric")  # fmt: skip
    trial = {
        key: row[key] for key in ("job", "target", "perturbation", "initialization", "replicate")
    }
    trial |= {"submitted": row["value"], "again": row["value"], "equal_predictions": 1.0,
              "same_bits": True}  # fmt: skip
    content: dict[str, Any] = {
        "schema_version": 1, "submission": head["id"], "suite": head["suite"],
        "suite_digest": head["suite_digest"], "entry": ENTRY, "by": "somebody",
        "date": "2026-11-28",
        "seed": 1, "tolerance": 0.03, "trials": [trial], "environment": {},
    }  # fmt: skip
    change: dict[str, Any] = draw.choice((
        {"by": "The  transferbench AUTHORS"}, {"by": "the transferbench\u200b authors"},
        {"by": "the tr\u0430nsferbench authors"}, {"by": " the-transferbench-authors. "},
        {"by": "\uff54he transferbench authors"}, {"by": ""}, {"by": "the transferbench authors"},
        {"trials": []}, {"trials": [trial, trial]}, {"trials": [trial | {"again": 0.0}]},
        {"trials": [trial | {"submitted": 0.99, "again": 0.99}]}, {"tolerance": 1.0},
        {"trials": [trial | {"job": "0" * 64}]}, {"submission": "0" * 64},
        {"suite_digest": "0" * 64},
        {"trials": [trial | {"again": None}]}, {"schema_version": 9}, {"date": "today"},
        {"trials": [trial | {"target": "printed"}]}, {"entry": "other"}, {"suite": "other@1.0"},
        {"environment": {"python": PAYLOADS[6]}}, {"seed": -1}, {"by": PAYLOADS[6]},
    ))  # fmt: skip
    path = folder.parents[3] / "certificates" / head["id"] / "0123456789abcdef.json"
    path.parent.mkdir(parents=True)
    text = json.dumps(content | change)
    path.write_text(draw.choice((text, text, text, text[:-3], "[" * 10**5, f"[{text}]")))


# --- files and folders ------------------------------------------------------------------------


def file_form(folder: Path, draw: random.Random) -> None:
    """A file that is missing, something else than a file, or huge."""
    path = folder / draw.choice(FILES)
    content = path.read_bytes()
    path.unlink()
    change = draw.randrange(8)
    if change == 0:
        path.symlink_to(
            draw.choice(("/etc/passwd", "/dev/zero", "/dev/stdin", path.name, "/nowhere"))
        )
    elif change == 1:
        os.mkfifo(path)
    elif change == 2:
        path.mkdir()
    elif change == 3:
        with path.open("wb") as stream:
            stream.truncate(2**40)
    elif change == 4:
        outside = folder.parents[3] / f"outside-{path.name}"
        outside.write_bytes(content)
        path.symlink_to(outside)
    elif change == 5:
        path.write_bytes(content)
        path.rename(
            path.with_name(draw.choice((path.name.upper(), f"{path.name} ", f"{path.name}.bak")))
        )
    elif change == 6:
        path.write_bytes((folder / draw.choice([f for f in FILES if f != path.name])).read_bytes())


def extra_file(folder: Path, draw: random.Random) -> None:
    name = draw.choice((*NAMES, "__init__.py", "conftest.py", ".git", "suite.yaml",
                        "records.jsonl", "submission.py", "sitecustomize.py"))  # fmt: skip
    code = "import os; os.system('touch executed')\n"
    if draw.random() < 0.3:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
    else:
        (folder / name).write_text(code)


def flipped_bits(folder: Path, draw: random.Random) -> None:
    path = folder / draw.choice(FILES)
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 20))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def folder_name(folder: Path, draw: random.Random) -> Path:
    """Another name of the board's folder, of the entry's or of the submission's."""
    name, level = draw.choice(NAMES), draw.randrange(3)
    to = folder if level == 0 else folder.parents[level - 1]
    moved = to.rename(to.with_name(name))
    return moved if level == 0 else moved / folder.relative_to(to)


def folder_link(folder: Path, draw: random.Random) -> Path:
    """A folder that is a link to another place."""
    level = draw.randrange(3)
    to = folder if level == 0 else folder.parents[level - 1]
    outside = folder.parents[3] / "outside"
    shutil.move(to, outside)
    to.symlink_to(outside)
    return folder


Mutation = tuple[Callable[[Path, random.Random], Path | None], bool]
MUTATIONS: dict[str, Mutation] = {
    "head values": (_json_value(HEAD), True), "unsealed head values": (_json_value(HEAD), False),
    "plan values": (_json_value(PLAN), True), "verdicts": (_json_value(CLAIMS), True),
    "environment": (_json_value(ENVIRONMENT), True), "raw JSON": (json_raw, True),
    "JSON files": (json_text, True), "record values": (record_value, True),
    "record lines": (record_lines, True), "gzip": (gzip_form, True),
    "schema of predictions": (_table(PREDICTIONS, _other_schema), True),
    "rows of predictions": (_table(PREDICTIONS, _other_rows), True),
    "cells of predictions": (_table(PREDICTIONS, _other_cells), True),
    "names of trials": (job_names, True),
    "schema of images": (_table(IMAGES, _other_schema), True),
    "rows of images": (_table(IMAGES, _other_rows), True),
    "cells of images": (_table(IMAGES, _other_cells), True),
    "better heads": (head_claim, True), "renamed entry": (renamed_entry, True),
    "certificates": (certificate, False), "forms of files": (file_form, False),
    "extra files": (extra_file, True), "flipped bits": (flipped_bits, True),
    "unsealed flipped bits": (flipped_bits, False), "names of folders": (folder_name, False),
    "links": (folder_link, False),
}  # fmt: skip
"""Kind -> what it does, and whether the submission is sealed again."""
