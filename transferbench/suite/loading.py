"""Loading of suite files: every mistake at once, each with its file, line and field."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transferbench.errors import SuiteError, UnknownNameError, nearest, suggestion
from transferbench.registry import Registry
from transferbench.suite.bounds import value_mistakes
from transferbench.suite.coverage import coverage_mistakes
from transferbench.suite.document import MAX_BYTES, Mistake, Node, defined_at, plain, read_yaml
from transferbench.suite.minors import changed_between
from transferbench.suite.mistakes import parsed, report
from transferbench.suite.references import (
    PLUGINS,
    label_mistakes,
    member_mistakes,
    plugin_mistakes,
    plugin_names,
)
from transferbench.suite.schema import Suite

__all__ = [
    "bundled_suites",
    "json_schema",
    "label_of",
    "load_suite",
    "newest_suites",
    "refuse_mistakes",
    "suite_path",
]

BUNDLED = Path(__file__).with_name("bundled")
YAML_SUFFIXES = (".yaml", ".yml")
HEAD_BYTES = 4096
"""In which a file that is no text has a zero."""


def bundled_suites() -> dict[str, Path]:
    """The suites that come with transferbench: ``name@MAJOR`` -> file, by name and MAJOR."""
    files = {path.stem: path for path in BUNDLED.glob("*@*.yaml")}
    return {board: files[board] for board in sorted(files, key=_name_and_major)}


def newest_suites() -> dict[str, str]:
    """Name -> ``name@MAJOR`` of the newest MAJOR that comes with transferbench."""
    return {_name_and_major(board)[0]: board for board in bundled_suites()}


def _name_and_major(board: str) -> tuple[str, int]:
    name, _, major = board.partition("@")
    return name, int(major)


def suite_path(name_or_file: str) -> Path:
    """The file of a bundled suite, or the given path.

    ``quickstart`` is its newest MAJOR; ``quickstart@1`` and ``quickstart@1.0`` are of that MAJOR.

    Raises: ``UnknownNameError`` where neither exists, ``SuiteError`` for another version.
    """
    if _is_path(name_or_file):
        return Path(name_or_file)
    bundled, newest = bundled_suites(), newest_suites()
    name, at, version = name_or_file.partition("@")
    if name not in newest:
        raise UnknownNameError("suite", name, newest, "or give the path of a .yaml file")
    board = f"{name}@{version.partition('.')[0]}" if at else newest[name]
    if board not in bundled:
        majors = [board for board in bundled if _name_and_major(board)[0] == name]
        raise SuiteError(
            f"this installation has no suite {name_or_file!r}; it has {' and '.join(majors)}"
        )
    return bundled[board]


def _is_path(name_or_file: str) -> bool:
    """Whether a file is named; a folder does not hide a suite, as which its run's is named."""
    path, (name, *_) = Path(name_or_file), name_or_file.partition("@")
    if path.suffix in YAML_SUFFIXES:
        return True
    return os.path.lexists(path) and not (name in newest_suites() and path.is_dir())


def load_suite(
    name_or_file: str, registry: Registry | None = None, changes: Sequence[str] = ()
) -> Suite:
    """A bundled suite or one from a file, with ``changes`` such as ``replicates=3``.

    With a registry, plugins and their parameters are checked too, and that what claims and scores
    are made of is trained and measured.

    Raises: ``SuiteError`` that lists every mistake as ``file:line: field: message``; or where a
    file calls itself a bundled suite and is another one.
    """
    path = suite_path(name_or_file)
    root = _read(path)
    if "@" in name_or_file and not _is_path(name_or_file):
        _refuse_version(name_or_file, root)
    for change in changes:
        _override(root, change)
    raw = plain(root)
    suite, mistakes = parsed(raw)
    mistakes += _mistakes(raw, suite, registry)
    if suite is None or mistakes:
        raise SuiteError(report(mistakes, path, partial(defined_at, root, built={})))
    if not changes:
        _refuse_edited_copy(suite, path)
    return suite


def refuse_mistakes(suite: Suite, registry: Registry) -> None:
    """Raise ``SuiteError`` with all that is wrong with a suite that was made in Python.

    Its claims and diagnoses may name arms that it lacks: of a run with chosen arms, they do. A
    bundled suite that was changed needs a name of its own.
    Raises also: ``UnknownNameError`` where a plugin is not installed.
    """
    raw = suite.model_dump(mode="json")
    for kind, name in plugin_names(raw):
        registry.origin(kind, name)  # raises where nothing offers it
    mistakes = [*value_mistakes(suite), *plugin_mistakes(raw, registry)]
    named = {label: {"name": use["name"]} for label, use in raw["diagnostics"].items()}
    mistakes += label_mistakes(raw | {"claims": {}, "diagnostics": named})
    if not mistakes:
        scoring = suite.scoring.model_copy(update={"columns": ()})  # they are of diagnoses
        bare = suite.model_copy(update={"claims": {}, "diagnostics": {}, "scoring": scoring})
        mistakes += coverage_mistakes(bare, registry)
    if mistakes:
        raise SuiteError(report(mistakes))
    _refuse_edited_copy(suite)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a suite file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Suite.model_json_schema()


def _mistakes(raw: Any, suite: Suite | None, registry: Registry | None) -> list[Mistake]:
    """What is wrong beside the schema; the last steps need a suite without other mistakes."""
    mistakes = list(label_mistakes(raw))
    if registry is not None:
        mistakes += plugin_mistakes(raw, registry)
    if suite is not None:
        mistakes += value_mistakes(suite)
        if registry is not None and not mistakes:
            mistakes += coverage_mistakes(suite, registry)
        if registry is not None and not mistakes:
            mistakes += member_mistakes(raw, registry)
    return mistakes


def _read(path: Path) -> Node:
    """The content of a suite file, whose top level is a mapping."""
    try:
        content = _content(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SuiteError(
            f"cannot read the suite {path}: {reason}; give the path of a .yaml file, or "
            f"a bundled suite: {', '.join(newest_suites())}"
        ) from error
    if path.suffix.lower() not in YAML_SUFFIXES and b"\0" in content[:HEAD_BYTES]:
        raise SuiteError(
            f"{path} is a binary file, and no suite: give a .yaml file, or a bundled suite: "
            f"{', '.join(newest_suites())}; weights are named with --weights {path}"
        )
    root, mistakes = read_yaml(content)
    if mistakes:
        raise SuiteError(report(mistakes, path))
    if root is None or not isinstance(root.entries, dict):
        raise SuiteError(f"{path} is not a suite: it has no fields at the top level")
    return root


def _content(path: Path) -> bytes:
    # Opened without waiting for a writer, which a pipe may never have.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read(MAX_BYTES + 1)


def _refuse_version(name: str, root: Node) -> None:
    installed = "@".join(str(node.value) for field in ("name", "version")
                         if (node := root.child(field)))  # fmt: skip
    if name not in {installed, installed.partition(".")[0]}:
        raise SuiteError(f"this installation has suite {installed!r}, not {name!r}")


def _refuse_edited_copy(suite: Suite, path: Path | None = None) -> None:
    """A board, and the register of suites, know a suite by its id alone.

    ``path``: its file; none of one that was made in Python.
    """
    bundled = bundled_suites().get(suite.board)
    if bundled is None or (path is not None and path.resolve() == bundled.resolve()):
        return
    own = load_suite(suite.board)
    if suite.id == own.id and suite.digest != own.digest:
        raise SuiteError(
            f"{path or 'the suite'} calls itself {suite.id}, and is another one: its digest is "
            f"{suite.digest[:12]}, that of {own.id} is {own.digest[:12]}; give it a name of its "
            "own, or change the bundled suite with --set"
        )
    if changed := list(changed_between([own, suite])):
        raise SuiteError(f"{path or suite.id}: {'; '.join(changed)}")


# --- changes ----------------------------------------------------------------------------------


def _override(root: Node, change: str) -> None:
    """Set a value of a suite in place, as in ``recipes.P-T.epochs=3``; the value is YAML.

    An alias of the changed value changes too. ``perturbations.mine.name=my-shuffle`` may add a
    new label.

    Raises: ``SuiteError`` where the path does not exist.
    """
    path, sign, text = change.partition("=")
    option = f"--set {change}"
    if not sign:
        raise SuiteError(f"--set {change!r} has no '='; write it as recipes.P-T.epochs=3")
    value = _value(text, change)
    if len(steps := path.split(".")) == 3 and steps[2] == "name":
        _add_label(root, steps[0], steps[1], text, option)
    node, last = root, path
    while (key := _first_key(node, last)) != last:
        node, last = _step(node, key, change), last.removeprefix(f"{key}.")
    if isinstance(node.entries, list):
        _step(node, last, change)
        node.put(int(last), value, option)
    elif node.entries is not None:
        node.put(last, value, option)
    else:
        raise SuiteError(f"--set {change!r}: nothing can be set below {path[: -len(last) - 1]!r}")


def _value(text: str, change: str) -> Node:
    option = f"--set {change}"
    root, mistakes = read_yaml(text.encode("utf-8", "surrogateescape"), option)
    if mistakes:
        reason = "; ".join(mistake.message for mistake in mistakes)
        raise SuiteError(
            f"--set {change!r}: {text!r} is not a YAML value; write it as in a suite file "
            f"({reason})"
        )
    return root or Node(option)


def _add_label(root: Node, table: str, label: str, plugin: str, option: str) -> None:
    """Add ``label`` to a table of plugins, unless it looks like a typo of a label there.

    A label that is the plugin's name, or made of it, is no typo.
    """
    labels = root.child(table)
    if (table, "*") not in dict(PLUGINS) or labels is None or labels.child(label):
        return
    is_plugin = label in {plugin, label_of(plugin)}
    if isinstance(labels.entries, dict) and (is_plugin or nearest(label, _keys(labels)) is None):
        labels.put(label, Node(option, entries={}), option)


def label_of(plugin: str) -> str:
    """The label that ``plugin new`` gives a plugin in a suite, where a dot parts labels."""
    return "-".join(re.split(r"[._-]+", plugin.strip("._-")))


def _first_key(node: Node, path: str) -> str:
    """The key that ``path`` begins with: the longest one there, as labels may hold dots."""
    begun = [key for key in _keys(node) if f"{path}.".startswith(f"{key}.")]
    return max(begun, key=len, default=path.partition(".")[0])


def _keys(node: Node) -> list[str]:
    return [str(key) for key in node.children({})]


def _step(node: Node, key: str, change: str) -> Node:
    is_index = isinstance(node.entries, list) and key.isascii() and key.isdigit() and len(key) < 9
    if child := node.child(int(key) if is_index else key):
        return child
    if node.entries is None:
        raise SuiteError(f"--set {change!r}: nothing can be set at {key!r}, below {node.value!r}")
    raise SuiteError(
        f"--set {change!r}: the suite has no {key!r} there; {suggestion(key, _keys(node))}"
    )
