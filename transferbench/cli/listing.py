"""The commands that list plugins and suites, and check the installation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from transferbench.cli.options import (
    KIND_HELP,
    Json,
    Plugins,
    SuiteName,
    kind_named,
    known_plugins,
)
from transferbench.cli.output import ResultsCommand, as_json, say, table

__all__ = ["register"]

SUITE = ("suite", "suites")
"""What is listed and shown beside the kinds of plugins."""


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command("list", cls=ResultsCommand)(list_plugins)
    for command in (show, suites, validate, schema, doctor):
        app.command(cls=ResultsCommand)(command)


def list_plugins(
    kind: Annotated[
        str | None, typer.Argument(help=f"{KIND_HELP} Or suites.", metavar="KIND")
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """List the available plugins, and where each comes from; or the suites."""
    from transferbench.registry.discovery import SPECS

    if kind in SUITE:
        suites(json)
        return
    kinds = list(SPECS) if kind is None else [kind_named(kind, "suite")]
    registry = known_plugins(plugin)
    rows = [
        (singular, name, spec.version, spec.summary, registry.origin(singular, name))
        for singular in kinds
        for name, spec in getattr(registry, f"{singular}s").items()
    ]
    if json:
        keys = ("kind", "name", "version", "summary", "origin")
        as_json([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        table(["kind", "name", "version", "summary", "from"], rows)
        say("\ntransferbench show KIND NAME shows one with its parameters; transferbench suites "
            "lists the suites")  # fmt: skip


def show(
    kind: Annotated[str, typer.Argument(help=f"{KIND_HELP} Or suite.", metavar="KIND")],
    name: Annotated[str, typer.Argument(help="Its name, as in list or suites.", metavar="NAME")],
    plugin: Plugins = None,
) -> None:
    """Show a plugin with its parameters, source, licence and weights; or a suite's file."""
    from transferbench.cli.words import declared, parameters
    from transferbench.specs import BackboneSpec

    if kind in SUITE:
        _show_suite(name)
        return
    singular = kind_named(kind, "suite")
    registry = known_plugins(plugin)
    member: Mapping[str, Any] = {}
    if singular == "backbone" and "/" in name:
        spec, member = registry.resolve_backbone(name)
    else:
        spec = getattr(registry, singular)(name)
    facts = [
        ("name", spec.name), ("version", spec.version), ("summary", spec.summary),
        ("source", spec.source), ("license", spec.license),
        ("from", registry.origin(singular, spec.name)),
    ]  # fmt: skip
    table([], [*facts, *declared(spec)])
    for holder, rows, about in parameters(spec.params) if spec.params.model_fields else ():
        say(f"\n{holder or 'parameters'}:" if holder else "")
        table(["parameter", "value", "default"], [tuple(map(_plain, row)) for row in rows])
        say(f"\n{_plain(about)}" if about else "", end=bool(about))
    if isinstance(spec, BackboneSpec) and spec.accepts(member):
        weights = spec.weights(spec.parse(member))
        if weights:
            say()
            table(["weights", "pre-trained on", "classes", "license", "origin"],
                  [(each.tag, each.pretrained_on, each.classes or "", each.license, each.origin)
                   for each in weights])  # fmt: skip


def suites(json: Json = False) -> None:
    """List the suites that come with transferbench."""
    from transferbench.suite.loading import bundled_suites, load_suite

    loaded = [load_suite(name) for name in bundled_suites()]
    if json:
        as_json([{"suite": suite.id, "summary": suite.summary} for suite in loaded])
    else:
        table(["suite", "summary"], [(suite.id, suite.summary) for suite in loaded])
        first = load_suite("quickstart").id
        say(f"\ntransferbench show suite {first} prints one, to read or to begin your own")


def _show_suite(name: str) -> None:
    """Print a suite's file below its path; the result is a suite too."""
    from transferbench.suite.loading import load_suite, suite_path

    load_suite(name)
    path = suite_path(name)
    say(f"# {path}")
    say(path.read_text(encoding="utf-8-sig"), end=False)


def validate(
    suite: SuiteName,
    plugin: Plugins = None,
    register: Annotated[
        Path | None,
        typer.Option(help="The register of suites; leaderboard/suites/PREREGISTERED if there."),
    ] = None,
) -> None:
    """Check a suite file and its plugins, and whether it is the preregistered one.

    Every mistake is reported at once.
    """
    from transferbench.suite.loading import load_suite
    from transferbench.suite.preregistration import REGISTER, read_register, registration_of

    loaded = load_suite(suite, known_plugins(plugin))
    path = register or (REGISTER if REGISTER.exists() else None)
    registration = registration_of(loaded, read_register(path)) if path else None
    say(f"{loaded.id} is valid")
    say(f"digest: {loaded.digest}")
    if registration:
        say(f"preregistered: {registration.date}")
    elif path:
        say(f"not preregistered: {path} has no {loaded.board}")


def schema() -> None:
    """Print the JSON Schema of a suite file, for editors."""
    from transferbench.suite.loading import json_schema

    as_json(json_schema())


def doctor() -> None:
    """Check the installation. Lists versions, devices and plugins that could not be loaded."""
    import platform
    from importlib.metadata import version

    from transferbench.engine.kernels import driver_version
    from transferbench.engine.probe import probe_graph
    from transferbench.engine.resources import cuda_devices
    from transferbench.registry.discovery import SPECS

    packages = ("transferbench", "torch", "torchvision", "timm", "numpy", "pandas")
    rows = [("python", platform.python_version())]
    rows += [(name, version(name)) for name in packages]
    cards = cuda_devices()
    rows.append(("CUDA devices", ", ".join(cards) or "none: runs use the CPU"))
    if cards:
        rows.append(("NVIDIA driver", driver_version() or "unknown"))
        rows.append(("kernels", "deterministic, unless --fast-kernels is given"))
        rows.append(("a captured step", probe_graph()))
    registry = known_plugins(None)
    rows.append(("plugins", str(sum(len(getattr(registry, f"{kind}s")) for kind in SPECS))))
    table([], rows)
    if registry.problems:
        raise typer.Exit(1)


def _plain(text: str) -> str:
    """``text`` of a page without the signs of its form."""
    return text.replace("``", "").replace("`", "")
