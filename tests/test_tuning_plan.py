"""Tuning in the plan: its jobs, what shares them, and what the ids of tuned trials depend on."""

import numpy as np
import pytest
from command_line import suite_file
from test_plan import FACTS, SUITE, changed, entry_of, plan_of
from tiny_suite import TINY, tiny_suite

from transferbench.errors import SuiteError
from transferbench.plan import make_plan
from transferbench.plan.tuning import choose_rate
from transferbench.registry import load_registry
from transferbench.specs import Weights
from transferbench.suite import WHOLE_IMAGES, Recipe, Suite
from transferbench.suite.loading import load_suite, refuse_mistakes

RATES = [0.01, 0.001, 0.1]
TUNED = {"optimizer": "adamw", "epochs": 2, "batch_size": 8}
GRID = {"learning_rate": RATES, "replicates": 2}


def tuned(**grid):
    """The suite of the plan's tests with a grid in the recipe of both arms."""
    return changed("recipes.short", TUNED | {"tune": GRID | grid})


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture(scope="module")
def plan(registry):
    return plan_of(registry, tuned())


def jobs_of(plan, kind):
    return {job.id for job in plan.of_kind(kind)}


# --- jobs -------------------------------------------------------------------------------------


def test_every_arm_and_target_has_its_grid_once_for_all_its_trials(plan):
    assert len(plan.of_kind("tuning")) == 2 * 3 * 2
    by_arm = {}
    for cell in plan.cells:
        rows = plan.jobs[cell.job].payload["tuning"]
        assert [row["learning_rate"] for row in rows] == sorted(RATES)
        named = [job for row in rows for job in row["jobs"]]
        assert len(named) == 3 * 2
        assert by_arm.setdefault(cell.initialization, named) == named
        assert set(plan.jobs[cell.job].requires) - jobs_of(plan, "pretrain") == set(named)
    assert set(by_arm["P-T"]).isdisjoint(by_arm["RI-T"])
    cells = {(cell.initialization, cell.replicate) for cell in plan.tuned}
    assert cells == {(arm, r) for arm in ("P-T", "RI-T") for r in range(2)}
    assert {cell.perturbation for cell in plan.tuned} == {WHOLE_IMAGES}


def test_tuning_comes_before_all_trials(plan):
    kinds = [job.kind for job in plan.jobs.values()]
    assert max(i for i, kind in enumerate(kinds) if kind == "tuning") < kinds.index("trial")


def test_a_tuning_job_sees_no_perturbation_and_no_test_image(registry, plan):
    for job in plan.of_kind("tuning"):
        assert "perturbation" not in job.payload
        assert "test_limit" not in job.payload["selection"]
    # Neither the test subset nor what is measured or perturbed moves a choice.
    for path, value in {
        "targets.near.test_limit": 40,
        "recipes.short.evaluate_train": "last",
        "perturbations.block-2.params": {"block": 4},
        "diagnostics": {},
        "replicates": 4,
        "trials": [{"checkpoints": [1]}],
    }.items():
        other = plan_of(registry, changed(path, value, tuned()))
        assert jobs_of(other, "tuning") == jobs_of(plan, "tuning"), path


def test_no_seed_of_tuning_is_one_of_a_trial(plan):
    drawn = {"tuning": set(), "trial": set()}
    for kind, seeds in drawn.items():
        for job in plan.of_kind(kind):
            seeds |= {job.payload["selection"]["seed"], *job.payload["seeds"].values()}
    assert len(drawn["tuning"]) == 2 * 7
    assert drawn["tuning"].isdisjoint(drawn["trial"])


def test_rates_and_arms_see_the_same_draws(plan):
    for name in ("data", "augmentation", "head"):
        seeds = {(cell.replicate, plan.jobs[cell.job].payload["seeds"][name])
                 for cell in plan.tuned}  # fmt: skip
        assert len(seeds) == 2


def test_suites_and_arms_with_equal_trainings_share_their_tuning(registry, plan):
    one_more = tuned(learning_rate=[*RATES, 1.0], replicates=3)
    assert jobs_of(plan, "tuning") < jobs_of(plan_of(registry, one_more), "tuning")
    twin = changed("initializations.twin", {"name": "random", "recipe": "short"}, tuned())
    assert jobs_of(plan_of(registry, twin), "tuning") == jobs_of(plan, "tuning")


def test_an_arm_with_a_recipe_of_its_own_on_a_target_is_tuned_where_that_is_tuned(registry):
    recipes = SUITE["recipes"] | {"grid": TUNED | {"tune": GRID}}
    arm = SUITE["initializations"]["RI-T"] | {"recipes": {"near": "grid"}}
    plan = plan_of(registry, changed("initializations.RI-T", arm, SUITE | {"recipes": recipes}))
    assert {cell.initialization for cell in plan.tuned} == {"RI-T"}
    assert {"tuning" in plan.jobs[cell.job].payload for cell in plan.cells
            if cell.initialization == "P-T"} == {False}  # fmt: skip


def test_the_pre_trained_arm_is_tuned_from_its_weights(registry, plan):
    (source,) = plan.of_kind("pretrain")
    for cell in plan.tuned:
        required = (source.id,) if cell.initialization == "P-T" else ()
        assert plan.jobs[cell.job].requires == required
    weights = Weights(tag="t", origin="o", license="l", pretrained_on="p", sha256="a" * 64)
    entry = entry_of(registry, weights=weights)
    external = make_plan(Suite.model_validate(tuned()), [entry], registry, FACTS)
    assert not external.of_kind("pretrain")
    shared = jobs_of(external, "tuning") & jobs_of(plan, "tuning")
    assert shared == {cell.job for cell in plan.tuned if cell.initialization == "RI-T"}


def test_a_tuning_replicate_starts_from_the_source_network_of_its_number(registry):
    two = changed("replicates", 4, changed("sources.source.networks", 2, tuned(replicates=3)))
    plan = plan_of(registry, two)
    networks = [job.id for job in plan.of_kind("pretrain")]
    assert len(networks) == 2
    for cell in plan.tuned:
        if cell.initialization == "P-T":
            assert plan.jobs[cell.job].requires == (networks[cell.replicate % 2],)
    recorded = {(cell.a.initialization, cell.a.replicate, cell.network)
                for cell in plan.measurements() if cell.diagnostic == "tuning"}  # fmt: skip
    assert recorded == {*(("P-T", r, r % 2) for r in range(3)),
                        *(("RI-T", r, None) for r in range(3))}  # fmt: skip
    single = plan_of(registry, tuned(replicates=3))
    shared = jobs_of(plan, "tuning") & jobs_of(single, "tuning")
    assert shared == {cell.job for cell in plan.tuned
                      if cell.initialization == "RI-T" or cell.replicate != 1}  # fmt: skip


CONTROL = {"name": "second-random", "recipe": "short", "rate_of": "RI-T"}


def test_an_arm_that_takes_the_rate_of_another_has_no_tuning_of_its_own(registry, plan):
    shared = plan_of(registry, changed("initializations.RI2-T", CONTROL, tuned()))
    assert jobs_of(shared, "tuning") == jobs_of(plan, "tuning")
    by_arm = {cell.initialization: shared.jobs[cell.job].payload["tuning"] for cell in shared.cells}
    assert by_arm["RI2-T"] == by_arm["RI-T"] != by_arm["P-T"]
    own = plan_of(registry, changed("initializations.RI2-T", CONTROL | {"rate_of": None}, tuned()))
    assert len(own.of_kind("tuning")) == 3 * 3 * 2
    alone = [{"initializations": ["P-T", "RI2-T"], "perturbations": ["none"]}]
    without = changed("trials", alone, changed("initializations.RI2-T", CONTROL, tuned()))
    assert jobs_of(plan_of(registry, without), "tuning") == jobs_of(plan, "tuning")


def test_the_rate_of_another_arm_is_part_of_a_suite_only_where_it_is_used():
    suite = Suite.model_validate(changed("initializations.RI2-T", CONTROL, tuned()))
    arms = suite.model_dump(mode="json")["initializations"]
    assert arms["RI2-T"]["rate_of"] == "RI-T"
    assert "rate_of" not in arms["RI-T"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_of": "RIT"}, "RI2-T.rate_of: initializations has no 'RIT'; did you mean 'RI-T'?"),
        (
            {"rate_of": "third"},
            "rate_of: third need not be tuned in a run; take the rate of P-T",
        ),
        ({"rate_of": "RI2-T"}, "rate_of: RI2-T need not be tuned in a run"),
        (
            {"recipe": "long"},
            "RI2-T.rate_of: on handwriting the recipe of RI2-T is long, and that of RI-T ",
        ),
    ],
)
def test_a_rate_is_taken_from_an_arm_that_is_always_tuned(tmp_path, registry, change, message):
    arms = TINY["initializations"] | {
        "third": {"name": "second-random", "recipe": "short"}, "RI2-T": CONTROL | change
    }  # fmt: skip
    path = suite_file(tmp_path, **GRIDDED, initializations=arms)
    with pytest.raises(SuiteError) as caught:
        load_suite(str(path), registry)
    assert message in str(caught.value)


def test_recipes_may_differ_on_targets_where_the_arm_is_not_trained(tmp_path, registry):
    arms = TINY["initializations"] | {"RI2-T": CONTROL}
    arms["RI-T"] = arms["RI-T"] | {"recipes": {"elsewhere": "long"}}
    targets = TINY["targets"] | {"elsewhere": TINY["targets"]["handwriting"]}
    rows = [{"targets": ["handwriting"], "perturbations": ["none"]}, {"initializations": ["RI-T"]}]
    suite = GRIDDED | {"initializations": arms, "targets": targets, "trials": rows}
    assert load_suite(str(suite_file(tmp_path, **suite)), registry).initializations["RI2-T"].rate_of


# --- ids --------------------------------------------------------------------------------------


def test_the_id_of_a_tuned_trial_follows_from_the_grid_and_not_from_its_order(registry, plan):
    reordered = plan_of(registry, tuned(learning_rate=sorted(RATES)))
    assert reordered.jobs.keys() == plan.jobs.keys()
    for grid in ({"learning_rate": RATES[:2]}, {"replicates": 1}):
        other = plan_of(registry, tuned(**grid))
        assert jobs_of(other, "trial").isdisjoint(jobs_of(plan, "trial"))
    fixed = plan_of(registry, changed("recipes.short", TUNED | {"learning_rate": RATES[0]}))
    assert jobs_of(fixed, "trial").isdisjoint(jobs_of(plan, "trial"))
    assert not fixed.of_kind("tuning")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("recipes.short.epochs", 3),
        ("recipes.short.evaluate_test", "last"),
        ("targets.near.validation", 0.2),
        ("targets.near.validation_limit", 5),
        ("targets.near.labels_per_class", 3),
        ("targets.near.shuffle_labels", True),
        ("image.mean", [0.4]),
        ("draw", "another"),
    ],
)
def test_what_can_move_a_choice_moves_every_tuning_job(registry, plan, path, value):
    other = plan_of(registry, changed(path, value, tuned()))
    assert jobs_of(other, "tuning").isdisjoint(jobs_of(plan, "tuning"))


def test_a_recipe_without_a_grid_is_written_as_before():
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, epochs=1, batch_size=2)
    assert "tune" not in recipe.model_dump()
    assert recipe.budget == 1
    assert Recipe.model_validate(TUNED | {"tune": GRID}).budget == 3


# --- the choice -------------------------------------------------------------------------------


def chosen(values):
    """The choice from rate -> values of its replicates."""
    table = {f"{rate}-{r}": value for rate, own in values.items() for r, value in enumerate(own)}
    planned = [{"learning_rate": rate, "jobs": [f"{rate}-{r}" for r in range(len(own))]}
               for rate, own in values.items()]  # fmt: skip
    return choose_rate(planned, table.__getitem__)


def test_the_rate_with_the_highest_mean_is_chosen():
    draw = np.random.default_rng(0)
    rates = np.array([0.001, 0.003, 0.01, 0.03])
    for _ in range(200):
        # Few distinct values, so that sums tie often; their means differ in the last bit.
        correct = draw.integers(0, 5, (4, 3))
        expected = rates[np.argmax(correct.sum(axis=1))]  # the first, smallest, of equals
        order = draw.permutation(4)
        choice = chosen({float(rates[i]): (correct[i] / 20).tolist() for i in order})
        assert choice.best.learning_rate == expected
        assert choice.trainings == 12


def test_rounding_breaks_no_tie():
    assert chosen({0.01: [0.1, 0.2], 0.001: [0.15, 0.15]}).best.learning_rate == 0.001


def test_a_training_that_diverged_counts_as_the_worst_and_is_flagged():
    choice = chosen({0.001: [0.4, 0.4], 0.01: [0.9, None], 0.1: [None, None]})
    assert choice.best.learning_rate == 0.01
    assert choice.best.mean == pytest.approx(0.45)
    assert choice.flags == (
        "no finite validation metric in 1 of 2 tuning replicates at 0.01",
        "no finite validation metric in 2 of 2 tuning replicates at 0.1",
    )
    assert chosen({0.001: [0.5, 0.5], 0.01: [0.9, None]}).best.learning_rate == 0.001


@pytest.mark.parametrize(("best", "edge"), [(0, "smallest"), (1, ""), (2, "largest")])
def test_a_rate_at_the_edge_of_its_grid_is_flagged(best, edge):
    values = {rate: [0.9 if i == best else 0.1] for i, rate in enumerate((0.001, 0.01, 0.1))}
    expected = f"the chosen learning rate is the {edge} of 3 rates from 0.001 to 0.1"
    assert chosen(values).flags == ((expected,) if edge else ())


# --- mistakes ---------------------------------------------------------------------------------

SHORT = {"optimizer": "adamw", "epochs": 2, "batch_size": 10}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, "give either learning_rate, or tune to choose it from a grid"),
        ({"learning_rate": 0.1, "tune": GRID}, "give either learning_rate, or tune"),
        ({"tune": GRID, "tuned_over": 3}, "tuned_over follows from the grid of tune: leave it out"),
        ({"tune": {"learning_rate": [0.1, 0.1]}}, "a learning rate stands twice in the grid"),
        ({"tune": {"learning_rate": [0.1]}}, "should have at least 2 items"),
        ({"tune": {"learning_rate": [0.1, 0.0]}}, "should be greater than 0"),
        ({"tune": {"learning_rate": [0.1, 1.0], "replicates": 0}}, "greater than or equal to 1"),
    ],
)
def test_a_recipe_has_one_rate_or_a_grid(tmp_path, recipe, message):
    path = tmp_path / "suite.yaml"
    path.write_text(str(TINY | {"recipes": {"short": SHORT | recipe}}).replace("None", "null"))
    with pytest.raises(SuiteError, match=message):
        load_suite(str(path))


def test_a_grid_is_replaced_by_a_rate_with_set(tmp_path, registry):
    path = suite_file(tmp_path, **GRIDDED)
    with pytest.raises(SuiteError, match="null takes one out"):
        load_suite(str(path), registry, ["recipes.short.learning_rate=3e-3"])
    changes = ["recipes.short.tune=null", "recipes.short.learning_rate=3e-3"]
    assert load_suite(str(path), registry, changes).recipes["short"].budget == 1


GRIDDED = {
    "recipes": {"long": SHORT | {"learning_rate": 0.1}, "short": SHORT | {"tune": GRID}},
    "sources": {"source": TINY["sources"]["source"] | {"recipe": "long"}},
}
"""Of the tiny suite, with both arms tuned."""


def with_grid(**grid):
    return {"recipes": GRIDDED["recipes"] | {"short": SHORT | {"tune": GRID | grid}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sources": TINY["sources"]},
            "sources.source.recipe: short chooses its learning rate for each arm and target, and",
        ),
        (
            {"targets": {"handwriting": {"dataset": {"name": "digits"}, "validation": 0.0}}},
            "targets.handwriting.validation: is 0, and the learning rate of P-T is chosen on valid",
        ),
        (
            {"diagnostics": {"tuning": {"name": "speed"}}, "claims": {}},
            "diagnostics.tuning: tuning means the trainings that rates are chosen from; choose",
        ),
        (
            with_grid(learning_rate=[0.1, 1e7]),
            "recipes.short.tune.learning_rate.1: should be at most 1e+06, not 1e+07",
        ),
        (with_grid(replicates=20_000), "and 120,000 trainings to tune learning rates"),
    ],
)
def test_a_grid_that_cannot_be_tuned_is_refused(registry, changes, message):
    with pytest.raises(SuiteError) as refused:
        refuse_mistakes(tiny_suite(**GRIDDED | changes), registry)
    assert message in str(refused.value)


def test_a_target_needs_validation_images_only_for_arms_that_are_trained_on_it(registry):
    digits = {"dataset": {"name": "digits"}, "validation": 0.0}
    arms = TINY["initializations"]
    changes = {
        "targets": {"handwriting": digits},
        "recipes": GRIDDED["recipes"],
        "sources": GRIDDED["sources"],
        "initializations": {label: arm | {"recipe": "long"} for label, arm in arms.items()}
        | {"tuned": arms["P-T"] | {"recipe": "short"}},
    }
    trials = [{"initializations": ["P-T", "RI-T"]}]
    refuse_mistakes(tiny_suite(**changes, trials=trials), registry)
    with pytest.raises(SuiteError, match="the learning rate of tuned is chosen on validation"):
        refuse_mistakes(tiny_suite(**changes), registry)
