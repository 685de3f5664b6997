"""Which plugins a word on the command line means, and which failures a file expects of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from transferbench.conformance.checks import CheckResult
from transferbench.conformance.kit import Expected, check_plugin, expected_of
from transferbench.errors import ConformanceError, PluginError, UnknownNameError
from transferbench.registry import Registry
from transferbench.registry.discovery import SPECS, Kind, PluginProblem, canonical
from transferbench.specs import Spec

__all__ = ["Asked", "ask", "check_asked", "read_expected"]

EXPECTED: TypeAdapter[Expected] = TypeAdapter(Expected)


class Asked(NamedTuple):
    """What a word means: specs, each with parameters (None: its tiny ones), and what is broken."""

    specs: tuple[tuple[Spec, Mapping[str, Any] | None], ...]
    problems: tuple[PluginProblem, ...] = ()


def ask(what: str, registry: Registry, kind: Kind | None = None) -> Asked:
    """The plugins that ``what`` means: a name, FAMILY/MEMBER, a loose file or a distribution.

    Raises: ``UnknownNameError`` for what is none of these, ``PluginError`` for a name of several
    kinds or that several plugins offer.
    """
    if what.endswith(".py"):
        if not Path(what).is_file():
            raise PluginError(f"there is no plugin file {what}; check the path")
        return _owned(str(Path(what).resolve()), registry, kind)
    kinds = [one for one in SPECS if kind in {None, one} and _serves(registry, one, what)]
    if len(kinds) > 1:
        raise PluginError(
            f"{what!r} is the name of a {' and of a '.join(kinds)}; say which with "
            f"--kind {kinds[0]}"
        )
    if kinds:
        return _one(what, registry, kinds[0])
    return _other(what, registry, kind)


def _serves(registry: Registry, kind: Kind, what: str) -> bool:
    name = what.partition("/")[0] if kind == "backbone" else what
    return name in registry.names(kind)


def _one(what: str, registry: Registry, kind: Kind) -> Asked:
    if kind == "backbone" and "/" in what:
        return Asked((registry.resolve_backbone(what),))
    specs: Mapping[str, Spec] = getattr(registry, f"{kind}s")
    return Asked(((specs[what], None),))


def _other(what: str, registry: Registry, kind: Kind | None) -> Asked:
    """A distribution; or why it is not."""
    if canonical(what) in _known_owners(registry):
        return _owned(canonical(what), registry, kind)
    for one in SPECS if kind is None else (kind,):
        try:
            getattr(registry, one)(what)  # which tells the two who offer one name
        except UnknownNameError:
            if kind is not None:
                raise
    known = {name for one in SPECS for name in registry.names(one)} | set(registry.distributions)
    raise UnknownNameError("plugin or distribution", what, known, _advice(registry))


def _advice(registry: Registry) -> str:
    if not registry.problems:
        return "or name a plugin file, which ends in .py"
    lost = " | ".join(map(str, registry.problems))
    return f"what may offer it could not be loaded: {lost}"


def _known_owners(registry: Registry) -> set[str]:
    broken = {canonical(problem.distribution) for problem in registry.problems}
    return {*registry.distributions, *broken} - {""}


def _owned(owner: str, registry: Registry, kind: Kind | None) -> Asked:
    """All that a distribution or a file offers, and all that is wrong with it."""
    problems = tuple(
        problem for problem in registry.problems
        if owner in {canonical(problem.distribution), problem.plugin}
    )  # fmt: skip
    offered = registry.offered_by(owner)
    wanted = tuple((spec, None) for spec in offered
                   if kind is None or isinstance(spec, SPECS[kind]))  # fmt: skip
    if not wanted and not problems:
        raise PluginError(f"{owner} offers no {kind or 'plugin'}; leave --kind out, or offer one")
    return Asked(wanted, problems)


def check_asked(
    asked: Asked, *, data_root: Path | None, device: str, expected: Expected
) -> list[CheckResult]:
    """Every check of every plugin asked for; what could not be loaded fails as ``it-loads``."""
    results = [
        CheckResult("plugin", Path(problem.plugin).name, "it-loads", "failed", str(problem))
        for problem in asked.problems
    ]
    for spec, params in asked.specs:
        results += check_plugin(
            spec, params=params, data_root=data_root, device=device,
            expected_failures=expected_of(spec, expected),
        )  # fmt: skip
    return results


def read_expected(path: Path) -> Expected:
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
