"""Two settings whose networks predict the same decide no claim, in a run and on its board."""

import json

import numpy as np
import pytest
from handmade_run import (
    SUITE,
    handmade_registry,
    only_board,
    submit,
)
from handmade_run import _labels as labels_of
from test_claims import GAIN, PRETRAINED, RANDOM, record, suite, table, term, trials

from transferbench.claims import equal_trials, judge
from transferbench.submission import check
from transferbench.submission import verdicts as verdicts_module
from transferbench.submission.bundle import read_bundle
from transferbench.submission.verdicts import check_verdicts_follow_from_records


def judged(records, outputs, claim=GAIN, **options):
    """``outputs``: (arm, replicate) -> what its network predicts."""
    equal = equal_trials({("near", "identity", arm, k): digest
                          for (arm, k), digest in outputs.items()})  # fmt: skip
    (result,) = judge(suite({"claim": claim}, **options), table(records), "net", equal=equal)
    return result


def test_only_trials_on_one_target_are_compared():
    outputs = {("near", "a", "P-T", 0): "x", ("far", "a", "P-T", 0): "x"}
    assert equal_trials(outputs) == {}
    outputs |= {("near", "b", "P-T", 0): "x", ("near", "b", "P-T", 1): "y"}
    assert set(equal_trials(outputs)) == {("near", "a", "P-T", 0), ("near", "b", "P-T", 0)}


def test_equal_predictions_in_all_replicates_make_a_claim_undecided():
    outputs = {(arm, k): f"{k}" for arm in ("P-T", "RI-T") for k in range(3)}
    result = judged(trials(P=PRETRAINED, RI=RANDOM), outputs)
    assert (result.verdict, result.flags) == ("undecided", ("equal predictions",))
    assert (result.p_reproduced, result.p_contradicted) == (None, None)
    assert result.reason == (
        "equal predictions: P-T under identity and RI-T under identity predict the same on near, "
        "so that a setting between them did nothing"
    )


def test_equal_predictions_in_some_replicates_are_remarked():
    """The draw of a shuffle may be the identity."""
    outputs = {("P-T", 1): "x", ("RI-T", 1): "x", ("P-T", 0): "y"}
    result = judged(trials(P=PRETRAINED, RI=RANDOM), outputs)
    assert (result.verdict, result.flags) == ("reproduced", ())
    assert result.reason == (
        "P-T under identity and RI-T under identity predict the same on near in 1 of 3 replicates"
    )


def test_equal_replicates_are_no_replicates():
    outputs = {("P-T", 0): "x", ("P-T", 2): "x"}
    result = judged(trials(P=PRETRAINED, RI=RANDOM), outputs)
    assert result.flags == ("equal predictions",)
    assert "replicates 0 and 2 of P-T under identity on near are the same network" in result.reason


def test_the_networks_of_a_pair_count_and_others_do_not():
    pairs = [
        record(value, metric="kappa", replicate=k, other_initialization="RI-T", other_replicate=k)
        for k, value in enumerate(PRETRAINED)
    ]
    claim = {"terms": [term(metric="kappa", other_initialization="RI-T")]}
    outputs = {(arm, k): f"{k}" for arm in ("P-T", "RI-T") for k in range(3)}
    assert judged(pairs, outputs, claim).flags == ("equal predictions",)
    others = {(arm, k): f"{k}" for arm in ("P-T", "MV-T") for k in range(3)}
    assert judged(pairs, others, claim).flags == ()


def test_a_lost_replicate_is_a_flag():
    result = judged(trials(P=[*PRETRAINED, 0.9], RI=[*RANDOM, None]), {}, replicates=4)
    assert result.flags == ("1 of 4 replicates lost",)


# --- a run and its board ----------------------------------------------------------------------


def blind(job, cell):
    """Trials on which blur-2 does nothing."""
    rng = np.random.default_rng([cell.replicate, cell.initialization == "P-T", len(cell.target)])
    labels = labels_of(job.payload["dataset"]["task"] == "multi-label")
    signal = labels if labels.ndim > 1 else np.eye(10)[labels][:, : labels.max() + 1]
    skill = 0.3 if cell.perturbation == "blur-9" else 1.0 + (cell.initialization == "P-T")
    return labels, (signal * skill + rng.normal(size=signal.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def blind_suite():
    terms = SUITE["claims"]["helps"]["terms"]
    blurred = terms[0] | {"perturbation": "blur-2", "weight": -1.0}
    fades = {"statement": "Blur costs.", "relation": "above", "terms": [terms[0], blurred]}
    return SUITE | {"claims": SUITE["claims"] | {"fades": fades}}


def test_a_run_and_its_board_flag_a_setting_that_did_nothing(blind_suite, tmp_path, monkeypatch):
    registry = handmade_registry(tmp_path)
    (folder,) = submit(tmp_path, registry, tmp_path / "s", suite=blind_suite, outputs=blind)
    helps, fades = json.loads((tmp_path / "run" / "claims.json").read_text())["made-good"]
    assert helps["flags"] == []
    assert (fades["verdict"], fades["flags"]) == ("undecided", ["equal predictions"])
    assert check(folder, registry).ok
    (row,) = only_board(tmp_path / "s", registry).rows
    assert row.cells["marks"] == ("equal predictions: fades",)
    # One that claims more is refused; that of an earlier version, which saw no flag, is a warning.
    claims = json.loads((folder / "claims.json").read_text())
    claims[1] |= {"verdict": "reproduced", "p_reproduced": 0.01}
    (folder / "claims.json").write_text(json.dumps(claims))
    problem = next(check_verdicts_follow_from_records(read_bundle(folder), registry))
    assert (problem.why, problem.warning) == ("claim 'fades' is undecided, not reproduced", False)
    for name in ("flags", "p_reproduced", "p_contradicted", "covers"):
        del claims[1][name]
    (folder / "claims.json").write_text(json.dumps(claims))
    monkeypatch.setattr(verdicts_module, "FORMER_BOARDS", {"handmade@1"})
    problem = next(check_verdicts_follow_from_records(read_bundle(folder), registry))
    assert (problem.why, problem.warning) == ("claim 'fades' is undecided, not reproduced", False)
    claims[1]["verdict"] = "undecided"
    (folder / "claims.json").write_text(json.dumps(claims))
    (problem,) = check_verdicts_follow_from_records(read_bundle(folder), registry)
    assert problem.warning
    assert "claim 'fades' was judged undecided; it is undecided: equal predictions" in problem.why
    claims[1]["reason"] = "a\x1b[2J"
    (folder / "claims.json").write_text(json.dumps(claims))
    problem = next(check_verdicts_follow_from_records(read_bundle(folder), registry))
    assert problem.why == r"claims.json says 'a\x1b[2J', which is no line of visible characters"
