"""The commands for people who write plugins."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transferbench.cli.options import (
    KIND_HELP,
    DataRoot,
    Device,
    Devices,
    Json,
    Plugins,
    kind_named,
    known_plugins,
)
from transferbench.cli.output import ResultsCommand, as_json, note, say, table

if TYPE_CHECKING:
    from transferbench.conformance import CheckResult, Selection

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Create plugins and check them.")


@app.command("new", cls=ResultsCommand)
def new(
    name: Annotated[str, typer.Argument(help="The plugin's name, such as my-net.", metavar="NAME")],
    kind: Annotated[str, typer.Option("--kind", help=KIND_HELP, metavar="KIND")],
    package: Annotated[
        bool, typer.Option("--package", help="A distribution to publish, not one file.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="The folder to write into.")] = Path(),
) -> None:
    """Write a new plugin that works as it is, with one marked place to edit."""
    from transferbench.scaffold import new_file, new_package

    write = new_package if package else new_file
    written = write(kind_named(kind), name, out, known_plugins(None))
    for path in written.paths:
        say(f"written: {path}")
    say(f"\nedit {written.edit} where it says EDIT HERE, then:")
    for command in written.commands:
        say(f"  {command}")


CheckedPlugins = Annotated[
    str,
    typer.Argument(
        help="A plugin's name, a plugin file, or a distribution: all that it offers.",
        metavar="NAME|FILE|DISTRIBUTION",
    ),
]
KindOption = Annotated[
    str | None,
    typer.Option("--kind", help="Which, where two kinds have one name.", metavar="KIND"),
]
ExpectedFile = Annotated[
    Path | None, typer.Option(help="YAML or JSON: check: reason, or these below plugins' names.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        help="A parameter besides its tiny ones, such as train=photos. May be given again.",
        metavar="NAME=VALUE",
    ),
]
ShowSkipped = Annotated[
    bool, typer.Option("--skipped", help="Say of each check that was skipped why.")
]


@app.command("check", cls=ResultsCommand)
def check(
    plugins: CheckedPlugins,
    kind: KindOption = None,
    expected_failures: ExpectedFile = None,
    param: Settings = None,
    data_root: DataRoot = None,
    device: Device = Devices.cpu,
    plugin: Plugins = None,
    skipped: ShowSkipped = False,
    json: Json = False,
) -> None:
    """Check whether plugins keep the promises of their kind, with their tiny parameters."""
    from transferbench.conformance import check_selection, parameters_of, read_expected
    from transferbench.engine.resources import find_device

    expected = read_expected(expected_failures) if expected_failures else {}
    device_type = find_device(device.value).type
    selection = _selected(plugins, kind, plugin or (), param or (), data_root)
    results = check_selection(selection, data_root=data_root, device=device_type, expected=expected)
    ok = all(result.ok for result in results)
    if json:
        as_json({"ok": ok, "checks": results})
    else:
        _print(results, parameters_of(selection), reasons=skipped)
    if not ok:
        raise typer.Exit(1)


def _selected(
    target: str,
    kind: str | None,
    files: Sequence[Path],
    settings: Sequence[str],
    data_root: Path | None,
) -> Selection:
    """The plugins to check; of others that cannot be loaded there is a note each."""
    from transferbench.conformance import refuse_missing_files, select_plugins, with_params
    from transferbench.registry import open_registry

    own = [Path(target)] if target.endswith(".py") else []
    registry = open_registry([*own, *files])
    selection = select_plugins(target, registry, kind_named(kind) if kind else None)
    selection = with_params(selection, settings)
    refuse_missing_files(selection, data_root)
    for problem in registry.problems:
        if problem not in selection.problems:
            note(str(problem))
    return selection


def _print(results: Sequence[CheckResult], parameters: Mapping[str, str], *, reasons: bool) -> None:
    """``reasons``: say why checks were skipped too."""
    table(
        ["plugin", "check", "result"],
        [(f"{result.kind} {result.plugin}", result.check, result.status) for result in results],
    )
    skipped: defaultdict[str, list[str]] = defaultdict(list)
    for result in results:
        if result.status == "skipped":
            reason = f"{result.kind} {result.plugin!r}: {result.message}"
            skipped[reason].append(result.check)
        elif result.message:
            say(f"\n{result.status}: {result.message}")
    if skipped or parameters:
        say()
    for reason, checks in skipped.items() if reasons else ():
        say(f"skipped: {', '.join(checks)}: {reason}")
    for name, text in parameters.items():
        say(f"parameters of {name}: {text}")
    counts = Counter(result.status for result in results)
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    unchecked = "; what was skipped was not checked" if skipped else ""
    way_on = " (--skipped says why)" if skipped and not reasons else ""
    say(f"\n{len(results)} checks: {summary}{unchecked}{way_on}")
