"""The plugins that a word on the command line selects, and files of expected failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from transferbench.conformance.checks import CheckResult
from transferbench.conformance.kit import ExpectedFailures, check_plugin, expected_of
from transferbench.data.files import missing
from transferbench.errors import ConformanceError, DataError, PluginError, UnknownNameError
from transferbench.registry import Registry
from transferbench.registry.discovery import SPECS, Kind, PluginProblem, canonical
from transferbench.specs import DatasetSpec, Spec

__all__ = [
    "Selection",
    "check_selection",
    "parameters_of",
    "read_expected",
    "refuse_missing_files",
    "select_plugins",
    "with_params",
]

EXPECTED: TypeAdapter[ExpectedFailures] = TypeAdapter(ExpectedFailures)


class Selection(NamedTuple):
    """Specs, each with parameters (None: its tiny ones), and what could not be loaded."""

    specs: tuple[tuple[Spec, Mapping[str, Any] | None], ...]
    problems: tuple[PluginProblem, ...] = ()


def select_plugins(target: str, registry: Registry, kind: Kind | None = None) -> Selection:
    """The plugins of ``target``: a name, FAMILY/MEMBER, a loose file or a distribution.

    Raises: ``UnknownNameError`` for what is none of these, ``PluginError`` for a name of several
    kinds or that several plugins offer.
    """
    if target.endswith(".py"):
        if not Path(target).is_file():
            raise PluginError(f"there is no plugin file {target}; check the path")
        return _offered_by(str(Path(target).resolve()), registry, kind)
    family = target.partition("/")[0]
    families = ("backbone", "dataset")
    kinds = [name for name in SPECS if kind in {None, name}
             and (family if name in families else target) in registry.names(name)]  # fmt: skip
    if len(kinds) > 1:
        raise PluginError(
            f"{target!r} is the name of a {' and of a '.join(kinds)}; say which with "
            f"--kind {kinds[0]}"
        )
    if not kinds:
        return _distribution(target, registry, kind)
    if family != target and kinds == ["backbone"]:
        return Selection((registry.resolve_backbone(target),))
    return Selection(((getattr(registry, kinds[0])(target), None),))


def with_params(selection: Selection, settings: Sequence[str]) -> Selection:
    """``selection`` with the NAME=VALUE of ``settings`` on top of the plugin's tiny parameters.

    Raises: ``PluginError`` for a setting that is not of this form, and where several plugins or
    none are selected.
    """
    if not settings:
        return selection
    if len(selection.specs) != 1:
        names = ", ".join(spec.name for spec, _ in selection.specs) or "none"
        raise PluginError(f"--param is of one plugin, and these are selected: {names}; name one")
    spec, params = selection.specs[0]
    values = dict(spec.tiny) | dict(params or {})
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise PluginError(f"--param {setting!r} has no '='; write it as NAME=VALUE")
        try:
            values[name] = YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise PluginError(
                f"--param {setting!r}: {text!r} is not a YAML value; write it as in a suite file"
            ) from error
    return selection._replace(specs=((spec, values),))


def refuse_missing_files(selection: Selection, data_root: Path | None) -> None:
    """Raise ``DataError`` where a data root was named and is not there, or lacks a dataset's files.

    Of several plugins, those without files are skipped.
    """
    if data_root is None:
        return
    if not data_root.is_dir():
        raise DataError(f"there is no folder {data_root}, which was named as the data root")
    if len(selection.specs) == 1 and isinstance(spec := selection.specs[0][0], DatasetSpec):
        values = dict(spec.tiny if (params := selection.specs[0][1]) is None else params)
        if spec.accepts(values) and (
            lacking := missing(spec.with_params(spec.parse(values)), data_root)
        ):
            raise DataError("; ".join(lacking))


def parameters_of(selection: Selection) -> dict[str, str]:
    """The parameters that each plugin is checked with, in words."""
    lines = {}
    for spec, params in selection.specs:
        values = dict(spec.tiny if params is None else params)
        if spec.accepts(values):
            values = spec.parse(values).model_dump()
        text = ", ".join(f"{name}={value!r}" for name, value in values.items()) or "none"
        tiny = values and params is None
        lines[spec.name] = f"{text} (its tiny ones; --param sets others)" if tiny else text
    return lines


def _distribution(target: str, registry: Registry, kind: Kind | None) -> Selection:
    """What a distribution offers. Raises: as ``select_plugins``, where there is none."""
    origins = [problem.origin for problem in registry.problems]
    broken = {origin.owner for origin in origins if origin.distribution}
    if canonical(target) in {*registry.distributions, *broken}:
        return _offered_by(canonical(target), registry, kind)
    for candidate in SPECS if kind is None else (kind,):
        try:
            getattr(registry, candidate)(target)  # raises for a name that two plugins offer
        except UnknownNameError:
            if kind is not None:
                raise
    file = Path(f"{target.replace('-', '_')}.py")
    if file.is_file():
        raise UnknownNameError(
            "plugin or distribution", target, (), f"did you mean the file {file}?"
        )
    names = {name for candidate in SPECS for name in registry.names(candidate)}
    advice = "or name a plugin file, which ends in .py"
    if registry.problems:
        problems = " | ".join(map(str, registry.problems))
        advice = f"what may offer it could not be loaded: {problems}"
    families: tuple[Kind, ...] = ("backbone", "dataset")
    near = next(filter(None, (registry.member_like(family, target) for family in families)), "")
    raise UnknownNameError(
        "plugin or distribution", target, names | set(registry.distributions), advice, near
    )


def _offered_by(owner: str, registry: Registry, kind: Kind | None) -> Selection:
    """All plugins of a distribution or a file, and all problems with it."""
    problems = tuple(problem for problem in registry.problems if problem.origin.owner == owner)
    specs = tuple((spec, None) for spec in registry.offered_by(owner)
                  if kind is None or isinstance(spec, SPECS[kind]))  # fmt: skip
    if not specs and not problems:
        raise PluginError(f"{owner} offers no {kind or 'plugin'}; leave --kind out, or offer one")
    return Selection(specs, problems)


def check_selection(
    selection: Selection, *, data_root: Path | None, device: str, expected: ExpectedFailures
) -> list[CheckResult]:
    """The results of all checks; what could not be loaded fails the check ``it-loads``."""
    results = [
        CheckResult("plugin", Path(problem.origin.plugin).name, "it-loads", "failed", str(problem))
        for problem in selection.problems
    ]
    for spec, params in selection.specs:
        results += check_plugin(
            spec, params=params, data_root=data_root, device=device,
            expected_failures=expected_of(spec, expected),
        )  # fmt: skip
    return results


def read_expected(path: Path) -> ExpectedFailures:
    """Expected failures from a file of YAML or JSON: check -> reason, or plugin -> check -> reason.

    Raises: ``ConformanceError`` where it cannot be read or holds anything else.
    """
    try:
        return EXPECTED.validate_python(
            YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        )
    except OSError as error:
        raise ConformanceError(
            f"cannot read the expected failures in {path}: {error.strerror}; check the path"
        ) from error
    except (YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise ConformanceError(
            f"{path} holds no expected failures ({str(error).splitlines()[0]}); write it as "
            "'check-name: reason', or as such lines below the name of each plugin"
        ) from error
