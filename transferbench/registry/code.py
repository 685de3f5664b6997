"""Digests of plugins' source code, stored with each job that used it.

They show an edit whose author did not raise the plugin's version.

- Of a plugin file: its content and that of the modules that it imports, at once or later, by name
  or relatively, and theirs, as far as they are neither installed nor Python's own. A text that
  names a module beside the file counts as an import of it. Line endings do not count; data do not.
- Of a distribution: the files and digests in its RECORD. Where that does not list the module of the
  plugin, as in an editable install, the sources of its package.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from transferbench.specs import Frozen

__all__ = ["Code", "Distributions", "PluginCode", "code_of_file", "codes_in"]

SHORT = 8
COMPILED = {".so", ".pyd", ".pyc"}
CORE = {"transferbench", "transferbench_plugins"}
INSTALLED = {"site-packages", "dist-packages"}
NOT_INSTALLED = (metadata.PackageNotFoundError, ValueError, KeyError, TypeError, OSError)
"""What asking for a distribution raises where it is broken or gone."""
MODULE_TEXT = re.compile(r"[\w./]{1,200}")


class Code(Frozen):
    """The code of a plugin; ``origin``: a file's name, or a distribution and its version.

    ``loose``: it is a file that was named, not installed.
    """

    model_config = ConfigDict(extra="ignore")

    origin: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    loose: bool

    def __str__(self) -> str:
        return f"{self.origin} {self.sha256[:SHORT]}"

    @property
    def code(self) -> Code:
        """Without the locations, as the facts of a job hold it."""
        return Code(origin=self.origin, sha256=self.sha256, loose=self.loose)


class PluginCode(Code):
    """The code of a plugin with where it is, so that it can be looked at again.

    ``files``: of a plugin file and what it imports, by module, the file itself under "".
    ``imports_later``: some of them had not been imported when the digest was taken.
    ``distribution`` and ``module``: of an installed one.
    """

    files: dict[str, Path] = Field(default_factory=dict)
    imports_later: bool = False
    distribution: str = ""
    module: str = ""

    def is_unchanged(self) -> bool:
        """Whether the files of a plugin file are those that the digest was taken of."""
        with suppress(OSError):
            return _digest(self.files) == self.sha256
        return False

    def now(self, distributions: Distributions) -> Self | None:
        """The code that is there now; None where there is none any more."""
        if not self.loose:
            installed = distributions.code_of(self.distribution, self.module)
            return self.model_copy(update=dict(installed.code)) if installed else None
        with suppress(OSError):
            return self.model_copy(update={"sha256": _digest(self.files)})
        return None


_CODES = TypeAdapter(dict[str, Code])


def codes_in(facts: Mapping[str, Any]) -> dict[str, Code]:
    """The codes in the facts of a job, by plugin; none where it is not known by which it ran."""
    try:
        return _CODES.validate_python(facts.get("code", {}))
    except ValidationError:
        return {}


def _digest(files: Mapping[str, Path]) -> str:
    """Of files by name, wherever they are. Raises: ``OSError``."""
    return _digest_of_texts({name: _file_digest(path) for name, path in files.items()})


def _digest_of_texts(texts: Mapping[str, str]) -> str:
    lines = sorted(f"{name}\0{text}\n" for name, text in texts.items())
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _file_digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix not in COMPILED:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return hashlib.sha256(content).hexdigest()


# --- of a file ----------------------------------------------------------------------------------


def code_of_file(path: Path) -> PluginCode:
    """The code of a plugin file, which has just been imported. Raises: ``OSError``."""
    files = {"": path}
    frontier = [("", path)]
    while frontier:
        for name, source in _modules_of(*frontier.pop(), path.parent):
            if name not in files and source != path:
                files[name] = source
                frontier.append((name, source))
    origin = path.name.encode("utf-8", "backslashreplace").decode()
    imported = {str(getattr(module, "__file__", None)) for module in [*sys.modules.values()]}
    later = any(str(source) not in imported for source in files.values())
    return PluginCode(
        origin=origin, sha256=_digest(files), loose=True, files=files, imports_later=later
    )


def _modules_of(name: str, path: Path, beside: Path) -> Iterator[tuple[str, Path]]:
    """The local modules that a module names, with the packages around them.

    ``beside``: the folder of the plugin file, from which it may import by changing ``sys.path``.
    """
    package = name if path.name.startswith("__init__.") else name.rpartition(".")[0]
    for node in ast.walk(_tree(path)):
        for imported in _imports(node, package):
            yield from _located(imported, [*sys.path, str(beside)])
        for text in _texts(node, package):
            yield from _located(text, [str(beside)])


def _imports(node: ast.AST, package: str) -> list[str]:
    """What a statement imports; ``package``: the one that it stands in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parents = package.split(".") if package else []
        base = parents[: len(parents) - node.level + 1] if node.level else []
        origin = [*base, node.module] if node.module else base
        return [".".join([*origin, alias.name]) for alias in node.names]
    return []


def _texts(node: ast.AST, package: str) -> list[str]:
    """The modules that a text may name, for ``importlib`` or as a path."""
    text = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
    if not isinstance(text, str) or not MODULE_TEXT.fullmatch(text):
        return []
    name = text.removesuffix(".py").replace("/", ".").strip(".")
    return [name, f"{package}.{name}"] if package else [name]


def _tree(path: Path) -> ast.AST:
    if path.suffix in COMPILED:
        return ast.Module([], [])
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # it is not imported either
        return ast.Module([], [])


def _located(name: str, search: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The files of a local module and of the packages around it, as far as there are any.

    ``search``: the folder of the plugin file is the last one.
    """
    parts = name.split(".")
    if not parts[0] or parts[0] in CORE:
        return
    # With that folder first in ``sys.path``, a module in it may hide one of Python's own.
    folders: Iterable[str] = search[-1:] if parts[0] in sys.stdlib_module_names else search
    for count in range(1, len(parts) + 1):
        # By its last name: a namespace inside a package that is not imported is no namespace else.
        spec = _spec(parts[count - 1], folders)
        if spec is None or not _is_local(spec):
            return
        if spec.has_location and spec.origin:
            yield ".".join(parts[:count]), Path(spec.origin)
        if spec.submodule_search_locations is None:
            return
        folders = spec.submodule_search_locations


def _spec(module: str, folders: Iterable[str]) -> ModuleSpec | None:
    try:
        return PathFinder.find_spec(module, list(folders))
    except (ImportError, ValueError, OSError):
        return None


def _is_local(spec: ModuleSpec) -> bool:
    """Whether a module is neither installed nor Python's own; a namespace may hold such ones."""
    if not spec.has_location or not spec.origin:
        return spec.submodule_search_locations is not None
    path = Path(spec.origin)
    return INSTALLED.isdisjoint(path.parts) and not path.is_relative_to(_standard_library())


@cache
def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


# --- of a distribution --------------------------------------------------------------------------


class Distributions:
    """The code of installed distributions, each of which is looked at once."""

    def __init__(self) -> None:
        self._version = cache(_version)
        self._recorded = cache(_recorded)
        self._sources = cache(_sources)

    def code_of(self, name: str, module: str) -> PluginCode | None:
        """The code of a plugin; None where neither RECORD nor sources are there.

        ``module``: that of the plugin, as in its entry point.
        """
        module = module.partition(":")[0].strip()
        sha256 = self._recorded(name, module.partition(".")[0])
        if not sha256 and (top := _top(module)):
            sha256 = self._sources(top)
        if not sha256:
            return None
        origin = f"{name} {self._version(name)}"
        return PluginCode(
            origin=origin, sha256=sha256, loose=False, distribution=name, module=module
        )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except NOT_INSTALLED:
        return "?"


def _recorded(name: str, top: str) -> str:
    """The digest of what RECORD says of the code; "" where it does not list the package ``top``.

    Installers fill it with files of their own besides, such as scripts with the path of Python.
    """
    try:
        lines = (metadata.distribution(name).read_text("RECORD") or "").splitlines()
        rows = [row for row in csv.reader(lines) if len(row) > 1]
    except (*NOT_INSTALLED, csv.Error):
        return ""
    files = {path: sha256 for path, sha256, *_ in rows
             if sha256 and not path.startswith("..") and ".dist-info/" not in path}  # fmt: skip
    listed = any(path.startswith((f"{top}/", f"{top}.")) for path in files)
    return _digest_of_texts(files) if listed else ""


def _sources(top: Path) -> str:
    """The digest of the sources of a package, or of a module without one; "" where unreadable."""
    folder, files = top.parent, [top]
    if top.name.startswith("__init__."):
        files = [Path(directory, name) for directory, _, names in os.walk(folder) for name in names
                 if name.endswith((".py", ".so", ".pyd"))]  # fmt: skip
    try:
        return _digest({str(path)[len(str(folder)) + 1 :]: path for path in files})
    except OSError:
        return ""


def _top(module: str) -> Path | None:
    """The outermost file of a module's package, inside namespaces."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        try:
            spec = find_spec(".".join(parts[:count]))
        except (ImportError, ValueError, AttributeError):
            return None
        if spec is None:
            return None
        if spec.has_location and spec.origin:
            return Path(spec.origin)
    return None
