"""The plugins whose code runs in a job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from transferbench.registry import Kind, PluginCode, Registry

__all__ = ["PluginUse", "codes_of", "plugins_in"]

TRAINING: tuple[Kind, ...] = ("backbone", "dataset", "initialization", "perturbation", "diagnostic")
MEASURED: tuple[Kind, ...] = ("backbone", "dataset", "perturbation")
"""Of a trial that a diagnosis builds again to measure it."""


class PluginUse(NamedTuple):
    """A plugin, with the version that is in the ids of jobs."""

    kind: Kind
    name: str
    version: int

    @property
    def title(self) -> str:
        """It in messages and in the facts of jobs."""
        return f"{self.kind} {self.name!r}"


def plugins_in(
    payload: Mapping[str, Any], subjects: Iterable[Mapping[str, Any]]
) -> dict[PluginUse, None]:
    """Each plugin that runs in a job, once; ``subjects``: the trials that it measures."""
    used = [*_used(payload, TRAINING), *(use for each in subjects for use in _used(each, MEASURED))]
    applied = (payload.get("diagnostic") or {}).get("perturbations", ())
    used += [PluginUse("perturbation", use["name"], use["version"]) for use in applied]
    return dict.fromkeys(used)


def codes_of(uses: Iterable[PluginUse], registry: Registry) -> dict[str, PluginCode]:
    """The code, here and now, of plugins by their titles; without those that cannot be located."""
    codes = {use.title: registry.code(use.kind, use.name) for use in uses}
    return {title: code for title, code in sorted(codes.items()) if code}


def _used(payload: Mapping[str, Any], kinds: Iterable[Kind]) -> Iterator[PluginUse]:
    uses = ((kind, payload.get(kind)) for kind in kinds)
    return (PluginUse(kind, use["name"], use["version"]) for kind, use in uses if use)
