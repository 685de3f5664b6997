"""Specs: frozen models, validated when a plugin declares them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pytest
from pydantic import Field, ValidationError

from transferbench import specs
from transferbench.records import Measurement
from transferbench.specs import (
    BackboneSpec,
    DataFile,
    DatasetSpec,
    DatasetSplit,
    DiagnosticSpec,
    InitializationSpec,
    NoParams,
    Params,
    PerturbationSpec,
    RateFactor,
    ReportPart,
)

ABOUT = {"version": 1, "summary": "for this test", "source": "this test", "license": "CC0-1.0"}


class BlockParams(Params):
    block: Annotated[int, Field(ge=1)] = 4


def identity_map(params, image_shape, seed, image_ids):  # noqa: ARG001  # the protocol's arguments
    return np.arange(np.prod(image_shape), dtype=np.int32)[None]


def identity_transform(params, image_shape, seed):  # noqa: ARG001  # the protocol's arguments
    return lambda x, image_ids: x.clone()


def perturbation(**changes):
    fields = {"name": "shuffle", "params": BlockParams, "index": identity_map}
    fields |= ABOUT | {"severity": lambda params, shape: 0.0} | changes
    return PerturbationSpec(**fields)


def backbone(**changes):
    fields = {"name": "net", "build": print, "modules": dict, "head": print}
    return BackboneSpec(**fields | ABOUT | changes)


def reason(build, /, **changes):
    with pytest.raises(ValidationError) as caught:
        build(**changes)
    [detail] = caught.value.errors()
    return ".".join(map(str, detail["loc"])), detail["msg"]


def test_a_perturbation_has_exactly_one_builder():
    message = "Value error, perturbation 'shuffle' must give index or build, one of them"
    assert reason(perturbation, build=identity_transform) == ("", message)
    assert reason(perturbation, index=None) == ("", message)
    assert perturbation(index=None, build=identity_transform).index is None


def test_runs_come_with_an_index():
    message = "Value error, perturbation 'shuffle' gives runs, which go with index"
    runs = perturbation().index
    assert reason(perturbation, index=None, build=identity_transform, runs=runs) == ("", message)


@pytest.mark.parametrize("spec", [perturbation(), backbone()])
@pytest.mark.parametrize("field", ["name", "version", "params", "tiny"])
def test_a_spec_is_frozen(spec, field):
    with pytest.raises(ValidationError, match="frozen"):
        setattr(spec, field, getattr(spec, field))


@pytest.mark.parametrize(
    "name", ["", "Shuffle", "my net", "timm/resnet18", "-x", ".x", "é", "x" * 81, "x\n"]
)
def test_an_invalid_name_is_refused(name):
    assert reason(perturbation, name=name)[0] == "name"


@pytest.mark.parametrize("name", ["x", "fixup-resnet14", "vit_base.tiny", "3d-net", "x" * 80])
def test_a_name_of_lower_case_letters_digits_and_punctuation_is_accepted(name):
    assert perturbation(name=name).name == name


@pytest.mark.parametrize(
    ("field", "value"),
    [("version", 0), ("version", "one"), ("summary", ""), ("source", ""), ("license", "")],
)
def test_version_summary_source_and_license_are_validated(field, value):
    assert reason(perturbation, **{field: value})[0] == field


@pytest.mark.parametrize("field", ["version", "summary", "source", "license", "severity"])
def test_required_fields_have_no_default(field):
    fields = ABOUT | {"name": "x", "index": identity_map, "severity": lambda params, shape: 0.0}
    del fields[field]
    assert reason(PerturbationSpec, **fields) == (field, "Field required")


def test_an_unknown_field_is_refused():
    assert reason(backbone, lisence="MIT")[0] == "lisence"


def test_parameters_have_defaults_and_bounds_and_unknown_ones_are_refused():
    spec = perturbation()
    assert spec.parse({}) == BlockParams(block=4)
    assert spec.parse({"block": 7}) == BlockParams(block=7)
    assert spec.accepts({"block": 1})
    assert not spec.accepts({"block": 0})
    assert not spec.accepts({"blocks": 1})
    assert not spec.accepts({"block": "many"})


def test_a_plugin_without_parameters_takes_none():
    assert backbone().parse({}) == NoParams()
    assert not backbone().accepts({"width": 1})


def test_parameters_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        BlockParams().block = 3


def test_tiny_is_a_copy_that_the_plugin_cannot_change_afterwards():
    tiny = {"block": 2}
    spec = perturbation(tiny=tiny)
    tiny["block"] = 100
    assert spec.tiny == {"block": 2}


def test_params_must_be_a_subclass_of_params():
    assert reason(perturbation, params=dict)[0] == "params"


def test_a_builder_must_be_callable():
    assert reason(backbone, modules="stem")[0] == "modules"
    assert reason(backbone, build=3)[0] == "build"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sha256": "abc"}, "sha256"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"sha256": "A" * 64}, "sha256"),
    ],
)
def test_a_data_file_is_pinned_by_content(changes, field):
    fields = {"path": "train.bin", "sha256": "a" * 64, "size_bytes": 3, "origin": "an archive"}
    assert DataFile(**fields).size_bytes == 3
    assert reason(DataFile, **fields | changes)[0] == field


def test_a_rate_factor_is_positive():
    assert reason(RateFactor, pattern="scale", factor=0) == (
        "factor",
        "Input should be greater than 0",
    )


def test_fields_with_a_fixed_choice_refuse_other_values():
    about = ABOUT | {"name": "x"}
    dataset = {"load": print, "classes": print, "grouping": "patient"}
    assert reason(DatasetSpec, **about, **dataset, channels=2)[0] == "channels"
    assert reason(DiagnosticSpec, **about, measure=print, subjects="three")[0] == "subjects"
    needs = frozenset({"luck"})
    assert reason(InitializationSpec, **about, initialize=print, needs=needs)[0].startswith("needs")


def test_a_split_has_images_labels_and_groups_in_this_order():
    assert DatasetSplit._fields == ("images", "labels", "groups")


def test_the_exported_names_exist():
    for name in specs.__all__:
        assert hasattr(specs, name)


def test_specs_hooks_and_registry_do_not_import_torch():
    code = (
        "import sys; import transferbench.specs, transferbench.hookspecs, transferbench.registry; "
        "print(sorted({'torch', 'timm', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run(  # this interpreter, our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "accuracy: a missing value needs a flag that says why"),
        ({"value": 0.5, "low": 0.4}, "accuracy: low, high and interval come together"),
        ({"value": 0.5, "low": 0.4, "high": 0.6}, "accuracy: low, high and interval come together"),
        ({"value": 0.5, "interval": "x"}, "accuracy: low, high and interval come together"),
    ],
)
def test_an_incomplete_measurement_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Measurement(metric="accuracy", unit="fraction", n=2, **{"value": None} | fields)


def test_a_coordinate_may_not_have_the_name_of_a_record_field():
    message = "accuracy: perturbation is a field of every record; rename the coordinate"
    with pytest.raises(ValueError, match=message):
        Measurement(
            metric="accuracy", value=0.5, unit="fraction", n=2, coordinates={"perturbation": "fog"}
        )


def test_a_coordinate_is_finite():
    with pytest.raises(ValidationError, match="finite"):
        Measurement(
            metric="accuracy", value=0.5, unit="1", n=2, coordinates={"lambda": float("inf")}
        )


@pytest.mark.parametrize(("former", "name"), [("Once", "Memoize"), ("each_time", "uncached")])
def test_a_former_name_is_deprecated_and_still_there(former, name):
    with pytest.warns(
        DeprecationWarning, match=f"specs.{former} is deprecated; its name is {name}"
    ):
        assert getattr(specs, former) is getattr(specs, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = specs.nothing


def test_a_part_is_built_by_what_can_be_compared():
    @dataclass
    class TitledBuild:
        title: str

        def __call__(self, scope):
            del scope

    message = "must be hashable: diagnostics with equal functions share a part"
    with pytest.raises(ValueError, match=message):
        ReportPart(build=TitledBuild("x"), metrics=frozenset())
