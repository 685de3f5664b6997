"""The registry: what good plugins offer is served, and each bad plugin is named in a message."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from textwrap import dedent, indent
from typing import Annotated

import numpy as np
import pytest
import torch
from polluters import CODE, GENERATORS, POLLUTERS, SETTINGS
from pydantic import Field

from transferbench.errors import PluginError, UnknownNameError
from transferbench.registry import (
    ENVIRONMENT_VARIABLE,
    Registry,
    identity,
    load_registry,
    open_registry,
    parse_params,
)
from transferbench.registry.discovery import SPECS, Discovery, Offer, Origin
from transferbench.specs import BackboneSpec, DatasetSpec, Params

HERE = Path(__file__).parent
MY_DATA = HERE / "loose_plugins" / "my_data.py"
KINDS = ["dataset", "perturbation", "backbone", "initialization", "diagnostic"]
ABOUT = {"version": 1, "summary": "a test's own", "source": "this test", "license": "CC0-1.0"}

HEAD = """
from transferbench.hookspecs import hookimpl
from transferbench.specs import BackboneSpec, DiagnosticSpec, PerturbationSpec

ABOUT = dict(version=1, summary="a test's own", source="this test", license="CC0-1.0")

def net(name):
    return BackboneSpec(name=name, **ABOUT, build=print, modules=dict, head=print)

def diagnostic(name):
    return DiagnosticSpec(name=name, **ABOUT, measure=print, subjects="one")
"""


def offering(*names):
    """A plugin of so many backbones."""
    return hook(f"return [net(name) for name in {names!r}]")


def hook(body, name="transferbench_backbones", mark="@hookimpl", arguments=""):
    """A plugin of one hook."""
    return f"{HEAD}\n{mark}\ndef {name}({arguments}):\n{indent(dedent(body).strip(), '    ')}\n"


@pytest.fixture
def plugin_file(tmp_path):
    def write(source, name="plugin.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
        return path

    return write


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install a distribution of one module as pip leaves it: metadata and module on the path."""
    modules = set()

    def install(name, source, *, version="1.0", entry="nets", module=None):
        module = module or f"{name}_module"
        modules.add(module)
        folder = tmp_path / f"site-{name}"
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        if source is not None:
            (folder / f"{module}.py").write_text(source, encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[transferbench]\n{entry} = {module}\n")
        monkeypatch.syspath_prepend(folder)
        return folder

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def the_problem(registry, plugin):
    """The one problem of this plugin; the built-in plugins are not this test's business."""
    [problem] = [p for p in registry.problems if p.origin.plugin == str(plugin)]
    return problem


# --- what good plugins offer ------------------------------------------------------------------


def test_a_loose_file_is_a_plugin():
    registry = load_registry([MY_DATA])
    spec = registry.dataset("my-data")
    assert registry.datasets["my-data"] is spec
    assert registry.origin("dataset", "my-data") == "my_data.py"
    split = spec.load(spec.parse({}), "test", None, 12)
    assert split.images.shape == (32, 12, 12, 1)
    assert split.images.dtype == np.uint8
    assert set(split.labels) == set(range(len(spec.classes(spec.parse({}), None))))


def test_an_installed_distribution_is_a_plugin(distribution):
    distribution("tidy", offering("tidy-net"), version="2.3")
    registry = load_registry()
    assert registry.backbone("tidy-net").name == "tidy-net"
    assert registry.origin("backbone", "tidy-net") == "tidy 2.3"


def test_the_environment_names_files_and_is_read_only_where_given(plugin_file, monkeypatch):
    first, second = plugin_file(offering("one"), "one.py"), plugin_file(offering("two"), "two.py")
    named = {ENVIRONMENT_VARIABLE: os.pathsep.join([str(first), "", str(second)])}
    registry = load_registry(environment=named)
    assert {"one", "two"} <= set(registry.names("backbone"))
    assert registry.files == (first, second)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(first))
    assert "one" not in load_registry().backbones


def test_a_file_named_twice_is_loaded_once(plugin_file, tmp_path):
    path = plugin_file(offering("only"))
    roundabout = tmp_path / "folder" / ".." / "plugin.py"
    (tmp_path / "folder").mkdir()
    registry = load_registry([path, roundabout], {ENVIRONMENT_VARIABLE: str(path)})
    assert registry.backbone("only")
    assert registry.files == (path,)


def test_files_of_one_name_are_two_modules(plugin_file):
    files = [plugin_file(offering(f"net-{k}"), f"folder-{k}/plugin.py") for k in range(2)]
    assert {"net-0", "net-1"} <= set(load_registry(files).backbones)


def test_an_edited_file_is_read_anew_even_within_a_second(plugin_file, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    old = plugin_file(offering("net-1"))
    assert load_registry([old]).backbone("net-1")
    new = plugin_file(offering("net-2"))
    assert load_registry([new]).backbone("net-2")
    assert not (new.parent / "__pycache__").exists()


def test_loading_again_gives_the_same_objects():
    first, second = load_registry([MY_DATA]), load_registry([MY_DATA])
    assert first.dataset("my-data").load is second.dataset("my-data").load


def test_a_worker_that_loads_the_same_files_can_unpickle_what_they_define(tmp_path):
    registry = load_registry([MY_DATA])
    packed = tmp_path / "load.pickle"
    packed.write_bytes(pickle.dumps(registry.dataset("my-data").load))
    code = (
        "import pickle, sys; from pathlib import Path; from transferbench.registry import *; "
        f"load_registry([Path({str(registry.files[0])!r})]); "
        f"load = pickle.loads(Path({str(packed)!r}).read_bytes()); "
        "print(load(None, 'test', None, 8).images.sum())"
    )
    done = subprocess.run(  # this interpreter, our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == registry.dataset("my-data").load(None, "test", None, 8).images.sum()


def test_one_plugin_may_offer_several_kinds_and_give_them_late(plugin_file):
    source = hook("yield net('n')") + hook("yield diagnostic('d')", "transferbench_diagnostics")
    registry = load_registry([plugin_file(source)])
    assert registry.backbone("n")
    assert registry.diagnostic("d")
    assert registry.origin("diagnostic", "d") == "plugin.py"


def test_a_hook_may_carry_its_name_in_its_mark(plugin_file):
    mark = "@hookimpl(specname='transferbench_backbones')"
    registry = load_registry([plugin_file(hook("return [net('n')]", "offer", mark))])
    assert registry.backbone("n")


def test_imported_names_with_the_prefix_are_no_hooks(plugin_file):
    source = (
        "import transferbench.specs as transferbench_specs\n"
        "from transferbench.hookspecs import *\n" + offering("n")
    )
    path = plugin_file(source)
    assert path.name not in str(load_registry([path]).problems)


def test_the_tables_are_sorted_and_read_only(plugin_file):
    registry = load_registry([plugin_file(offering("zz", "aa", "mm"))])
    assert list(registry.backbones) == sorted(registry.backbones)
    assert registry.names("backbone") == tuple(registry.backbones)
    with pytest.raises(TypeError, match="does not support item assignment"):
        registry.backbones["aa"] = registry.backbones["zz"]


@pytest.mark.parametrize("names", [("first", "second"), ("second", "first")])
def test_the_order_of_installation_changes_nothing(names, distribution):
    for name in names:
        distribution(name, offering("shared", f"{name}-net") + "\nimport absent_module\n")
    distribution("other", offering("clash", "other-net"))
    distribution("another", offering("clash"))
    registry = load_registry()
    text = [str(p).split(":")[0] for p in registry.problems if p.origin.plugin == "nets"]
    ours = ["another 1.0", "first 1.0", "other 1.0", "second 1.0"]
    assert text == [f"plugin 'nets' of {name}" for name in ours]
    assert (
        str(registry.problems).count(
            "by another 1.0 (entry point nets = another_module) and other 1.0"
        )
        == 2
    )


def test_two_distributions_with_one_entry_point_name_both_load(distribution):
    distribution("one", offering("one-net"), entry="backbones")
    distribution("two", offering("two-net"), entry="backbones")
    assert {"one-net", "two-net"} <= set(load_registry().backbones)


# --- plugins with faults ----------------------------------------------------------------------

FAULTS = {
    "import error": (
        "import absent_module\n",
        (
            "ModuleNotFoundError: No module named 'absent_module' (plugin.py:1); "
            "repair it, or leave the file out"
        ),
    ),
    "raises at import": (
        "def depth():\n    return 1 / 0\n\n\ndepth()\n",
        "ZeroDivisionError: division by zero (plugin.py:2); repair it, or leave the file out",
    ),
    "exits at import": (
        "import sys\nsys.exit('no licence')\n",
        "SystemExit: no licence (plugin.py:2); repair it, or leave the file out",
    ),
    "syntax error": (
        "def broken(:\n",
        "SyntaxError: invalid syntax (plugin.py, line 1); repair it, or leave the file out",
    ),
    "misspelt hook": (
        hook("return [net('bad')]", "transferbench_backbone"),
        "there is no hook 'transferbench_backbone'; did you mean 'transferbench_backbones'?",
    ),
    "misspelt hook without its mark": (
        hook("return [net('bad')]", "transferbench_dataset", mark=""),
        "there is no hook 'transferbench_dataset'; did you mean 'transferbench_datasets'?",
    ),
    "a marked function that is no hook": (
        hook("return []", "offer_my_nets"),
        (
            "there is no hook 'offer_my_nets'; there are: transferbench_backbones, "
            "transferbench_datasets, transferbench_diagnostics, transferbench_initializations, "
            "transferbench_perturbations"
        ),
    ),
    "hook without its mark": (
        hook("return [net('bad')]", mark=""),
        (
            "transferbench_backbones is not a function marked with @hookimpl; "
            "mark it: from transferbench.hookspecs import hookimpl"
        ),
    ),
    "a list in place of the hook": (
        "transferbench_datasets = []\n",
        (
            "transferbench_datasets is not a function marked with @hookimpl; "
            "mark it: from transferbench.hookspecs import hookimpl"
        ),
    ),
    **{
        option: (
            hook("result = yield\nreturn result", mark=f"@hookimpl({option}=True)"),
            (
                "transferbench_backbones wraps or reorders other plugins' hooks; "
                "hooks collect and never intercept: use @hookimpl without options"
            ),
        )
        for option in ("wrapper", "hookwrapper", "tryfirst", "trylast")
    },
    "hook with arguments": (
        hook("return [net('bad')]", arguments="config"),
        "transferbench_backbones takes arguments; hooks take none: remove them",
    ),
    "no hooks": (
        "x = 1\n",
        ("it has no hook; mark a function transferbench_<kind>s with @hookimpl, or leave it out"),
    ),
    "hook that raises": (
        hook("raise RuntimeError('no\\n   luck')"),
        "RuntimeError: no luck (plugin.py:15); repair it, or leave the file out",
    ),
    "generator that raises late": (
        hook("yield net('bad')\nraise KeyError('x')"),
        "KeyError: 'x' (plugin.py:16); repair it, or leave the file out",
    ),
    "bare spec": (
        hook("return net('bad')"),
        (
            "transferbench_backbones returned an object of BackboneSpec, not a list; "
            "return a list of BackboneSpec"
        ),
    ),
    "nothing": (
        hook("net('bad')"),
        "transferbench_backbones returned nothing, not a list; return a list of BackboneSpec",
    ),
    "a number": (
        hook("return 3"),
        (
            "transferbench_backbones returned an object of int, not a list; "
            "return a list of BackboneSpec"
        ),
    ),
    "a dict by name": (
        hook("return {'bad': net('bad')}"),
        (
            "item 0 of transferbench_backbones is of str, not BackboneSpec; "
            "every item must be a BackboneSpec"
        ),
    ),
    "another kind's spec": (
        hook("return [net('bad'), diagnostic('d')]"),
        (
            "item 1 of transferbench_backbones is of DiagnosticSpec, not BackboneSpec; "
            "offer it from transferbench_diagnostics"
        ),
    ),
    "invalid spec": (
        hook("return [net('Bad Name')]"),
        (
            "invalid BackboneSpec: name: String should match pattern '^[a-z0-9][a-z0-9._-]*$' "
            "(plugin.py:8); repair it, or leave the file out"
        ),
    ),
    "misspelt field of a spec": (
        hook(
            "return [PerturbationSpec(name='p', **ABOUT, severity=print, index=print, aplies=1)]",
            "transferbench_perturbations",
        ),
        (
            "invalid PerturbationSpec: no field 'aplies'; did you mean 'applies_to'? "
            "(plugin.py:15); repair it, or leave the file out"
        ),
    ),
    "spec that contradicts itself": (
        hook(
            "return [PerturbationSpec(name='p', **ABOUT, severity=print)]",
            "transferbench_perturbations",
        ),
        (
            "invalid PerturbationSpec: Value error, perturbation 'p' must give index or build, "
            "one of them (plugin.py:15); repair it, or leave the file out"
        ),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_plugin_is_reported_and_costs_no_other(fault, plugin_file):
    source, expected = FAULTS[fault]
    shown = "leave the file out (TRANSFERBENCH_TRACEBACK=1 shows the traceback)"
    expected = expected.replace("leave the file out", shown)
    bad = plugin_file(source)
    good = plugin_file(offering("good-net"), "good.py")
    registry = load_registry([bad, good])
    assert str(the_problem(registry, bad)) == f"plugin '{bad}': {expected}"
    assert registry.backbone("good-net")
    assert "bad" not in registry.backbones


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("absent.py", "there is no such file; check the path, or leave it out"),
        (
            "plugin.txt",
            "a plugin file ends in .py; name one Python file, or install the package",
        ),
        (".", "a plugin file ends in .py; name one Python file, or install the package"),
        ("folder.py", "it is not a regular file; name one Python file, or install the package"),
    ],
)
def test_a_file_that_is_no_plugin_is_reported(name, expected, tmp_path, monkeypatch):
    (tmp_path / "plugin.txt").touch()
    (tmp_path / "folder.py").mkdir()
    path = (tmp_path / name).resolve()
    assert str(the_problem(load_registry([path]), path)) == f"plugin '{path}': {expected}"
    with pytest.raises(PluginError) as caught:
        open_registry([path])
    assert str(caught.value) == f"plugin file '{path}': {expected}"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(path))
    assert str(the_problem(open_registry(), path)) == f"plugin '{path}': {expected}"
    with pytest.raises(PluginError) as caught:
        open_registry(strict=True)
    named = f"plugin file '{path}' of TRANSFERBENCH_PLUGINS"
    assert str(caught.value) == f"{named}: {expected}"


def test_a_registry_whose_files_are_gone_can_be_copied(plugin_file):
    path = plugin_file(offering("net"))
    registry = load_registry([path])
    path.unlink()
    copy = pickle.loads(pickle.dumps(registry))  # noqa: S301  # our own bytes
    assert str(path) in str(copy.problems)


def test_a_file_that_failed_once_fails_again(plugin_file):
    bad = plugin_file("import absent_module\n")
    assert load_registry([bad]).problems == load_registry([bad]).problems


def test_a_broken_distribution_is_named_with_its_version_and_leaves_the_others(distribution):
    distribution("sturdy", offering("sturdy-net"))
    distribution("brittle", "import absent_module\n", version="0.9", entry="broken-nets")
    registry = load_registry()
    problem = the_problem(registry, "broken-nets")
    assert str(problem) == (
        "plugin 'broken-nets' of brittle 0.9: ModuleNotFoundError: No module named "
        "'absent_module' (brittle_module.py:1); repair it, or uninstall brittle"
    )
    assert (problem.origin.distribution, problem.origin.version, problem.kind) == (
        "brittle",
        "0.9",
        None,
    )
    assert registry.backbone("sturdy-net")


def test_an_entry_point_to_a_module_that_is_gone_is_reported(distribution):
    distribution("hollow", None, entry="hollow")
    assert str(the_problem(load_registry(), "hollow")) == (
        "plugin 'hollow' of hollow 1.0: ModuleNotFoundError: No module named 'hollow_module'; "
        "repair it, or uninstall hollow"
    )


def test_a_distribution_that_lost_its_metadata_is_still_reported(distribution):
    folder = distribution("ghost", "import absent_module\n", entry="ghost")
    (folder / "ghost-1.0.dist-info" / "METADATA").unlink()
    assert str(the_problem(load_registry(), "ghost")) == (
        "plugin 'ghost' of a distribution without metadata ?: ModuleNotFoundError: No module "
        "named 'absent_module' (ghost_module.py:1); repair it, or uninstall a distribution "
        "without metadata"
    )


def test_a_module_that_two_distributions_name_is_loaded_once(distribution):
    distribution("new", offering("net"), entry="new", module="shared_module")
    distribution("old", None, entry="old", module="shared_module")
    registry = load_registry()
    assert registry.origin("backbone", "net") == "new 1.0"
    assert str(the_problem(registry, "old")) == (
        "plugin 'old' of old 1.0: new 1.0 (entry point new = shared_module) loads the same "
        "module; name it once"
    )


def test_a_hook_that_fails_costs_its_kind_alone(plugin_file):
    source = hook("return 1 / 0") + hook("yield diagnostic('d')", "transferbench_diagnostics")
    path = plugin_file(source)
    registry = load_registry([path])
    assert registry.diagnostic("d")
    assert the_problem(registry, path).kind == "backbone"


def test_an_interrupt_that_the_user_did_not_cause_is_the_plugins(plugin_file):
    path = plugin_file("\nraise KeyboardInterrupt\n")
    assert str(the_problem(load_registry([path]), path)) == (
        f"plugin '{path}': it raised KeyboardInterrupt (plugin.py:2); repair it, or leave the "
        "file out"
    )


@pytest.mark.parametrize("step", ["import", "hook"])
@pytest.mark.parametrize("source", [*list(SETTINGS)[:2], *list(CODE)[:2], *list(GENERATORS)[:2]])
def test_a_plugin_that_changes_the_process_is_not_served(plugin_file, source, step):
    parts = {"import": "", "hook": "", step: source}
    body = f"exec({parts['hook']!r}, {{}})\nreturn [net('net')]"
    path = plugin_file(f"exec({parts['import']!r}, {{}})\n{hook(body)}")
    assert load_registry([path]).problems == load_registry([path]).problems
    registry = load_registry([path])
    problem = str(the_problem(registry, path))
    assert problem.startswith(f"plugin '{path}': it changed what everybody shares: ")
    assert POLLUTERS[source] in problem
    assert problem.endswith("; repair it, or leave the file out")
    assert "net" not in registry.backbones


# --- two plugins, one name --------------------------------------------------------------------


def test_of_two_plugins_with_one_name_neither_is_served(distribution, plugin_file):
    distribution("vendor", offering("shared-net", "vendor-net"), version="3.1")
    path = plugin_file(offering("shared-net"))
    registry = load_registry([path])
    assert "shared-net" not in registry.backbones
    assert "shared-net" not in registry.names("backbone")
    assert registry.backbone("vendor-net")
    reason = (
        f"backbone 'shared-net' is offered by {path} and vendor 3.1 "
        "(entry point nets = vendor_module), so none of them is served"
    )
    advice = "rename one of them, or leave one plugin out"
    for ask in (registry.backbone, registry.resolve_backbone):
        with pytest.raises(PluginError) as caught:
            ask("shared-net")
        assert str(caught.value) == f"{reason}; {advice}"
    with pytest.raises(PluginError, match="none of them is served"):
        registry.origin("backbone", "shared-net")
    for plugin in (path, "nets"):
        assert (the_problem(registry, plugin).reason, the_problem(registry, plugin).advice) == (
            reason,
            advice,
        )


def test_two_copies_of_one_file_are_two_plugins(plugin_file):
    files = [plugin_file(offering("net"), f"folder-{k}/plugin.py") for k in range(2)]
    with pytest.raises(PluginError) as caught:
        load_registry(files[::-1]).backbone("net")
    assert str(caught.value).startswith(
        f"backbone 'net' is offered by {files[0]} and {files[1]}, so none of them is served"
    )


def test_one_plugin_that_offers_a_name_twice_is_reported(plugin_file):
    path = plugin_file(offering("net", "net"))
    registry = load_registry([path])
    with pytest.raises(PluginError) as caught:
        registry.backbone("net")
    assert str(caught.value) == (
        f"backbone 'net' is offered by {path}, 2 times, so none of them is served; "
        "rename one of them, or leave one plugin out"
    )
    assert the_problem(registry, path)


def test_one_name_in_two_kinds_is_no_conflict(plugin_file):
    source = hook("yield net('x')") + hook("yield diagnostic('x')", "transferbench_diagnostics")
    registry = load_registry([plugin_file(source)])
    assert registry.backbone("x").name == registry.diagnostic("x").name == "x"


# --- names ------------------------------------------------------------------------------------


def served(*specs, problems=()):
    """A registry of exactly these."""
    kinds = {spec_type: kind for kind, spec_type in SPECS.items()}
    origin = Origin("fakes", "fakes", "1.0", "fakes")
    return Registry(
        Discovery(tuple(Offer(kinds[type(spec)], spec, origin) for spec in specs), problems, ())
    )


def backbone(name, **fields):
    return BackboneSpec(name=name, build=print, modules=dict, head=print, **ABOUT | fields)


class FamilyParams(Params):
    model: str
    width: Annotated[int, Field(ge=1, le=64)] = 8


def family(members=("resnet18", "resnet50", "vit")):
    return backbone(
        "zoo", params=FamilyParams, member="model", members=members and (lambda: members)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_of_any_kind_is_reported_with_advice(kind):
    with pytest.raises(UnknownNameError) as caught:
        getattr(served(), kind)("x")
    assert str(caught.value) == (
        f"no {kind} named 'x' (install the plugin that offers it, or name its file with "
        "--plugin or in TRANSFERBENCH_PLUGINS)"
    )
    with pytest.raises(UnknownNameError, match=f"no {kind} named 'x'"):
        served().origin(kind, "x")


def test_a_name_nearly_right_suggests_the_nearest():
    with pytest.raises(UnknownNameError) as caught:
        served(backbone("resnet50"), backbone("mlp")).backbone("resnet5")
    assert str(caught.value) == "no backbone named 'resnet5'; did you mean 'resnet50'?"


def test_an_unknown_name_tells_which_broken_plugin_may_offer_it(distribution):
    distribution("brittle", "import absent_module\n", entry="broken-nets")
    with pytest.raises(UnknownNameError) as caught:
        load_registry().backbone("brittle-net")
    message = str(caught.value)
    assert message.startswith("no backbone named 'brittle-net'")
    assert "that may offer it could not be loaded: " in message
    assert "plugin 'broken-nets' of brittle 1.0: ModuleNotFoundError" in message
    assert "repair it, or uninstall brittle" in message


def test_a_broken_hook_is_reported_only_for_the_kind_it_would_offer():
    origin = Origin("nets", "brittle", "1.0", "nets")
    problems = (origin.problem("it broke", kind="dataset"), origin.problem("bad", kind="backbone"))
    with pytest.raises(UnknownNameError) as caught:
        served(problems=problems).backbone("x")
    assert str(caught.value) == (
        "no backbone named 'x' (1 plugin that may offer it could not be loaded: "
        "plugin 'nets' of brittle 1.0: bad; repair it, or uninstall brittle)"
    )
    with pytest.raises(UnknownNameError, match=r"named 'x' \(install the plugin"):
        served(problems=problems).diagnostic("x")


def test_several_broken_plugins_are_all_reported():
    problems = tuple(Origin(name, name, "1", name).problem("it broke") for name in ("b", "a"))
    with pytest.raises(UnknownNameError) as caught:
        served(problems=problems).dataset("x")
    assert str(caught.value) == (
        "no dataset named 'x' (2 plugins that may offer it could not be loaded: plugin 'a' of "
        "a 1: it broke; repair it, or uninstall a | plugin 'b' of b 1: it broke; repair it, or "
        "uninstall b)"
    )


# --- families of backbones --------------------------------------------------------------------


def test_a_backbone_resolves_to_itself_and_a_member_to_its_family():
    registry = served(backbone("mlp"), family())
    assert registry.resolve_backbone("mlp") == (registry.backbones["mlp"], {})
    spec, params = registry.resolve_backbone("zoo/resnet18")
    assert spec is registry.backbones["zoo"]
    assert params == {"model": "resnet18"}


def test_a_member_name_may_hold_a_slash():
    registry = served(family(members=None))
    assert registry.resolve_backbone("zoo/hub:me/net")[1] == {"model": "hub:me/net"}


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("resnet18", "zoo/resnet18"),
        ("resnet1", "zoo/resnet18"),
        ("RESNET50", "zoo/resnet50"),
        ("vit", "zoo/vit"),
        ("res", "zoo/resnet18"),
        ("resnet50.a1_in1k", "zoo/resnet50"),
        ("mlp-net", "mlp-nets"),
    ],
)
def test_a_member_without_its_family_is_suggested_with_it(name, suggested):
    registry = served(family(), backbone("mlp-nets"))
    expected = f"no backbone named '{name}'; did you mean '{suggested}'?"
    assert resolve_error(registry, name) == (UnknownNameError, expected)


def test_a_member_of_a_family_of_datasets_is_suggested_with_it():
    for name in ("CIFAR10", "cifar10"):
        with pytest.raises(UnknownNameError) as caught:
            load_registry().dataset(name)
        expected = f"no dataset named '{name}'; did you mean 'torchvision/CIFAR10'?"
        assert str(caught.value) == expected


def test_a_suggested_member_does_not_hide_what_could_not_be_loaded():
    origin = Origin("nets", "brittle", "1.0", "nets")
    registry = served(family(), problems=(origin.problem("it broke"),))
    _, message = resolve_error(registry, "resnet18")
    assert "did you mean 'zoo/resnet18'? (1 plugin that may offer it could not be" in message


def test_a_family_that_cannot_list_its_members_suggests_none():
    def members():
        raise OSError("gone")

    zoo = backbone("zoo", params=FamilyParams, member="model", members=members)
    _, message = resolve_error(served(zoo), "resnet18")
    assert message.startswith("no backbone named 'resnet18'; there are: zoo")


def test_a_family_of_one_kind_is_not_trusted_for_its_name_in_another(monkeypatch):
    def members():
        monkeypatch.setattr(torch.nn.functional, "relu", torch.nn.functional.gelu)
        return ["a"]

    bundled = next(iter(load_registry().backbones))
    spec = DatasetSpec(
        name=bundled, channels=1, classes=print, grouping="item", items=print, member="model",
        members=members, params=FamilyParams, tiny={"model": "a"}, **ABOUT,
    )  # fmt: skip
    with pytest.raises(PluginError, match=rf"{bundled}' changed .*functional\.relu was replaced"):
        served(spec).dataset(f"{bundled}/a")


def resolve_error(registry, name):
    with pytest.raises((PluginError, UnknownNameError)) as caught:
        registry.resolve_backbone(name)
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("zo/vit", UnknownNameError, "no backbone named 'zo'; did you mean 'zoo'?"),
        (
            "zoo/resnet5",
            UnknownNameError,
            "no zoo backbone named 'resnet5'; did you mean 'resnet50'?",
        ),
        (
            "zoo/zebra",
            UnknownNameError,
            "no zoo backbone named 'zebra'; there are: resnet18, resnet50, vit",
        ),
        (
            "zoo",
            PluginError,
            "backbone 'zoo' is a family; ask for one of it, such as 'zoo/resnet18'",
        ),
        (
            "zoo/",
            PluginError,
            "backbone 'zoo' is a family; ask for one of it, such as 'zoo/resnet18'",
        ),
        (
            "mlp/small",
            PluginError,
            "backbone 'mlp' has no members, so no 'mlp/small'; ask for 'mlp'",
        ),
        (
            "wide",
            PluginError,
            "wide: parameters of backbone 'wide': model is required",
        ),
    ],
)
def test_what_is_no_backbone_is_reported(name, error, message):
    wide = backbone("wide", params=FamilyParams)
    assert resolve_error(served(backbone("mlp"), family(), wide), name) == (error, message)


def test_a_family_without_a_list_names_no_example():
    message = "backbone 'zoo' is a family; ask for one of it, such as 'zoo/MEMBER'"
    assert resolve_error(served(family(members=None)), "zoo") == (PluginError, message)


def test_a_large_family_is_not_listed_in_a_message():
    registry = served(family(members=tuple(f"net{k:02}" for k in range(30))))
    message = "no zoo backbone named 'qqq' (it has 30 members, 'net00' to 'net29')"
    assert resolve_error(registry, "zoo/qqq") == (UnknownNameError, message)
    assert resolve_error(registry, "zoo/nett07")[1].endswith("did you mean 'net07'?")


def test_a_family_that_cannot_list_its_members_is_reported():
    def members():
        raise ImportError("no zoo here")

    registry = served(backbone("zoo", params=FamilyParams, member="model", members=members))
    error, message = resolve_error(registry, "zoo/vit")
    assert error is PluginError
    assert message.startswith(
        "backbone family 'zoo' cannot list its members: ImportError: no zoo here (test_registry.py:"
    )
    assert message.endswith("; repair the plugin or what it imports")


# --- parameters -------------------------------------------------------------------------------


def test_good_parameters_are_parsed():
    assert parse_params(family(), {"model": "vit"}, "here") == FamilyParams(model="vit")


def test_every_mistake_in_the_parameters_is_reported_at_once():
    with pytest.raises(PluginError) as caught:
        parse_params(family(), {"width": 0, "modell": "vit"}, "suite.yaml:3")
    assert str(caught.value) == (
        "suite.yaml:3: parameters of backbone 'zoo': model is required; width is 0: Input should "
        "be greater than or equal to 1; no parameter 'modell'; did you mean 'model'?"
    )


def test_a_long_value_is_cut_short_in_the_message():
    with pytest.raises(PluginError) as caught:
        parse_params(family(), {"model": "vit", "width": "9" * 1000 + "x"}, "here")
    assert len(str(caught.value)) < 250


def test_an_identity_holds_the_defaults_and_is_plain():
    spec = family()
    described = identity(spec, spec.parse({"model": "vit"}))
    assert described == {"name": "zoo", "version": 1, "params": {"model": "vit", "width": 8}}
    assert json.loads(json.dumps(described)) == described


# --- a third-party distribution, installed -----------------------------------------------------


@pytest.fixture
def environment(tmp_path):
    """A fresh virtual environment that sees this one's packages, and so needs no network."""
    venv.create(tmp_path / "venv", with_pip=False)
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    here = next(path for path in sys.path if path.endswith("site-packages"))
    # A path in a .pth file is not searched for further .pth files, such as an editable install's.
    (site / "outer.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    return tmp_path / "venv" / "bin" / "python"


def call(python, *arguments):
    done = subprocess.run(  # our own environment's interpreter
        [python, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_the_example_plugin_is_found_when_installed_and_missed_when_not(environment, tmp_path):
    # pip builds in the source's folder, which must stay clean.
    source = shutil.copytree(HERE / "example_plugin", tmp_path / "source")
    ask = (
        "from transferbench.registry import load_registry\n"
        "from transferbench.errors import UnknownNameError\n"
        "try:\n"
        "    registry = load_registry()\n"
        "    spec, _ = registry.resolve_backbone('example-convnet')\n"
        "    print(registry.origin('backbone', 'example-convnet'))\n"
        "    import torch\n"
        "    net = spec.build(spec.parse({'width': 3}), 5, 1, 12)\n"
        "    print(tuple(net(torch.zeros(2, 1, 12, 12)).shape), *spec.modules(net))\n"
        "except UnknownNameError as error:\n"
        "    print(error)\n"
    )
    call(
        environment,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        str(source),
    )
    assert call(environment, "-c", ask).splitlines() == [
        "transferbench-example-convnet 0.1.0",
        "(2, 5) stem block head",
    ]
    call(environment, "-m", "pip", "uninstall", "--quiet", "--yes", "transferbench-example-convnet")
    assert call(environment, "-c", ask).startswith("no backbone named 'example-convnet'")
