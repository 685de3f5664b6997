"""Trials of a submission, trained again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import SMALL, cli, suite_file
from handmade_run import edit_records, publish, sealed

from transferbench.records import Record, read_records
from transferbench.registry import load_registry
from transferbench.statistics import exact_share
from transferbench.submission import check
from transferbench.submission.bundle import read_bundle
from transferbench.submission.certificate import Certificate
from transferbench.submission.integrity import planned_again
from transferbench.submission.predictions import read_predictions, write_predictions
from transferbench.submission.verdicts import _judged
from transferbench.suite import Suite
from transferbench.suite.ranges import metric_ranges


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
    forged = consistently_forged(Path(packed))
    assert check(forged).ok
    caught = cli("submission", "reproduce", forged, "--trials", 2, "--by", "another",
                 "--out", tmp_path / "certificates", "--store", tmp_path / "store-2")  # fmt: skip
    assert caught.code == 1, caught.err
    path = Path(caught.out.splitlines()[-1])
    assert not Certificate.model_validate_json(path.read_text()).agrees


def consistently_forged(folder: Path) -> Path:
    """Right answers instead of wrong ones, and all that follows from them, sealed."""
    row = next(r for r in read_records(folder / "records.jsonl.gz")
               if r.metric == "test_metric" and r.initialization == "P-T")  # fmt: skip
    trials = read_predictions(folder / "predictions.parquet")
    trial = trials[row.job]
    outputs = np.copy(trial.outputs)
    mistaken = np.flatnonzero(outputs != trial.labels)[: len(outputs) // 5]
    outputs[mistaken] = trial.labels[mistaken]
    write_predictions({**trials, row.job: trial._replace(outputs=outputs)},
                      folder / "predictions.parquet")  # fmt: skip
    share = exact_share(float((outputs == trial.labels).sum()), len(outputs))
    better = {"value": share.value, "low": share.low, "high": share.high}

    def raise_it(rows: list[Record]) -> list[Record]:
        return [r.model_copy(update=better)
                if r.job == row.job and r.metric in {"test_metric", "best_test_metric"} else r
                for r in rows]  # fmt: skip

    edit_records(folder, raise_it)
    bundle = read_bundle(folder)
    registry = load_registry()
    ranges = metric_ranges(bundle.plan.suite, registry.diagnostics)
    verdicts = _judged(bundle, planned_again(bundle, registry), ranges)
    (folder / "claims.json").write_text(json.dumps([v.model_dump(mode="json") for v in verdicts]))
    return sealed(folder)
