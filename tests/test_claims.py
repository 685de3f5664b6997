"""Verdicts on effects that are known by construction."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from t_intervals import ANY, of_difference, of_level, p_value

from transferbench.claims import Verdict, bracketed, judge
from transferbench.measurements import Measurements
from transferbench.records import Record
from transferbench.statistics import (
    Summand,
    concordance,
    replicate_difference,
    replicate_mean,
    weighted_ratio,
    weighted_sum,
)
from transferbench.suite import Suite

RECIPE = {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 1, "batch_size": 8}
PRETRAINED = [0.9, 0.8, 0.95]
RANDOM = [0.6, 0.55, 0.6]


def suite(claims, *, replicates=3, **changes):
    body = {
        "name": "tiny",
        "version": "1.0",
        "summary": "A suite for tests.",
        "backbones": ["net"],
        "image": {"size": 8, "channels": 1, "mean": [0.5], "std": [0.5]},
        "sources": {"source": {"dataset": {"name": "digits"}, "recipe": "short"}},
        "targets": {label: {"dataset": {"name": "digits"}} for label in ("near", "far")},
        "perturbations": {"identity": {"name": "identity"}, "shuffled": {"name": "shuffle"}},
        "recipes": {"short": RECIPE},
        "initializations": {
            arm: {"name": "random", "recipe": "short"} for arm in ("P-T", "RI-T", "MV-T")
        },
        "replicates": replicates,
        "trials": [{"targets": ["near"], "perturbations": ["identity"]}],
        "diagnostics": {"curve": {"name": "learning-curve"}},
        "scoring": {
            "initialization": "P-T",
            "baseline": "RI-T",
            "perturbation": "identity",
            "chance": {},
            "reference": {},
        },
    }
    claims = {
        label: {"statement": "It is so.", "relation": "above"} | claim
        for label, claim in claims.items()
    }
    return Suite.model_validate_json(json.dumps(body | {"claims": claims} | changes))


def record(value, **fields):
    base = {
        "suite": "tiny@1.0",
        "entry": "net",
        "target": "near",
        "perturbation": "identity",
        "initialization": "P-T",
        "replicate": 0,
        "diagnostic": "trial",
        "diagnostic_version": 1,
        "metric": "score",  # has no range
        "unit": "fraction",
        "n": 100,
        "job": "j",
        "subjects": ("j",),
        "value": value,
        "flag": None if value is not None else "not finite: diverged",
    }
    return Record(**base | fields)


def trials(**arms):
    """One trial a value; ``P`` and ``RI`` stand for P-T and RI-T."""
    return [
        record(value, initialization=f"{arm}-T", replicate=k)
        for arm, values in arms.items()
        for k, value in enumerate(values)
    ]


def of_metric(records, metric="test_metric"):
    """The same values, of a metric that is in [0, 1]."""
    return [row.model_copy(update={"metric": metric}) for row in records]


ACCURACY_GAIN = {
    "terms": [
        {"diagnostic": "trial", "metric": "test_metric", "initialization": arm, "weight": weight}
        for arm, weight in (("P-T", 1.0), ("RI-T", -1.0))
    ]
}


def table(records):
    """Measurements of quantities that are declared not to be skewed."""
    metrics = {(r.diagnostic, r.metric) for r in records}
    return Measurements.of_records(records, dict.fromkeys(metrics, ANY))


def term(initialization="P-T", **changes):
    return {
        "diagnostic": "trial",
        "metric": "score",
        "initialization": initialization,
    } | changes


GAIN = {"terms": [term("P-T"), term("RI-T", weight=-1.0)]}


def verdict(claim, records, **options):
    (result,) = judge(suite({"claim": claim}, **options), table(records), "net")
    return result


def test_a_difference_of_arms_is_judged_by_the_paired_student_t():
    result = verdict(GAIN | {"source": "Fig. 2"}, trials(P=PRETRAINED, RI=RANDOM))
    expected = of_difference(PRETRAINED, RANDOM, ANY)
    assert (result.effect, result.low, result.high) == pytest.approx(expected[:3])
    assert (result.n, result.interval, result.unit) == (3, "ranged-t-95", "fraction")
    assert (result.verdict, result.reason) == ("reproduced", "")
    assert (result.claim, result.statement, result.source) == ("claim", "It is so.", "Fig. 2")


@pytest.mark.parametrize(
    ("relation", "threshold", "expected"),
    [
        ("above", 0.1, "reproduced"),
        ("above", 0.3, "undecided"),
        ("above", 0.9, "contradicted"),
        ("below", 0.9, "reproduced"),
        ("below", 0.3, "undecided"),
        ("below", 0.1, "contradicted"),
        ("within", 0.9, "reproduced"),
        ("within", 0.3, "undecided"),
        ("within", 0.1, "contradicted"),
    ],
)
def test_the_whole_interval_decides(relation, threshold, expected):
    claim = GAIN | {"relation": relation, "threshold": threshold}
    result = verdict(claim, trials(P=PRETRAINED, RI=RANDOM))
    assert result.low < 0.3 < result.high
    assert (result.verdict, result.relation, result.threshold) == (expected, relation, threshold)


def test_within_looks_at_both_sides():
    claim = {"terms": [term("RI-T"), term("P-T", weight=-1.0)], "relation": "within"}
    records = trials(P=PRETRAINED, RI=RANDOM)
    assert verdict(claim | {"threshold": 0.1}, records).verdict == "contradicted"
    assert verdict(claim | {"threshold": 0.3}, records).verdict == "undecided"


def test_an_undecided_claim_says_what_its_interval_includes():
    records = trials(P=PRETRAINED, RI=RANDOM)
    assert verdict(GAIN | {"threshold": 0.3}, records).reason == "the interval includes 0.3"
    within = verdict(GAIN | {"threshold": 0.3, "relation": "within"}, records)
    assert within.reason == "the interval includes -0.3 or 0.3"


def test_a_verdict_is_printed_on_one_line():
    fields = {"statement": "It is so.", "source": "", "control": False, "unit": "fraction",
              "interval": "student-t-95", "threshold": 0.0, "relation": "above",
              "reason": ""}  # fmt: skip
    decided = Verdict(claim="C1", effect=0.1389, low=0.102, high=-0.1761, n=5,
                      verdict="undecided", **fields)  # fmt: skip
    assert repr(decided) == "<C1: undecided, +0.139 [+0.102, -0.176], n 5>"
    undetermined = decided.model_copy(update={"effect": None, "low": None, "high": None})
    assert repr({"entry": [undetermined]}) == "{'entry': [<C1: undecided>]}"


def test_one_replicate_is_undecided():
    result = verdict(GAIN, trials(P=[0.9], RI=[0.5]), replicates=1)
    assert result.effect == pytest.approx(0.4)
    assert (result.verdict, result.low, result.n) == ("undecided", None, 1)
    assert result.reason == "an interval needs two or more, found 1"


def test_a_measurement_that_is_not_there_is_named():
    result = verdict(GAIN, trials(P=PRETRAINED))
    assert (result.verdict, result.effect, result.n) == ("undecided", None, 0)
    assert result.reason == ("no measurement: trial score of RI-T; 0 of 3 replicates are complete")


def test_nothing_measured_at_all_is_undecided():
    (result,) = judge(suite({"claim": GAIN}), Measurements(pd.DataFrame()), "net")
    assert result.verdict == "undecided"
    assert result.reason.startswith("no measurement: trial score of P-T; trial score of")


def test_a_place_of_the_suite_that_was_not_measured_is_named():
    trials_of = [{"perturbations": ["identity"], "targets": ["near", "far"]}]
    result = verdict(GAIN, trials(P=PRETRAINED, RI=RANDOM), trials=trials_of)
    assert result.verdict == "undecided"
    assert "no measurement: trial score of P-T on far, identity; trial" in result.reason
    narrowed = {"terms": [{**t, "target": "near"} for t in GAIN["terms"]]}
    records = trials(P=PRETRAINED, RI=RANDOM)
    assert verdict(narrowed, records, trials=trials_of).verdict == "reproduced"


def test_a_diagnostic_is_expected_only_where_the_suite_measures_it():
    claim = {"terms": [term(diagnostic="curve", metric="area")]}
    records = [
        record(value, replicate=k, diagnostic="curve", metric="area")
        for k, value in enumerate(PRETRAINED)
    ]
    everywhere = {"trials": [{"perturbations": ["identity"]}]}
    assert "on far, identity" in verdict(claim, records, **everywhere).reason
    near = {"curve": {"name": "learning-curve", "on": {"targets": ["near"]}}}
    assert verdict(claim, records, diagnostics=near, **everywhere).verdict == "reproduced"


def test_many_missing_measurements_are_counted():
    claim = {"terms": [term(metric=name) for name in "abcde"]}
    reason = verdict(claim, trials(P=PRETRAINED)).reason
    assert reason.startswith("no measurement: trial a of P-T; trial b of P-T; trial c of P-T and 2")


def test_a_failed_trial_is_left_out_with_its_pair_and_mentioned():
    result = verdict(GAIN, trials(P=[*PRETRAINED, 0.9], RI=[*RANDOM, None]), replicates=4)
    assert result.low == pytest.approx(of_difference(PRETRAINED, RANDOM, ANY)[1])
    assert (result.n, result.verdict) == (3, "undecided")
    assert result.reason == (
        "replicate 3 gave no value, and the verdict depends on what it would have been; "
        "3 of 4 replicates are complete; 1 of 8 measurements have no value and were left out; "
        "1 of 8 measurements are flagged: not finite: diverged"
    )


def test_the_most_frequent_flags_are_named_and_the_rest_counted():
    flags = ["a", "b", "b", "c", "c", "d", "e", "b"]
    records = [record(0.5, replicate=k, flag=flag) for k, flag in enumerate(flags)]
    reason = verdict({"terms": [term()]}, records, replicates=len(flags)).reason
    assert reason.endswith(
        "3 of 8 measurements are flagged: b; 2 of 8 measurements are flagged: c; "
        "1 of 8 measurements are flagged: a; 2 more have other flags"
    )


def test_an_arm_whose_trials_all_failed_is_missing():
    result = verdict(GAIN, trials(P=PRETRAINED, RI=[None, None, None]))
    assert result.verdict == "undecided"
    assert result.reason.startswith("no measurement: trial score of RI-T; 0 of 3")
    assert "3 of 6 measurements have no value" in result.reason


def test_replicates_that_no_place_has_in_common_are_undecided():
    result = verdict(GAIN, trials(P=[0.9, None], RI=[None, 0.5]), replicates=2)
    assert result.reason.startswith("no replicate has a value at every place; 0 of 2 replicates")


def test_a_replicate_that_lacks_one_place_is_left_out_everywhere():
    near, far = [0.9, 0.8, 0.95, 0.1], [0.3, 0.5, 0.4]
    records = [
        record(value, target=target, replicate=k)
        for target, values in (("near", near), ("far", far))
        for k, value in enumerate(values)
    ]
    places = [{"perturbations": ["identity"]}]
    result = verdict({"terms": [term()]}, records, trials=places, replicates=4)
    assert result.effect == pytest.approx(np.mean([near[:3], far]))
    assert result.n == 3
    assert result.reason.endswith("; 3 of 4 replicates are complete")


@pytest.mark.parametrize(("threshold", "expected"), [(0.1, "reproduced"), (0.35, "undecided")])
def test_a_lost_replicate_decides_nothing_where_no_value_of_it_could(threshold, expected):
    """20 differences are around .4; one more would be between -1 and 1."""
    good, bad = [0.8 + 0.01 * (k % 3) for k in range(20)], [0.4] * 20
    claim = ACCURACY_GAIN | {"threshold": threshold}
    records = of_metric(trials(P=[*good, None], RI=[*bad, 0.4]))
    result = verdict(claim, records, replicates=21)
    assert (result.verdict, result.n) == (expected, 20)
    assert result.low > threshold


def test_a_lost_replicate_may_be_worse_inside_its_range_than_at_an_end():
    """With 0 or 1 for the lost value the interval lies above .16, with .25 it begins at .10."""
    values = [0.987, 0.937, 0.984, 0.978, 0.975]
    lows = [replicate_mean(dict(enumerate([*values, lost])), ends=(0.0, 1.0)).low
            for lost in (0.0, 0.25, 1.0)]  # fmt: skip
    assert lows[1] < 0.13 < min(lows[0], lows[2])
    claim = ACCURACY_GAIN | {"terms": ACCURACY_GAIN["terms"][:1], "threshold": 0.13}
    result = verdict(claim, of_metric(trials(P=[*values, None], RI=[0.5] * 6)), replicates=6)
    assert (result.verdict, result.flags) == ("undecided", ("1 of 6 replicates lost",))
    assert "the verdict depends on what it would have been" in result.reason


def test_the_replicates_that_every_cell_has_are_counted():
    """P-T has two more than RI-T: they are neither missing nor lost, whatever their values."""
    cell = {"targets": ["near"], "perturbations": ["identity"]}
    rows = [cell | {"initializations": ["P-T"], "replicates": 5}, cell]
    records = trials(P=[*PRETRAINED, 0.1, None], RI=RANDOM)
    result = verdict(GAIN, records, trials=rows)
    assert (result.verdict, result.n) == ("reproduced", 3)
    assert result.reason == (
        "1 of 8 measurements have no value and were left out; "
        "1 of 8 measurements are flagged: not finite: diverged"
    )
    fewer = verdict(GAIN, trials(P=[*PRETRAINED, 0.8, 0.9], RI=RANDOM[:2]), trials=rows)
    assert fewer.reason.endswith("2 of 3 replicates are complete")


def test_two_replicates_are_too_few_for_a_verdict():
    result = verdict(GAIN, trials(P=[0.9, 0.91], RI=[0.3, 0.32]), replicates=2)
    assert (result.verdict, result.reason) == (
        "undecided", "a verdict needs 3 replicates, found 2"
    )  # fmt: skip


def test_replicates_without_spread_decide_nothing():
    result = verdict(GAIN, trials(P=[0.9, 0.8, 0.7], RI=[0.775, 0.675, 0.575]))
    assert result.effect == pytest.approx(0.125)
    assert result.verdict == "undecided"
    assert result.reason == "every replicate gives the same value: their spread is not known"


def test_a_flag_on_a_value_is_mentioned():
    records = trials(P=PRETRAINED, RI=RANDOM)
    records[4] = records[4].model_copy(update={"flag": "b did not train"})
    result = verdict(GAIN, records)
    assert result.verdict == "reproduced"
    assert result.reason == "1 of 6 measurements are flagged: b did not train"


def test_another_entry_does_not_count():
    mine = trials(P=PRETRAINED, RI=RANDOM)
    others = [r.model_copy(update={"entry": "other", "value": 0.0}) for r in mine]
    claims = suite({"claim": GAIN})
    assert judge(claims, table(others + mine), "net") == judge(claims, table(mine), "net")


def test_what_is_left_out_is_averaged_place_by_place():
    values = {"near": [0.9, 0.8, 0.95], "far": [0.3, 0.5, 0.4]}
    records = [
        record(value, target=target, replicate=k, coordinates={"module": module})
        for target, given_values in values.items()
        for k, value in enumerate(given_values)
        # More modules at one place give it no more weight.
        for module in (["stem"] if target == "near" else ["stem", "block", "head"])
    ]
    result = verdict({"terms": [term()]}, records, trials=[{"perturbations": ["identity"]}])
    means = np.mean([values["near"], values["far"]], axis=0)
    expected = of_level(means, ANY)
    assert (result.effect, result.low, result.high) == pytest.approx(expected[:3])


def test_coordinates_are_matched_exactly():
    records = [
        record(value + epoch, replicate=k, coordinates={"epoch": epoch})
        for k, value in enumerate(PRETRAINED)
        for epoch in (0, 5, 50)
    ]
    result = verdict({"terms": [term(coordinates={"epoch": 5})]}, records)
    assert result.effect == pytest.approx(np.mean(PRETRAINED) + 5)
    lacking = verdict({"terms": [term(coordinates={"epoch": 7})]}, records)
    assert lacking.reason.startswith("no measurement: trial score of P-T at epoch=7")
    assert "at lambda=1" in verdict({"terms": [term(coordinates={"lambda": 1})]}, records).reason


def test_a_cell_without_a_value_in_one_replicate_does_not_shift_the_others():
    base = {"stem": 0.1, "head": 0.9}
    records = [
        record(
            None if (module, k) == ("head", 2) else level + 0.01 * k,
            replicate=k,
            coordinates={"module": module},
        )
        for module, level in base.items()
        for k in range(3)
    ]
    result = verdict({"terms": [term()]}, records)
    assert result.effect == pytest.approx((0.11 + 0.905) / 2)


def pair(value, i, j, a="P-T", b="P-T"):
    return record(
        value,
        initialization=a,
        replicate=i,
        other_initialization=b,
        other_replicate=j,
        metric="kappa",
    )


def test_a_pair_counts_where_both_replicates_do():
    rng = np.random.default_rng(0)
    own = rng.normal(0.6, 0.05, 5)
    pairs = list(itertools.combinations(range(5), 2))
    records = [pair(own[i] + own[j], i, j) for i, j in pairs]
    claim = {"terms": [term(metric="kappa", other_initialization="P-T")]}
    result = verdict(claim, records, replicates=5)
    # A mean over pairs of x_i + x_j is twice the mean of x.
    expected = of_level(2 * own, ANY)
    assert (result.effect, result.low, result.high) == pytest.approx(expected[:3])


def test_two_replicates_of_pairs_are_too_few():
    claim = {"terms": [term(metric="kappa", other_initialization="P-T")]}
    result = verdict(claim, [pair(0.5, 0, 1)], replicates=2)
    assert (result.effect, result.verdict) == (0.5, "undecided")
    assert result.reason == ("2 replicates are too few: one fewer does not determine the estimate")


def test_the_arms_of_a_pair_are_told_apart():
    records = [pair(0.9, i, j) for i, j in itertools.combinations(range(3), 2)]
    records += [pair(0.2, i, j, b="RI-T") for i in range(3) for j in range(3) if i != j]
    pure = term(metric="kappa", other_initialization="P-T")
    mixed = term(metric="kappa", other_initialization="RI-T", weight=-1.0)
    assert verdict({"terms": [pure, mixed]}, records).effect == pytest.approx(0.7)
    reversed_arms = term("RI-T", metric="kappa", other_initialization="P-T")
    assert "kappa of RI-T & P-T" in verdict({"terms": [reversed_arms]}, records).reason


def test_a_ratio_is_relative_to_another_sum():
    records = trials(P=PRETRAINED, RI=RANDOM, MV=[0.7, 0.66, 0.69])
    claim = {
        "terms": [term("MV-T"), term("RI-T", weight=-1.0)],
        "relative_to": [term("P-T"), term("RI-T", weight=-1.0)],
        "unit": "share",
    }
    result = verdict(claim, records)
    expected = (np.mean([0.7, 0.66, 0.69]) - np.mean(RANDOM)) / (
        np.mean(PRETRAINED) - np.mean(RANDOM)
    )
    assert result.effect == pytest.approx(expected)
    assert (result.low < expected < result.high, result.unit) == (True, "share")
    assert result.interval == "ranged-fieller-95"
    assert verdict(claim, trials(P=PRETRAINED, RI=RANDOM)).interval == "fieller-95"


def test_a_ratio_to_what_may_be_zero_is_undecided():
    records = trials(P=[0.5, 0.6, 0.55], RI=[0.55, 0.5, 0.6])
    result = verdict({"terms": [term("P-T")], "relative_to": GAIN["terms"]}, records)
    assert (result.verdict, result.effect) == ("undecided", None)
    assert result.reason == "the denominator's 95% interval includes 0"


def test_a_share_of_a_loss_is_undecided():
    """The arm is slower than its baseline, and so is what it is compared with."""
    records = trials(P=[0.3, 0.28, 0.32], RI=[0.6, 0.6, 0.6], MV=[0.4, 0.39, 0.41])
    claim = {
        "terms": [term("MV-T"), term("RI-T", weight=-1.0)],
        "relative_to": [term("P-T"), term("RI-T", weight=-1.0)],
    }
    result = verdict(claim, records)
    assert (result.verdict, result.effect, result.low) == ("undecided", None, None)
    assert result.reason == "the denominator is not above 0"


def ordered(values_by_step):
    records = [
        record(value, replicate=k, coordinates={"step": step})
        for step, values in enumerate(values_by_step)
        for k, value in enumerate(values)
    ]
    claim = {
        "order": [[term(coordinates={"step": step})] for step in range(len(values_by_step))],
        "threshold": 0.5,
    }
    return verdict(claim, records)


def test_an_order_is_the_rank_correlation_with_position():
    values = [[0.1, 0.2, 0.15], [0.4, 0.3, 0.2], [0.3, 0.35, 0.2], [0.8, 0.7, 0.9]]
    result = ordered(values)
    expected = stats.kendalltau(range(4), np.mean(values, axis=1)).statistic
    assert result.effect == pytest.approx(expected)
    assert result.unit == "rank correlation"
    assert -1 <= result.low <= result.effect <= result.high <= 1


def test_the_interval_of_an_order_stays_a_correlation():
    result = ordered([[0.1, 0.9, 0.2], [0.5, 0.3, 0.6], [0.3, 0.35, 0.9]])
    assert (result.low, result.high) == (-1, 1)
    assert result.verdict == "undecided"


def test_an_order_far_beyond_the_spread_is_reproduced_and_its_reverse_contradicted():
    rising = [[0.1, 0.11, 0.12], [0.31, 0.3, 0.33], [0.5, 0.53, 0.51]]
    assert ordered(rising).verdict == "reproduced"
    assert ordered(rising[::-1]).verdict == "contradicted"


def test_an_order_that_no_replicate_changes_is_not_certain_for_that():
    result = ordered([[0.1, 0.2], [0.3, 0.35], [0.5, 0.6]])
    assert (result.effect, result.verdict) == (1, "undecided")
    assert result.low < 0


@pytest.mark.parametrize("step", [0.0, 0.125, 0.1])
def test_differences_that_are_equal_in_all_replicates_have_no_error_and_decide_nothing(step):
    result = ordered([[0.3, 0.4, 0.7], [0.3 + step, 0.4 + step, 0.7 + step]])
    assert (result.effect, result.low, result.high) == (step > 0, -1, 1)
    assert result.verdict == "undecided"


def test_equal_effects_are_neither_in_order_nor_against_it():
    values = [[0.1, 0.1], [0.3, 0.3], [0.3, 0.3], [0.2, 0.2]]
    assert ordered(values).effect == pytest.approx((3 - 2) / 6)


def test_claims_keep_the_suites_order_and_controls_stay_marked():
    claims = {"z": GAIN, "a": GAIN | {"control": True}}
    result = judge(suite(claims), table(trials(P=PRETRAINED, RI=RANDOM)), "net")
    assert [(v.claim, v.control) for v in result] == [("z", False), ("a", True)]
    assert Verdict.model_validate_json(result[0].model_dump_json()) == result[0]


@given(st.permutations(range(6)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rows_does_not_matter(order):
    records = trials(P=PRETRAINED, RI=RANDOM)
    expected = verdict(GAIN, records)
    result = verdict(GAIN, [records[k] for k in order])
    assert (result.effect, result.low, result.high) == pytest.approx(
        (expected.effect, expected.low, expected.high)
    )


# --- several source networks ------------------------------------------------------------------

TWICE = [0.9, 0.8, 0.95, 0.88, 0.84, 0.93]
"""Replicates 0 and 3 start from network 0, and so on."""
ALONE = [0.6, 0.55, 0.6, 0.58, 0.61, 0.57]


def from_networks(count, arm="P", **arms):
    """Trials whose first arm starts from ``count`` source networks."""
    return [
        row.model_copy(update={"network": row.replicate % count})
        if row.initialization == f"{arm}-T" else row
        for row in trials(**arms)
    ]  # fmt: skip


def of_networks(count, replicates=6):
    source = {"dataset": {"name": "digits"}, "recipe": "short", "networks": count}
    return {"sources": {"source": source}, "replicates": replicates}


def test_arms_of_several_networks_are_judged_over_the_networks():
    result = verdict(GAIN, from_networks(3, P=TWICE, RI=ALONE), **of_networks(3))
    arms = [np.reshape(arm, (2, 3)).mean(axis=0) for arm in (TWICE, ALONE)]
    assert (result.effect, result.low, result.high) == pytest.approx(of_difference(*arms, ANY))
    assert (result.n, result.interval) == (3, "ranged-t-networks-95")
    assert result.covers == "3 source networks x 2 replicates"
    assert result.covers_text == "over 3 source networks x 2 replicates"
    assert result.p_reproduced == pytest.approx(p_value(*arms), rel=1e-5)


def test_arms_without_a_source_are_judged_over_replicates():
    records = from_networks(3, P=TWICE, RI=ALONE, MV=ALONE[::-1])
    claim = {"terms": [term("RI-T"), term("MV-T", weight=-1.0)]}
    result = verdict(claim, records, **of_networks(3))
    assert (result.n, result.interval, result.covers) == (6, "ranged-t-95", "replicates")


def test_one_network_is_said_to_be_given():
    records = table(trials(P=TWICE, RI=ALONE))
    claims = {"gain": GAIN, "random": {"terms": [term("RI-T")]}}
    judged = judge(suite(claims, replicates=6), records, "net", single_source=["P-T"])
    assert [verdict.covers for verdict in judged] == ["replicates, given P", "replicates"]
    assert judged[0].covers_text == "over 6 replicates, given P"
    assert judged[0].model_copy(update={"covers": ""}).covers_text == "n 6"
    mixed = from_networks(3, P=TWICE, RI=ALONE, MV=ALONE)
    claim = {"terms": [term("P-T"), term("MV-T", weight=-1.0)]}
    (result,) = judge(
        suite({"c": claim}, **of_networks(3)), table(mixed), "net", single_source=["MV-T"]
    )
    assert result.covers == "3 source networks x 2 replicates, given the one network of MV-T"


def test_two_networks_are_too_few_for_a_verdict():
    result = verdict(GAIN, from_networks(2, P=TWICE, RI=ALONE), **of_networks(2))
    assert result.verdict == "undecided"
    assert result.reason == "a verdict needs 3 source networks, found 2"
    equal = from_networks(3, P=[0.75] * 6, RI=[0.5] * 6)
    result = verdict(GAIN, equal, **of_networks(3))
    assert result.reason == "every source network gives the same value: their spread is not known"


def test_a_network_with_a_lost_replicate_counts_with_the_others():
    records = from_networks(3, P=[*TWICE[:5], None], RI=ALONE)
    result = verdict(GAIN, records, **of_networks(3))
    assert (result.n, result.covers) == (3, "3 source networks, 5 replicates")
    assert result.verdict == "undecided"
    assert result.reason.startswith("replicate 5 gave no value, and the verdict depends")


def test_shares_and_orders_of_several_networks():
    records = from_networks(3, P=TWICE, RI=ALONE, MV=[0.7] * 6)
    share = GAIN | {"relative_to": [term("P-T"), term("MV-T", weight=-1.0)]}
    order = {"order": [[term("RI-T")], [term("MV-T")], [term("P-T")]]}
    means = np.reshape([TWICE, ALONE, [0.7] * 6], (3, 2, 3)).mean(axis=1)
    p, ri, mv = (row.tolist() for row in means)

    def pick(values):
        return lambda replicates: float(np.mean([values[k] for k in replicates]))

    def gain(first, second):
        return [Summand(1, pick(first), ANY), Summand(-1, pick(second), ANY)]

    result = verdict(share, records, **of_networks(3))
    expected = weighted_ratio(gain(p, ri), gain(p, mv), range(3))
    assert (result.effect, result.low, result.high) == pytest.approx(expected[:3])
    assert (result.interval, result.n) == ("ranged-fieller-networks-95", 3)
    result = verdict(order, records, **of_networks(3))
    levels = [[Summand(1, pick(values), ANY)] for values in (ri, mv, p)]
    expected = concordance(levels, (), range(3))
    assert (result.effect, result.low, result.high) == pytest.approx(expected[:3])
    assert (result.interval, result.n) == ("pairs-networks-95", 3)


def test_pairs_of_a_network_are_left_out_with_it():
    """Pairs of P-T within a network, against pairs of RI-T from anywhere."""
    rng = np.random.default_rng(0)
    within = [(i, j) for i, j in itertools.combinations(range(6), 2) if i % 3 == j % 3]
    value = {
        **{("P-T", i, j): 0.5 + 0.1 * rng.normal() for i, j in within},
        **{("RI-T", i, j): 0.1 * rng.normal() for i, j in itertools.combinations(range(6), 2)},
    }
    records = [
        record(v, initialization=arm, other_initialization=arm, replicate=i, other_replicate=j,
               diagnostic="curve", network=i % 3 if arm == "P-T" else None)
        for (arm, i, j), v in value.items()
    ]  # fmt: skip
    pairs = [term(arm, other_initialization=arm, diagnostic="curve") for arm in ("P-T", "RI-T")]
    claim = {"terms": [pairs[0], pairs[1] | {"weight": -1.0}]}
    result = verdict(claim, records, **of_networks(3))

    def effect(arm):
        def mean(networks):
            return np.mean([v for k, v in value.items()
                            if k[0] == arm and {k[1] % 3, k[2] % 3} <= {*networks}])  # fmt: skip

        return mean

    both = [Summand(1, effect("P-T"), ANY), Summand(-1, effect("RI-T"), ANY)]
    expected = weighted_sum(both, range(3))
    assert (result.effect, result.low, result.high) == pytest.approx(expected[:3])
    assert result.n == 3


def test_a_bounded_quantity_has_the_interval_of_its_range():
    share = term(metric="test_metric")
    first, second = [0.99, 0.9, 1.0], [0.4, 0.3, 0.35]
    accuracies = of_metric(trials(P=first, RI=second))
    result = verdict({"terms": [share]}, accuracies)
    expected = replicate_mean(dict(enumerate(first)), ends=(0.0, 1.0))
    assert (result.low, result.high) == pytest.approx(expected[1:3])
    assert (result.high, result.interval) == (1.0, "ranged-t-95")
    result = verdict(ACCURACY_GAIN, accuracies)
    series = (dict(enumerate(values)) for values in (first, second))
    expected = replicate_difference(*series, ends=(0.0, 1.0))
    assert (result.low, result.high) == pytest.approx(expected[1:3])


def test_a_diagnostic_declares_the_range_of_its_metric():
    terms = [term(diagnostic="curve", metric="area")]
    rows = [record(v, diagnostic="curve", metric="area", replicate=k)
            for k, v in enumerate(PRETRAINED)]  # fmt: skip
    measurements = Measurements.of_records(rows, {("curve", "area"): (0.0, 1.0)})
    (result,) = judge(suite({"claim": {"terms": terms}}), measurements, "net")
    assert result.interval == "ranged-t-95"
    plain = Measurements.of_records(rows)
    (result,) = judge(suite({"claim": {"terms": terms}}), plain, "net")
    assert result.interval == "wide-t-95"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.2, 0.5, "[-0.200, +0.500]"),
        (0.9987, 0.9991, "[+0.9987, +0.9991]"),
        (0.99991, 1.0, "[+0.9999, +1.0000]"),
        (0.999998, 1.0, "[+0.999998, +1.000000]"),
        (1 - 1e-9, 1.0, "[+1.000, +1.000]"),
        (0.25, 0.25, "[+0.250, +0.250]"),
    ],
)
def test_bounds_that_differ_are_written_so_that_they_do(low, high, expected):
    assert bracketed(low, high, lambda bound, digits: f"{bound:+.{digits}f}") == expected
