"""icons@1: its budget, its controls, and that its icons are divided by icon."""

import json
from pathlib import Path

import pytest

from transferbench.claims import planned_claims
from transferbench.registry import load_registry
from transferbench.suite.loading import load_suite

PINNED = Path(__file__).with_name("pinned_plan_ids.json")
POWER = 0.9


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture(scope="module")
def suite(registry):
    return load_suite("icons@1", registry)


@pytest.fixture(scope="module")
def items(suite, registry):
    """Target and split -> the items of its icons."""
    spec = registry.dataset("openmoji")
    return {
        (label, split): spec.items(spec.parse(target.dataset.params), split, None)
        for label, target in suite.targets.items()
        for split in ("train", "test")
    }


def test_it_keeps_its_budget(suite, items):
    jobs = json.loads(PINNED.read_text(encoding="utf-8"))["icons@1"]
    assert jobs["trial"][0] + jobs["tuning"][0] == 60
    assert {target.labels_per_class for target in suite.targets.values()} == {10}
    for recipe in suite.recipes.values():
        assert recipe.epochs * 5 * 10 == 4000
    assert all(len(of.labels) <= 300 for (_, split), of in items.items() if split == "test")


def test_every_control_has_its_power(suite, registry):
    controls = [claim for claim in planned_claims(suite, registry) if claim.control]
    assert len(controls) == 3
    for control in controls:
        assert control.power >= POWER, control


def test_the_pilots_are_of_another_draw(suite):
    draws = {claim.pilot.draw for claim in suite.claims.values() if claim.pilot}
    assert draws
    assert suite.draw not in draws


def test_no_icon_is_in_two_splits_in_any_style(items):
    groups = {
        split: {group for (_, of), part in items.items() if of == split for group in part.groups}
        for split in ("train", "test")
    }
    assert not groups["train"] & groups["test"]
    styles = [list(items[label, "test"].groups) for label in ("colour", "line")]
    assert styles[0] == styles[1]


def test_all_claims_are_on_one_external_p(suite):
    assert not suite.sources
    assert {use.name for use in suite.initializations.values()} == {
        "pretrained", "random", "second-random"
    }  # fmt: skip
