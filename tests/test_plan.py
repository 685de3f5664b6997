"""The plan: what is in it, what is shared, and what its ids depend on."""

import itertools
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from transferbench.errors import SuiteError
from transferbench.identity import digest
from transferbench.plan import DatasetFacts, Entry, job_id, make_plan
from transferbench.registry import identity, load_registry
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.specs import Preprocessing, Weights
from transferbench.suite import Image, Suite

FACTS = {
    "source:source": DatasetFacts("a" * 64, 38, "multi-class", "accuracy", 1000, 100),
    "target:near": DatasetFacts("b" * 64, 10, "multi-class", "accuracy", 1437, 360),
}
SUITE = {
    "name": "tiny",
    "version": "1.0",
    "summary": "For tests.",
    "backbones": ["fixup-resnet8"],
    "image": {"size": 8, "channels": 1, "mean": [0.5], "std": [0.5]},
    "sources": {
        "source": {
            "dataset": {"name": "glyphs", "params": {"characters": "letters"}},
            "recipe": "long",
            "checkpoints": [0, 1],
        }
    },
    "targets": {"near": {"dataset": {"name": "digits"}, "labels_per_class": 2, "test_limit": 50}},
    "perturbations": {
        "none": {"name": "identity"},
        "block-2": {"name": "block-shuffle", "params": {"block": 2}},
    },
    "recipes": {
        "long": {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 3, "batch_size": 8},
        "short": {"optimizer": "adamw", "learning_rate": 0.001, "epochs": 2, "batch_size": 8},
    },
    "initializations": {
        "P-T": {"name": "pretrained", "recipe": "short"},
        "RI-T": {"name": "random", "recipe": "short"},
    },
    "replicates": 3,
    "trials": [{}],
    "diagnostics": {
        "speed": {"name": "speed"},
        "mistakes": {
            "name": "agreement",
            "pairs": [
                {"a": "P-T", "b": "P-T", "replicates": "different", "references": ["RI-T"]},
                {"a": "P-T", "b": "RI-T", "replicates": "same"},
            ],
        },
    },
    "scoring": {
        "initialization": "P-T",
        "baseline": "RI-T",
        "perturbation": "none",
        "chance": {"near": 0.1},
        "reference": {"near": 0.9},
    },
}


@pytest.fixture(scope="module")
def registry():
    return load_registry()


def changed(path, value, base=SUITE):
    """``base`` with the value at a dotted path replaced."""
    key, _, rest = path.partition(".")
    if not rest:
        return base | {key: value}
    return base | {key: changed(rest, value, base.get(key, {}))}


def entry_of(registry, name="fixup-resnet8", weights=None):
    spec, params = registry.resolve_backbone(name)
    return Entry(name, identity(spec, spec.parse(params)), "l", "s", weights)


def plan_of(registry, suite=SUITE, facts=FACTS, **entry):
    return make_plan(Suite.model_validate(suite), [entry_of(registry, **entry)], registry, facts)


def trials_of(plan):
    return {cell[2:]: cell.job for cell in plan.cells}


def test_the_plan_holds_shared_work_once(registry):
    plan = plan_of(registry)
    assert len(plan.of_kind("pretrain")) == 1
    assert len(plan.of_kind("trial")) == 2 * 2 * 3
    assert len(plan.of_kind("diagnosis")) == 12 + 2 * (3 + 3)
    assert len(plan.jobs) == 1 + 12 + 24


def test_ids_are_the_digest_of_kind_and_payload(registry):
    for job in plan_of(registry).jobs.values():
        assert job.id == digest({"kind": job.kind, "payload": job.payload})
        assert job.id == job_id(job.kind, job.payload)


def test_required_jobs_come_first(registry):
    earlier = set()
    for job in plan_of(registry).jobs.values():
        assert earlier.issuperset(job.requires)
        earlier.add(job.id)


def test_only_the_pre_trained_arm_needs_the_pre_training(registry):
    plan = plan_of(registry)
    (source,) = plan.of_kind("pretrain")
    for cell in plan.cells:
        required = (source.id,) if cell.initialization == "P-T" else ()
        assert plan.jobs[cell.job].requires == required


def test_replicates_of_two_arms_and_of_two_backbones_see_the_same_draws(registry):
    first, other = plan_of(registry), plan_of(registry, name="fixup-resnet14")
    for plan in (first, other):
        for cell, partner in itertools.product(plan.cells, first.cells):
            if cell.replicate == partner.replicate:
                a, b = (p.jobs[c.job].payload["seeds"] for p, c in ((plan, cell), (first, partner)))
                assert a == b


def test_references_are_other_replicates(registry):
    plan = plan_of(registry)
    places = {job: cell for cell, job in trials_of(plan).items()}
    for job in plan.of_kind("diagnosis"):
        subjects = [places[subject_id] for subject_id in job.payload["subjects"]]
        if len(subjects) == 3:
            assert len({subject[-1] for subject in subjects}) == 3
            assert subjects[2][2] == "RI-T"


def test_a_perturbation_that_does_nothing_is_no_perturbation(registry):
    whole = changed("perturbations.block-2.params", {"block": 8})
    trials = trials_of(plan_of(registry, whole))
    for (target, perturbation, arm, k), job in trials.items():
        assert job == trials[target, "none", arm, k], perturbation


MOVES_EVERY_TRIAL = {
    "image.size": 4,
    "image.mean": [0.4],
    "image.std": [0.4],
    "targets.near.labels_per_class": 3,
    "targets.near.validation": 0.2,
    "targets.near.validation_limit": 5,
    "targets.near.test_limit": 40,
    "targets.near.shuffle_labels": True,
    "recipes.short.optimizer": "sgd",
    "recipes.short.learning_rate": 0.002,
    "recipes.short.epochs": 3,
    "recipes.short.batch_size": 4,
    "recipes.short.momentum": 0.8,
    "recipes.short.betas": [0.8, 0.99],
    "recipes.short.weight_decay": 0.1,
    "recipes.short.schedule": {"name": "cosine"},
    "recipes.short.label_smoothing": 0.1,
    "recipes.short.mixup": 0.7,
    "recipes.short.gradient_clip": 1.0,
    "recipes.short.precision": "bf16",
    "recipes.short.augmentation": {"flip": True},
    "recipes.short.rate_factors": [{"pattern": "bias", "factor": 0.1}],
    "recipes.short.evaluate_test": "last",
    "recipes.short.evaluate_train": "last",
}
MOVES_PRETRAINED = {
    "sources.source.dataset.params": {"characters": "letters", "per_class": 7},
    "sources.source.shuffle_labels": True,
    "sources.source.validation": 0.1,
    "recipes.long.learning_rate": 0.2,
    "initializations.P-T.params": {"checkpoint": 1},
}
MOVES_NOTHING = {
    "summary": "Other words.",
    "name": "other",
    "version": "2.3",
    "recipes.short.tuned_over": 9,
    "targets.near.distance": "far",
    "scoring.reference": {"near": 0.5},
    "backbones": ["fixup-resnet20"],
}


@pytest.mark.parametrize("path", MOVES_EVERY_TRIAL)
def test_what_can_move_a_number_moves_every_id_of_a_trial(registry, path):
    before = set(trials_of(plan_of(registry)).values())
    after = set(trials_of(plan_of(registry, changed(path, MOVES_EVERY_TRIAL[path]))).values())
    assert not before & after


def test_no_field_of_a_recipe_is_forgotten():
    fields = set(Suite.model_fields["recipes"].annotation.__args__[1].model_fields)
    tested = {path.split(".")[2] for path in MOVES_EVERY_TRIAL if path.startswith("recipes.")}
    assert fields - tested == {"tuned_over", "tune"}  # the latter has tests of its own


@pytest.mark.parametrize("path", MOVES_PRETRAINED)
def test_what_moves_the_source_moves_what_starts_from_it_and_nothing_else(registry, path):
    before = trials_of(plan_of(registry))
    after = trials_of(plan_of(registry, changed(path, MOVES_PRETRAINED[path])))
    for axes, job in before.items():
        assert (after[axes] == job) == (axes[2] == "RI-T")


@pytest.mark.parametrize("path", MOVES_NOTHING)
def test_what_cannot_move_a_number_moves_no_id(registry, path):
    before = plan_of(registry).jobs
    assert plan_of(registry, changed(path, MOVES_NOTHING[path])).jobs.keys() == before.keys()


def test_a_perturbation_moves_its_own_trials_alone(registry):
    before = trials_of(plan_of(registry))
    for path, value in (
        ("perturbations.block-2.params", {"block": 4}),
        ("perturbations.block-2.apply", "test-only"),
    ):
        after = trials_of(plan_of(registry, changed(path, value)))
        for axes, job in before.items():
            assert (after[axes] == job) == (axes[1] == "none")


def test_a_target_may_have_images_of_its_own(registry):
    """Another normalisation and storage of one target: its trials, and no pre-training."""
    own = SUITE["image"] | {"mean": [0.25], "stored": 12, "fit": "whole"}
    before, after = plan_of(registry), plan_of(registry, changed("targets.near.image", own))
    assert not set(trials_of(before).values()) & set(trials_of(after).values())
    assert before.of_kind("pretrain") == after.of_kind("pretrain")
    (image,) = {digest(job.payload["image"]) for job in after.of_kind("trial")}
    assert image == digest(Image.model_validate(own).model_dump(mode="json"))


def test_a_perturbation_may_leave_out_the_augmentation(registry):
    """As the paper's shuffled images, which were not augmented."""
    suite = changed("recipes.short.augmentation", {"flip": True})
    augmented = trials_of(plan_of(registry, suite))
    plan = plan_of(registry, changed("perturbations.block-2.augment", False, suite))
    plain = trials_of(plan_of(registry))
    for axes, job in trials_of(plan).items():
        # The plan of SUITE, whose recipe augments nothing, has the same trials there.
        assert job == (augmented if axes[1] == "none" else plain)[axes]


def test_other_pixels_move_every_id(registry):
    near = FACTS["target:near"]._replace(fingerprint="c" * 64)
    before = set(plan_of(registry).jobs)
    after = plan_of(registry, facts=FACTS | {"target:near": near})
    assert {job for job in after.jobs if job in before} == {after.of_kind("pretrain")[0].id}


def test_external_weights_replace_the_pre_training(registry):
    def weights(sha256):
        return Weights(tag="t", origin="o", license="l", pretrained_on="p", sha256=sha256)

    first, second = (plan_of(registry, weights=weights(letter * 64)) for letter in "ab")
    assert not first.of_kind("pretrain")
    shared = set(first.jobs) & set(second.jobs)
    assert {cell.job for cell in first.cells if cell.initialization == "RI-T"} <= shared
    assert not {cell.job for cell in first.cells if cell.initialization == "P-T"} & shared
    with pytest.raises(SuiteError, match="have only their final state"):
        plan_of(registry, changed("initializations.P-T.params", {"checkpoint": 1}),
                weights=weights("a" * 64))  # fmt: skip


def test_a_shared_draw_is_shared_by_the_replicates(registry):
    suite = changed("initializations.RI-T.name", "same-random")
    plan = plan_of(registry, suite)
    draws = {
        plan.jobs[cell.job].payload["seeds"]["init"]
        for cell in plan.cells if cell.initialization == "RI-T"
    }  # fmt: skip
    assert len(draws) == 1


@pytest.mark.parametrize(
    ("replicates", "expected"),
    [
        ("same", {(0, 0), (1, 1), (2, 2)}),
        ("next", {(0, 1), (1, 2), (2, 0)}),
        ("different", {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}),
    ],
)
def test_which_replicates_of_two_arms_are_paired(registry, replicates, expected):
    pairs = [{"a": "P-T", "b": "RI-T", "replicates": replicates}]
    plan = plan_of(registry, changed("diagnostics.mistakes.pairs", pairs))
    pairs_made = [
        (diagnosis.a.replicate, diagnosis.b.replicate)
        for diagnosis in plan.measured
        if diagnosis.b and diagnosis.a.perturbation == "none"
    ]
    assert set(pairs_made) == expected
    assert len(pairs_made) == len(expected)


def test_one_replicate_has_no_next(registry):
    pairs = [{"a": "P-T", "b": "RI-T", "replicates": "next"}]
    suite = changed("replicates", 1, changed("diagnostics.mistakes.pairs", pairs))
    assert not [diagnosis for diagnosis in plan_of(registry, suite).measured if diagnosis.b]


def test_a_second_draw_differs_in_nothing_but_the_draw(registry):
    suite = changed("initializations.P-T", {"name": "second-random", "recipe": "short"})
    plan = plan_of(registry, suite)
    seeds = {
        (cell.initialization, cell.replicate): plan.jobs[cell.job].payload["seeds"]
        for cell in plan.cells
    }
    assert len({drawn["init"] for drawn in seeds.values()}) == len(seeds)
    for replicate in {cell.replicate for cell in plan.cells}:
        first, second = (dict(seeds[arm, replicate]) for arm in ("RI-T", "P-T"))
        first.pop("init"), second.pop("init")
        assert first == second


@pytest.mark.parametrize(
    "options",
    [
        {"device": "cuda"},
        {"jobs": 7},
        {"micro_batch": 3},
        {"time_limit_seconds": 5.0},
        {"compile": True},
        {"out": Path("elsewhere") / "deeper"},
    ],
)
def test_where_and_how_a_plan_runs_moves_no_id(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    suite = Suite.model_validate(
        changed("sources.source.dataset.params", {"characters": "digits", "per_class": 2})
    )
    store = tmp_path / "store"
    before = plan_suite(suite, Options(store=store))
    after = plan_suite(suite, Options(store=tmp_path / "other", **options))
    assert before.plan.jobs.keys() == after.plan.jobs.keys()


def test_five_hundred_jobs_are_planned_quickly(registry):
    suite = changed("replicates", 20)
    suite = changed("diagnostics.mistakes.pairs", [], suite)
    suite = changed(
        "perturbations", {f"b{i}": {"name": "block-shuffle", "params": {"block": 2, "mode": mode}}
                          for i, mode in enumerate(["fixed", "per-image"])}
        | SUITE["perturbations"], suite,
    )  # fmt: skip
    started = time.process_time()
    plan = plan_of(registry, suite)
    assert len(plan.jobs) >= 241
    # A guard against quadratic growth, not a measurement: that is the benchmarks' work.
    assert time.process_time() - started < 10


def test_the_source_network_itself_can_be_measured_beside_its_trials(registry):
    pairs = [{"a": "P-T", "b": "P", "replicates": "same"}]
    suite = changed("diagnostics", {"similar": {"name": "agreement", "pairs": pairs},
                                    "one": {"name": "speed", "of": ["P"]}})  # fmt: skip
    plan = plan_of(registry, suite)
    (source,) = plan.of_kind("pretrain")
    beside = [diagnosis for diagnosis in plan.measured if diagnosis.diagnostic == "similar"]
    assert len(beside) == 2 * 3
    assert {diagnosis.b.job for diagnosis in beside} == {source.id}
    assert all(diagnosis.a.replicate == diagnosis.b.replicate for diagnosis in beside)
    assert {diagnosis.job for diagnosis in plan.measured if diagnosis.diagnostic == "one"} == {
        job.id for job in plan.of_kind("diagnosis") if job.payload["subjects"] == [source.id]
    }


def test_a_colour_backbones_preprocessing_is_averaged_for_grey_images(registry):
    constants = Preprocessing(mean=(0.1, 0.2, 0.6), std=(0.2, 0.3, 0.4))
    entry = entry_of(registry)
    plan = make_plan(
        Suite.model_validate(SUITE), [replace(entry, preprocessing=constants)], registry, FACTS
    )
    image = plan.of_kind("trial")[0].payload["image"]
    assert image["mean"] == pytest.approx([0.3])
    assert image["std"] == pytest.approx([0.3])


def test_the_states_that_a_grid_asks_for_are_kept(registry):
    grids = [{}, {"initializations": ["P-T"], "checkpoints": [1, 99]}]
    plan = plan_of(registry, changed("trials", grids))
    checkpoints = {
        cell.initialization: plan.jobs[cell.job].payload["checkpoints"] for cell in plan.cells
    }
    # An epoch behind the last one does not come.
    assert checkpoints["P-T"] == [1]
    assert checkpoints["RI-T"] == []


def test_a_group_takes_the_arms_of_one_replicate_together(tmp_path):
    gathering = tmp_path / "gathering.py"
    gathering.write_text(
        "from transferbench import hookimpl\n"
        "from transferbench.specs import DiagnosticSpec\n"
        "@hookimpl\n"
        "def transferbench_diagnostics():\n"
        "    return [DiagnosticSpec(name='gathering', version=1, summary='s', source='s',\n"
        "        license='CC0-1.0', subjects='group', measure=lambda p, s, c: [])]\n"
    )
    registry = load_registry((gathering,), {})
    diagnosis = {"name": "gathering", "groups": [["P-T", "RI-T"], ["P-T", "absent"]]}
    plan = plan_of(registry, changed("diagnostics", {"together": diagnosis}))
    cells = {(c.target, c.perturbation, c.initialization, c.replicate): c.job for c in plan.cells}
    assert len(plan.measured) == len(cells) / 2
    for measured in plan.measured:
        axes = measured.a.target, measured.a.perturbation
        expected = [cells[*axes, arm, measured.a.replicate] for arm in ("P-T", "RI-T")]
        assert plan.jobs[measured.job].payload["subjects"] == expected
        assert measured.b is None


def test_an_id_holds_the_versions_of_perturbations_named_in_parameters(tmp_path):
    def plan_at(version):
        fade = tmp_path / f"fade_{version}.py"
        fade.write_text(
            "from transferbench import hookimpl\n"
            "from transferbench.specs import PerturbationSpec\n"
            "@hookimpl\n"
            "def transferbench_perturbations():\n"
            f"    return [PerturbationSpec(name='fade', version={version}, summary='s',\n"
            "        source='s', license='CC0-1.0', build=print, severity=lambda p, shape: 1)]\n"
        )
        named = [{"name": name, "settings": [{}]} for name in ("fade", "identity")]
        diagnoses = {
            "faded": {"name": "robustness", "params": {"perturbations": named}},
            "plain": {"name": "robustness", "params": {"perturbations": named[1:]}},
        }
        return plan_of(load_registry((fade,), {}), changed("diagnostics", diagnoses))

    def ids(plan, label):
        return {row.job for row in plan.measured if row.diagnostic == label}

    plan, newer = plan_at(1), plan_at(2)
    payload = plan.jobs[min(ids(plan, "faded"))].payload
    assert payload["diagnostic"]["perturbations"] == [
        {"name": "fade", "version": 1},
        {"name": "identity", "version": 1},
    ]
    assert ids(plan, "faded").isdisjoint(ids(newer, "faded"))
    assert ids(plan, "plain") == ids(newer, "plain")
    trials = [{job.id for job in p.of_kind("trial")} for p in (plan, newer)]
    assert trials[0] == trials[1]


@pytest.mark.parametrize(("limit", "images"), [(20, 20), (None, 50), (99, 50)])
def test_a_diagnosis_costs_its_passes_over_the_images_it_looks_at(registry, limit, images):
    barrier = {
        "name": "barrier",
        "params": {"limit": limit},
        "pairs": [{"a": "P-T", "b": "RI-T", "replicates": "same"}],
    }
    plan = plan_of(registry, changed("diagnostics", {"barrier": barrier}))
    # Eleven points, on train and test images.
    assert {job.work.evaluated for job in plan.of_kind("diagnosis")} == {20 * images}


# --- draws and replicates of a row ------------------------------------------------------------


def test_a_draw_is_part_of_every_seed(registry):
    first, again = (plan_of(registry, SUITE | {"draw": "a"}) for _ in range(2))
    assert list(first.jobs) == list(again.jobs)
    before = plan_of(registry)
    assert plan_of(registry, SUITE | {"draw": ""}).jobs == before.jobs
    for a, b in zip(first.jobs.values(), before.jobs.values(), strict=True):
        assert a.title == b.title
        assert a.id != b.id
        for single, other in zip(seeds_in(a.payload), seeds_in(b.payload), strict=True):
            assert single != other
    assert not set(first.jobs) & set(plan_of(registry, SUITE | {"draw": "b"}).jobs)


def seeds_in(payload):
    """Every seed of a payload, wherever it stands."""
    for name, value in payload.items():
        if name == "seeds":
            yield from value.values()
        elif name == "seed":
            yield value
        elif isinstance(value, dict) and name != "params":
            yield from seeds_in(value)


def test_a_row_of_trials_has_its_own_replicates(registry):
    rows = [
        {"perturbations": ["none"], "replicates": 5},
        {"perturbations": ["block-2"], "initializations": ["RI-T"], "replicates": 2},
        {"perturbations": ["block-2"]},
    ]
    plan = plan_of(registry, SUITE | {"trials": rows})
    counts = Counter(cell.arm_key[2:] for cell in plan.cells)
    assert counts == {
        ("none", "P-T"): 5, ("none", "RI-T"): 5, ("block-2", "P-T"): 3, ("block-2", "RI-T"): 3,
    }  # fmt: skip
    before = {cell[2:]: cell.job for cell in plan_of(registry).cells}
    after = {cell[2:]: cell.job for cell in plan.cells}
    assert all(after[axes] == job for axes, job in before.items())
    measured = Counter((m.a.perturbation, m.diagnostic) for m in plan.measured)
    assert measured == {
        ("none", "speed"): 10, ("none", "mistakes"): 10 + 5,
        ("block-2", "speed"): 6, ("block-2", "mistakes"): 3 + 3,
    }  # fmt: skip


def test_pairs_of_arms_with_unequal_replicates(registry):
    rows = [{"initializations": ["P-T"], "replicates": 4}, {"initializations": ["RI-T"]}]
    pairs = [{"a": "P-T", "b": "RI-T", "replicates": kind} for kind in ("same", "different")]
    for pair, expected in zip(pairs, (3, 4 * 3 - 3), strict=True):
        suite = changed("diagnostics.mistakes.pairs", [pair], SUITE | {"trials": rows})
        suite |= {"perturbations": {"none": {"name": "identity"}}}
        plan = plan_of(registry, suite)
        measured = [m for m in plan.measured if m.diagnostic == "mistakes"]
        assert len(measured) == expected
        assert max(m.b.replicate for m in measured) == 2
