"""``transferbench verify`` names the external weights of a store: here, gone, others, or tags."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from command_line import SMALL, cli, mistake, suite_file
from damage import flip
from safetensors.torch import save_file
from test_weight_entries import BACKBONE, MASKED, run_with, weights_file

from transferbench.networks.weight_paths import locate_weights

FORMS = ("best.pth", "folder", "shards")
"""Weights as a file, as a folder that holds one, and as shards with their index."""
INDEX = "model.safetensors.index.json"


def write_weights(folder):
    """Other weights in each form."""
    weights_file(folder / "best.pth", 1)
    for seed, name in enumerate(FORMS[1:], 2):
        state = torch.load(weights_file(folder / name / "whole.pth", seed))
        (folder / name / "whole.pth").unlink()
        halves = list(state)[::2], list(state)[1::2]
        if name == "folder":
            save_file(state, folder / name / "model.safetensors")
        else:
            shards = {name: f"{number}.safetensors" for number in (0, 1) for name in halves[number]}
            (folder / name / INDEX).write_text(json.dumps({"weight_map": shards}))
            for number, names in enumerate(halves):
                own = {name: state[name] for name in names}
                save_file(own, folder / name / f"{number}.safetensors")


def verify(folder, *weights):
    named = (argument for file in weights for argument in ("--weights", file))
    return cli("verify", folder / "store", "--device", "cpu", "--jobs", 1, *named)


def rows(said):
    """What is said of weights, by their tag: the status and the detail."""
    lines = (line.strip() for line in said.out.splitlines() if ": weights " in line)
    split = (line.partition(": weights ") for line in lines)
    return {name.split()[0]: (status, name.partition(" (")[2]) for status, _, name in split}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store whose trials started from weights in each form, with the runs' folder beside it."""
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "w")
    for form in FORMS:
        assert run_with(folder, folder / "w" / form).code == 0
    return folder


@pytest.fixture
def moved(folder):
    """The weights are somewhere else meanwhile."""
    elsewhere = folder / "elsewhere"
    (folder / "w").rename(elsewhere)
    yield elsewhere
    shutil.rmtree(folder / "w", ignore_errors=True)
    elsewhere.rename(folder / "w")


def digit(path):
    return locate_weights(str(path)).sha256[:12]


def test_weights_are_looked_for_where_the_run_took_them(folder):
    said = verify(folder)
    assert said.code == 0
    assert rows(said) == {
        form.removesuffix(".pth"): (
            "as it was", f"{digit(folder / 'w' / form)}) ({folder / 'w' / form})",
        )
        for form in FORMS
    }  # fmt: skip
    assert f"weights best of {BACKBONE} (" in said.out


@pytest.mark.usefixtures("moved")
def test_weights_that_are_gone_are_named_with_their_path(folder):
    said = verify(folder)
    assert said.code == 0
    for form in FORMS:
        status, detail = rows(said)[form.removesuffix(".pth")]
        assert status == "not here"
        assert f"({folder / 'w' / form} is gone: pass --weights FILE)" in detail


def test_weights_elsewhere_are_recognised_by_their_bytes(folder, moved):
    """An index is the same as its folder, and a file as the folder that holds it alone."""
    paths = {"best": moved / "best.pth", "folder": moved / "folder" / "model.safetensors",
             "shards": moved / "shards" / INDEX}  # fmt: skip
    said = verify(folder, *paths.values())
    assert said.code == 0
    for tag, path in paths.items():
        assert rows(said)[tag] == ("as it was", f"{digit(path)}) ({path})")


def test_other_weights_and_lacking_shards_are_told(folder, moved):
    shutil.copytree(moved, folder / "w")
    weights_file(folder / "w" / "best.pth", 9)
    (folder / "w" / "shards" / "1.safetensors").unlink()
    said = verify(folder)
    assert said.code == 1
    path, now = folder / "w" / "best.pth", digit(folder / "w" / "best.pth")
    assert rows(said)["best"] == (
        "other content", f"{digit(moved / 'best.pth')}) ({path} has the sha256 {now})",
    )  # fmt: skip
    status, detail = rows(said)["shards"]
    assert status == "not here"
    assert f"{INDEX} names 1.safetensors, which {folder / 'w' / 'shards'} does not hold" in detail
    assert rows(said)["folder"][0] == "as it was"


def test_weights_that_no_run_tells_of_are_asked_for(folder, moved):
    (folder / "run").rename(folder / "aside")
    (folder / "aside" / "run.json").rename(folder / "aside" / "hidden.json")
    try:
        said = verify(folder, moved / "best.pth")
    finally:
        (folder / "aside" / "hidden.json").rename(folder / "aside" / "run.json")
        (folder / "aside").rename(folder / "run")
    assert {tag: status for tag, (status, _) in rows(said).items()} == {
        "best": "as it was", "folder": "not here", "shards": "not here",
    }  # fmt: skip
    assert "(no file with this sha256 was named: pass --weights FILE)" in said.out


def test_named_weights_that_are_not_there_or_not_needed_are_told(folder, tmp_path):
    message = mistake("verify", folder / "store", "--weights", tmp_path / "gone.pth")
    assert f"no weights file {tmp_path / 'gone.pth'}; give the path of an existing file" in message
    (tmp_path / "empty").mkdir()
    message = mistake("verify", folder / "store", "--weights", tmp_path / "empty")
    assert f"the folder {tmp_path / 'empty'} holds no weights" in message
    spare = weights_file(tmp_path / "spare.pth", 9)
    said = verify(folder, spare)
    assert said.code == 0
    assert f"note: no trial of the store started from the weights {spare}" in said.err


def test_trials_whose_weights_are_gone_are_lost_and_no_namesake_is_loaded(
    folder, moved, tmp_path, monkeypatch
):
    damaged = shutil.copytree(folder / "store", tmp_path / "store")
    shutil.copytree(folder / "run", tmp_path / "run")
    for trial in damaged.glob("jobs/*/*/trial.json"):
        if '"weights"' in (trial.parent / "payload.json").read_text():
            flip(trial)
    weights_file(tmp_path / "best", 1)  # named as the tag, and the same bytes
    monkeypatch.chdir(tmp_path)
    said = verify(tmp_path)
    assert said.code == 1
    assert "damaged: 3 lost" in said.out
    for form in FORMS:
        tag, sha256 = form.removesuffix(".pth"), digit(moved / form)
        assert f"no file of the weights {tag} ({sha256}) is here: pass --weights FILE" in said.out
    said = verify(tmp_path, *(moved / form for form in FORMS))
    assert said.code == 0
    assert "damaged: 3 repaired" in said.out


def test_a_tag_is_not_compared(tmp_path):
    (tmp_path / "masked.py").write_text(MASKED)
    said = cli("run", suite_file(tmp_path, SMALL), "--backbone", "masked", "--weights", "web",
               "--out", tmp_path / "run", "--jobs", 1, "--device", "cpu",
               "--plugin", tmp_path / "masked.py")  # fmt: skip
    assert said.code == 0, said
    said = cli("verify", tmp_path / "store", "--plugin", tmp_path / "masked.py")
    assert said.code == 0
    assert ("  not compared: weights web of masked (a tag: its backbone finds them by itself)"
            in said.out)  # fmt: skip
