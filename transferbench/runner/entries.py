"""The entries of a run's folder: those of this call, and those of earlier or simultaneous ones.

Each entry has a file of its own in the folder, so that two processes that run two entries at once
lose none: ``run.json`` and the records are written from all entries that are finished, and written
again where another process has finished one meanwhile. No lock is needed, which is as well, since
file systems that many hosts share may have none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from transferbench.errors import DataError, SuiteError, TransferbenchError, UnknownNameError
from transferbench.files import read_bounded_json, write_json
from transferbench.identity import digest
from transferbench.networks.weight_paths import existing_path, is_path, locate_weights
from transferbench.plan import Entry
from transferbench.registry import Registry, blamed, identity
from transferbench.runner.earlier import EarlierRun
from transferbench.runner.options import SUITE_WEIGHTS
from transferbench.specs import BackboneSpec, Weights
from transferbench.streams import one_line

__all__ = [
    "RequestedEntry",
    "as_recorded",
    "backbones_of",
    "described_entries",
    "entries_in",
    "has_several_entries",
    "other_entries",
    "record_entries",
    "recorded_entries",
    "requested_entries",
]

_EXTERNAL = TypeAdapter[Weights | None](Weights | None)

ENTRIES = "entries"
"""The folder of the files of entries, in that of a run."""
MAX_BYTES = 2**20
"""More than the file of an entry takes."""


class RequestedEntry(NamedTuple):
    """An entry with the names that it was requested by, and the distribution of its backbone."""

    entry: Entry
    backbone: str
    weights: str
    origin: str


class RecordedEntry(NamedTuple):
    """An entry as a run's folder names it: ``weights`` as requested, ``external`` what they are."""

    backbone: str
    weights: str
    external: Weights | None


# --- entries that are requested ---------------------------------------------------------------


def backbones_of(texts: Iterable[str], registry: Registry) -> tuple[str, ...]:
    """The backbones that ``--weights BACKBONE=...`` names."""
    names = (text.partition("=")[0] for text in texts if "=" in text)
    return tuple(dict.fromkeys(name for name in names if _is_backbone(name, registry)))


def _is_backbone(name: str, registry: Registry) -> bool:
    try:
        registry.resolve_backbone(name)
    except TransferbenchError:
        return False
    return True


def requested_entries(
    backbones: Sequence[str], texts: Sequence[str], registry: Registry
) -> tuple[list[RequestedEntry], list[str]]:
    """An entry for each backbone and each of its weights, and notes on equal ones.

    ``texts``: ``BACKBONE=WEIGHTS``, or weights of all backbones that are not named so; WEIGHTS are
    the suite's, a tag or a file. Without any they are the suite's.

    Raises: ``UnknownNameError``, ``SuiteError``, ``DataError``, ``PluginError``.
    """
    own: dict[str, list[str]] = {name: [] for name in backbones}
    shared = []
    for text in texts:
        name, mark, weights = text.partition("=")
        if mark and name in own:
            own[name].append(weights)
        elif mark and existing_path(text) is None and _is_backbone(name, registry):
            raise SuiteError(
                f"--weights {text} is for {name}, and the backbones of this run are "
                f"{', '.join(backbones)}; add --backbone {name}"
            )
        else:
            shared.append(text)
    entries: dict[tuple[str, str | None], RequestedEntry] = {}
    notes = []
    for name in backbones:
        for weights in dict.fromkeys(own[name] or shared or (SUITE_WEIGHTS,)):
            entry = _requested(name, weights, registry)
            external = entry.entry.weights
            key = name, (external.sha256 or external.tag) if external else None
            if key in entries:
                notes.append(f"{weights} has the bytes of {entries[key].weights}: they are one "
                             f"entry, {entries[key].entry.name}")  # fmt: skip
            entries.setdefault(key, entry)
    return list(entries.values()), notes


def _requested(name: str, weights: str, registry: Registry) -> RequestedEntry:
    external = None
    if weights != SUITE_WEIGHTS:
        spec, values = registry.resolve_backbone(name)
        external = _external_weights(spec, spec.parse(values), name, weights)
    return _entry(RecordedEntry(name, weights, external), registry)


def as_recorded(
    requested: RequestedEntry, recorded: Iterable[RecordedEntry], registry: Registry
) -> RequestedEntry:
    """The entry that is ``recorded`` with the same bytes, whatever the file's name; or itself."""
    weights = requested.entry.weights
    if weights is None or weights.sha256 is None:
        return requested
    twins = [
        entry._replace(weights=requested.weights)
        for entry in recorded
        if entry.backbone == requested.backbone
        and entry.external is not None
        and entry.external.sha256 == weights.sha256
    ]
    same_name = any(entry.external and entry.external.tag == weights.tag for entry in twins)
    return requested if same_name or not twins else _entry(twins[0], registry)


def _entry(recorded: RecordedEntry, registry: Registry) -> RequestedEntry:
    name, weights, external = recorded
    spec, values = registry.resolve_backbone(name)
    params = spec.parse(values)
    backbone, origin = identity(spec, params), registry.origin("backbone", spec.name)
    if external is None:
        entry = Entry(name, backbone, spec.license, spec.source)
    else:
        with blamed(f"backbone {spec.name!r}"):
            preprocessing = external.preprocessing or spec.preprocessing(params)
        label = f"{name}+{external.label}"
        entry = Entry(label, backbone, external.license, external.origin, external, preprocessing)
    return RequestedEntry(entry, name, weights, origin)


def _external_weights(spec: BackboneSpec, params: Any, name: str, text: str) -> Weights:
    if spec.load_weights is None:
        raise SuiteError(f"backbone {name!r} loads no external weights; use --weights suite")
    with blamed(f"backbone {spec.name!r}"):
        tagged = {weights.tag: weights for weights in spec.weights(params)}
    if not text.isascii() and text.encode("utf-8", "replace").decode() != text:
        raise DataError(f"the name of the weights {text!r} is not UTF-8; rename the file")
    if text in tagged:
        if os.path.isfile(text):  # noqa: PTH113  # of any text
            raise SuiteError(
                f"{text!r} is a tag of {name} and a file here; give ./{text} for the file, or"
                " rename it"
            )
        return tagged[text]
    if located := locate_weights(text):
        return Weights(
            tag=located.name, origin=one_line(located.path.absolute().name),
            license="unknown", pretrained_on="unknown", sha256=located.sha256,
            classes=_classes_in(spec, params, text),
        )  # fmt: skip
    if is_path(text):
        raise DataError(f"no weights file {text}; give the path of an existing file, or a tag")
    raise UnknownNameError(f"weights of {name}", text, tagged, "or give a file that exists")


def _classes_in(spec: BackboneSpec, params: Any, file: str) -> int | None:
    """The classes of the head in a file; what cannot be read is refused before anything is run."""
    with suppress(DataError), blamed(f"backbone {spec.name!r}"):
        return spec.classes_in(params, file)
    return None


# --- entries of a folder ----------------------------------------------------------------------


def record_entries(folder: Path, suite_digest: str, entries: Iterable[RequestedEntry]) -> None:
    """Write the file of each entry into a run's folder, before anything is computed for it."""
    for entry, backbone, weights, _ in entries:
        external = entry.weights and entry.weights.model_dump(mode="json")
        content = {"suite_digest": suite_digest, "backbone": backbone, "weights": weights,
                   "external": external}  # fmt: skip
        path = folder / ENTRIES / f"{digest([suite_digest, entry.name])[:16]}.json"
        if read_bounded_json(path, MAX_BYTES) != content:
            write_json(path, content)


def recorded_entries(folder: Path, suite_digest: str) -> list[RecordedEntry]:
    """The entries of this very suite that have a file in a run's folder.

    A file that cannot be read names none.
    """
    paths = sorted((folder / ENTRIES).glob("*.json"))
    rows = (read_bounded_json(path, MAX_BYTES) for path in paths)
    own = (row for row in rows if isinstance(row, dict) and row.get("suite_digest") == suite_digest)
    return list(_entries((row, row) for row in own))


def has_several_entries(folder: Path) -> bool:
    """Whether several processes may write a run's folder: each entry has a file there."""
    return len(list((folder / ENTRIES).glob("*.json"))) > 1


def described_entries(run: EarlierRun | None) -> list[RecordedEntry]:
    """The entries in ``run.json``: earlier versions wrote no other file."""
    if run is None or run.described is None:
        return []
    rows = [row.model_dump() for row in run.described.requested]
    return entries_in({"asked": rows, **(run.described.model_extra or {})})


def entries_in(described: Mapping[str, Any]) -> list[RecordedEntry]:
    """The entries in the content of ``run.json``; none where it is damaged."""
    rows, entries = described.get("asked"), described.get("entries")
    if not (isinstance(rows, list) and isinstance(entries, list) and len(rows) == len(entries)):
        return []
    facts = ({"external": row.get("weights")} if isinstance(row, dict) else {} for row in entries)
    return list(_entries(zip(rows, facts, strict=True)))


def _entries(rows: Iterable[tuple[Any, Any]]) -> Iterator[RecordedEntry]:
    for row, facts in rows:
        with suppress(KeyError, TypeError, ValueError):
            external = _EXTERNAL.validate_python(facts["external"])
            yield RecordedEntry(str(row["backbone"]), str(row["weights"]), external)


def other_entries(
    recorded: Iterable[RecordedEntry], requested: Sequence[RequestedEntry], registry: Registry
) -> tuple[list[RequestedEntry], list[str]]:
    """The ``recorded`` entries besides those ``requested``, and notes on what cannot be one."""
    names = {entry.entry.name for entry in requested}
    others: dict[str, RequestedEntry] = {}
    notes = []
    for row in recorded:
        try:
            entry = _entry(row, registry)
        except TransferbenchError as error:
            notes.append(f"the earlier entry {row.backbone} is left out: {error}")
            continue
        if entry.entry.name not in names:
            others.setdefault(entry.entry.name, entry)
    return list(others.values()), list(dict.fromkeys(notes))
