"""``plugin new``: a complete, working plugin with one marked function to edit.

The templates are in ``scaffold/templates``: one for each kind, used for a loose file and in a
distribution alike, and those of the files that every distribution needs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from transferbench.errors import PluginError, UnknownNameError
from transferbench.files import disk_errors_explained
from transferbench.registry import Registry
from transferbench.registry.discovery import Kind
from transferbench.scaffold.commands import file_commands, package_commands
from transferbench.scaffold.naming import names_of
from transferbench.scaffold.rendering import distribution_texts, plugin_text

__all__ = ["NewPlugin", "new_file", "new_package"]


class NewPlugin(NamedTuple):
    """The files of a new plugin, the one to edit, and the commands to run next."""

    paths: tuple[Path, ...]
    edit: Path
    commands: tuple[str, ...]


def new_file(kind: Kind, name: str, folder: Path, registry: Registry) -> NewPlugin:
    """Write a plugin of one file into ``folder``.

    Raises: ``PluginError`` for a name that cannot be used or a file that exists, ``StoreError``
    where nothing can be written.
    """
    names = names_of(name)
    path = folder / f"{names.module}.py"
    _check_unused(kind, name, names.module, path, registry)
    _write(path, {Path(): plugin_text(kind, names)})
    return NewPlugin((path,), path, file_commands(kind, names, path))


def new_package(kind: Kind, name: str, folder: Path, registry: Registry) -> NewPlugin:
    """Write a distribution into a new folder below ``folder``.

    Raises: as ``new_file``.
    """
    names = names_of(name)
    root = folder / names.distribution
    _check_unused(kind, name, names.package, root, registry)
    texts = distribution_texts(kind, names)
    _write(root, texts)
    paths = tuple(root / path for path in sorted(texts))
    edit = root / names.package / "__init__.py"
    return NewPlugin(paths, edit, package_commands(kind, names, root))


def _check_unused(kind: Kind, name: str, module: str, path: Path, registry: Registry) -> None:
    """Refuse to overwrite a file, to offer a name twice, or to shadow a module like ``random``."""
    if path.exists() or path.is_symlink():
        raise PluginError(
            f"{path} already exists and is not overwritten; choose another name, or another folder "
            "with --out"
        )
    with suppress(UnknownNameError):
        raise PluginError(
            f"the {kind} {name!r} is already offered by {registry.origin(kind, name)}; choose "
            "another name: two plugins with one name are both refused"
        )
    if find_spec(module) is not None:
        raise PluginError(
            f"a module {module!r} already exists, and one of the two would shadow the other; "
            "choose another name"
        )


def _write(target: Path, texts: Mapping[Path, str]) -> None:
    """Write texts by their paths below ``target``; an empty path is ``target`` itself.

    All or nothing: a write that fails leaves no files behind.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    with disk_errors_explained(target):
        try:
            for path, text in texts.items():
                (partial / path).parent.mkdir(parents=True, exist_ok=True)
                (partial / path).write_text(text, encoding="utf-8", newline="\n")
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            with suppress(OSError):
                partial.unlink()
