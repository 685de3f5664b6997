"""The arguments and options that several commands share, each defined once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from transferbench.cli.output import note

if TYPE_CHECKING:
    from transferbench.registry import Registry

__all__ = [
    "RUN_OPTIONS",
    "DataRoot",
    "Device",
    "Devices",
    "Json",
    "OptionValues",
    "Plugins",
    "RunFolder",
    "SuiteName",
    "known_plugins",
    "with_options",
]


class Devices(StrEnum):
    """What ``--device`` takes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


SuiteName = Annotated[
    str, typer.Argument(help="A bundled suite's name or a .yaml file.", metavar="SUITE")
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="Load this file; may be given again.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="TRANSFERBENCH_DATA", help="Where datasets' files are."),
]
Device = Annotated[Devices, typer.Option("--device", help="Where to compute.")]

RUN_OPTIONS: dict[str, Any] = {
    "backbones": Annotated[
        list[str] | None, typer.Option("--backbone", help="Compare this one; may be given again.")
    ],
    "initializations": Annotated[
        list[str] | None,
        typer.Option("--initialization", help="An arm of the suite, or a plugin to add as an arm."),
    ],
    "weights": Annotated[
        str,
        typer.Option(
            "--weights",
            help="suite (pre-trained by the suite), or a tag or file.",
            metavar="suite|TAG|FILE",
        ),
    ],
    "changes": Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting: recipes.P-T.epochs=3. Cannot be submitted."),
    ],
    "seed_count": Annotated[
        int | None, typer.Option("--seed-count", min=1, help="Replicates to run.")
    ],
    "out": Annotated[Path | None, typer.Option("--out", help="The run's folder.")],
    "store": Annotated[Path | None, typer.Option("--store", help="Artefacts, shared by runs.")],
    "data_root": DataRoot,
    "plugins": Plugins,
    "device": Device,
    "jobs": Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="How many at once; one for each core or GPU."),
    ],
    "time_limit_seconds": Annotated[
        float | None, typer.Option("--time-limit", min=0.001, help="Seconds a job may take.")
    ],
    "micro_batch": Annotated[
        int | None, typer.Option("--micro-batch", min=1, help="Images at once on the device.")
    ],
    "compile": Annotated[bool, typer.Option("--compile", help="Use torch.compile.")],
}
"""The fields of ``runner.options.Options`` on the command line."""

DEFAULTS: dict[str, Any] = {"weights": "suite", "device": Devices.auto, "compile": False}

OptionValues: TypeAlias = dict[str, Any]
"""The fields of ``Options`` that a user gave."""


def with_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of a run to a command, which gets them as ``options: OptionValues``."""
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=DEFAULTS.get(name),
                          annotation=annotation)
        for name, annotation in RUN_OPTIONS.items()
        if name not in without
    ]  # fmt: skip

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def call(**arguments: Any) -> None:
            values = {option.name: arguments.pop(option.name) for option in shared}
            options = {name: value for name, value in values.items() if value is not None}
            command(**arguments, options=options)

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
