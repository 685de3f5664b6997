"""Every built-in plugin keeps the promises of its kind."""

import numpy as np
import pytest
from PIL import Image

from transferbench.conformance import check_plugin, parametrize_with_checks, specs_of
from transferbench.registry.guard import only_plugins_run
from transferbench_plugins import (
    backbones,
    datasets,
    diagnostics,
    initializations,
    perturbations,
)

KINDS = (datasets, perturbations, backbones, initializations, diagnostics)
SPECS = [spec for kind in KINDS for spec in specs_of(kind)]


@pytest.fixture(scope="module", autouse=True)
def libraries_compared_once_a_check():
    with only_plugins_run():
        yield


@parametrize_with_checks(SPECS)
def test_every_built_in_plugin_conforms(check):
    check()


def test_built_in_diagnostics_declare_their_metrics():
    assert [spec.name for spec in specs_of(diagnostics) if not spec.metrics] == []


@pytest.fixture
def folders(tmp_path):
    """A data root with an image folder of two classes."""
    draws = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        folder = tmp_path / "image-folder" / kind
        folder.mkdir(parents=True)
        for number in range(40):
            pixels = draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{kind}-{number}.png")
    return tmp_path


def test_a_folder_of_images_conforms(folders):
    (spec,) = (spec for spec in SPECS if spec.name == "image-folder")
    results = check_plugin(spec, data_root=folders)
    assert [result.message for result in results if not result.ok] == []
    skipped = {result.check for result in results if result.status == "skipped"}
    assert skipped == {"files-are-as-declared"}


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("identity", {"it declares no runs", "nothing is drawn",
                      "no setting of a severity above 0 was found"}),
        ("random", {"it needs nothing"}),
        ("digits", {"it declares no files below a root"}),
        ("fixup-resnet8", {"it declares no preprocessing", "it is not a family"}),
        ("speed", {"it states no answers (identical)", "it states no answers (symmetric)"}),
    ],
)  # fmt: skip
def test_a_skipped_check_gives_its_reason(name, reasons):
    (spec,) = (spec for spec in SPECS if spec.name == name)
    results = check_plugin(spec)
    assert reasons <= {result.message for result in results if result.status == "skipped"}
