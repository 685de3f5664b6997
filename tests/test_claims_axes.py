"""Verdicts on claims that go through the values of a coordinate, and on two orders."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats
from t_intervals import ANY, quantile
from test_claims import record, suite, term, verdict

from transferbench.claims import judge
from transferbench.measurements import Measurements
from transferbench.statistics import replicate_mean

DEPTH = ("stem", "middle", "top", "head")
REPLICATES = 5


def by_module(values, metric="drop", **fields):
    """A record for each module and replicate. ``values``: module -> one value a replicate."""
    return [
        record(value, metric=metric, coordinates={"module": module}, replicate=k, **fields)
        for module, result in values.items()
        for k, value in enumerate(result)
    ]


def around(*means, spread=0.05):
    noise = spread * np.array([-1, 0.5, 0.2, -0.3, 0.6])
    return {module: list(mean + noise) for module, mean in zip(DEPTH, means, strict=False)}


def judged(claim, records):
    claim = {"terms": [term(metric="drop")]} | claim
    return verdict(claim, records, replicates=REPLICATES)


EACH = {"each": {"coordinates": ["module"], "without": ["head"]}}


def test_each_module_must_hold_and_the_weakest_is_shown():
    values = around(0.5, 0.2, 0.4, -3.0)
    result = judged(EACH, by_module(values))
    expected = replicate_mean(dict(enumerate(values["middle"])), ends=ANY)
    assert (result.effect, result.low, result.high) == pytest.approx(expected[:3])
    assert result.verdict == "reproduced"
    assert result.reason == "the furthest from holding of 3 is module middle"


def test_one_module_that_is_not_separated_leaves_the_claim_undecided():
    result = judged(EACH, by_module(around(0.5, 0.01, 0.4)))
    assert result.verdict == "undecided"
    assert "module middle" in result.reason


def test_one_module_that_fails_contradicts_the_claim():
    result = judged(EACH, by_module(around(0.5, 0.3, -0.4)))
    assert (result.verdict, result.effect) == ("contradicted", pytest.approx(-0.4))


def test_of_several_modules_that_fail_the_furthest_is_named():
    result = judged(EACH, by_module(around(-0.3, 0.3, -0.8)))
    assert (result.verdict, result.effect) == ("contradicted", pytest.approx(-0.8))
    assert result.reason == "the furthest from holding of 3 is module top"


def test_a_failure_that_the_number_of_modules_explains_contradicts_nothing():
    values = around(0.5, 0.4, 0.3)
    spread = np.array([-1, 0.5, 0.2, -0.3, 0.6])
    # Below 0 at 95%, not at the 98.3% of three modules.
    values["top"] = list(-0.33 * quantile(5, ANY) + spread)
    top = dict(enumerate(values["top"]))
    assert (
        replicate_mean(top, ends=ANY).high
        < 0
        < replicate_mean(top, level=1 - 0.05 / 3, ends=ANY).high
    )
    result = judged(EACH, by_module(values))
    assert result.verdict == "undecided"
    assert "contradicted at top alone, but not with 3 of them in view" in result.reason


def test_a_failure_beside_a_lost_replicate_holds_for_any_value_of_it_and_any_module():
    values = {module: [0.95, 0.96, 0.97, 0.96, None] for module in ("stem", "middle")}
    values["top"] = [0.1, 0.1, 0.12, 0.11, None]
    records = Measurements.of_records(by_module(values), {("trial", "drop"): (0.0, 1.0)})
    claim = {"terms": [term(metric="drop")], "threshold": 0.9}

    def judged_at(*modules):
        return judge(suite({"claim": claim | EACH}, replicates=REPLICATES),
                     records.select(module=modules), "net")[0]  # fmt: skip

    # Were it 1, the upper bound would be 0.85 at 95%, and 1 at the 98.3% of three modules.
    assert judged_at("top").verdict == "contradicted"
    result = judged_at("stem", "middle", "top")
    assert (result.verdict, result.p_contradicted > 0.05) == ("undecided", True)


def test_the_level_of_a_share_is_corrected_for_the_number_of_modules():
    gain, slope = np.array([1.0, 1.1, 0.9, 1.05, 0.95]), np.array([-1, 0.5, 0.2, -0.3, 0.6])
    whole = {module: list(gain) for module in ("stem", "middle", "top")}
    part = {module: list(0.5 * gain + 0.01 * slope) for module in ("stem", "middle")}
    # A share below 0 where -0.33 t(95%) + slope is: not at the 98.3% of three modules.
    part["top"] = list(-0.33 * quantile(5, ANY) + slope)
    claim = EACH | {"relative_to": [term(metric="gain")]}
    result = judged(claim, by_module(part) + by_module(whole, "gain"))
    assert (result.verdict, result.interval) == ("undecided", "ranged-fieller-95")
    assert result.high < 0
    assert "contradicted at top alone, but not with 3 of them in view" in result.reason
    part["top"] = list(-0.5 * gain + 0.01 * (slope - slope.mean()))
    result = judged(claim, by_module(part) + by_module(whole, "gain"))
    assert (result.verdict, result.effect) == ("contradicted", pytest.approx(-0.5))


@pytest.mark.parametrize(
    ("relation", "threshold", "worst"),
    [("below", 0.9, "stem"), ("within", 0.9, "stem"), ("above", 0.1, "middle")],
)
def test_the_furthest_from_holding_depends_on_the_relation(relation, threshold, worst):
    claim = EACH | {"relation": relation, "threshold": threshold}
    result = judged(claim, by_module(around(0.6, 0.3, 0.4)))
    assert (result.verdict, result.reason.split()[-1]) == ("reproduced", worst)


def test_a_difference_is_taken_module_by_module():
    records = by_module(around(0.5, 0.6), initialization="P-T")
    records += by_module(around(0.1, 0.5, spread=0.04), initialization="RI-T")
    terms = [term(metric="drop"), term("RI-T", metric="drop", weight=-1.0)]
    result = judged(EACH | {"terms": terms}, records)
    assert result.effect == pytest.approx(0.1)
    assert result.reason.endswith("module middle")


def test_a_module_and_the_same_of_the_other_network():
    records = [
        record(
            (0.9 if a == b else 0.1) + 0.01 * k, metric="drop", replicate=k, other_replicate=k,
            other_initialization="P-T", coordinates={"module": a, "other_module": b},
        )
        for a in DEPTH for b in DEPTH for k in range(REPLICATES)
    ]  # fmt: skip
    axis = {"coordinates": ["module", "other_module"]}
    result = judged({"each": axis, "threshold": 0.5}, records)
    assert (result.verdict, result.effect) == ("reproduced", pytest.approx(0.92))
    assert "of 4 is module" in result.reason


def test_along_is_the_rank_correlation_with_depth():
    means = (0.1, 0.4, 0.3)
    result = judged({"along": EACH["each"]}, by_module(around(*means, -9)))
    assert result.effect == pytest.approx(stats.kendalltau(range(3), means).statistic)
    assert result.unit == "rank correlation"


def test_depth_is_the_order_of_measurement_not_of_the_alphabet():
    assert judged({"along": EACH["each"]}, by_module(around(0.1, 0.2, 0.3))).effect == 1.0


@pytest.mark.parametrize("form", ["each", "along"])
def test_what_has_no_such_coordinate_is_not_measured(form):
    claim = {form: {"coordinates": ["layer"]}}
    result = judged(claim, [record(0.5, metric="other", replicate=k) for k in range(REPLICATES)])
    assert result.verdict == "undecided"
    assert "no measurement: trial drop of P-T" in result.reason


def test_one_order_against_another():
    values = {0: (0.2, 3.0), 1: (0.1, 1.0), 2: (0.7, 2.0), 3: (0.9, 4.0)}
    records = [
        record(value, metric=metric, replicate=k, coordinates={"step": step})
        for step, pair in values.items()
        for metric, value in zip(("score", "reached"), pair, strict=True)
        for k in range(REPLICATES)
    ]
    sides = {
        side: [[term(metric=metric, coordinates={"step": step})] for step in values]
        for side, metric in (("order", "score"), ("against", "reached"))
    }
    result = verdict(sides, records, replicates=REPLICATES)
    expected = stats.kendalltau(*zip(*values.values(), strict=True)).statistic
    assert result.effect == pytest.approx(expected)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({}, "give either terms or order"),
        ({"terms": [term()], "order": [[term()], [term()]]}, "give either terms or order"),
        ({"order": [[term()], [term()]], "relative_to": [term()]}, "relative_to goes with terms"),
        ({"order": [[term()], [term()]], **EACH}, "each and along go with terms"),
        ({"terms": [term()], **EACH, "along": EACH["each"]}, "along goes with neither each"),
        ({"terms": [term()], "against": [[term()]]}, "against goes with order"),
    ],
)
def test_forms_that_do_not_go_together(claim, message):
    with pytest.raises(ValidationError, match=message):
        suite({"claim": claim})


def test_what_a_suite_does_not_use_is_not_written():
    written = suite({"claim": {"terms": [term()]}}).model_dump(mode="json")
    assert not {"each", "along", "against"} & set(written["claims"]["claim"])
    assert "checkpoints" not in written["trials"][0]
    assert "groups" not in written["diagnostics"]["curve"]
    used = suite({"claim": {"terms": [term()], **EACH}}, trials=[{"checkpoints": [1]}])
    written = used.model_dump(mode="json")
    assert written["claims"]["claim"]["each"]["without"] == ["head"]
    assert written["trials"][0]["checkpoints"] == [1]
