"""The page of the command line, from the signatures of its commands."""

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

Results go to stdout, everything else to stderr, also what plugins print. What the exit codes mean:
[errors](errors.md#exit-codes). What the command line does, Python does in one call:
`transferbench run quickstart` is `transferbench.run("quickstart")`, and its options are
[keyword arguments](errors.md#options-in-python).

"""


class Parameter(NamedTuple):
    """An argument or option; ``metavar`` is '' for a flag."""

    info: ArgumentInfo | OptionInfo
    names: tuple[str, ...]
    metavar: str
    default: Any

    @property
    def is_option(self) -> bool:
        return isinstance(self.info, OptionInfo)

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


class Verb(NamedTuple):
    """A command: its words after ``transferbench``, its help and its parameters."""

    words: tuple[str, ...]
    help: str
    parameters: tuple[Parameter, ...]


def verbs() -> list[Verb]:
    """All commands, sorted."""
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
        # Inside Annotated, typer stores the first name as the default.
        names = (info.default, *(info.param_decls or ()))
        written = [n for n in names if isinstance(n, str) and n.startswith("-")]
        declared = tuple(each for n in written for each in n.split("/"))
        names = declared or (f"--{name.replace('_', '-')}",)
        metavar = info.metavar or _metavar(annotation)
        if isinstance(info, ArgumentInfo):
            names = (info.metavar or name.upper(),)
        yield Parameter(info, names, metavar, parameter.default)


def _metavar(annotation: Any) -> str:
    """The choices of a value, or a word for its type; '' for a flag."""
    if get_origin(annotation) in {list, types.UnionType}:
        return _metavar(next(a for a in get_args(annotation) if a is not type(None)))
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return "|".join(str(member.value) for member in annotation)
    return {bool: "", str: "TEXT", int: "INTEGER", float: "NUMBER"}.get(annotation, "PATH")


def page() -> str:
    """The page."""
    commands = verbs()
    rows = [
        (f"[`{' '.join(verb.words)}`](#{'-'.join(verb.words)})", _first(verb)) for verb in commands
    ]
    return HEAD + "\n".join([table(["command", ""], rows), _root(), *map(_section, commands)])


def _root() -> str:
    root: Any = app.registered_callback
    rows = [
        *map(_row, _parameters(root.callback)),
        ("`--help`", "Print the arguments and options of a command.", ""),
    ]
    return "## transferbench\n\n" + table(["option", "", "default"], rows)


def _section(verb: Verb) -> str:
    arguments = [p for p in verb.parameters if not p.is_option]
    options = [p for p in verb.parameters if p.is_option]
    placeholders = [p.names[0] if p.required else f"[{p.names[0]}]" for p in arguments]
    usage = " ".join(["transferbench", *verb.words, *placeholders, *["[OPTIONS]"] * bool(options)])
    parts = [f"## {' '.join(verb.words)}", prose(verb.help), f"```text\n{usage}\n```"]
    for title, group in (("argument", arguments), ("option", options)):
        if group:
            parts.append(table([title, "", "default"], map(_row, group)))
    return "\n\n".join(parts) + "\n"


def _first(verb: Verb) -> str:
    return prose(verb.help).splitlines()[0]


def _row(parameter: Parameter) -> tuple[str, str, str]:
    info, names = parameter.info, parameter.names
    if parameter.is_option:
        names = tuple(f"{name} {parameter.metavar}".strip() for name in names)
    environment = f" Environment variable: `{info.envvar}`." if info.envvar else ""
    return ", ".join(map(code, names)), (info.help or "") + environment, _default(parameter)


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    default = getattr(parameter.default, "value", parameter.default)
    return "" if default in {None, False} else code(str(default))
