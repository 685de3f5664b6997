"""Monkeypatches of numpy, torch, timm, this package and other libraries: detected and undone.

A plugin that assigns to ``torch.nn.Linear.forward`` or ``F.cross_entropy`` moves the numbers of
others. The dictionaries of modules and classes are copied once and compared afterwards, which is
fast since comparing equal dictionaries runs no Python code. What a library does to itself is its
own affair: new names, and functions of its own that wrap those they replace.
"""

from __future__ import annotations

import builtins
import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from itertools import compress
from operator import attrgetter, ne
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from transferbench.registry.numerics import complete, imported

__all__ = ["LibraryCode", "first_imports"]

_LIBRARIES = frozenset({
    "PIL", "filelock", "jinja2", "matplotlib", "numpy", "pandas", "rich", "ruamel.yaml",
    "safetensors", "scipy", "sklearn", "timm", "torch",
})  # fmt: skip
"""What a plugin may be the first to import."""

_PACKAGES = frozenset({"numpy", "timm", "safetensors", "PIL", "transferbench"})
_MODULES = frozenset({
    "bisect", "builtins", "collections", "contextlib", "copy", "csv", "dataclasses", "datetime",
    "decimal", "enum", "fractions", "functools", "gzip", "hashlib", "heapq", "html", "io",
    "itertools", "json", "math", "operator", "os", "pathlib", "pickle", "posixpath", "random",
    "re", "shutil", "statistics", "struct", "tempfile", "textwrap", "threading", "time",
    "unicodedata", "zipfile", "zlib",
    "click", "click.core",
    "filelock", "filelock._api", "filelock._unix",
    "jinja2", "jinja2.environment", "jinja2.runtime",
    "pluggy", "pluggy._hooks", "pluggy._manager",
    "pydantic", "pydantic.fields", "pydantic.functional_validators", "pydantic.main",
    "pydantic.type_adapter", "pydantic_core", "rfc8785",
    "rich.console",
    "ruamel.yaml", "ruamel.yaml.constructor", "ruamel.yaml.main", "ruamel.yaml.nodes",
    "typer", "typer.core", "typer.main",
    "matplotlib", "matplotlib.artist", "matplotlib.axes._axes", "matplotlib.colors",
    "matplotlib.figure", "matplotlib.pyplot", "matplotlib.style", "matplotlib.ticker",
    "pandas", "pandas.core.frame", "pandas.core.generic", "pandas.core.series",
    "torch", "torch._C", "torch._C._nn", "torch._tensor", "torch.fft", "torch.functional",
    "torch.func", "torch.library", "torch.linalg", "torch.nn", "torch.nn.functional",
    "torch.nn.init", "torch.random", "torch.serialization", "torch.special", "torch.storage",
    "torch.utils.data.dataloader", "torch.utils.data.dataset",
    "scipy.linalg", "scipy.optimize", "scipy.special", "scipy.stats",
    "sklearn.linear_model", "sklearn.metrics", "sklearn.neighbors", "sklearn.preprocessing",
})  # fmt: skip
"""Modules through which a number, a plan or a page may pass: a change of their names is undone.

Without inspect, of which torch.package, which timm imports, replaces a function.
"""
_PREFIXES = ("torch.nn.modules.", "torch.nn.utils.", "torch.optim", "torch.autograd", "torch.amp")
_CHECKED_CODE = ("torch.nn.", "torch.optim", "transferbench.")
"""Modules of whose functions the code and the defaults are compared too."""
_OBJECTS = {"scipy.stats": ("chi2", "nct", "t")}
"""Objects of libraries whose methods give numbers here: an attribute of theirs hides a method."""
_GROWING = {("timm.models._registry", "_model_entrypoints")}
"""Tables to which a plugin may add."""
_FOLLOWING = {("torch", "Storage")}
"""Names that follow a setting, which is compared itself."""
_MISSING = object()
_code_of = attrgetter("__code__", "__defaults__", "__kwdefaults__")


class _Namespace(NamedTuple):
    """The names of a module, a class or a table: as they are, and as they were."""

    label: str
    owner: Any
    live: Any
    copy: dict[Any, Any]

    def put_back(self, name: Any) -> None:
        """Restore one name."""
        if isinstance(self.owner, type):
            if name in self.copy:
                setattr(self.owner, name, self.copy[name])
            else:
                delattr(self.owner, name)
        elif name in self.copy:
            self.live[name] = self.copy[name]
        else:
            del self.live[name]


class LibraryCode:
    """The code of the libraries that are imported, to be compared with itself later."""

    def __init__(self) -> None:
        self._loaded: set[str] = set()
        self._count = 0
        self._namespaces: dict[int, _Namespace] = {}
        self._live: list[dict[Any, Any]] = []
        self._copies: list[dict[Any, Any]] = []
        self._functions: list[Any] = []
        self._codes: list[Any] = []

    def accept(self) -> None:
        """Take everything for the libraries' own as it is now."""
        for namespace in self._changed():
            namespace.copy.clear()
            namespace.copy.update(namespace.live)
        self._codes = list(map(_code_of, self._functions))

    def extend(self) -> None:
        """Take in the modules that were imported since the last time."""
        if self._count == len(sys.modules):
            return
        self._count = len(sys.modules)
        for name in sys.modules.keys() - self._loaded:
            if not _is_checked(name):
                self._loaded.add(name)
            elif (module := imported(name)) is not None:
                self._loaded.add(name)
                self._take(module)
            else:
                self._count = 0  # to be taken in when its import has come to its end

    def settle(self) -> list[str]:
        """Put back what was replaced; returns a line for each name."""
        lines = self._settle_builtins()
        for namespace in self._changed():
            for name in _replaced(namespace):
                namespace.put_back(name)
                lines.append(f"{namespace.label}.{name} was replaced")
            namespace.copy.clear()
            namespace.copy.update(namespace.live)
        if list(map(_code_of, self._functions)) != self._codes:
            lines += self._settle_functions()
        return lines

    def _settle_builtins(self) -> list[str]:
        """First, and without any of them: the rest is written with them."""
        namespace = self._namespaces.get(id(builtins))
        lines: list[str] = []
        if namespace is not None:
            for name, value in namespace.copy.items():
                if namespace.live.get(name, _MISSING) is not value and name != "_":
                    namespace.live[name] = value
                    lines.append(f"builtins.{name} was replaced")
        return lines

    def _changed(self) -> list[_Namespace]:
        namespaces: Iterable[_Namespace] = self._namespaces.values()
        with suppress(Exception):  # arrays and the like compare as they please
            # Without a step of Python code: this runs around every call of a plugin.
            namespaces = list(compress(namespaces, map(ne, self._live, self._copies)))
        return [names for names in namespaces if _differs(names)]

    def _settle_functions(self) -> Iterator[str]:
        for function, before in zip(self._functions, self._codes, strict=True):
            if _code_of(function) != before:
                function.__code__, function.__defaults__, function.__kwdefaults__ = before
                label = f"{function.__module__}.{function.__qualname__}"
                yield f"the code or the defaults of {label} were replaced"

    def _take(self, module: ModuleType) -> None:
        name = module.__name__
        self._add(_Namespace(name, module, vars(module), dict(vars(module))))
        package = name.partition(".")[0]
        for key in _OBJECTS.get(name, ()):
            held = vars(module)[key]
            self._add(_Namespace(f"{name}.{key}", held, vars(held), dict(vars(held))))
        for key, value in list(vars(module).items()):
            if issubclass(type(value), type):  # not isinstance, which deprecated objects answer
                if str(value.__module__).partition(".")[0] == package and _can_change(value):
                    label = f"{value.__module__}.{value.__qualname__}"
                    self._add(_Namespace(label, value, vars(value), dict(vars(value))))
            elif (name, key) in _GROWING or (
                package == "transferbench" and key.isupper() and type(value) is dict
            ):
                self._add(_Namespace(f"{name}.{key}", None, value, dict(value)))

    def _add(self, namespace: _Namespace) -> None:
        identity = id(namespace.live if namespace.owner is None else namespace.owner)
        if identity in self._namespaces:
            return
        self._namespaces[identity] = namespace
        self._live.append(_own_dictionary(namespace.live))
        self._copies.append(namespace.copy)
        if namespace.label.startswith(_CHECKED_CODE):
            own = [value for value in namespace.copy.values() if type(value) is FunctionType
                   and value.__module__.startswith(_CHECKED_CODE)]  # fmt: skip
            self._functions += own
            self._codes += map(_code_of, own)


def _is_checked(name: str) -> bool:
    return name in _MODULES or name.startswith(_PREFIXES) or name.partition(".")[0] in _PACKAGES


def _own_dictionary(names: Any) -> dict[Any, Any]:
    """The dictionary behind the proxy of a class, to be read: comparing proxies takes longer."""
    return names if type(names) is dict else gc.get_referents(names)[0]


def _can_change(cls: type) -> bool:
    """Whether attributes of a class can be set: not of those that C code defines."""
    return bool(cls.__flags__ & _HEAP_TYPE) and not cls.__flags__ & _IMMUTABLE_TYPE


_HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8
"""CPython's object.h."""


def _differs(namespace: _Namespace) -> bool:
    live, copy = namespace.live, namespace.copy
    return live.keys() != copy.keys() or any(live[name] is not copy[name] for name in copy)


# --- what counts as replaced ------------------------------------------------------------------


def _replaced(namespace: _Namespace) -> list[Any]:
    """The names whose change moves what others compute."""
    live, copy = namespace.live, namespace.copy
    if namespace.owner is None:
        names = copy if _grows(namespace) else live.keys() | copy.keys()
        return [name for name in names if live.get(name, _MISSING) is not copy.get(name, _MISSING)]
    return [
        name for name in sorted(live.keys() | copy.keys())
        if live.get(name, _MISSING) is not copy.get(name, _MISSING)
        and _counts(namespace, name, copy.get(name, _MISSING), live.get(name, _MISSING))
    ]  # fmt: skip


def _grows(namespace: _Namespace) -> bool:
    module, _, name = namespace.label.rpartition(".")
    return (module, name) in _GROWING


def _counts(namespace: _Namespace, name: str, old: Any, new: Any) -> bool:
    if (namespace.label, name) in _FOLLOWING:
        return False
    if old is _MISSING:
        return _is_code(new) and _hides(namespace.owner, name) and not _is_own(namespace, new)
    if _is_code(old):
        return not (_is_own(namespace, new) and _wraps(new, old))
    is_constant = name.isupper() or namespace.label in {"math", "numpy"} or _is_object(namespace)
    return is_constant and type(old) in {bool, int, float, str, tuple, frozenset} and old != new


def _is_object(namespace: _Namespace) -> bool:
    return not isinstance(namespace.owner, type | ModuleType)


def _is_code(value: Any) -> bool:
    return callable(value) or hasattr(type(value), "__get__") or type(value) is ModuleType


def _hides(owner: Any, name: str) -> bool:
    """Whether a new name takes the place of one that was found elsewhere."""
    if isinstance(owner, type):
        return any(name in vars(base) for base in owner.__mro__[1:])
    if not isinstance(owner, ModuleType):
        return hasattr(type(owner), name)
    return owner is not builtins and hasattr(builtins, name) and not name.startswith("__")


def _is_own(namespace: _Namespace, value: Any) -> bool:
    """Whether a function is of the library whose name it has."""
    file = getattr(sys.modules[namespace.label.partition(".")[0]], "__file__", None)
    code = getattr(value, "__code__", None)
    if file is None or code is None:
        return False
    return Path(code.co_filename).is_relative_to(Path(file).parent)


def _wraps(value: Any, wrapped: Any) -> bool:
    while (value := getattr(value, "__wrapped__", None)) is not None:
        if value is wrapped:
            return True
    return False


# --- libraries that a plugin is the first to import -------------------------------------------


class _Finder(MetaPathFinder):
    def __init__(self, imported_now: Callable[[], None]) -> None:
        self._imported_now = imported_now

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The spec that would be found anyway, with a loader that calls back at its end."""
        package = name.partition(".")[0]
        # Not while its package is being imported, which may still change it.
        if name not in _LIBRARIES and not (_is_checked(name) and imported(package)):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                complete(name)
                self._imported_now()

            spec.loader.exec_module = execute_and_call  # type: ignore[method-assign]
        return spec


@contextmanager
def first_imports(imported_now: Callable[[], None]) -> Iterator[None]:
    """Inside the block, ``imported_now`` is called as the import of a library comes to its end.

    What follows it may already be a plugin's change.
    """
    finder = _Finder(imported_now)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
