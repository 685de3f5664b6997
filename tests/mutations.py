"""Broken inputs from seeds: suites, run folders, weights and images; equal for equal seeds."""

import argparse
import io
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save as safetensors_bytes
from tiny_suite import TINY

from transferbench.suite.loading import bundled_suites

__all__ = [
    "damaged_bytes",
    "mutated_images",
    "mutated_run_folder",
    "mutated_suite",
    "mutated_weights",
]

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


# --- weights ----------------------------------------------------------------------------------

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "head.", ".", "x")
NESTS = ("state_dict", "model", "model_ema", "ema", "net", "optimizer", "hyper_parameters", "", "x")
PLAIN_VALUES = (None, 3, 1.5, "x" * 5000, [1, 2], {"a": 1}, {}, (), b"\0", float("nan"),
                argparse.Namespace(lr=1), torch.Size([2]), torch.float16, {1: 2})  # fmt: skip
TENSORS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    lambda t: torch.full_like(t, float("nan")),
    lambda t: torch.where(torch.arange(t.numel()).reshape(t.shape) == 0, float("inf"), t),
    lambda t: t * 1e30 * 1e30,
    lambda t: t.to(torch.complex64),
    lambda t: t.to(torch.int64),
    lambda t: t > 0,
    lambda t: t.half(),
    lambda t: t.to(torch.float8_e4m3fn),
    lambda t: t.double(),
    lambda t: t.to_sparse(),
    lambda t: t[None],
    lambda t: t.flatten(),
    lambda t: t[:0] if t.ndim else t,
    lambda t: t.transpose(0, -1) if t.ndim else t,
    lambda t: torch.zeros(1).expand(2**33),
    lambda t: torch.zeros(()),
    lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    torch.nn.Parameter,
)  # fmt: skip


def mutated_weights(seed: int, weights: dict[str, torch.Tensor], folder: Path) -> Path:
    """A file in ``folder`` of those weights with one to three mistakes."""
    draw = random.Random(seed)
    content: Any = dict(weights)
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        if content:  # its only name may have been taken away
            mistake = draw.choice((_other_tensor, _other_tensor, _other_name, _prefixed, _nested))
            content = mistake(content, draw)
    suffix, data = draw.choice((_zipped, _zipped, _pickled, _safetensors))(content)
    if draw.random() < 0.4:
        data = damaged_bytes(data, draw)
    path = folder / f"weights{draw.choice((suffix, suffix, '.pth.tar', '.ckpt', '.bin', '.PT'))}"
    path.write_bytes(data)
    return path


def _other_tensor(content: Any, draw: random.Random) -> Any:
    name = draw.choice(list(content))
    value = content[name]
    if isinstance(value, torch.Tensor) and draw.random() < 0.7:
        return content | {name: draw.choice(TENSORS)(value.to_dense().float())}
    return content | {name: draw.choice(PLAIN_VALUES)}


def _other_name(content: Any, draw: random.Random) -> Any:
    name, other = draw.choice(list(content)), draw.choice(list(content))
    changed = draw.choice(({}, {f"{name}x": content[name]}, {"x" * 5000: content[name]},
                           {7: content[name]}, {"\ud800": content[name]},
                           {name: content[other], other: content[name]}))  # fmt: skip
    return {key: value for key, value in content.items() if key != name} | changed


def _prefixed(content: Any, draw: random.Random) -> Any:
    prefix, share = draw.choice(PREFIXES), draw.choice((1.0, 1.0, 0.9))
    return {f"{prefix if draw.random() < share else ''}{name}": content[name] for name in content}


def _nested(content: Any, draw: random.Random) -> Any:
    beside = draw.choice(({}, {"epoch": 3}, {"optimizer": {"state": {}}}, {"model_ema": content}))
    nested = {draw.choice(NESTS): content}
    for _ in range(draw.choice((0, 0, 1, 300))):
        nested = {draw.choice(NESTS): nested}
    return beside | nested


def _zipped(content: Any) -> tuple[str, bytes]:
    return ".pth", _saved(content, zipped=True)


def _pickled(content: Any) -> tuple[str, bytes]:
    return ".pt", _saved(content, zipped=False)


def _saved(content: Any, *, zipped: bool) -> bytes:
    stream = io.BytesIO()
    try:
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    except (NotImplementedError, RuntimeError, UnicodeError):  # torch cannot write it
        return b"PK"
    return stream.getvalue()


def _safetensors(content: Any) -> tuple[str, bytes]:
    tensors = {
        str(name): value.to_dense().contiguous().clone()
        for name, value in content.items()
        if isinstance(value, torch.Tensor) and not value.is_quantized and value.numel() < 2**20
    }
    try:
        return ".safetensors", safetensors_bytes(tensors)
    except (KeyError, UnicodeError, ValueError):  # as above
        return ".safetensors", b"{}"


# --- images -----------------------------------------------------------------------------------

FORMATS = ("png", "jpeg", "gif", "bmp", "webp", "tiff", "ppm", "tga", "jp2", "ico", "pcx")
MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "F", "YCbCr", "HSV", "I")
SIZES = ((8, 8), (1, 1), (1, 3000), (3000, 1), (17, 5), (0, 8))
NAMES = ("a", "\u00e9", "e\u0301", "a\nb", "\U0001f600", "x" * 200, ".hidden", "a\x1bb", "- a",
         "person_1", " ", "%s{}")  # fmt: skip


def mutated_images(seed: int, folder: Path) -> None:
    """Add, change or damage one to three pictures below ``folder``."""
    draw = random.Random(seed)
    for _ in range(draw.choice((1, 1, 2, 3))):
        pictures = sorted(path for path in folder.rglob("*") if path.is_file())
        path = draw.choice(pictures) if pictures else folder / "train" / "a" / "a.png"
        draw.choice((_damaged_picture, _damaged_picture, _other_picture, _other_picture,
                     _copied_picture, _no_picture))(path, draw)  # fmt: skip


def _damaged_picture(path: Path, draw: random.Random) -> None:
    path.write_bytes(damaged_bytes(path.read_bytes(), draw))


def _other_picture(path: Path, draw: random.Random) -> None:
    """Of any format, mode and size that can be written, perhaps damaged, under another name."""
    kind, stream = draw.choice(FORMATS), io.BytesIO()
    image = Image.new(draw.choice(MODES), draw.choice(SIZES))
    exif = Image.Exif()
    exif[0x0112] = draw.choice((1, 3, 6, 8, 9, 40000))
    try:
        image.save(stream, kind, exif=exif.tobytes() if kind in {"jpeg", "png", "webp"} else b"")
    except Exception:  # noqa: BLE001  # Pillow says in many ways that a format lacks a mode
        return
    data = stream.getvalue()
    suffix = draw.choice((kind, kind, kind.upper(), draw.choice(FORMATS)))
    path.with_name(f"{draw.choice(NAMES)}.{suffix}").write_bytes(
        damaged_bytes(data, draw) if draw.random() < 0.5 else data
    )


def _copied_picture(path: Path, draw: random.Random) -> None:
    """Into another class or split."""
    classes = sorted(p for p in path.parents[2].glob("*/*") if p.is_dir())
    (draw.choice(classes) / draw.choice((path.name, "copy.png"))).write_bytes(path.read_bytes())


def _no_picture(path: Path, draw: random.Random) -> None:
    others = [other for other in path.parent.iterdir() if other.is_file()]
    for other in others if draw.random() < 0.3 else [path]:
        other.unlink()
    if not path.parent.is_dir() or draw.random() < 0.5:
        return
    draw.choice(
        (
            path.mkdir,
            lambda: os.mkfifo(path),
            lambda: path.symlink_to(path.name),
            lambda: path.symlink_to("nothing.png"),
            lambda: path.symlink_to(".."),
            lambda: path.symlink_to("/dev/zero"),
        )
    )()
