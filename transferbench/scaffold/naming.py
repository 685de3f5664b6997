"""The names of a plugin's file, package and distribution, derived from its own."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from transferbench.errors import PluginError
from transferbench.hookspecs import PROJECT
from transferbench.specs import Name
from transferbench.suite.loading import label_of

__all__ = ["Names", "names_of"]


class Names(NamedTuple):
    """``my-net`` and the names derived from it.

    module: ``my_net``, of a loose file and of the tests.
    label: ``my-net``, in a suite.
    distribution: ``transferbench-my-net``, as pip knows it.
    package: ``transferbench_my_net``, as Python imports it: named after the distribution, so that
    it shadows no other package.
    """

    plugin: str
    module: str
    label: str
    distribution: str
    package: str


def names_of(plugin: str) -> Names:
    """All names of the plugin ``plugin``.

    Raises: ``PluginError`` for a name that a plugin cannot have.
    """
    try:
        TypeAdapter(Name).validate_python(plugin)
    except ValidationError as error:
        close = re.sub(r"[^a-z0-9._-]+", "-", plugin.lower()).strip("._-")[:80]
        raise PluginError(
            f"{plugin!r} cannot be a plugin's name: it has at most 80 characters, small letters, "
            "digits, '.', '_' and '-', and starts with a letter or a digit; write it as "
            f"{repr(close) if close else 'my-net'}"
        ) from error
    label = label_of(plugin)
    module = label.replace("-", "_")
    return Names(plugin, module, label, f"{PROJECT}-{label}", f"{PROJECT}_{module}")
