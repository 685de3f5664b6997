"""Trials of a submission, trained again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import SMALL, cli, suite_file
from handmade_run import publish

from transferbench.submission.certificate import Certificate
from transferbench.suite import Suite


@pytest.mark.slow
def test_a_trial_that_is_trained_again_gives_the_same(tmp_path: Path) -> None:
    suite = suite_file(tmp_path, SMALL)
    said = cli("run", suite, "--out", tmp_path / "run", "--jobs", 1, "--device", "cpu")
    assert said.code == 0, said.err
    packed = cli("submission", "pack", tmp_path / "run", "--out", tmp_path / "s").out.strip()
    publish(Suite.model_validate(SMALL), tmp_path / "s")
    again = cli("submission", "reproduce", packed, "--trials", 1, "--by", "another", "--seed", 3,
                "--out", tmp_path / "certificates", "--store", tmp_path / "store-2")  # fmt: skip
    assert again.code == 0, again.err
    path = Path(again.out.splitlines()[-1])
    certificate = Certificate.model_validate_json(path.read_text())
    (trial,) = certificate.trials
    assert (trial.same_bits, trial.equal_predictions) == (True, 1.0)
    assert trial.again == trial.submitted
    head = json.loads((Path(packed) / "submission.json").read_text())
    assert path.parent.name == certificate.submission == head["id"]
    assert {"torch", "machine", "device"} <= certificate.environment.keys()
    assert certificate.agrees
