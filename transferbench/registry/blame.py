"""What went wrong in a plugin, in one line with its name: what it raised, or what it changed."""

from __future__ import annotations

import contextlib
import importlib
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import pydantic
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from transferbench import specs
from transferbench.errors import (
    PluginError,
    TransferbenchError,
    is_out_of_memory,
    suggestion,
    text_of,
)
from transferbench.registry.guard import MisconductError, guarded, guarded_job

__all__ = [
    "TRACEBACK",
    "blamed",
    "blamed_calls",
    "blamed_job",
    "cause",
    "in_a_line",
    "is_trusted",
    "offered_by_file",
    "show_traceback",
    "trust",
]

P = ParamSpec("P")
R = TypeVar("R")

# Frames of these files show how a plugin was reached, never what is wrong with it.
_CALLERS = (
    Path(__file__).parents[1],
    Path(importlib.__file__).parent,
    Path(pydantic.__file__).parent,
    Path(contextlib.__file__),
)
_ADVICE = "report it to the plugin's author, or leave it out"
TRACEBACK = "TRANSFERBENCH_TRACEBACK"
"""Set to anything: what a plugin raises is shown with its traceback, in workers too."""
_TRUSTED: set[str] = set()
_OF_FILES: set[tuple[str, str]] = set()


def trust(plugin: str) -> None:
    """Take a plugin (``backbone 'NAME'``) for one that changes no library.

    Those of this distribution: the checks of their conformance compare libraries around each call,
    which takes as long as all else that a small run does.
    """
    _TRUSTED.add(plugin)


def is_trusted(plugin: str) -> bool:
    """Whether ``trust`` was said of it; two plugins of one name are never served."""
    return plugin in _TRUSTED


def offered_by_file(plugin: str, file: str) -> None:
    """Say that a plugin (``backbone 'NAME'``) is of a file, which its user can repair."""
    _OF_FILES.difference_update({each for each in _OF_FILES if each[0] == plugin})
    _OF_FILES.add((plugin, file))


def _advice(plugin: str) -> str:
    file = next((file for name, file in sorted(_OF_FILES) if name in plugin), None)
    if file is None:
        return _ADVICE
    return f"repair {file}, or leave it out ({TRACEBACK}=1 shows the traceback)"


def show_traceback(error: BaseException) -> None:
    """Print the traceback of what a plugin raised, where the user wants to see it."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)


@contextmanager
def blamed(
    plugin: str, *, frequent: bool = False, role: str = "", part: str = ""
) -> Iterator[None]:
    """Name the plugin in whatever its code raises inside the block, with the line that did.

    What it changes in the process is restored, and raised as its error. ``frequent``: as in
    ``guarded``. ``role`` and ``part``: stand before and behind the plugin's name. Errors of
    exhausted memory are no plugin's bug and pass unchanged.
    """
    libraries, plugin = not is_trusted(plugin), f"{role}{plugin}{part}"
    try:
        with guarded(frequent=frequent, libraries=libraries):
            yield
    except TransferbenchError:
        raise
    except MisconductError as error:
        show_traceback(error)
        line = _line_of(error.__cause__ or error)
        raise PluginError(f"{plugin} {error}{line}; {_advice(plugin)}") from error
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        show_traceback(error)
        raise PluginError(f"{plugin} failed: {cause(error)}; {_advice(plugin)}") from error


def blamed_calls(plugin: str, function: Callable[P, R]) -> Callable[P, R]:
    """``function`` of a plugin, called for every batch: compared in full the first time alone."""
    called = False

    @wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        nonlocal called
        with blamed(plugin, frequent=called):
            called = True
            return function(*args, **keywords)

    return call


@contextmanager
def blamed_job(plugin: str, *, code: bool = True) -> Iterator[None]:
    """Name the plugin whose network runs in a job in what that did to the process.

    ``code``: as in ``guarded_job``.
    """
    try:
        with guarded_job(code=code):
            yield
    except MisconductError as error:
        show_traceback(error)
        raise PluginError(f"{plugin} {in_a_line(error)}; {_advice(plugin)}") from error
    except SystemExit as error:
        show_traceback(error)
        raise PluginError(f"{plugin} failed: {cause(error)}; {_advice(plugin)}") from error


def in_a_line(misconduct: MisconductError) -> str:
    """What a plugin did, with the line where that was an error that it raised."""
    return f"{misconduct}{_line_of(misconduct.__cause__ or misconduct)}"


def cause(error: BaseException) -> str:
    """One line: what a plugin raised, and the deepest line of its own folder that led there."""
    if isinstance(error, ValidationError):
        fields = "; ".join(_fault(error.title, detail) for detail in error.errors())
        return f"invalid {error.title}: {fields}{_line_of(error)}"
    return " ".join(f"{type(error).__name__}: {text_of(error)}".split()) + _line_of(error)


def _fault(model: str, detail: ErrorDetails) -> str:
    """One field that breaks a model of ``specs``; of an unknown one the nearest name."""
    field, spec = ".".join(map(str, detail["loc"])), getattr(specs, model, None)
    if detail["type"] == "extra_forbidden" and spec is not None and field.isidentifier():
        return f"no field {field!r}; {suggestion(field, sorted(spec.model_fields))}"
    return f"{field}: {detail['msg']}".removeprefix(": ")


def _line_of(error: BaseException) -> str:
    """The deepest line of the plugin's own folder that led to an error, or nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [
        (Path(frame.filename), frame.lineno)
        for frame in frames
        if not frame.filename.startswith("<")
        and not any(Path(frame.filename).is_relative_to(caller) for caller in _CALLERS)
    ]
    own = [(path.name, line) for path, line in lines if path.parent == lines[0][0].parent]
    return f" ({own[-1][0]}:{own[-1][1]})" if own else ""
