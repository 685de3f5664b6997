"""``plan`` refuses the files of weights that ``prepare`` refuses, and both say what was done."""

import pytest
import timm
import torch
from command_line import SMALL, cli, mistake, suite_file
from safetensors.torch import save_file
from tiny_suite import tiny_suite

import transferbench
from transferbench.identity import file_digest


def state_of(model, **options):
    with torch.random.fork_rng(devices=[]):
        return timm.create_model(model, num_classes=10, **options).state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A suite of grey images, files of weights, and the store of all commands."""
    folder = tmp_path_factory.mktemp("weights")
    suite = suite_file(folder, SMALL)
    assert cli("prepare", suite, "--out", folder / "run").code == 0
    (folder / "text.pth").write_text("hello")
    (folder / "empty.pth").touch()
    save_file(state_of("test_vit", in_chans=1, img_size=32), folder / "vit.safetensors")
    save_file(state_of("test_resnet", in_chans=1), folder / "grey.safetensors")
    save_file(state_of("test_resnet"), folder / "colour.safetensors")
    return folder


def words(verb, folder, weights, backbone="timm/test_resnet"):
    return (verb, folder / "suite.yaml", "--backbone", backbone, "--weights", weights,
            "--out", folder / "run")  # fmt: skip


def entry(file):
    return f"timm/test_resnet+{file.stem}@{file_digest(file)[:8]}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text.pth", "cannot be read as weights (it begins as no file of safetensors or torch)"),
        ("empty.pth", "is empty; get it again"),
        ("vit.safetensors", "does not fit timm/test_resnet (Error(s) in loading state_dict"),
    ],
)
def test_a_plan_refuses_what_prepare_refuses(folder, name, reason):
    file = folder / name
    message = mistake(*words("plan", folder, file))
    assert f"error: {entry(file)}: {file} {reason}" in message
    assert message == mistake(*words("prepare", folder, file))


def test_what_was_converted_is_told_by_plan_and_prepare(folder):
    file = folder / "colour.safetensors"
    remark = "converted conv1.0.weight from 3 input channels to 1, its kernels summed over them"
    planned = cli(*words("plan", folder, file))
    assert planned.code == 0
    assert planned.err.splitlines().count(f"note: {entry(file)}: {remark}") == 1
    prepared = cli(*words("prepare", folder, file))
    ready = f"90 tensors of {file}, sha256 {file_digest(file)}; {remark}"
    assert prepared.out.splitlines()[0] == f"weights of {entry(file)}: {ready}"


def test_weights_that_fit_as_they_are_bring_no_line_of_a_library(folder):
    file = folder / "grey.safetensors"
    planned, prepared = (cli(*words(verb, folder, file)) for verb in ("plan", "prepare"))
    assert all(line.startswith("note: ") for line in (planned.err + prepared.err).splitlines())
    assert prepared.out.startswith(f"weights of {entry(file)}: 90 tensors of {file}, sha256 ")
    assert "; nothing was stripped, ignored or converted\n" in prepared.out


def test_a_plan_says_that_it_did_not_look_at_a_tag(folder):
    planned = cli(*words("plan", folder, "r160_in1k"))
    assert planned.code == 0
    line = (
        "note: timm/test_resnet+r160_in1k: the weights r160_in1k were not looked at; transferbench "
        "prepare, with the same options, gets and checks them"
    )
    assert line in planned.err.splitlines()


def test_a_plan_in_python_has_the_same_note(folder):
    file = folder / "colour.safetensors"
    planned = transferbench.plan_run(tiny_suite(), backbones=["timm/test_resnet"],
                                     weights=str(file), out=folder / "run")  # fmt: skip
    assert [note for note in planned.notes if "converted conv1.0.weight from 3" in note]
