"""Loading and validation of suite files (YAML 1.2): all mistakes at once, each with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scalarfloat import ScalarFloat
from ruamel.yaml.scalarint import ScalarInt

from transferbench.errors import (
    PluginError,
    SuiteError,
    TransferbenchError,
    UnknownNameError,
    nearest,
    suggestion,
)
from transferbench.registry import Registry, blamed
from transferbench.specs import PerturbationSpec
from transferbench.suite import SOURCE, TRIAL, Suite

__all__ = ["bundled_suites", "json_schema", "load_suite", "suite_path"]

Location = tuple[str | int, ...]

# Path of a field -> the table whose labels it refers to.
REFERENCES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("sources", "*", "recipe"), "recipes"),
    (("initializations", "*", "recipe"), "recipes"),
    (("initializations", "*", "recipes", "*"), "recipes"),
    (("initializations", "*", "source"), "sources"),
    *(((*path, kind, "*"), kind)
      for path in (("trials", "*"), ("diagnostics", "*", "on"))
      for kind in ("targets", "perturbations", "initializations")),
    (("diagnostics", "*", "of", "*"), "initializations"),
    (("diagnostics", "*", "pairs", "*", "a"), "initializations"),
    (("diagnostics", "*", "pairs", "*", "b"), "initializations"),
    (("diagnostics", "*", "pairs", "*", "references", "*"), "initializations"),
    (("diagnostics", "*", "groups", "*", "*"), "initializations"),
    *(((*path, field), table)
      for path in (("claims", "*", "terms", "*"), ("claims", "*", "relative_to", "*"),
                   ("claims", "*", "order", "*", "*"), ("claims", "*", "against", "*", "*"))
      for field, table in (("diagnostic", "diagnostics"), ("target", "targets"),
                           ("perturbation", "perturbations"),
                           ("initialization", "initializations"),
                           ("other_initialization", "initializations"))),
    (("scoring", "initialization"), "initializations"),
    (("scoring", "baseline"), "initializations"),
    (("scoring", "perturbation"), "perturbations"),
    (("scoring", "columns", "*", "diagnostic"), "diagnostics"),
)  # fmt: skip

BUNDLED = Path(__file__).with_name("bundled")

# Path of a plugin -> its kind.
PLUGINS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("sources", "*", "dataset"), "dataset"),
    (("targets", "*", "dataset"), "dataset"),
    (("perturbations", "*"), "perturbation"),
    (("initializations", "*"), "initialization"),
    (("diagnostics", "*"), "diagnostic"),
)


class Mistake(NamedTuple):
    """A mistake in a suite and its location; equal ``advice`` is printed once."""

    location: Location
    message: str
    advice: str = ""


def bundled_suites() -> dict[str, Path]:
    """The suites that come with transferbench: name -> file."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.yaml"))}


def suite_path(name_or_file: str) -> Path:
    """The file of a bundled suite (``quickstart`` or ``quickstart@1.0``), or the given path.

    Raises: ``UnknownNameError`` where neither exists.
    """
    path = Path(name_or_file)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        return path
    bundled = bundled_suites()
    name = name_or_file.partition("@")[0]
    if name not in bundled:
        raise UnknownNameError("suite", name, bundled, "or give the path of a .yaml file")
    return bundled[name]


def load_suite(
    name_or_file: str, registry: Registry | None = None, changes: Sequence[str] = ()
) -> Suite:
    """A bundled suite or one from a file, with ``changes`` such as ``replicates=3``.

    With a registry, plugins and their parameters are checked too.

    Raises: ``SuiteError`` that lists every mistake as ``file:line: field: message``.
    """
    path = suite_path(name_or_file)
    node = _read(path)
    if "@" in name_or_file and not Path(name_or_file).exists():
        installed = f"{node.get('name')}@{node.get('version')}"
        if name_or_file not in {installed, installed.partition(".")[0]}:
            raise SuiteError(f"this installation has suite {installed!r}, not {name_or_file!r}")
    for change in changes:
        _override(node, change)
    raw = _plain(node)
    mistakes = [*_schema_mistakes(raw), *_reference_mistakes(raw)]
    if registry is not None:
        mistakes += _plugin_mistakes(raw, registry)
    if mistakes:
        raise SuiteError(_report(path, node, mistakes, changes))
    return Suite.model_validate(raw)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a suite file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Suite.model_json_schema()


def _override(node: Any, change: str) -> None:
    """Set a value of a suite in place, as in ``recipes.P-T.epochs=3``; the value is YAML.

    ``perturbations.mine.name=my-shuffle`` may add a new label.

    Raises: ``SuiteError`` where the path does not exist.
    """
    path, sign, text = change.partition("=")
    if not sign:
        raise SuiteError(f"--set {change!r} has no '='; write it as recipes.P-T.epochs=3")
    *parents, last = path.split(".")
    if last == "name" and len(parents) == 2:
        _add_label(node, parents[0], parents[1], text)
    for key in parents:
        node = _step(node, key, change)
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        reason = f"--set {change!r}: {text!r} is no YAML value; write it as in a suite file"
        raise SuiteError(reason) from error
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list) and _step(node, last, change) is not None:
        node[int(last)] = value
    else:
        raise SuiteError(f"--set {change!r}: nothing can be set below {'.'.join(parents)!r}")


def _add_label(suite: Any, table: str, label: str, plugin: str) -> None:
    """Add ``label`` to a table of plugins, unless it looks like a typo of a label there.

    A label that equals the plugin's name is no typo.
    """
    labels = suite.get(table)
    if (table, "*") not in dict(PLUGINS) or not isinstance(labels, dict) or label in labels:
        return
    if label == plugin or nearest(label, map(str, labels)) is None:
        labels[label] = {}


def _step(node: Any, key: str, change: str) -> Any:
    if isinstance(node, list) and key.isdigit() and int(key) < len(node):
        return node[int(key)]
    if isinstance(node, dict) and key in node:
        return node[key]
    if not isinstance(node, (dict, list)):
        raise SuiteError(f"--set {change!r}: nothing can be set at {key!r}, below {node!r}")
    keys = [str(name) for name in (node if isinstance(node, dict) else range(len(node)))]
    raise SuiteError(f"--set {change!r}: the suite has no {key!r} there; {suggestion(key, keys)}")


def _read(path: Path) -> Any:
    try:
        node = YAML(typ="rt", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(
            f"cannot read the suite {path}: {error.strerror}; give the path of a .yaml file, or "
            f"a bundled suite: {', '.join(bundled_suites())}"
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path} is not a YAML file: {error}") from error
    if not isinstance(node, dict):
        raise SuiteError(f"{path} is not a suite: it has no fields at the top level")
    return node


def _plain(node: Any) -> Any:
    """``node`` in built-in types, without ruamel's line numbers and comments."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_plain(value) for value in node]
    for kind, plain in ((ScalarBoolean, bool), (ScalarInt, int), (ScalarFloat, float)):
        if isinstance(node, kind):
            return plain(node)
    return str(node) if isinstance(node, str) else node


def _schema_mistakes(raw: Any) -> Iterator[Mistake]:
    try:
        Suite.model_validate(raw)
    except ValidationError as error:
        for entry in error.errors():
            yield Mistake(entry["loc"], _reason(entry["type"], entry["msg"], entry["loc"]))


def _reason(kind: str, message: str, location: Location) -> str:
    if kind != "extra_forbidden":
        return message.removeprefix("Value error, ")
    return f"no such field; {suggestion(str(location[-1]), _fields_at(location[:-1]))}"


def _fields_at(location: Location) -> list[str]:
    """The names of the fields that the schema allows at a location."""
    root = Suite.model_json_schema()
    node: dict[str, Any] = root
    for step in location:
        if "properties" in node:
            node = node["properties"].get(step, {})
        else:
            patterns = list(node.get("patternProperties", {}).values())
            inner = [node.get("additionalProperties"), node.get("items"), *patterns]
            node = next((schema for schema in inner if isinstance(schema, dict)), {})
        while "$ref" in node or "anyOf" in node:
            node = (
                root["$defs"][node["$ref"].rsplit("/", 1)[-1]]
                if "$ref" in node
                else node["anyOf"][0]
            )
    return sorted(node.get("properties", {}))


def _at(raw: Any, pattern: Sequence[str], start: Location = ()) -> Iterator[tuple[Location, Any]]:
    """The values of ``raw`` at ``pattern``, where ``*`` matches any key or index."""
    if not pattern:
        yield start, raw
        return
    values = dict(enumerate(raw)) if isinstance(raw, list) else raw
    for key in values if isinstance(values, dict) else ():
        if pattern[0] in {"*", key}:
            yield from _at(values[key], pattern[1:], (*start, key))


def _reference_mistakes(raw: Any) -> Iterator[Mistake]:
    for pattern, table in REFERENCES:
        entries = raw.get(table)
        labels = list(entries) if isinstance(entries, dict) else []
        labels += [TRIAL] if table == "diagnostics" else []
        if table == "initializations" and pattern[0] in {"diagnostics", "claims"}:
            labels.append(SOURCE)
        for location, label in _at(raw, pattern):
            if isinstance(label, str) and label not in labels:
                reason = f"{table} has no {label!r}; {suggestion(label, labels)}"
                yield Mistake(location, reason)
    for table in ("chance", "reference"):
        for location, _ in _at(raw, ("scoring", table, "*")):
            if location[-1] not in (raw.get("targets") or {}):
                yield Mistake(location, f"targets has no {location[-1]!r}")


def _plugin_mistakes(raw: Any, registry: Registry) -> Iterator[Mistake]:
    for pattern, kind in PLUGINS:
        for location, use in _at(raw, pattern):
            if isinstance(use, dict) and isinstance(use.get("name"), str):
                yield from _use_mistakes(location, kind, use, raw, registry)
    for location, name in _at(raw, ("backbones", "*")):
        if isinstance(name, str):
            try:
                registry.resolve_backbone(name)
            except TransferbenchError as error:
                yield _plugin_mistake(location, error)


def _plugin_mistake(location: Location, error: TransferbenchError) -> Mistake:
    if isinstance(error, UnknownNameError):
        return Mistake(location, error.reason, error.advice)
    return Mistake(location, str(error))


def _use_mistakes(
    location: Location, kind: str, use: dict[str, Any], raw: Any, registry: Registry
) -> Iterator[Mistake]:
    try:
        spec = getattr(registry, kind)(use["name"])
    except TransferbenchError as error:
        yield _plugin_mistake((*location, "name"), error)
        return
    values = use.get("params") or {}
    if not isinstance(values, dict):
        return  # reported by the schema
    try:
        params = spec.parse(values)
    except ValidationError as error:
        for entry in error.errors():
            yield Mistake((*location, "params", *entry["loc"]), _param_reason(spec, entry))
        return
    if kind == "perturbation":
        yield from _perturbation_mistakes(location, spec, params, use, raw)


def _perturbation_mistakes(
    location: Location, spec: PerturbationSpec, params: Any, use: dict[str, Any], raw: Any
) -> Iterator[Mistake]:
    applied = use.get("apply", "train-and-test")
    if applied not in spec.applies_to:
        reason = f"{spec.name} is for {' or '.join(sorted(spec.applies_to))}, not {applied!r}"
        yield Mistake((*location, "apply"), reason)
    if shape := _image_shape(raw):
        try:
            with blamed(f"perturbation {spec.name!r}"):
                fault = spec.check(params, shape)
        except PluginError as error:
            yield Mistake(location, str(error))
            return
        if fault:
            yield Mistake((*location, "params"), f"{spec.name}: {fault}")


def _param_reason(spec: Any, entry: Any) -> str:
    if entry["type"] != "extra_forbidden":
        return f"{spec.name}: {entry['msg'].removeprefix('Value error, ')}"
    hint = suggestion(str(entry["loc"][-1]), sorted(spec.params.model_fields))
    return f"{spec.name} has no such parameter; {hint}"


def _image_shape(raw: Any) -> tuple[int, int, int] | None:
    match raw.get("image"):
        case {"size": int(size), "channels": int(channels)}:
            return size, size, channels
    return None


def _report(path: Path, node: Any, mistakes: Sequence[Mistake], changes: Sequence[str]) -> str:
    placed = sorted(
        ((_line(node, mistake.location), mistake) for mistake in dict.fromkeys(mistakes)),
        key=lambda item: item[0],
    )
    lines = [
        f"{_changed(mistake.location, changes) or f'{path}:{line}'}: "
        f"{'.'.join(map(str, mistake.location)) or 'suite'}: {mistake.message}"
        for line, mistake in placed
    ]
    count = "one mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    advice = dict.fromkeys(mistake.advice for mistake in mistakes if mistake.advice)
    notes = [f"unknown names: {text}" for text in advice]
    return f"the suite has {count}:\n  " + "\n  ".join([*lines, *notes])


def _changed(location: Location, changes: Sequence[str]) -> str:
    """The option that set the value at ``location``; '' if none did."""
    for change in reversed(changes):
        path = change.partition("=")[0].split(".")
        if location and all(str(a) == b for a, b in zip(location, path, strict=False)):
            return f"--set {change}"
    return ""


def _line(node: Any, location: Location) -> int:
    """The line, from 1, of the deepest part of ``location`` that exists in the file."""
    line = 0
    for step in location:
        try:
            if isinstance(node, CommentedMap):
                line = node.lc.key(step)[0]
            elif isinstance(node, CommentedSeq) and isinstance(step, int):
                line = node.lc.item(step)[0]
            node = node[step]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
    return int(line) + 1
