"""Numbers of one version of a plugin and of two codes: told everywhere, never mixed unasked."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from command_line import SMALL, artefacts, cli, suite_file

from transferbench.registry import codes_in
from transferbench.registry.code import code_of_file
from transferbench.store import Store

VERSION = version("transferbench")

WIDE = """
from torch import nn

from transferbench import hookimpl
from transferbench.specs import BackboneSpec

WIDTH = 8


def build(params, num_classes, in_chans, image_size):
    body = nn.Sequential(nn.Conv2d(in_chans, WIDTH, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(4 * WIDTH, num_classes))


@hookimpl
def transferbench_backbones():
    yield BackboneSpec(
        name="wide", version=1, summary="One convolution.", source="here", license="CC0-1.0",
        build=build, modules=lambda net: {"stem": ["0"], "head": ["2"]}, head=lambda net: net[2],
    )
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one replicate with WIDTH = 8."""
    folder = tmp_path_factory.mktemp("wide")
    (folder / "wide.py").write_text(WIDE)
    said = run(folder)
    assert said.code == 0, said
    return folder


def artefacts_of(folder):
    store = Store(folder / "store")
    return [store.artefact(path.name) for path in artefacts(store.root)]


def arguments(folder, *more):
    return (suite_file(folder, SMALL), "--out", folder / "run", "--plugin", folder / "wide.py",
            "--backbone", "wide", "--device", "cpu", *more)  # fmt: skip


def run(folder, *more, call=cli):
    return call("run", *arguments(folder, "--jobs", 1, *more))


def test_a_job_keeps_the_code_of_every_plugin_that_ran_in_it(finished):
    codes = {}
    for artefact in artefacts_of(finished):
        codes.setdefault(artefact.kind, set()).update(codes_in(artefact.facts).items())
    plugins = {kind: {plugin for plugin, _ in own} for kind, own in codes.items()}
    assert plugins == {
        "pretrain": {"backbone 'wide'", "dataset 'glyphs'"},
        "trial": {"backbone 'wide'", "dataset 'digits'", "initialization 'pretrained'",
                  "initialization 'random'"},
        "diagnosis": {"backbone 'wide'", "dataset 'digits'", "diagnostic 'speed'"},
    }  # fmt: skip
    own = code_of_file(finished / "wide.py")
    for plugin, code in set.union(*codes.values()):
        assert code.loose == (plugin == "backbone 'wide'")
        assert code.origin == ("wide.py" if code.loose else f"transferbench {VERSION}")
        assert code.sha256 == own.sha256 or not code.loose
