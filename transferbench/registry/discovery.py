"""How plugins are discovered and checked; a fault disables its plugin alone and is reported.

Loading order; it changes no result, since every list is sorted and no plugin can replace what
another offers:

1. the entry points of group ``transferbench``, by distribution, version, name and value;
2. the files given (``--plugin FILE.py``);
3. the files named in ``TRANSFERBENCH_PLUGINS`` of the environment given, between ``os.pathsep``.

A file named twice is loaded once. Each plugin is imported, checked and registered; then each of its
hooks is called. Every step is guarded: a fault disables that plugin, or that hook, and no other.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import pluggy
from pydantic import BaseModel

from transferbench import hookspecs
from transferbench.errors import PluginError, suggestion
from transferbench.hookspecs import PROJECT
from transferbench.registry.blame import (
    TRACEBACK,
    cause,
    in_a_line,
    offered_by_file,
    show_traceback,
    trust,
)
from transferbench.registry.code import Distributions, PluginCode, code_of_file
from transferbench.registry.guard import MisconductError, guarded, only_plugins_run
from transferbench.registry.numerics import PLUGIN_FILE
from transferbench.specs import (
    BackboneSpec,
    DatasetSpec,
    DiagnosticSpec,
    InitializationSpec,
    PerturbationSpec,
    Spec,
)

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "SPECS",
    "Discovery",
    "Kind",
    "Offer",
    "Origin",
    "PluginProblem",
    "canonical",
    "discover",
    "file_fault",
    "files_of",
    "specs_of",
]

Kind = Literal["dataset", "perturbation", "backbone", "initialization", "diagnostic"]

SPECS: Mapping[Kind, type[Spec]] = {
    "dataset": DatasetSpec,
    "perturbation": PerturbationSpec,
    "backbone": BackboneSpec,
    "initialization": InitializationSpec,
    "diagnostic": DiagnosticSpec,
}
"""What each kind of plugin offers."""

ENVIRONMENT_VARIABLE = "TRANSFERBENCH_PLUGINS"
"""Names plugin files, separated as in ``PATH``."""

_PREFIX = f"{PROJECT}_"
_HOOKS: Mapping[Kind, str] = {kind: f"{_PREFIX}{kind}s" for kind in SPECS}


def canonical(distribution: str) -> str:
    """A distribution's name as pip compares it (PEP 503): ``My_Net`` and ``my-net`` are one."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


@dataclass(frozen=True)
class Origin:
    """Where one plugin comes from: an entry point of a distribution, or a file.

    ``plugin`` is the entry point's name or the file, which has no ``distribution`` or ``version``.
    """

    plugin: str
    distribution: str = ""
    version: str = ""
    value: str = ""

    @property
    def key(self) -> str:
        """A unique key, which plugins are sorted by."""
        if self.distribution:
            return f"{self.label} (entry point {self.plugin} = {self.value})"
        return self.plugin

    @property
    def owner(self) -> str:
        """The distribution or the file that provides it."""
        return canonical(self.distribution) if self.distribution else self.plugin

    @property
    def label(self) -> str:
        """For display: distribution and version, or the file's name without its folder."""
        if self.distribution:
            return f"{self.distribution} {self.version}"
        return Path(self.plugin).name

    def code(self, distributions: Distributions) -> PluginCode | None:
        """The code that offers it; None where it cannot be located."""
        if self.distribution:
            return distributions.code_of(self.distribution, self.value)
        imported = _imports_of(Path(self.plugin))
        return getattr(imported[-1], _CODE, None) if imported else None

    def problem(self, reason: str, advice: str = "", kind: Kind | None = None) -> PluginProblem:
        """A problem of this plugin; the default advice is to go on without it."""
        repair = f"uninstall {self.distribution}" if self.distribution else "leave the file out"
        return PluginProblem(self, reason, advice or f"repair it, or {repair}", kind)


@dataclass(frozen=True)
class PluginProblem:
    """Why something of a plugin is not served: only of ``kind``, or nothing where that is None."""

    origin: Origin
    reason: str
    advice: str
    kind: Kind | None

    def __str__(self) -> str:
        of = f" of {self.origin.label}" if self.origin.distribution else ""
        return f"plugin {self.origin.plugin!r}{of}: {self.reason}; {self.advice}"


class Offer(NamedTuple):
    """One spec and the plugin that offers it."""

    kind: Kind
    spec: Spec
    origin: Origin


class Discovery(NamedTuple):
    """All plugins that there are; ``files`` are the plugin files, absolute."""

    offers: tuple[Offer, ...]
    problems: tuple[PluginProblem, ...]
    files: tuple[Path, ...]


def discover(files: Sequence[Path], environment: Mapping[str, str]) -> Discovery:
    """Load every plugin, in the order of this module's docstring; raises for none of them."""
    plugin_files = _plugin_files(files, environment)
    loaders = [(Origin(str(path)), partial(_import_file, path)) for path in plugin_files]
    offers, problems = _load((*_entry_points(), *loaders))
    return Discovery(offers, problems, plugin_files)


def specs_of(plugin: object) -> list[Spec]:
    """Every spec that the hooks of a module, or object, offer, by kind and in their order.

    Raises: ``PluginError`` naming what is wrong with the plugin.
    """
    origin = Origin(getattr(plugin, "__name__", type(plugin).__name__))
    offers, problems = _load([(origin, lambda: plugin)])
    if problems:
        raise PluginError(" | ".join(map(str, problems)))
    return [offer.spec for offer in offers]


_Plugin = tuple[Origin, Callable[[], object]]


def _load(plugins: Iterable[_Plugin]) -> tuple[tuple[Offer, ...], tuple[PluginProblem, ...]]:
    """Register every plugin, then call every hook."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    offers: list[Offer] = []
    problems: list[PluginProblem] = []
    origins: dict[str, Origin] = {}
    with only_plugins_run():
        for origin, load in plugins:
            origins[origin.key] = origin
            _load_one(manager, origin, load, problems)
        for kind, hook in _HOOKS.items():
            for implementation in getattr(manager.hook, hook).get_hookimpls():
                origin, before = origins[implementation.plugin_name], len(problems)
                with _guard(origin, problems, kind):
                    specs = _collect(kind, implementation.function())
                if len(problems) == before:
                    offers += [Offer(kind, spec, origin) for spec in specs]
                    for plugin in (f"{kind} {spec.name!r}" for spec in specs):
                        if origin.owner == PROJECT:
                            trust(plugin)
                        elif not origin.distribution:
                            offered_by_file(plugin, origin.plugin)
    return tuple(offers), tuple(problems)


def _load_one(
    manager: pluggy.PluginManager,
    origin: Origin,
    load: Callable[[], object],
    problems: list[PluginProblem],
) -> None:
    before, modules = len(problems), set(sys.modules)
    with _guard(origin, problems):
        plugin = load()
    if len(problems) > before:
        # Executed again the next time, to be refused again.
        for name in sys.modules.keys() - modules:
            if name.startswith(PLUGIN_FILE) or name == origin.value.partition(":")[0]:
                del sys.modules[name]
        return
    with _guard(origin, problems):
        _register(manager, plugin, origin.key)


# --- where plugins come from ------------------------------------------------------------------


def _entry_points() -> list[_Plugin]:
    # pluggy's own loader drops the second of two equal entry-point names and guards nothing.
    plugins = [(_origin(point), point.load) for point in metadata.entry_points(group=PROJECT)]
    return sorted(plugins, key=lambda plugin: plugin[0].key)


def _origin(point: metadata.EntryPoint) -> Origin:
    """An interrupted uninstall leaves entry points of distributions without name and version."""
    name = version = None
    # What is raised depends on the version of Python.
    with contextlib.suppress(KeyError, TypeError, FileNotFoundError):
        fields: Any = getattr(point.dist, "metadata", None)
        name, version = fields["Name"], fields["Version"]
    label = name or "a distribution without metadata"
    return Origin(point.name, label, version or "?", point.value)


def _plugin_files(files: Sequence[Path], environment: Mapping[str, str]) -> tuple[Path, ...]:
    paths = (*files, *files_of(environment))
    return tuple(dict.fromkeys(path.resolve() for path in paths))


def file_fault(path: Path) -> tuple[str, str] | None:
    """Why this is no plugin file, and what to do; None where it can be read as one."""
    if not path.exists():
        return "there is no such file", "check the path, or leave it out"
    if path.suffix != ".py":
        return "a plugin file ends in .py", "name one Python file, or install the package"
    if not path.is_file():
        return "it is not a regular file", "name one Python file, or install the package"
    if not os.access(path, os.R_OK):
        return "it cannot be read", "make it readable, or leave it out"
    return None


def files_of(environment: Mapping[str, str]) -> list[Path]:
    """The plugin files that an environment names."""
    named = environment.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep)
    return [Path(part) for part in named if part]


_CODE = "_transferbench_code"
"""The attribute of the module of a plugin file with its code as it was imported."""


def _import_file(path: Path) -> ModuleType:
    """The module of a plugin file, under a name that depends on its path and its content.

    A worker that loads the same file gets the same name, so what it defines can be pickled; an
    edited file becomes another module, and one that imports an edited file is executed again.
    """
    if fault := file_fault(path):
        raise _Fault(*fault)
    source = path.read_bytes()
    content = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()
    name = f"{PLUGIN_FILE}{content[:16]}"
    codes = [getattr(module, _CODE) for module in _imports_of(path)]
    latest = codes[-1] if codes else None
    is_edited = latest is not None and latest.now(Distributions()) != latest
    if name not in sys.modules or is_edited:
        _forget(codes)
        sys.modules.pop(name, None)
        module = sys.modules[name] = ModuleType(name)
        module.__file__ = str(path)
        try:
            # Python's loader would cache bytecode next to a file that is not ours, and mistake a
            # file rewritten within a second at equal length for the old one.
            exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  # a plugin is code
            setattr(module, _CODE, code_of_file(path))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def _imports_of(path: Path) -> list[ModuleType]:
    """The modules that a plugin file has become in this process, the last one last."""
    files = (module for name, module in sys.modules.items() if name.startswith(PLUGIN_FILE))
    return [module for module in files if module.__file__ == str(path) and hasattr(module, _CODE)]


def _forget(codes: Iterable[PluginCode]) -> None:
    """Let the modules that a plugin file has imported be read again."""
    for name, path in chain.from_iterable(code.files.items() for code in codes):
        if getattr(sys.modules.get(name), "__file__", None) == str(path):
            del sys.modules[name]
    importlib.invalidate_caches()


# --- guarding ---------------------------------------------------------------------------------


class _Fault(Exception):  # noqa: N818  # of a plugin: it becomes a PluginProblem
    """What is wrong with a plugin, and what to do: its two arguments."""


@contextlib.contextmanager
def _guard(
    origin: Origin, problems: list[PluginProblem], kind: Kind | None = None
) -> Iterator[None]:
    try:
        with guarded(libraries=origin.owner != PROJECT):
            yield
    except _Fault as fault:
        reason, advice = fault.args
        problems.append(origin.problem(reason, advice, kind))
    except MisconductError as error:
        problems.append(origin.problem(f"it {in_a_line(error)}", kind=kind))
    except (Exception, SystemExit) as error:  # noqa: BLE001  # third-party code may raise anything
        show_traceback(error)
        way_on = f"repair it, or leave the file out ({TRACEBACK}=1 shows the traceback)"
        advice = "" if origin.distribution else way_on
        problems.append(origin.problem(cause(error), advice, kind))


# --- what a plugin must be --------------------------------------------------------------------


def _register(manager: pluggy.PluginManager, plugin: object, key: str) -> None:
    if earlier := manager.get_name(plugin):
        raise _Fault(f"{earlier} loads the same module", "name it once")
    hooks = [name for name in dir(plugin) if _is_hook(manager, plugin, name)]
    if not hooks:
        hook = f"{_PREFIX}<kind>s"
        raise _Fault("it has no hook", f"mark a function {hook} with @hookimpl, or leave it out")
    manager.register(plugin, key)


def _is_hook(manager: pluggy.PluginManager, plugin: object, name: str) -> bool:
    """Whether this attribute is a hook. Raises: _Fault where it looks like one and is not."""
    member = getattr(plugin, name, None)
    options = manager.parse_hookimpl_opts(plugin, name)
    if options is None or not inspect.isroutine(member):
        _check_unmarked(name, member)
        return False
    _check_hook_name(options["specname"] or name)
    if options["wrapper"] or options["hookwrapper"] or options["tryfirst"] or options["trylast"]:
        advice = "hooks collect and never intercept: use @hookimpl without options"
        raise _Fault(f"{name} wraps or reorders other plugins' hooks", advice)
    if inspect.signature(member).parameters:
        raise _Fault(f"{name} takes arguments", "hooks take none: remove them")
    return True


def _check_unmarked(name: str, member: object) -> None:
    """The prefix is reserved for hooks; imported hookspecs of this project may have it too."""
    if not name.startswith(_PREFIX) or member is getattr(hookspecs, name, None):
        return
    if inspect.isroutine(member):
        _check_hook_name(name)
    if name in _HOOKS.values():
        advice = f"mark it: from {hookspecs.__name__} import hookimpl"
        raise _Fault(f"{name} is not a function marked with @hookimpl", advice)


def _check_hook_name(name: str) -> None:
    hooks = sorted(_HOOKS.values())
    if name not in hooks:
        raise _Fault(f"there is no hook {name!r}", suggestion(name, hooks))


def _collect(kind: Kind, result: object) -> list[Spec]:
    """The items of a hook's result, all of them: a generator that fails late fails here.

    Raises: _Fault for anything but an iterable of this kind's specs.
    """
    hook, expected = _HOOKS[kind], SPECS[kind].__name__
    # A pydantic model is iterable: it would pass as a list of its fields.
    if isinstance(result, BaseModel) or not isinstance(result, Iterable):
        actual = "nothing" if result is None else f"an object of {type(result).__name__}"
        raise _Fault(f"{hook} returned {actual}, not a list", f"return a list of {expected}")
    specs = list(result)
    for position, spec in enumerate(specs):
        if not isinstance(spec, SPECS[kind]):
            reason = f"item {position} of {hook} is of {type(spec).__name__}, not {expected}"
            right = next((other for other in SPECS if isinstance(spec, SPECS[other])), None)
            advice = (
                f"offer it from {_HOOKS[right]}" if right else f"every item must be a {expected}"
            )
            raise _Fault(reason, advice)
    return specs
