"""The seam's five hooks: one for each kind, documented, without arguments."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable

import pluggy
import pytest

from transferbench import hookspecs, specs
from transferbench.hookspecs import PROJECT, hookimpl

HOOKS = sorted(name for name in hookspecs.__all__ if name.startswith(f"{PROJECT}_"))
KINDS = ["Backbone", "Dataset", "Diagnostic", "Initialization", "Perturbation"]


@pytest.fixture
def manager():
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def spec_of(hook):
    return getattr(specs, dict(zip(HOOKS, KINDS, strict=True))[hook] + "Spec")


def test_there_is_one_hook_a_kind():
    assert [f"{PROJECT}_{kind.lower()}s" for kind in KINDS] == HOOKS


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_takes_nothing_and_returns_specs_of_its_kind(hook):
    function = getattr(hookspecs, hook)
    assert not inspect.signature(function).parameters
    assert typing.get_type_hints(function)["return"] == Iterable[spec_of(hook)]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_documented_by_an_example_that_runs(hook, manager):
    example = inspect.cleandoc(getattr(hookspecs, hook).__doc__).partition("::\n")[2]
    offered = []

    def record(**fields):
        offered.append(fields)
        return fields

    namespace = {"hookimpl": hookimpl, spec_of(hook).__name__: record}
    source = inspect.cleandoc(example).replace(", ...)", ")")
    exec(source, namespace)  # noqa: S102  # the documentation's own code
    manager.register(type("Plugin", (), {hook: staticmethod(namespace[hook])}))
    assert getattr(manager.hook, hook)() == [offered]
    assert offered[0]["name"].startswith("my-")


def test_the_hooks_are_what_the_manager_knows(manager):
    assert sorted(vars(manager.hook).keys() - {"_"}) == HOOKS


def test_the_exported_names_are_sorted():
    assert hookspecs.__all__ == sorted(hookspecs.__all__, key=lambda name: (name.islower(), name))
