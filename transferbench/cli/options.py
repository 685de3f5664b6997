"""The arguments and options that several commands share, each defined once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from transferbench.cli.output import note
from transferbench.runner.options import Options

if TYPE_CHECKING:
    from transferbench.registry import Kind, Registry

__all__ = [
    "KIND_HELP",
    "RUN_OPTIONS",
    "DataRoot",
    "Device",
    "Devices",
    "Jobs",
    "Json",
    "Plugins",
    "RunPath",
    "RunStore",
    "SuiteName",
    "kind_named",
    "known_plugins",
    "with_options",
]


KIND_HELP = "dataset, perturbation, backbone, initialization or diagnostic; or the plural."

Devices = StrEnum("Devices", "auto cpu cuda")
States = StrEnum("States", "all final")


def _option(name: str) -> Any:
    """The typer option of a field of ``Options``."""
    option = _FIELDS[name]
    text, flag, limits = (option.metadata[key] for key in ("text", "flag", "limits"))
    again = " May be given again." if option.default == () else ""
    return typer.Option(flag or f"--{name.replace('_', '-')}", help=text + again, **limits)


_FIELDS = {option.name: option for option in fields(Options)}
# Python calls accept any sequence and text as paths; typer needs concrete types.
_TYPES: dict[Any, Any] = {
    Sequence[str]: list[str] | None,
    Mapping[str, Any] | Sequence[str]: list[str] | None,
    Sequence[str | Path]: list[Path] | None,
    str | Path | Sequence[str | Path]: list[str] | None,
    str | Path | None: Path | None,
    str | Path: str,
}

SuiteName = Annotated[
    str,
    typer.Argument(help="A bundled suite, as name or name@MAJOR, or a file.", metavar="SUITE"),
]
RunPath = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]
RunStore = Annotated[
    Path | None,
    typer.Option("--store", help="The run's store, if it is neither where it was nor beside RUN."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Plugins = Annotated[list[Path] | None, _option("plugins")]
DataRoot = Annotated[Path | None, _option("data_root")]
Device = Annotated[Devices, _option("device")]
Jobs = Annotated[int | None, _option("jobs")]

RUN_OPTIONS: dict[str, Any] = {
    name: Annotated[_TYPES.get(hint, hint), _option(name)]
    for name, hint in get_type_hints(Options).items()
} | {"device": Device, "keep": Annotated[States, _option("keep")]}
"""The fields of ``Options`` as options of commands."""


def with_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of a run to a command, which gets them as ``options: Options``."""
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation,
                          default=_FIELDS[name].default or None)
        for name, annotation in RUN_OPTIONS.items()
        if name not in without
    ]  # fmt: skip

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def call(**arguments: Any) -> None:
            values = {option.name: arguments.pop(option.name) for option in shared}
            options = {name: value for name, value in values.items() if value is not None}
            command(**arguments, options=Options(**options))

        suite, _, *own = inspect.signature(command, eval_str=True).parameters.values()
        signature = inspect.Signature([suite, *shared, *own])
        call.__signature__ = signature  # type: ignore[attr-defined]  # typer reads it
        call.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        return call

    return decorate


def known_plugins(files: list[Path] | None) -> Registry:
    """All plugins that can be loaded, with a note on each that cannot."""
    from transferbench.registry import open_registry

    registry = open_registry(files or ())
    for problem in registry.problems:
        note(str(problem))
    return registry


def kind_named(name: str, *others: str) -> Kind:
    """The kind of plugins with this name, singular or plural; ``others`` may be meant too."""
    from transferbench.errors import UnknownNameError
    from transferbench.registry.discovery import SPECS

    for kind in SPECS:
        if name in {kind, f"{kind}s"}:
            return kind
    raise UnknownNameError("kind of plugin", name, [*SPECS, *others])
