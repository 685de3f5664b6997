"""Which executors there are, and which of them a run uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from transferbench.errors import (
    ExecutorError,
    PluginError,
    TransferbenchError,
    UnknownNameError,
    suggestion,
)
from transferbench.runner.executors.spec import ExecutorOptions, ExecutorSpec
from transferbench.runner.executors.this_machine import LOCAL
from transferbench.specs import Frozen
from transferbench.suite.document import plain, read_yaml

__all__ = ["GROUP", "Chosen", "cancel_workers", "choose_executor", "executor_named",
           "executor_names", "workers_elsewhere"]  # fmt: skip

GROUP = "transferbench.executors"
"""The group of entry points."""
YAML_SUFFIXES = (".yaml", ".yml")


class _Settings(Frozen):
    """A file of settings."""

    executor: str
    options: Mapping[str, Any] = Field(default_factory=dict)


class Chosen(NamedTuple):
    """An executor with its options."""

    spec: ExecutorSpec
    options: ExecutorOptions


def executor_names() -> list[str]:
    """The names of all executors that are installed, sorted."""
    return sorted({LOCAL.name, *(point.name for point in metadata.entry_points(group=GROUP))})


def executor_named(name: str) -> ExecutorSpec:
    """The executor of a name.

    Raises: ``UnknownNameError``; ``PluginError`` where it cannot be loaded, or two distributions
    offer it; ``ExecutorError`` where a package that it needs is not installed.
    """
    points = {point.value: point for point in metadata.entry_points(group=GROUP, name=name)}
    if len(points) > 1:
        both = " and ".join(sorted(_origin(point) for point in points.values()))
        raise PluginError(f"executor {name!r} is offered by {both}; uninstall one of them")
    if not points:
        if name == LOCAL.name:  # also where the package was installed before it had executors
            return LOCAL
        raise UnknownNameError("executor", name, executor_names())
    (point,) = points.values()
    try:
        spec = point.load()
    except Exception as error:
        raise PluginError(
            f"executor {name!r} of {_origin(point)} cannot be imported: {error!r}; repair it, or "
            "choose another --executor"
        ) from error
    if not isinstance(spec, ExecutorSpec) or spec.name != name:
        raise PluginError(
            f"executor {name!r} of {_origin(point)} is {spec!r}, and no ExecutorSpec of that name"
        )
    if lacking := [module for module in spec.modules if find_spec(module) is None]:
        raise ExecutorError(
            f"executor {name!r} needs {', '.join(lacking)}, not installed here: {spec.install}"
        )
    return spec


def _origin(point: metadata.EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def workers_elsewhere(folder: Path) -> list[str]:
    """A line for each worker that computes for the run in ``folder`` without the process here."""
    lines: list[str] = []
    for spec in _usable():
        try:
            lines += spec.describe(folder)
        except Exception as error:  # noqa: BLE001  # of one executor, whoever wrote it
            lines.append(f"executor {spec.name}: cannot say what computes ({error!r})")
    return lines


def cancel_workers(folder: Path) -> list[str]:
    """End the workers that compute for the run in ``folder``; returns their names."""
    return [name for spec in _usable() for name in spec.cancel(folder)]


def _usable() -> Iterator[ExecutorSpec]:
    """The executors that can be used here; another has no workers of this installation."""
    for name in executor_names():
        with suppress(TransferbenchError):
            yield executor_named(name)


def choose_executor(executor: str | Path, options: Mapping[str, Any] | Sequence[str]) -> Chosen:
    """The executor of a name or of a file of settings, with ``options``, those of the file below.

    Raises: as ``executor_named``; ``ExecutorError`` for options that it does not have.
    """
    name, values = str(executor), dict[str, Any]()
    if isinstance(executor, Path) or Path(name).suffix in YAML_SUFFIXES:
        name, values = _settings(Path(executor))
    spec = executor_named(name)
    overrides = dict(options) if isinstance(options, Mapping) else dict(map(_pair, options))
    try:
        return Chosen(spec, spec.options.model_validate(values | overrides))
    except ValidationError as error:
        mistakes = "; ".join(_mistake(spec, detail) for detail in error.errors())
        raise ExecutorError(f"executor {name!r}: {mistakes}") from error


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise ExecutorError(f"--executor-option {text}: write it as KEY=VALUE")
    return key.strip().replace("-", "_"), value


def _settings(path: Path) -> tuple[str, dict[str, Any]]:
    """The name and the options that a file of settings has."""
    try:
        document = read_yaml(path.read_bytes())
    except OSError as error:
        raise ExecutorError(
            f"the settings {path} of an executor cannot be read: {error.strerror}"
        ) from error
    settings = plain(document.root) if document.root else None
    faults = [mistake.message for mistake in document.mistakes]
    if not faults:
        try:
            read = _Settings.model_validate(settings)
        except ValidationError:
            faults = ["it has 'executor: NAME' and 'options:' with lines KEY: VALUE, nothing else"]
        else:
            return read.executor, dict(read.options)
    raise ExecutorError(f"the settings {path} of an executor: {'; '.join(faults)}")


def _mistake(spec: ExecutorSpec, detail: Any) -> str:
    field = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        options = sorted(spec.options.model_fields)
        return f"no option {field!r}; {suggestion(field, options) if options else 'it has none'}"
    message = detail["msg"].removeprefix("Value error, ")
    return f"option {field} is {detail['input']!r}: {message}" if field else message
