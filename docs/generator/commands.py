"""The command line: every verb with its arguments and options, as its functions declare them."""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from typer import Typer
from typer.models import ArgumentInfo, OptionInfo

from generator.markdown import code, prose, table
from transferbench.cli import app

__all__ = ["Parameter", "Verb", "page", "verbs"]

HEAD = """# Command line

Results go to stdout, everything else to stderr. What the exit codes mean:
[errors](errors.md#exit-codes). What the command line does, Python does in one call:
`transferbench run quickstart` is `transferbench.run("quickstart")`, and its options are
[`planning.Options`](errors.md#options-in-python).

"""


class Parameter(NamedTuple):
    """An argument, or an option with its names; ``taken`` is '' for a flag."""

    info: ArgumentInfo | OptionInfo
    names: tuple[str, ...]
    taken: str
    default: Any

    @property
    def is_option(self) -> bool:
        return isinstance(self.info, OptionInfo)

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


class Verb(NamedTuple):
    """A command: its words after ``transferbench``, what it says of itself, what it takes."""

    words: tuple[str, ...]
    help: str
    parameters: tuple[Parameter, ...]


def verbs() -> list[Verb]:
    """Every command, sorted."""
    return sorted(_below(app, ()), key=lambda verb: verb.words)


def _below(group: Typer, words: tuple[str, ...]) -> Iterator[Verb]:
    for command in group.registered_commands:
        function: Any = command.callback
        name = command.name or function.__name__.replace("_", "-")
        text = command.help or inspect.getdoc(function) or ""
        yield Verb((*words, name), text, tuple(_parameters(function)))
    for below in group.registered_groups:
        inner: Any = below.typer_instance
        yield from _below(inner, (*words, str(below.name)))


def _parameters(callback: Callable[..., Any]) -> Iterator[Parameter]:
    hints = get_type_hints(callback, include_extras=True)
    for name, parameter in inspect.signature(callback).parameters.items():
        annotation, info = get_args(hints[name])[:2]
        # Inside Annotated, typer has the first name in the place of a default.
        given = (info.default, *(info.param_decls or ()))
        declared = tuple(one for one in given if isinstance(one, str) and one.startswith("-"))
        names = declared or (f"--{name.replace('_', '-')}",)
        taken = info.metavar or _taken(annotation)
        if isinstance(info, ArgumentInfo):
            names = (info.metavar or name.upper(),)
        yield Parameter(info, names, taken, parameter.default)


def _taken(annotation: Any) -> str:
    """What a value looks like: choices, or a word for its type; '' for a flag."""
    if get_origin(annotation) in {list, types.UnionType}:
        return _taken(next(one for one in get_args(annotation) if one is not type(None)))
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return "|".join(str(one.value) for one in annotation)
    return {bool: "", str: "TEXT", int: "INTEGER", float: "NUMBER"}.get(annotation, "PATH")


def page() -> str:
    """The page."""
    found = verbs()
    rows = [
        (f"[`{' '.join(verb.words)}`](#{'-'.join(verb.words)})", _first(verb)) for verb in found
    ]
    return HEAD + "\n".join([table(["command", ""], rows), _root(), *map(_section, found)])


def _root() -> str:
    root: Any = app.registered_callback
    rows = [
        *map(_row, _parameters(root.callback)),
        ("`--help`", "Print what a command takes.", ""),
    ]
    return "## transferbench\n\n" + table(["option", "", "default"], rows)


def _section(verb: Verb) -> str:
    arguments = [one for one in verb.parameters if not one.is_option]
    options = [one for one in verb.parameters if one.is_option]
    placeholders = [one.names[0] if one.required else f"[{one.names[0]}]" for one in arguments]
    usage = " ".join(["transferbench", *verb.words, *placeholders, *["[OPTIONS]"] * bool(options)])
    parts = [f"## {' '.join(verb.words)}", prose(verb.help), f"```text\n{usage}\n```"]
    for title, group in (("argument", arguments), ("option", options)):
        if group:
            parts.append(table([title, "", "default"], map(_row, group)))
    return "\n\n".join(parts) + "\n"


def _first(verb: Verb) -> str:
    return prose(verb.help).splitlines()[0]


def _row(one: Parameter) -> tuple[str, str, str]:
    told = [f"{name} {one.taken}".strip() if one.is_option else name for name in one.names]
    environment = f" Also: `{one.info.envvar}` of the environment." if one.info.envvar else ""
    return ", ".join(map(code, told)), (one.info.help or "") + environment, _default(one)


def _default(one: Parameter) -> str:
    if one.required:
        return "required"
    default = getattr(one.default, "value", one.default)
    return "" if default in {None, False} else code(str(default))
