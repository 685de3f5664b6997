"""The YAML of a suite as plain values, each with its line: nothing is coerced, nothing expands.

YAML 1.2 with its core schema, without tags. Only the events of ruamel.yaml are used: its
constructors follow tags, recurse, and expand aliases without a bound.
"""

from __future__ import annotations

import math
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
)

from transferbench.suite.yaml_faults import YamlFaultError, parsed_events

__all__ = ["At", "Location", "Mistake", "Node", "defined_at", "plain", "read_yaml"]

Location: TypeAlias = tuple[str | int, ...]

At: TypeAlias = int | str
"""Where a value is set: a line of the file, from 1, or the option of the command line."""

MAX_BYTES = 2**19
MAX_VALUES = 10_000
"""Values that a file may hold; the largest bundled suite has 3,000. Half a second to read."""
MAX_EXPANDED = 200_000
"""Values, and lines of text, with every alias replaced by what it stands for."""
MAX_DEPTH = 32
MAX_TEXT = 4_000
LINE = 100
MAX_INTEGER = 2**53 - 1
"""Beyond it, integers are not exact in JSON."""

NULL = re.compile(r"null|Null|NULL|~|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
AMBIGUOUS = re.compile(r"[-+]?0[0-9]+|[-+]?0b[01_]+|[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?")
"""Numbers of YAML 1.1 that are texts, or other numbers, in YAML 1.2."""
UNPRINTABLE = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

MERGE = "<<"
NO_YAML = "is not a YAML file"
TAKE_OUT = "cannot stand in a suite; take it out"


class Mistake(NamedTuple):
    """A mistake in a suite and its location; equal ``advice`` is printed once.

    ``at``: where it stands, unless that follows from the location. ``near``: a name that is none,
    and those that there are. The nearest is looked for where the mistake is printed.
    """

    location: Location
    message: str
    advice: str = ""
    at: At | None = None
    near: tuple[str, tuple[str, ...]] | None = None


Children: TypeAlias = "dict[str | int, tuple[Node, At]]"

Built: TypeAlias = dict[int, Children]
"""The children of nodes, by their ids: each is built once, however many take entries from it."""


@dataclass(eq=False)
class Node:
    """A value with where it is set; an alias is the node that it stands for.

    ``entries``: of a mapping or list. ``keys``: where its entries are named. ``merged``: mappings
    that it takes entries from. ``size`` and ``height``: of the tree below, aliases replaced.
    """

    at: At
    value: Any = None
    entries: dict[str, Node] | list[Node] | None = None
    keys: dict[str | int, At] = field(default_factory=dict)
    merged: list[Node] = field(default_factory=list)
    size: int = 1
    height: int = 1

    def children(self, built: Built) -> Children:
        """Its entries by name or index, each with where it is set; merged ones after its own."""
        if id(self) not in built:
            entries = self.entries or ()
            own: Iterable[tuple[str | int, Node]] = (
                entries.items() if isinstance(entries, dict) else enumerate(entries)
            )
            children = {key: (node, self.keys[key]) for key, node in own}
            for merged in self.merged:
                for key, child in merged.children(built).items():
                    children.setdefault(key, child)
            built[id(self)] = children
        return built[id(self)]

    def child(self, key: str | int) -> Node | None:
        """The entry of that name, of its own or merged, or at that index."""
        node, _ = self.children({}).get(key, (None, None))
        return node

    def put(self, key: str | int, node: Node, at: At) -> None:
        """Set an entry; a list has one at that index already, or gets it at its end."""
        self.keys[key] = at
        if isinstance(self.entries, list) and key == len(self.entries):
            self.entries.append(node)
        elif self.entries is not None:
            self.entries[key] = node  # type: ignore[index]  # a name for a mapping, or an index
        self._count(node)

    def merge(self, node: Node) -> None:
        """Take over the entries of another mapping that are not set here."""
        self.merged.append(node)
        self._count(node)

    def _count(self, node: Node) -> None:
        self.size += node.size
        self.height = max(self.height, node.height + 1)


class YamlDocument(NamedTuple):
    """What was read: the value, None where there is none, and what is wrong with the text."""

    root: Node | None
    mistakes: list[Mistake]


def read_yaml(content: bytes, option: str = "") -> YamlDocument:
    """The one document of a file, or of the value of an ``option``."""
    builder = _Builder(option)
    try:
        for event in _events(_text(content)):
            builder.add(event)
    except _UnreadableError as error:
        location = builder.location if error.here else ()
        builder.mistakes.append(Mistake(location, str(error), at=option or error.line))
    return YamlDocument(builder.root, builder.mistakes)


def plain(node: Node) -> Any:
    """``node`` in built-in types; equal aliases share their value, which must not be changed."""
    values: dict[int, Any] = {}

    built: Built = {}

    def convert(node: Node) -> Any:
        if id(node) not in values:
            values[id(node)] = converted(node)
        return values[id(node)]

    def converted(node: Node) -> Any:
        if node.entries is None:
            return node.value
        children = {key: convert(child) for key, (child, _) in node.children(built).items()}
        return children if isinstance(node.entries, dict) else [*children.values()]

    return convert(node)


def defined_at(root: Node, location: Location, built: Built) -> At:
    """Where the deepest part of ``location`` that exists is set."""
    node, at = root, root.at
    for step in location:
        children = node.children(built)
        if step not in children:
            break
        node, at = children[step]
    return at


# --- from bytes to events ---------------------------------------------------------------------


class _UnreadableError(Exception):
    """What ends the reading, and its line; ``here``: at the value that is being read."""

    def __init__(self, message: str, line: int, *, here: bool = False) -> None:
        super().__init__(message)
        self.line = line
        self.here = here


def _text(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _UnreadableError(f"the file has more than {MAX_BYTES} bytes", 1)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{content[error.start]:02x} is not UTF-8"
        if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            wrong = "the text is UTF-16"
        raise _UnreadableError(f"{NO_YAML}: {wrong}; save it as UTF-8", line) from error
    if unprintable := UNPRINTABLE.search(text):
        line = text.count("\n", 0, unprintable.start()) + 1
        raise _UnreadableError(f"{_name(unprintable[0])} {TAKE_OUT}", line)
    return text


def _name(character: str) -> str:
    return f"the character U+{ord(character):04X}"


def _events(text: str) -> Iterator[Any]:
    try:
        yield from parsed_events(text)
    except YamlFaultError as error:
        raise _UnreadableError(f"{NO_YAML}: {error}", error.line) from error
    except (YAMLError, ValueError, OverflowError) as error:
        # Not every fault of an escape or a directive is reported with its line.
        raise _UnreadableError(f"{NO_YAML}: {error}", 1) from error


# --- from events to a tree --------------------------------------------------------------------


class _Builder:
    """Builds the tree of a document from its events, one after another.

    ``mistakes``: those after which reading goes on.
    """

    def __init__(self, option: str) -> None:
        self.root: Node | None = None
        self.mistakes: list[Mistake] = []
        self.option = option
        self.count = 0
        self.anchors: dict[str, Node] = {}
        self.open: list[Node] = []
        self.steps: list[str | int | None] = []
        """The entry of each open node that comes next; None before a key is read."""

    @property
    def location(self) -> Location:
        return tuple(step for step in self.steps if step is not None)

    def add(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, DocumentStartEvent):
            self._start(event, line)
        elif isinstance(event, CollectionEndEvent):
            self.steps.pop()
            self._finish(self.open.pop(), line)
        elif isinstance(event, AliasEvent):
            self._finish(self._alias(event.anchor, line), line)
        elif isinstance(event, ScalarEvent | CollectionStartEvent):
            self.count += 1
            if self.count > MAX_VALUES:
                raise _UnreadableError(f"more than {MAX_VALUES} values", line, here=True)
            self._node(event, line)

    def _start(self, event: DocumentStartEvent, line: int) -> None:
        if self.root is not None:
            raise _UnreadableError("a second document begins; a suite file holds one", line)
        if event.version not in {None, (1, 2)}:
            version = ".".join(map(str, event.version))
            raise _UnreadableError(f"YAML {version} is asked for; a suite is YAML 1.2", line)

    def _node(self, event: ScalarEvent | CollectionStartEvent, line: int) -> None:
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._mistake(f"the tag {_short(tag)} cannot be used; write the plain value", line)
        node = Node(self.option or line)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        if not isinstance(event, CollectionStartEvent):
            self._scalar(node, event, line)
            return
        is_mapping = isinstance(event, MappingStartEvent)
        node.entries = {} if is_mapping else []
        self.open.append(node)
        self.steps.append(None if is_mapping else 0)
        if len(self.open) > MAX_DEPTH:
            raise _UnreadableError(f"nested more than {MAX_DEPTH} deep", line, here=True)

    def _alias(self, anchor: str, line: int) -> Node:
        node = self.anchors.get(anchor)
        if node is None:
            raise _UnreadableError(f"no value has the anchor &{anchor}", line, here=True)
        if node in self.open:
            raise _UnreadableError(f"*{anchor} stands inside of &{anchor} itself", line, here=True)
        return node

    def _scalar(self, node: Node, event: ScalarEvent, line: int) -> None:
        try:
            node.value = _scalar(event)
        except ValueError as error:
            self._mistake(str(error), line)
        node.size += len(event.value) // LINE
        key = self.open and self.steps[-1] is None
        if key and event.style is None and event.value == MERGE:
            self.steps[-1] = MERGE
        else:
            self._finish(node, line)

    def _finish(self, node: Node, line: int) -> None:
        """Put a complete value where it belongs: a key or an entry of the node around it."""
        if not self.open:
            self.root = node
            return
        parent, step = self.open[-1], self.steps[-1]
        if step is None:
            self.steps[-1] = self._key(node, parent, line)
            return
        if step == MERGE:
            self._merge(node, parent, line)
        else:
            parent.put(step, node, parent.keys.get(step, self.option or line))
        self.steps[-1] = step + 1 if isinstance(step, int) else None
        if parent.size > MAX_EXPANDED:
            reason = f"aliases stand for more than {MAX_EXPANDED} values"
            raise _UnreadableError(reason, line, here=True)
        if parent.height > MAX_DEPTH:
            raise _UnreadableError(f"nested more than {MAX_DEPTH} deep", line, here=True)

    def _key(self, node: Node, parent: Node, line: int) -> str:
        key = node.value
        if node.entries is not None or not isinstance(key, str):
            self._mistake("this key is not text; put a number, null, true or false in quotes", line)
            return str(key)
        if key in parent.keys:
            first = parent.keys[key]
            where = f" in line {first}" if isinstance(first, int) else ""
            self._mistake(f"duplicate key, set before{where}", line, key)
        parent.keys[key] = self.option or line
        return key

    def _merge(self, node: Node, parent: Node, line: int) -> None:
        sources = node.entries if isinstance(node.entries, list) else [node]
        for source in sources:
            if isinstance(source.entries, dict):
                parent.merge(source)
            else:
                self._mistake("<< takes over the entries of mappings, and this is none", line)

    def _mistake(self, message: str, line: int, *below: str) -> None:
        location = (*self.location, *below)
        self.mistakes.append(Mistake(location, message, at=self.option or line))


def _scalar(event: ScalarEvent) -> Any:
    """The value of a scalar. Raises: ``ValueError`` where it cannot stand in a suite."""
    text = _joined(event.value)
    if len(text) > MAX_TEXT:
        raise ValueError(f"a text of {len(text)} characters; at most {MAX_TEXT} are allowed")
    if unprintable := UNPRINTABLE.search(text):
        raise ValueError(f"{_name(unprintable[0])} {TAKE_OUT}")
    if event.style is not None:
        return text
    if NULL.fullmatch(text):
        return None
    if BOOL.fullmatch(text):
        return text.lower() == "true"
    if AMBIGUOUS.fullmatch(text):
        raise ValueError(f"{text} is read differently by YAML 1.1 and 1.2; write a plain decimal "
                         "number, or a text in quotes")  # fmt: skip
    return _number(text)


def _number(text: str) -> Any:
    """The number that ``text`` writes, else ``text`` itself."""
    if INTEGER.fullmatch(text):
        number = int(text, 0) if len(text) < LINE else MAX_INTEGER + 1
        if abs(number) > MAX_INTEGER:
            raise ValueError(f"{_short(text)} is beyond {MAX_INTEGER}, the largest integer")
        return number
    if NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number")
    if FLOAT.fullmatch(text):
        if math.isinf(float(text)):
            raise ValueError(f"{_short(text)} is beyond the largest number")
        return float(text)
    return text


def _short(text: str) -> str:
    return text if len(text) < LINE // 2 else f"{text[: LINE // 2]}..."


def _joined(text: str) -> str:
    """``text`` with the pairs of surrogates joined by which JSON writes a character."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return text
