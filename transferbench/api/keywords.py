"""Keyword arguments of the Python calls: explicit in signatures, misspelt ones suggested."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from transferbench.errors import suggestion
from transferbench.suite import Suite

__all__ = ["names_suggested", "options_as_keywords"]

P = ParamSpec("P")
R = TypeVar("R")
OptionsT = TypeVar("OptionsT")


def options_as_keywords(
    options: Callable[P, OptionsT],
) -> Callable[
    [Callable[[str | Suite, OptionsT], R]], Callable[Concatenate[str | Path | Suite, P], R]
]:
    """Turn a function of a suite and ``options`` into one with a keyword for each option.

    The options are written once, in their dataclass: type checkers, ``help`` and completion show
    its fields as parameters of the function.
    """

    def decorate(
        function: Callable[[str | Suite, OptionsT], R],
    ) -> Callable[Concatenate[str | Path | Suite, P], R]:
        # ``suite`` may be a keyword too, which ``ParamSpec`` cannot express.
        @wraps(function)
        def call(suite: str | Path | Suite, *args: P.args, **keywords: P.kwargs) -> R:
            return function(_name_or_suite(suite), options(*args, **keywords))

        signature = inspect.signature(function)
        suite = signature.parameters["suite"].replace(annotation="str | Path | Suite")
        keywords = inspect.signature(options).parameters.values()
        signature = signature.replace(parameters=[suite, *keywords])
        call.__signature__ = signature  # type: ignore[attr-defined]  # read by inspect.signature
        texts = [
            f"``{field.name}``: {field.metadata['text']}" for field in fields(cast("Any", options))
        ]
        call.__doc__ = "\n".join([str(inspect.getdoc(function)), "", *texts])
        return cast("Callable[Concatenate[str | Path | Suite, P], R]", names_suggested(call))

    return decorate


def _name_or_suite(suite: object) -> str | Suite:
    if isinstance(suite, PathLike):
        return str(suite)
    if not isinstance(suite, str | Suite):
        raise TypeError(
            f"suite must be the name of a suite, the path of a .yaml file or a Suite, not {suite!r}"
        )
    return suite


def names_suggested(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with a suggestion in the ``TypeError`` for an unknown keyword argument."""
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> R:
        try:
            signature.bind(*args, **keywords)
        except TypeError as error:
            names = list(signature.parameters)
            hints = [suggestion(name, names) for name in keywords if name not in names]
            message = "; ".join([f"{function.__name__}() {error}", *hints[:1]])
            raise TypeError(message) from None
        return function(*args, **keywords)

    return call
