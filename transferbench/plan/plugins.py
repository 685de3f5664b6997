"""The plugins whose code runs in a job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from transferbench.registry import Kind, PluginCode, Registry

__all__ = ["codes_of", "title_of"]

TRAINING: tuple[Kind, ...] = ("backbone", "dataset", "initialization", "perturbation")
MEASURED: tuple[Kind, ...] = ("backbone", "dataset", "perturbation")
"""Of a trial that a diagnosis builds again to measure it."""


def codes_of(
    payload: Mapping[str, Any], subjects: Iterable[Mapping[str, Any]], registry: Registry
) -> dict[str, PluginCode]:
    """The code, here and now, of each plugin that runs in a job; ``subjects``: what it measures.

    One whose code cannot be found is left out.
    """
    used = [*_used(payload, TRAINING), *(use for each in subjects for use in _used(each, MEASURED))]
    if diagnostic := payload.get("diagnostic"):
        used.append(("diagnostic", diagnostic["name"]))
        used += [("perturbation", use["name"]) for use in diagnostic.get("perturbations", ())]
    codes = {title_of(*use): registry.code(*use) for use in dict.fromkeys(used)}
    return {title: code for title, code in sorted(codes.items()) if code}


def _used(payload: Mapping[str, Any], kinds: Iterable[Kind]) -> Iterator[tuple[Kind, str]]:
    return ((kind, payload[kind]["name"]) for kind in kinds if payload.get(kind))


def title_of(kind: Kind, name: str) -> str:
    """A plugin as messages and facts name it."""
    return f"{kind} {name!r}"
