"""Broken inputs from seeds: mutated suites and run folders, equal for equal seeds."""

import json
import os
import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from tiny_suite import TINY

from transferbench.suite.loading import bundled_suites

__all__ = ["damaged_bytes", "mutated_run_folder", "mutated_suite"]

Steps = tuple[str | int, ...]

NUMBERS = (
    "0", "-1", "-0.0", "0.5", "2.0", "1e-320", "1e308", "1e400", "1" * 400, "9007199254740993",
    "1000000000", "100000000", "4097", ".inf", "-.inf", ".nan", "0x10", "0o17", "010", "1_000",
    "1:30", "0b11", "+1", "1.", "1e3", "999999999999",
)  # fmt: skip
"""Numbers and what looks like some, in YAML."""

TEXTS = (
    "yes", "no", "on", "True", "~", "null", "", "'2'", '"true"', "2020-01-01", "P", "trial", "none",
    "source", "../x", "a/b", '"\\ud800"', '"\\0"', '"\\ud83d\\ude00"', "'\U0001f600'", "x" * 70,
    "x" * 5000, "P-T", "RI-T", "short", "identity", "pretrained", "random", "learning-curve",
    "block-shuffle", "glyphs", "digits", "agreement", "test_metric", "'a b'", "'(a+)+$'", "'['",
)  # fmt: skip
"""Texts: reserved names, names of other things, and characters that no file should hold."""

SHAPES = (
    "[]", "{}", "[[]]", "[null]", "{a: 1}", "{1: 2}", "{[1]: 2}", "{null: 1}", "[1, 2, 3]",
    "[1, 1]", "{name: identity}", "{name: [1]}", "[P-T, P-T]", "[" * 60 + "]" * 60,
    "[" * 300 + "]" * 300, "{a: " * 300 + "1" + "}" * 300, "[" + "1, " * 3000 + "1]",
    "{a: 1, a: 2}",
)  # fmt: skip

TAGS = (
    "!!int x", "!!int 3", "!!float x", "!!bool maybe", "!!str 3", "!!binary aGk=", "!!set {a, b}",
    "!!omap [a: 1]", "!!timestamp 2020-01-01", "!!python/object:os.system [ls]", "!own {a: 1}",
    "!!null ''", "!!seq {}", "!!map []", "!", "!!",
)  # fmt: skip

REFERENCES = (
    "*nothing", "&a [*a]", "&a {b: *a}", "&a {<<: *a}", "{<<: 3}", "{<<: [1]}", "{<<: {a: 1}}",
    "[&a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1], " + ", ".join(
        f"&{name} [{', '.join([f'*{before}'] * 10)}]"
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    ) + "]",
    "&a", "*",
)  # fmt: skip

TRAPS = (*NUMBERS, *NUMBERS, *TEXTS, *TEXTS, *SHAPES, *TAGS, *REFERENCES)
"""Values to replace one with; numbers and texts are the likelier mistakes."""

BYTES = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\t", b"\r", b"\r\n", b"\n", b"\xc3", b"\xe9",
    b"\xed\xa0\x80", b"---\n", b"...\n", b"%YAML 1.1\n---\n", b": ", b"- ", b"#", b"'", b'"', b"&",
    b"*", b"!", b"|\n",
    b"? ", b"{", b"}", b"[", b"]", b"<<: ", b"\xe2\x80\xa8", b"\x85", b"\x1b",
)  # fmt: skip


class _Raw(str):
    """A fragment of YAML, to be written as it is."""

    __slots__ = ()


def mutated_suite(seed: int) -> bytes:
    """A suite file with one to three mistakes; most are still YAML."""
    draw = random.Random(seed)
    suite = json.loads(draw.choice(_suites()))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        _mutate(suite, draw)
    content = _yaml(suite).encode("utf-8", "surrogatepass")
    return damaged_bytes(content, draw) if draw.random() < 0.15 else content


@cache
def _suites() -> tuple[str, ...]:
    """Suites as JSON; the small ones stand for most mutants, since large ones take long to read."""
    small = [json.dumps(TINY)]
    files = bundled_suites()
    large = [
        json.dumps(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
        for path in files.values()
    ]
    by_size = sorted(large, key=len)
    return (*small * 12, *by_size[:2] * 3, *by_size[2:])


def _paths(value: Any, start: Steps = ()) -> Iterator[Steps]:
    """The path of every value below ``value``."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        yield (*start, key)
        if isinstance(inner, dict | list):
            yield from _paths(inner, (*start, key))


def _mutate(suite: Any, draw: random.Random) -> None:
    """Change one value in place."""
    paths = list(_paths(suite))
    if not paths:
        return
    # The depth first: most values lie deep, and mistakes near the top are as likely.
    depth = draw.randint(1, max(map(len, paths)))
    *parents, key = draw.choice([path for path in paths if len(path) <= depth])
    parent = suite
    for step in parents:
        parent = parent[step]
    other = draw.choice(paths)
    draw.choice((_replace, _replace, _replace, _remove, _rename, _repeat, _exchange))(
        parent, key, draw, suite, other
    )


def _replace(parent: Any, key: Any, draw: random.Random, suite: Any, _: Steps) -> None:
    traps = TRAPS if draw.random() < 0.5 else _alike(parent[key], suite)
    parent[key] = _Raw(draw.choice(traps))


def _alike(value: Any, suite: Any) -> Sequence[str]:
    """What may stand for ``value`` by its type, so that the mistake lies deeper."""
    if isinstance(value, bool):
        return ("true", "false")
    if isinstance(value, int | float):
        return ("0", "1", "2", "3", "8", "16", "20", "1000", "0.1", "0.5", "0.999", "1.0", "1e-3",
                "1e5", "1e10", "-0.5", "0.001", "100", "64", "1048577", "1000001")  # fmt: skip
    if isinstance(value, list):
        return ("[]", _yaml(value * 2), _yaml(value[1:]), _yaml(value[::-1]), f"[{_yaml(value)}]")
    if isinstance(value, dict):
        return ("{}", "null", _yaml(dict(list(value.items())[1:])))
    return [json.dumps(str(text)) for path in _paths(suite) for text in path[-1:]]


def _remove(parent: Any, key: Any, *_: Any) -> None:
    del parent[key]


def _rename(parent: Any, key: Any, draw: random.Random, *_: Any) -> None:
    if isinstance(parent, dict):
        names = (f"{key}x", _Raw(draw.choice(TEXTS)), _Raw(draw.choice(NUMBERS)), str(key).upper())
        parent[draw.choice(names)] = parent.pop(key)
    else:
        parent.append(parent[key])


def _repeat(parent: Any, key: Any, draw: random.Random, *_: Any) -> None:
    if isinstance(parent, list):
        parent.extend([parent[key]] * draw.choice((1, 30)))
    else:
        parent[_Raw(f"{json.dumps(str(key))}")] = parent[key]


def _exchange(parent: Any, key: Any, _: random.Random, suite: Any, other: Steps) -> None:
    """Another value of the suite in this place."""
    value = suite
    for step in other:
        value = value[step]
    parent[key] = json.loads(json.dumps(value, default=str))


def _yaml(value: Any, depth: int = 0) -> str:
    """``value`` as YAML, a line for each of the upper levels, with its fragments as they are."""
    if isinstance(value, _Raw):
        return str(value)
    if isinstance(value, dict):
        entries = [
            f"{key if isinstance(key, _Raw) else json.dumps(key)}: {_yaml(inner, depth + 1)}"
            for key, inner in value.items()
        ]
        brackets = "{}"
    elif isinstance(value, list):
        entries, brackets = [_yaml(inner, depth + 1) for inner in value], "[]"
    else:
        return json.dumps(value)
    gap = "\n" + " " * depth if depth < 3 else " "
    return f"{brackets[0]}{f',{gap}'.join(entries)}{brackets[1]}"


def damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    """``content`` with bytes flipped, cut, doubled or put in."""
    if not content:
        return draw.choice(BYTES)
    at, end = sorted(draw.choices(range(len(content) + 1), k=2))
    return draw.choice(
        (
            lambda: content[:at] + bytes([content[at % len(content)] ^ 1 << draw.randrange(8)])
            + content[at + 1 :],
            lambda: content[:at],
            lambda: content[:at] + content[min(end, at + 200) :],
            lambda: content[:end] + content[at:],
            lambda: content[:at] + draw.choice(BYTES) + content[at:],
            lambda: draw.choice(BYTES) + content,
            lambda: content.decode("utf-8", "replace").encode(draw.choice(("utf-16", "utf-16-be"))),
            lambda: content.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\n\t"))),
            lambda: b"",
        )
    )()  # fmt: skip


# --- run folders ------------------------------------------------------------------------------

JSON_VALUES = (
    "null", "true", "-1", "0", "1e400", "NaN", "Infinity", "-0.0", "1.5", '"2"', '""', '"x"', "[]",
    "{}", "[[]]", '{"a": 1}', str(2**70), "9" * 5000, '"\\ud800"', '"\\u0000"', '"../../x"',
    '"' + "x" * 5000 + '"', "[" * 300 + "]" * 300, '"' + "0" * 64 + '"', '"P"', '"trial"',
)  # fmt: skip
RUN_FILES = ("run.json", "claims.json", "environment.json", "records.jsonl")


def mutated_run_folder(seed: int, folder: Path) -> None:
    """Damage one or two files of the run in ``folder``."""
    draw = random.Random(seed)
    for name in draw.sample(RUN_FILES, draw.choice((1, 1, 1, 2))):
        path = folder / name
        content = path.read_bytes()
        kind = draw.random()
        if kind < 0.1:
            _no_file(path, draw)
        elif kind < 0.3:
            path.write_bytes(damaged_bytes(content, draw))
        elif name == "records.jsonl":
            path.write_text("".join(_mutated_lines(content.decode(), draw)), encoding="utf-8")
        else:
            path.write_text(_mutated_json(content.decode(), draw), encoding="utf-8")


def _no_file(path: Path, draw: random.Random) -> None:
    path.unlink()
    draw.choice(
        (
            lambda: None,
            path.mkdir,
            lambda: os.mkfifo(path),
            lambda: path.symlink_to(path.name),
            lambda: path.symlink_to("nothing"),
            lambda: path.write_bytes(b""),
        )
    )()


def _mutated_json(text: str, draw: random.Random) -> str:
    value = json.loads(text)
    paths = list(_paths(value))
    if not paths:
        return draw.choice(JSON_VALUES)
    depth = draw.randint(1, max(map(len, paths)))
    *parents, key = draw.choice([path for path in paths if len(path) <= depth])
    parent = value
    for step in parents:
        parent = parent[step]
    other = value
    for step in draw.choice(paths):
        other = other[step]
    action = draw.randrange(5)
    if action == 0:
        del parent[key]
    elif action == 1 and isinstance(parent, list):
        parent.append(parent[key])
    elif action == 1:
        parent[f"{key}x"] = parent.pop(key)
    elif action == 2:
        parent[key] = json.loads(json.dumps(other))
    else:
        parent[key] = _Raw(draw.choice(JSON_VALUES))
    return _yaml(value)


def _mutated_lines(text: str, draw: random.Random) -> list[str]:
    lines = text.splitlines(keepends=True)
    at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    return draw.choice(
        (
            lambda: [*lines[:at], f"{_mutated_json(lines[at], draw)}\n", *lines[at + 1 :]],
            lambda: [*lines[:at], f"{_mutated_json(lines[at], draw)}\n", *lines[at + 1 :]],
            lambda: [*lines[:at], f"{_mutated_json(lines[at], draw)}\n", *lines[at + 1 :]],
            lambda: [*lines[:at], lines[other], *lines[at + 1 :]],
            lambda: [*lines, lines[at]],
            lambda: lines[:at] + lines[at + 1 :],
            lambda: [*lines[:at], "\n", *lines[at:]],
            lambda: lines[::-1],
            list,
            lambda: [line for i, line in enumerate(lines) if i % 2],
            lambda: [line.replace('"handwriting"', '"far"') for line in lines],
            lambda: [line.replace('"replicate":0', '"replicate":1') for line in lines],
        )
    )()
