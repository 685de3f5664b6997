"""The kit's interfaces: results, tests of pytest, and the command; expected failures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from unittest import SkipTest

import numpy as np
import pytest
import torch
from command_line import SMALL, cli, mistake, suite_file
from conforming import BACKBONE, FADE, GOOD, altered, failure, names_of
from noise_pictures import noise_pictures

import transferbench
from transferbench.conformance import (
    check_plugin,
    checks_of,
    parametrize_with_checks,
    read_expected,
    specs_of,
)
from transferbench.conformance.declarations import CHECKS
from transferbench.errors import ConformanceError, PluginError
from transferbench.hookspecs import hookimpl
from transferbench.registry import load_registry
from transferbench.specs import Params

pytest_plugins = ["pytester"]
BRIGHT = altered(FADE, build=lambda params, *_: lambda images, image_ids: images + params.strength)
"""A perturbation with one fault: its pixels leave [0, 1]."""
FAULT = "shape-type-and-range-are-kept"

GOOD_NET = """
from torch import nn

from transferbench import hookimpl
from transferbench.specs import BackboneSpec


def build(params, num_classes, in_chans, image_size):
    body = nn.Sequential(nn.Conv2d(in_chans, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(4, num_classes))


@hookimpl
def transferbench_backbones():
    return [BackboneSpec(name="NAME", version=1, summary="One convolution.", source="a test",
                         license="CC0-1.0", build=build, head=lambda net: net[2],
                         modules=lambda net: {"stem": ["0"], "head": ["2"]})]
"""


def plugin_file(folder, name="my-net", source=GOOD_NET):
    path = folder / f"{name.replace('-', '_')}.py"
    path.write_text(source.replace("NAME", name))
    return path


# --- results ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", GOOD, ids=lambda spec: spec.name)
def test_good_plugins_pass_every_check(spec):
    results = check_plugin(spec)
    assert [result.message for result in results if not result.ok] == []
    assert [result.status for result in results].count("passed") > len(results) / 2
    assert all(result.message for result in results if result.status == "skipped")


def test_the_top_level_offers_it():
    assert transferbench.check_plugin is check_plugin


def test_a_bad_plugin_is_a_result_and_other_checks_still_run():
    results = {result.check: result for result in check_plugin(BRIGHT)}
    assert results[FAULT].status == "failed"
    assert results[FAULT].message.startswith(f"perturbation 'bad-good-fade': {FAULT}: pixels went")
    assert results["the-input-is-left-untouched"].status == "passed"


def test_names_of_checks_are_unique_and_tests_are_named_by_kind_plugin_and_check():
    for spec in GOOD:
        checks = [str(check) for check in checks_of(spec)]
        assert len(set(checks)) == len(checks)
        assert all(name.split(f"-{spec.name}-")[0] in name for name in checks)
    assert str(checks_of(BACKBONE)[0]) == (
        "backbone-good-net-summary-source-and-licence-are-stated"
    )


def test_an_expected_failure_keeps_its_reason():
    results = {
        result.check: result
        for result in check_plugin(BRIGHT, expected_failures={FAULT: "values above 1 are meant"})
    }
    assert results[FAULT].status == "expected-failure"
    assert results[FAULT].ok
    assert results[FAULT].message.startswith("values above 1 are meant (perturbation 'bad-good-f")


def test_an_expected_failure_that_passes_is_a_failure():
    results = check_plugin(FADE, expected_failures={FAULT: "values above 1 are meant"})
    [failed] = [result for result in results if not result.ok]
    assert failed.status == "unexpected-pass"
    assert failed.message == (
        f"perturbation 'good-fade': {FAULT}: it holds, but was expected to fail (values above 1 "
        "are meant); take it off the expected failures"
    )


def test_an_expected_failure_of_an_unknown_check_is_a_failure():
    results = check_plugin(FADE, expected_failures={"the-input-is-left-untuched": "no"})
    [failed] = [result for result in results if not result.ok]
    assert failed.message == (
        "perturbation 'good-fade': expected-failures-are-checks: a failure is expected of "
        "'the-input-is-left-untuched', which is not a check of it; did you mean "
        "'the-input-is-left-untouched'?"
    )


def test_explicit_parameters_are_used_and_wrong_ones_are_a_result():
    assert all(result.ok for result in check_plugin(FADE, params={"strength": 0.25}))
    [failed] = [result for result in check_plugin(FADE, params={"strenth": 1}) if not result.ok]
    assert failed.check == "given-parameters-are-accepted"
    assert "no parameter 'strenth'; did you mean 'strength'?" in failed.message


def test_global_state_is_restored():
    def build(params, image_shape, seed):
        torch.set_grad_enabled(False)
        torch.rand(1)
        np.random.rand()  # noqa: NPY002  # what is forbidden
        return lambda images, image_ids: images * 0.5

    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # as above
    check_plugin(altered(FADE, build=build))
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002  # as above


def test_a_plugin_that_exits_is_a_result():
    def build(*_):
        raise SystemExit("no licence")

    results = check_plugin(altered(BACKBONE, build=build))
    [failed] = [result for result in results if result.status == "failed"]
    assert "it raised SystemExit: no licence (test_conformance.py:" in failed.message


# --- declarations -----------------------------------------------------------------------------


class Lax(Params, extra="allow"):
    """Accepts any parameter."""


class Rounded(Params):
    """A parameter that changes when it is read back."""

    strength: float = 0.5

    def model_dump(self, **options):
        return {"strength": round(self.strength)}


class Moody(Params):
    strength: float = 0.5

    def __init__(self, **values):
        raise TypeError("not today")


DECLARATIONS = {
    "a blank source": (
        {"source": " "},
        "summary-source-and-licence-are-stated",
        "source is ' '; state it in the spec: source='...'",
    ),
    "a summary left by the template": (
        {"summary": "TODO: what it does"},
        "summary-source-and-licence-are-stated",
        "summary is 'TODO: what it does'; state it in the spec",
    ),
    "a licence of several lines": (
        {"license": "MIT\nand more"},
        "summary-source-and-licence-are-stated",
        "license has several lines; tables show one: shorten it",
    ),
    "tiny parameters of another plugin": (
        {"tiny": {"strength": 7}},
        "tiny-parameters-are-accepted",
        "strength is 7: Input should be less than or equal to 1",
    ),
    "parameters that JSON changes": (
        {"params": Rounded, "tiny": {}},
        "parameters-survive-json",
        "Rounded(strength=0.5) is Rounded(strength=0.0) when it is read back from JSON; give",
    ),
    "parameters that take anything": (
        {"params": Lax, "tiny": {}},
        "every-parameter-has-a-type-that-refuses",
        "a parameter 'no_such_parameter' is accepted; subclass transferbench.specs.Params",
    ),
}


@pytest.mark.parametrize("bad", DECLARATIONS)
def test_each_bad_declaration_is_caught_with_advice(bad):
    changes, check, words = DECLARATIONS[bad]
    then = ": " if check == "tiny-parameters-are-accepted" else "; "
    assert words in failure(altered(FADE, **changes), check, then=then)


def test_every_check_of_declarations_fails_for_a_bad_spec():
    assert {check for _, check, _ in DECLARATIONS.values()} == names_of(CHECKS)


# --- tests of pytest --------------------------------------------------------------------------

AUTHORS_TESTS = """
from conforming import FADE
from test_conformance import BRIGHT, EXPECTED
from transferbench.conformance import parametrize_with_checks


@parametrize_with_checks([FADE])
def test_good(check):
    check()


@parametrize_with_checks([BRIGHT])
def test_bad(check):
    check()


@parametrize_with_checks([FADE, BRIGHT], EXPECTED)
def test_expected(check):
    check()
"""
EXPECTED = {
    "bad-good-fade": {FAULT: "values above 1 are meant"},
    "good-fade": {"the-input-is-left-untouched": "it works in place"},
}


def test_authors_get_a_test_for_each_check_and_expected_failures_are_strict(pytester):
    pytester.makepyfile(test_mine=AUTHORS_TESTS)
    ran = pytester.runpytest_inprocess("-rA", "-p", "no:randomly", "-p", "no:cacheprovider")
    said = ran.stdout.str()
    assert f"PASSED test_mine.py::test_good[perturbation-good-fade-{FAULT}]" in said
    assert f"FAILED test_mine.py::test_bad[perturbation-bad-good-fade-{FAULT}]" in said
    assert f"XFAIL test_mine.py::test_expected[perturbation-bad-good-fade-{FAULT}]" in said
    assert "values above 1 are meant" in said
    assert "[XPASS(strict)] it works in place" in said
    assert "it declares build, not index" in said  # a reason to skip
    outcomes = ran.parseoutcomes()
    assert (outcomes["failed"], outcomes["xfailed"]) == (2, 1)


def test_a_mark_holds_what_the_kit_generates():
    @parametrize_with_checks([FADE])
    def test_conforms(check):
        check()

    (mark,) = test_conforms.pytestmark
    assert [param.id for param in mark.args[1]] == [str(check) for check in checks_of(FADE)]


def test_a_check_that_does_not_apply_is_skipped():
    checks = {check.name: check for check in checks_of(BACKBONE)}
    with pytest.raises(SkipTest, match="it is not a family"):
        checks["the-family-is-declared-whole"]()


def test_specs_of_a_module_and_of_an_object():
    class Plugin:
        @hookimpl
        def transferbench_perturbations(self):
            yield FADE

        @hookimpl
        def transferbench_backbones(self):
            return [BACKBONE]

    assert specs_of(Plugin()) == [FADE, BACKBONE]
    from transferbench_plugins import backbones

    assert "timm" in {spec.name for spec in specs_of(backbones)}


def test_a_module_that_is_no_plugin_is_refused():
    class BrokenPlugin:
        def transferbench_backbone(self):
            return [BACKBONE]

    with pytest.raises(PluginError, match="did you mean 'transferbench_backbones'"):
        specs_of(BrokenPlugin())


# --- the command ------------------------------------------------------------------------------


def test_a_good_file_passes_with_a_table(tmp_path):
    said = cli("plugin", "check", plugin_file(tmp_path))
    assert said.code == 0, said
    assert said.out.splitlines()[0].split() == ["plugin", "check", "result"]
    assert "backbone my-net  eval-is-deterministic" in said.out
    *_, parameters, _, last = said.out.splitlines()
    assert parameters == "parameters of my-net: none"
    assert last.endswith(" skipped; what was skipped was not checked (--skipped says why)")
    assert " passed, " in last
    assert said.err == ""


def test_a_bad_file_fails_with_its_message(tmp_path):
    source = GOOD_NET.replace('"stem": ["0"]', '"stem": ["0.0", "neck"]')
    said = cli("plugin", "check", plugin_file(tmp_path, source=source))
    assert said.code == 1
    assert (
        "failed: backbone 'my-net': modules-cover-every-parameter-and-buffer-once: backbone "
        "'my-net': nothing in the network matches neck; modules() must name every parameter"
    ) in said.out


def test_json_holds_every_result(tmp_path):
    said = cli("plugin", "check", plugin_file(tmp_path), "--json")
    output = json.loads(said.out)
    assert output["ok"] is True
    assert {check["plugin"] for check in output["checks"]} == {"my-net"}
    assert set(output["checks"][0]) == {"kind", "plugin", "check", "status", "message"}


def test_a_file_that_cannot_be_loaded_is_a_failed_check(tmp_path):
    path = plugin_file(tmp_path, source="import absent_module\n")
    said = cli("plugin", "check", path, "--json")
    assert said.code == 1
    [check] = json.loads(said.out)["checks"]
    assert (check["kind"], check["plugin"], check["check"]) == ("plugin", "my_net.py", "it-loads")
    assert "No module named 'absent_module' (my_net.py:1); repair it, or leave" in check["message"]
    assert said.err == ""


def test_a_plugin_by_its_name_and_a_member_of_a_family():
    said = cli("plugin", "check", "channel-shuffle")
    assert said.code == 0, said
    assert "perturbation channel-shuffle  the-map-is-a-permutation" in said.out
    said = cli("plugin", "check", "timm/test_vit")
    assert said.code == 0, said
    assert "backbone timm/test_vit  the-head-makes-the-logits" in said.out


def test_expected_failures_come_from_a_file(tmp_path):
    source = GOOD_NET.replace("version=1", "batch_statistics=lambda params: True, version=1")
    path = plugin_file(tmp_path, source=source)
    check = "batch-statistics-are-declared-truly"
    (tmp_path / "expected.yaml").write_text(f"my-net:\n  {check}: its statistics are frozen\n")
    said = cli("plugin", "check", path, "--expected-failures", tmp_path / "expected.yaml")
    assert said.code == 0, said
    assert "expected-failure: its statistics are frozen (backbone 'my-net': batch-stat" in said.out
    (tmp_path / "expected.json").write_text(json.dumps({"eval-is-deterministic": "no reason"}))
    said = cli("plugin", "check", path, "--expected-failures", tmp_path / "expected.json")
    assert said.code == 1
    assert "unexpected-pass: backbone 'my-net': eval-is-deterministic: it holds, but" in said.out


@pytest.mark.parametrize("text", ["- a list\n", "check: [1]\n", "check: {a: {b: c}}\n", "{", ""])
def test_a_file_of_anything_else_is_refused(tmp_path, text):
    path = tmp_path / "expected.yaml"
    path.write_text(text)
    with pytest.raises(ConformanceError, match=r"holds no expected failures .*; write it as 'che"):
        read_expected(path)


TWO_KINDS = """
from transferbench import hookimpl
from transferbench.specs import InitializationSpec, PerturbationSpec

ABOUT = dict(name="twin", version=1, summary="two kinds", source="a test", license="CC0-1.0")


def nothing(params, net, context):
    pass


@hookimpl
def transferbench_initializations():
    return [InitializationSpec(**ABOUT, initialize=nothing, touches="nothing")]


@hookimpl
def transferbench_perturbations():
    return [PerturbationSpec(**ABOUT, severity=lambda params, shape: 0.0,
                             build=lambda *_: lambda images, ids: images.clone())]
"""


def test_a_name_of_two_kinds_requires_the_kind(tmp_path):
    path = plugin_file(tmp_path, "twin", TWO_KINDS)
    message = mistake("plugin", "check", "twin", "--plugin", path)
    assert message == (
        "error: 'twin' is the name of a perturbation and of a initialization; say which with "
        "--kind perturbation\n"
    )
    said = cli("plugin", "check", "twin", "--plugin", path, "--kind", "perturbation")
    assert said.code == 0, said
    assert "initialization" not in said.out
    said = cli("plugin", "check", path)
    assert said.code == 0, said
    assert "initialization twin" in said.out
    assert "perturbation twin" in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fixup-resnet9",), "no plugin or distribution named 'fixup-resnet9'; did you mean 'fix"),
        (("absent.py",), "plugin file 'absent.py': there is no such file; check the path"),
        (("timm/no_such_net",), "no timm backbone named 'no_such_net'"),
        (("digits", "--kind", "backbone"), "no backbone named 'digits'"),
        (
            ("digits", "--expected-failures", "absent.yaml"),
            "cannot read the expected failures in absent.yaml: No such file or directory; check",
        ),
    ],
)
def test_an_unknown_target_is_a_mistake(words, message):
    assert message in mistake("plugin", "check", *words)


def test_a_file_without_the_requested_kind_is_a_mistake(tmp_path):
    path = plugin_file(tmp_path)
    message = mistake("plugin", "check", path, "--kind", "dataset")
    assert message == f"error: {path} offers no dataset; leave --kind out, or offer one\n"


def test_two_plugins_of_one_name_are_both_named(tmp_path):
    first, second = plugin_file(tmp_path, "my-net"), tmp_path / "other.py"
    second.write_text(first.read_text())
    message = mistake("plugin", "check", "my-net", "--plugin", first, "--plugin", second)
    assert "backbone 'my-net' is offered by" in message
    assert "rename one of them, or leave one plugin out" in message


def test_help_needs_no_torch():
    code = (
        "import sys; sys.argv = ['transferbench', 'plugin', 'check', '--help']\n"
        "from transferbench.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'pytest' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "NAME|FILE|DISTRIBUTION" in done.stdout


def test_the_kit_needs_no_pytest():
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from transferbench.conformance import check_plugin, parametrize_with_checks\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- third-party distributions ----------------------------------------------------------------


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A distribution as pip installs it: metadata and module in one folder on the path."""
    modules = []
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, source):
        modules.append(name.replace("-", "_"))
        (tmp_path / f"{modules[-1]}.py").write_text(source)
        info = tmp_path / f"{modules[-1]}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[transferbench]\nnets = {modules[-1]}\n")

    yield write
    for module in modules:
        sys.modules.pop(module, None)


def test_a_distribution_is_checked_whole_by_any_spelling_of_its_name(install):
    install("other-nets", GOOD_NET.replace("NAME", "other-net"))
    said = cli("plugin", "check", "Other_Nets", "--json")
    assert said.code == 0, said
    assert {check["plugin"] for check in json.loads(said.out)["checks"]} == {"other-net"}


def test_a_broken_distribution_fails_its_own_check_and_costs_others_one_line(install, tmp_path):
    install("broken-nets", "import absent_module\n")
    note = (
        "note: plugin 'nets' of broken-nets 1.0: ModuleNotFoundError: No module named "
        "'absent_module' (broken_nets.py:1); repair it, or uninstall broken-nets\n"
    )
    said = cli("--help")
    assert (said.code, said.err) == (0, "")
    said = cli("list", "backbones")
    assert (said.code, said.err) == (0, note)
    assert "fixup-resnet8" in said.out
    said = cli("plugin", "check", "identity")
    assert (said.code, said.err) == (0, note)
    said = cli("plugin", "check", "broken-nets")
    assert (said.code, said.err) == (1, "")
    assert "failed: plugin 'nets' of broken-nets 1.0: ModuleNotFoundError" in said.out
    message = mistake("plugin", "check", "broken-net-18")
    assert "no plugin or distribution named 'broken-net-18'" in message
    assert "what may offer it could not be loaded: plugin 'nets' of broken-nets 1.0: Mod" in message
    suite = suite_file(tmp_path, SMALL)
    said = cli("run", suite, "--jobs", 1, "--device", "cpu", "--out", tmp_path / "run")
    assert said.code == 0, said
    assert [line for line in said.err.splitlines() if "broken-nets" in line] == [note.strip()]


def test_the_registry_says_what_an_owner_offers(tmp_path):
    path = plugin_file(tmp_path, "twin", TWO_KINDS)
    registry = load_registry([path])
    assert [type(spec).__name__ for spec in registry.offered_by(str(path.resolve()))] == [
        "InitializationSpec", "PerturbationSpec",
    ]  # fmt: skip
    assert "transferbench" in registry.distributions
    assert len(registry.offered_by("transferbench")) > 50
    assert registry.offered_by("nobody") == ()


def test_a_severity_may_order_no_distance():
    spec = altered(
        FADE, severity=lambda params, image_shape: 1 - params.strength, severity_is_distance=False
    )
    results = {result.check: result for result in check_plugin(spec)}
    unordered = results["images-move-further-as-severity-grows"]
    assert unordered.status == "skipped"
    assert "severity_is_distance" in unordered.message


@pytest.fixture
def pictures(tmp_path):
    """A folder of noise in two classes, with two pictures of train among those of test."""
    noise_pictures(tmp_path, {"train": 4, "test": 4}, ("cat", "dog"), size=9)
    for index in range(2):
        source = tmp_path / "image-folder" / "train" / "cat" / f"{index}.png"
        shutil.copy(source, tmp_path / "image-folder" / "test" / "dog" / f"copy-{index}.png")
    return tmp_path


def test_a_dataset_of_ones_own_is_checked_with_its_parameters(pictures):
    check = ("plugin", "check", "image-folder", "--data-root", pictures)
    params = ("--param", "train=train", "--param", "test=test")
    said = cli(*check, *params)
    assert said.code == 1
    assert (
        "failed: dataset 'image-folder': no-image-is-in-two-splits: splits 'train' and 'test' share"
        " 2 image(s) pixel by pixel, such as number 0 of 'train' and number 8 of 'test'; keep one"
    ) in said.out
    for copy in pictures.rglob("copy-*"):
        copy.unlink()
    said = cli(*check, *params)
    assert said.code == 0, said
    said = cli(*check, "--param", "group=^.")
    assert said.code == 1
    assert "given-parameters-are-accepted: params: parameters of dataset 'image-f" in said.out


def test_parameters_stand_on_top_of_the_tiny_ones(tmp_path):
    said = cli("plugin", "check", "block-shuffle", "--param", "block=4")
    assert said.code == 0, said


def test_wrong_settings_of_parameters_are_the_users_mistake(tmp_path):
    check = ("plugin", "check", "block-shuffle")
    assert "--param 'block' has no '='; write it as NAME=VALUE" in mistake(
        *check, "--param", "block"
    )
    assert "'[' is not a YAML value; write it as in" in mistake(*check, "--param", "block=[")
    message = mistake("plugin", "check", "transferbench", "--param", "width=3")
    assert "--param is of one plugin, and these are selected: " in message
    empty = plugin_file(tmp_path, source="import absent_module")
    message = mistake("plugin", "check", empty, "--param", "width=3")
    assert "--param is of one plugin, and these are selected: none; name one" in message
