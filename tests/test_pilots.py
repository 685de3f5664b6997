"""Pilots: from measurements to the power of a plan."""

import numpy as np
import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML
from t_intervals import ANY
from test_claims import GAIN, record, suite, table, term, trials

from transferbench.api.pilots import RunPilot, pilots_as_yaml
from transferbench.claims import claim_power, pilot_of, planned_claims
from transferbench.registry import load_registry
from transferbench.statistics import expected_half_width, power_above, power_within
from transferbench.suite import Claim, Pilot, Suite
from transferbench.suite.bounds import value_mistakes

FIRST, SECOND = [0.9, 0.8, 0.95, 0.88, 0.9], [0.6, 0.55, 0.6, 0.7, 0.62]
PILOT = {"draw": "pilot-1", "n": 5, "effect": 0.2, "deviation": 0.1}
NULL = GAIN | {"relation": "within", "threshold": 0.1, "control": True}


def piloted(claim, records, **options):
    planned = suite({"claim": claim}, replicates=5, draw="pilot-1", **options)
    return pilot_of(planned, planned.claims["claim"], table(records), "net")


def by_step(values, metric="score"):
    return [
        record(value, metric=metric, replicate=k, coordinates={"step": step})
        for step, row in enumerate(values)
        for k, value in enumerate(row)
    ]


def steps(metric="score", count=3):
    return [[term(metric=metric, coordinates={"step": step})] for step in range(count)]


def test_the_pilot_of_a_difference_is_the_mean_and_deviation_of_paired_differences():
    pilot = piloted(GAIN, trials(P=FIRST, RI=SECOND))
    gains = np.subtract(FIRST, SECOND)
    assert (pilot.effect, pilot.deviation) == pytest.approx((gains.mean(), gains.std(ddof=1)))
    assert (pilot.draw, pilot.n, pilot.levels) == ("pilot-1", 5, ())


def test_the_pilot_of_a_share_is_that_of_its_contrast():
    records = trials(P=FIRST, RI=SECOND)
    share = {"terms": [term("RI-T")], "relative_to": [term("P-T")]}
    pilot = piloted(share, records)
    ratio = np.mean(SECOND) / np.mean(FIRST)
    contrast = (np.array(SECOND) - ratio * np.array(FIRST)) / np.mean(FIRST)
    assert (pilot.effect, pilot.deviation) == pytest.approx((ratio, contrast.std(ddof=1)))


def test_of_each_value_the_pilot_is_the_one_with_the_least_power():
    rng = np.random.default_rng(0)
    values = {"stem": rng.normal(0.5, 0.01, 5), "top": rng.normal(0.2, 0.2, 5)}
    records = [
        record(float(value), metric="drop", replicate=k, coordinates={"module": module})
        for module, row in values.items()
        for k, value in enumerate(row)
    ]
    claim = {"terms": [term(metric="drop")], "each": {"coordinates": ["module"]}}
    pilot = piloted(claim, records)
    assert pilot.effect == pytest.approx(values["top"].mean())
    assert pilot.deviation == pytest.approx(values["top"].std(ddof=1))


def test_the_pilot_of_an_order_has_the_levels_and_the_deviation_that_replicates_do_not_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 5, 5)
    values = np.arange(3)[:, None] + shared + rng.normal(0, 0.2, (3, 5))
    pilot = piloted({"order": steps()}, by_step(values.tolist()))
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    assert pilot.deviation == pytest.approx(((rest**2).sum() / (2 * 4)) ** 0.5)
    assert pilot.levels == pytest.approx(values.mean(axis=1))
    assert (pilot.effect, pilot.against) == (1.0, ())
    other = by_step((-values).tolist(), "reached")
    claim = {"order": steps(), "against": steps("reached")}
    pilot = piloted(claim, by_step(values.tolist()) + other)
    assert pilot.effect == -1.0
    assert pilot.against == pytest.approx(-values.mean(axis=1))
    assert pilot.against_deviation == pytest.approx(pilot.deviation)


def test_a_run_that_tells_nothing_says_why():
    assert "fewer than 3 replicates" in piloted(GAIN, trials(P=FIRST[:2], RI=SECOND[:2]))
    assert "no spread" in piloted(GAIN, trials(P=FIRST, RI=FIRST))


# --- power ----------------------------------------------------------------------------------------


EVEN = {("trial", "score"): ANY}


def claim_of(**fields):
    return Claim.model_validate({"statement": "so", "relation": "above"} | fields)


def test_a_claim_has_the_power_of_its_margin_and_a_control_that_of_no_effect():
    pilot = Pilot(**PILOT)
    above = claim_of(**GAIN, threshold=0.05)
    assert claim_power(above, pilot, 5, EVEN) == power_above(0.2 - 0.05, 0.1, 5)
    below = claim_of(**GAIN | {"relation": "below", "threshold": 0.25})
    assert claim_power(below, pilot, 5, EVEN) == power_above(0.25 - 0.2, 0.1, 5)
    within = claim_of(**GAIN | {"relation": "within", "threshold": 0.3})
    assert claim_power(within, pilot, 5, EVEN) == power_within(0.2, 0.3, 0.1, 5)
    assert claim_power(claim_of(**NULL), pilot, 20, EVEN) == power_within(0.0, 0.1, 0.1, 20)
    assert claim_power(above, pilot, 2, EVEN) == 0.0


def test_a_plan_tells_width_and_power_of_what_has_a_pilot():
    order = {"order": steps(), "pilot": PILOT | {"levels": [0.0, 1.0, 2.0]}}
    claims = {"gain": GAIN | {"pilot": PILOT, "family": "C2"}, "plain": GAIN, "order": order,
              "null": NULL | {"pilot": PILOT}}  # fmt: skip
    gain, plain, ordered, null = planned_claims(suite(claims, replicates=6), load_registry())
    assert (gain.family, gain.n, gain.has_pilot) == ("C2", 6, True)
    assert gain.half_width == expected_half_width(0.1, 6, factor=skewed(6))
    assert gain.power == power_above(0.2, 0.1, 6, factor=skewed(6))
    fewer, enough = (
        power_above(0.2, 0.1, n, factor=skewed(n)) for n in (gain.needed - 1, gain.needed)
    )
    assert fewer < 0.9 <= enough
    assert (plain.n, plain.power, plain.has_pilot) == (6, None, False)
    assert (ordered.half_width, ordered.power > 0.9) == (None, True)
    assert (null.control, null.family) == (True, "")
    assert null.power == power_within(0.0, 0.1, 0.1, 6, factor=skewed(6))


def test_a_plan_says_that_the_power_of_a_claim_on_each_value_is_that_of_the_weakest():
    claims = {
        "gain": GAIN | {"pilot": PILOT},
        "each": GAIN | {"each": {"coordinates": ["target"]}, "pilot": PILOT},
    }
    gain, each = planned_claims(suite(claims, replicates=6), load_registry())
    assert (gain.of_weakest, each.of_weakest) == (False, True)
    assert each.power == gain.power


def skewed(n):
    """Of Student-t's quantile, for a metric that declares no range."""
    return 1 + 3.3 / n**0.5


def test_a_row_of_trials_with_more_replicates_plans_for_them():
    more = [{"targets": ["near"], "perturbations": ["identity"], "replicates": 30}]
    (null,) = planned_claims(suite({"null": NULL | {"pilot": PILOT}}, trials=more), load_registry())
    assert null.n == 30


def test_a_claim_on_arms_that_are_not_run_is_not_planned():
    planned = suite({"gain": GAIN}, replicates=6)
    one_arm = {"RI-T": planned.initializations["RI-T"]}
    reduced = planned.model_copy(update={"initializations": one_arm})
    assert planned_claims(reduced, load_registry()) == []


def test_a_claim_over_source_networks_counts_them():
    options = {
        "sources": {"source": {"dataset": {"name": "digits"}, "recipe": "short", "networks": 3}},
        "initializations": {
            "P-T": {"name": "pretrained", "recipe": "short"},
            "RI-T": {"name": "random", "recipe": "short"},
        },
    }  # fmt: skip
    (gain,) = planned_claims(suite({"gain": GAIN}, replicates=6, **options), load_registry())
    assert gain.n == 3


# --- the suite ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "pilot", "message"),
    [
        (GAIN, {"levels": [0.1, 0.2]}, "a pilot has levels where the claim is on an order"),
        ({"order": steps()}, {}, "a pilot has levels where the claim is on an order"),
        ({"order": steps(), "against": steps("x")}, {"levels": [0, 1, 2]}, "a pilot has against"),
        ({"order": steps()}, {"levels": [0, 1], "against": [1]}, "as many effects as levels"),
        ({"order": steps()}, {"levels": [0, 1], "against": [1, 2]}, "goes with against_deviation"),
        (GAIN, {"deviation": 0.0}, "greater than 0"),
    ],
)
def test_a_pilot_has_the_form_of_its_claim(claim, pilot, message):
    with pytest.raises(ValidationError, match=message):
        suite({"claim": claim | {"pilot": PILOT | pilot}})


def test_a_pilot_is_of_another_draw():
    claims = {"gain": GAIN | {"pilot": PILOT}}
    (mistake,) = [m for m in value_mistakes(suite(claims, draw="pilot-1")) if "pilot" in m.location]
    assert mistake.location == ("claims", "gain", "pilot", "draw")
    assert "give the suite another draw" in mistake.message
    assert not [m for m in value_mistakes(suite(claims, draw="main")) if "pilot" in m.location]


def test_what_is_printed_is_read_again():
    against = Pilot(**PILOT, levels=(0.1, 0.25), against=(1.0, 2.0), against_deviation=0.125)
    text = pilots_as_yaml(
        [
            RunPilot("gain", "net", Pilot(**PILOT), 6),
            RunPilot("order", "net", against, None),
            RunPilot("lost", "net", None, None, "no spread"),
        ]
    )
    blocks = YAML(typ="safe").load(text)["claims"]
    assert Pilot.model_validate(blocks["gain"]["pilot"]) == Pilot(**PILOT)
    assert Pilot.model_validate(blocks["order"]["pilot"]) == against
    assert "gain:  # n 6 for a power of 90%, by net" in text
    assert "order:  # no n is enough" in text
    assert "# lost: no pilot of net: no spread" in text


def test_suites_without_pilots_do_not_write_them():
    with_pilot = suite({"gain": GAIN | {"pilot": PILOT}, "plain": GAIN})
    written = with_pilot.model_dump(mode="json")["claims"]
    assert "pilot" not in written["plain"]
    assert Suite.model_validate(with_pilot.model_dump(mode="json")) == with_pilot
