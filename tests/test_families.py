"""Verdicts counted per claim of the paper, before and after Holm's correction."""

import json

import numpy as np
import pytest
from scipy import stats
from t_intervals import p_value
from test_claims import (
    ACCURACY_GAIN,
    GAIN,
    PRETRAINED,
    RANDOM,
    of_metric,
    record,
    suite,
    table,
    term,
    trials,
    verdict,
)

from transferbench.claims import Verdict, controls_of, counts_of, families_of, family_of, judge
from transferbench.statistics import replicate_difference
from transferbench.suite import Suite


def judged(claim, decision, p_reproduced=1.0, p_contradicted=1.0, **fields):
    return Verdict(
        claim=claim, statement="It is so.", effect=0.1, unit="fraction", low=0.0, high=0.2, n=5,
        interval="jackknife-95", threshold=0.0, relation="above", verdict=decision, reason="",
        p_reproduced=p_reproduced, p_contradicted=p_contradicted,
        **{"source": "", "control": False} | fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "source", "expected"),
    [
        ("C2", "paper 3.1; C9", "C2"),
        ("", "Raghu et al. 2019; C24", "C24"),
        ("", "C25", "C25"),
        ("", "paper 3.1, Fig 2", "gain"),
        ("", "C3 and more", "gain"),
        ("", "", "gain"),
    ],
)
def test_a_family_is_given_or_ends_the_source_or_is_the_claim_alone(family, source, expected):
    assert family_of("gain", family, source) == expected


def test_a_family_holds_where_all_its_claims_do_and_fails_where_one_does():
    families = families_of([
        judged("a", "reproduced", 0.01, source="C1"),
        judged("b", "reproduced", 0.02, source="C1"),
        judged("c", "reproduced", 0.01, source="C2"),
        judged("d", "contradicted", 1.0, 0.001, source="C2"),
        judged("e", "reproduced", 0.01, source="C3"),
        judged("f", "undecided", 0.2, source="C3"),
        judged("null", "contradicted", control=True),
    ])  # fmt: skip
    assert [(f.name, f.verdict) for f in families] == [
        ("C1", "reproduced"), ("C2", "contradicted"), ("C3", "undecided"),
    ]  # fmt: skip
    # The largest of all; the smallest times their number.
    assert [f.p for f in families] == pytest.approx([0.02, 0.002, 0.2])
    assert [f.adjusted_p for f in families] == pytest.approx([0.04, 0.006, 0.2])
    assert [f.adjusted for f in families] == ["reproduced", "contradicted", "undecided"]
    assert counts_of(f.verdict for f in families).words == (
        "1 reproduced, 1 contradicted, 1 undecided"
    )


def test_what_one_claim_decides_many_may_not():
    single = [judged("a", "reproduced", 0.03, source="C1")]
    assert families_of(single)[0].adjusted == "reproduced"
    (first, second) = families_of([*single, judged("b", "undecided", 0.5, source="C2")])
    assert (first.verdict, first.adjusted, first.adjusted_p) == ("reproduced", "undecided", 0.06)
    assert second.adjusted_p == 0.5


def test_a_claim_without_a_p_value_is_not_established():
    (family,) = families_of([
        judged("a", "reproduced", 0.001, source="C1"),
        judged("b", "undecided", None, None, source="C1"),
    ])  # fmt: skip
    assert (family.p, family.adjusted) == (1.0, "undecided")


def test_verdicts_of_an_earlier_version_have_no_adjusted_counts():
    fields = json.loads(judged("a", "reproduced").model_dump_json())
    for name in ("family", "p_reproduced", "p_contradicted"):
        del fields[name]
    (family,) = families_of([Verdict.model_validate(fields)])
    assert (family.verdict, family.p, family.adjusted) == ("reproduced", None, None)


def test_controls_pass_fail_or_have_too_little_power():
    verdicts = [
        judged(f"{k}", decision, control=True)
        for k, decision in enumerate(["reproduced", "undecided", "undecided", "contradicted"])
    ]
    assert controls_of(verdicts).control_words == "1 passed, 1 failed, 2 underpowered"
    assert families_of(verdicts) == []
    assert controls_of([judged("a", "reproduced")]).control_words == "none"


def test_a_suite_names_the_family_and_older_suites_do_not_write_it():
    named = suite({"claim": GAIN | {"family": "C2"}})
    (result,) = judge(named, table(trials(P=PRETRAINED, RI=RANDOM)), "net")
    assert result.family == "C2"
    assert named.model_dump(mode="json")["claims"]["claim"]["family"] == "C2"
    assert "family" not in suite({"claim": GAIN}).model_dump(mode="json")["claims"]["claim"]
    assert Suite.model_validate(named.model_dump(mode="json")) == named


# --- the p-values of verdicts ---------------------------------------------------------------------


@pytest.mark.parametrize(("relation", "threshold"), [("above", 0.1), ("below", 0.5)])
def test_the_p_value_of_a_difference_is_that_of_the_paired_t_test(relation, threshold):
    claim = GAIN | {"relation": relation, "threshold": threshold}
    result = verdict(claim, trials(P=PRETRAINED, RI=RANDOM))
    expected = p_value(PRETRAINED, RANDOM, threshold)
    assert result.p_reproduced == pytest.approx(expected, rel=1e-6)
    assert result.p_contradicted == 1.0
    opposite = "below" if relation == "above" else "above"
    result = verdict(claim | {"relation": opposite}, trials(P=PRETRAINED, RI=RANDOM))
    assert (result.p_reproduced, result.p_contradicted) == (1.0, pytest.approx(expected, rel=1e-6))


def test_the_p_value_of_equivalence_is_the_larger_of_two_one_sided_tests_doubled():
    first, second = [0.61, 0.6, 0.58, 0.62, 0.6], [0.6, 0.6, 0.6, 0.6, 0.59]
    claim = GAIN | {"relation": "within", "threshold": 0.03}
    result = verdict(claim, trials(P=first, RI=second), replicates=5)
    both = [p_value(first, second, threshold) for threshold in (-0.03, 0.03)]
    assert result.p_reproduced == pytest.approx(max(both), rel=1e-6)
    assert result.verdict == "reproduced"


@pytest.mark.parametrize("values", [PRETRAINED, [0.62, 0.7, 0.55], [0.1, 0.12, 0.2]])
def test_a_verdict_stands_where_its_p_value_is_below_the_level(values):
    result = verdict(GAIN, trials(P=values, RI=RANDOM))
    assert (result.verdict == "reproduced") == (result.p_reproduced < 0.05)
    assert (result.verdict == "contradicted") == (result.p_contradicted < 0.05)


def test_each_value_must_hold_so_that_the_largest_p_value_counts():
    noise = np.array([-1, 0.5, 0.2, -0.3, 0.6])
    values = {"stem": 0.5 + 0.05 * noise, "top": 0.2 + 0.2 * noise}
    records = [
        record(value, metric="drop", coordinates={"module": module}, replicate=k)
        for module, result in values.items()
        for k, value in enumerate(result.tolist())
    ]
    claim = {"terms": [term(metric="drop")], "each": {"coordinates": ["module"]}}
    result = verdict(claim, records, replicates=5)
    p = {
        module: 2 * stats.t.sf(stats.ttest_1samp(v, 0).statistic / 1.14, 4)
        for module, v in values.items()
    }
    assert result.p_reproduced == pytest.approx(max(p.values()), rel=1e-6)
    result = verdict(claim | {"relation": "below"}, records, replicates=5)
    assert result.p_contradicted == pytest.approx(2 * min(p.values()), rel=1e-6)


def test_a_module_without_spread_leaves_the_claim_undecided():
    values = {"stem": [0.9, 0.9, 0.9], "top": [0.5, 0.55, 0.45]}
    records = [
        record(value, metric="drop", coordinates={"module": module}, replicate=k)
        for module, result in values.items()
        for k, value in enumerate(result)
    ]
    claim = {"terms": [term(metric="drop")], "each": {"coordinates": ["module"]}}
    result = verdict(claim, records)
    assert (result.verdict, result.p_reproduced) == ("undecided", 1.0)


def test_the_p_value_of_an_order_is_that_of_the_pair_which_is_least_certain():
    steps = {0: [0.1, 0.12, 0.11, 0.13, 0.1], 1: [0.4, 0.42, 0.38, 0.41, 0.45]}
    records = [
        record(value, metric="score", replicate=k, coordinates={"step": step})
        for step, values in steps.items()
        for k, value in enumerate(values)
    ]
    order = {"order": [[term(metric="score", coordinates={"step": step})] for step in steps]}
    result = verdict(order, records, replicates=5)
    # Tau of one pair is above 0 where its lower bound is: at twice the p-value of the pair.
    assert result.p_reproduced == pytest.approx(2 * p_value(steps[1], steps[0]), rel=1e-5)


def test_what_decides_nothing_has_no_p_value():
    two = verdict(GAIN, trials(P=[0.9, 0.91], RI=[0.3, 0.32]), replicates=2)
    equal = verdict(GAIN, trials(P=[0.9, 0.8, 0.7], RI=[0.775, 0.675, 0.575]))
    lost = verdict(GAIN | {"terms": [term(metric="loss")]},
                   [record(v, metric="loss", unit="nats", replicate=k)
                    for k, v in enumerate([1.0, 1.1, 1.2, None])], replicates=4)  # fmt: skip
    for result in (two, equal, lost):
        assert (result.verdict, result.p_reproduced, result.p_contradicted) == (
            "undecided", None, None,
        )  # fmt: skip


def test_a_lost_replicate_counts_at_its_worst():
    good, bad = [0.8 + 0.01 * (k % 3) for k in range(20)], [0.4] * 20
    records = of_metric(trials(P=[*good, None], RI=[*bad, 0.4]))
    result = verdict(ACCURACY_GAIN, records, replicates=21)
    arms = [dict(enumerate(values)) for values in ([*good, 0.0], [*bad, 1.0])]
    # Where its p-value is the error, the interval of the worst case ends at the threshold.
    level = 1 - result.p_reproduced
    assert replicate_difference(*arms, level=level, ends=(0, 1)).low == pytest.approx(0, abs=1e-6)
