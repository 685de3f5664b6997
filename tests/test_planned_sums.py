"""The power that a plan tells, against samples that are judged by the intervals of claims."""

import numpy as np
import pytest
from test_claims import GAIN, suite, term, trials
from test_pilots import NULL, claim_of, piloted

from transferbench.claims import claim_power, planned_claims
from transferbench.registry import load_registry
from transferbench.statistics import (
    PlannedArm,
    Summand,
    mean_of_replicates,
    simulated_bounds,
    weighted_sum,
)
from transferbench.suite import Pilot
from transferbench.suite.loading import load_suite

SHARE = (0.0, 1.0)
SAMPLES = 1000
TERMS = [term("P-T", metric="test_metric"), term("RI-T", metric="test_metric", weight=-1)]


def judged(arms, correlation, n):
    """Bounds of samples of arms. Shapes: (SAMPLES,) both."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(SAMPLES, 1, n))
    own = rng.normal(size=(SAMPLES, len(arms), n))
    noise = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    bounds = []
    for rows in noise:
        parts = [
            Summand(arm.weight, mean_of_replicates(dict(enumerate(arm.mean + arm.deviation * row))),
                    arm.range)
            for arm, row in zip(arms, rows, strict=True)
        ]  # fmt: skip
        interval = weighted_sum(parts, range(n))
        bounds.append((interval.low, interval.high))
    return np.array(bounds).T


@pytest.mark.parametrize(
    ("arms", "correlation", "n"),
    [
        ([(1, 0.97, 0.01), (-1, 0.95, 0.015)], 0.3, 5),
        ([(1, 0.9, 0.02), (-0.5, 0.3, 0.03), (-0.5, 0.7, 0.04)], 0.0, 3),
        ([(1, 0.1, 0.016)], 0.0, 5),
    ],
)
def test_simulated_bounds_are_those_that_judge(arms, correlation, n):
    planned = [PlannedArm(w, SHARE, mean, deviation) for w, mean, deviation in arms]
    signed = np.array([arm.weight * arm.deviation for arm in planned])
    variance = (1 - correlation) * (signed**2).sum() + correlation * signed.sum() ** 2
    effect = sum(arm.weight * arm.mean for arm in planned)
    expected = judged(planned, correlation, n)
    bounds = simulated_bounds(planned, effect, float(variance**0.5), n, seed=1)
    for ours, theirs in zip(bounds, expected, strict=True):
        for share in (0.1, 0.5, 0.9):
            at = np.quantile(theirs, share)
            assert np.mean(ours <= at) == pytest.approx(share, abs=0.04)


def test_arms_in_the_middle_have_all_but_the_power_of_student_t():
    pilot = Pilot(draw="pilot-1", n=5, effect=0.0, deviation=0.02,
                  arms=(0.5, 0.5), arm_deviations=(0.0142, 0.0142))  # fmt: skip
    claim = claim_of(**NULL | {"terms": TERMS, "threshold": 0.04})
    ranges = {("trial", "test_metric"): SHARE}
    without = pilot.model_copy(update={"arms": (), "arm_deviations": ()})
    plain = claim_power(claim, without, 5, ranges)
    # In a sample one arm varies more than the other, which makes a wider interval.
    assert plain - 0.06 < claim_power(claim, pilot, 5, ranges) < plain
    near = pilot.model_copy(update={"arms": (0.97, 0.97)})
    assert claim_power(claim, near, 5, ranges) < plain - 0.1


def test_a_pilot_measures_the_arms_of_its_claim():
    first, second = [0.9, 0.8, 0.95, 0.88, 0.9], [0.6, 0.55, 0.6, 0.7, 0.62]
    pilot = piloted(GAIN, trials(P=first, RI=second))
    assert pilot.arms == pytest.approx((np.mean(first), np.mean(second)))
    assert pilot.arm_deviations == pytest.approx((np.std(first, ddof=1), np.std(second, ddof=1)))


def test_a_plan_says_whose_pilot_has_no_arms():
    pilot = {"draw": "pilot-1", "n": 5, "effect": 0.1, "deviation": 0.01}
    gain, one = ({"terms": terms, "relation": "above"} for terms in (TERMS, TERMS[:1]))
    arms = {"arms": [0.9, 0.8], "arm_deviations": [0.01, 0.01]}
    claims = {"none": gain | {"pilot": pilot}, "known": gain | {"pilot": pilot | arms},
              "one": one | {"pilot": pilot}}  # fmt: skip
    planned = planned_claims(suite(claims, replicates=6), load_registry())
    assert [claim.without_arms for claim in planned] == [True, False, False]
    assert planned[1].half_width > planned[0].half_width


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"arms": [0.9, 0.8], "arm_deviations": [0.1]}, "as many means as arm_deviations"),
        ({"arms": [0.9], "arm_deviations": [0.1]}, "one for each of the claim's terms"),
    ],
)
def test_arms_are_those_of_the_terms(arms, message):
    pilot = {"draw": "pilot-1", "n": 5, "effect": 0.1, "deviation": 0.01}
    with pytest.raises(ValueError, match=message):
        claim_of(**GAIN, pilot=pilot | arms)


@pytest.mark.parametrize(
    "name",
    [
        "quickstart@2",
        "quickstart@3",
        "characters@3",
        "characters@4",
        "initializations@2",
        "null-pair@2",
    ],
)
def test_the_bundled_pilots_have_arms(name):
    planned = planned_claims(load_suite(name), load_registry())
    assert any(claim.has_pilot for claim in planned)
    assert [claim.claim for claim in planned if claim.without_arms] == []
