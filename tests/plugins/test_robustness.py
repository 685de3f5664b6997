"""Robustness and shape bias: on networks with known predictions, and on a real trial."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_subject import FakeSubject
from pydantic import ValidationError
from scipy.stats import binomtest
from sklearn.metrics import log_loss, roc_auc_score
from tiny_suite import TINY, tiny_suite

from transferbench.api import run
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.engine.resources import Machine, WorkerResources
from transferbench.errors import PluginError, SuiteError, UnknownNameError
from transferbench.registry import load_registry
from transferbench.specs import DiagnosticContext
from transferbench.store import Store
from transferbench_plugins.diagnostics.robustness.robustness import ROBUSTNESS
from transferbench_plugins.diagnostics.robustness.shape_bias import (
    SHAPE_BIAS,
    texture_partners,
    transfer_texture,
)

CONTEXT = DiagnosticContext(device=torch.device("cpu"), generator=None, seed=3)
LABELS = np.arange(200) % 4


def softened(strength):
    """Logits (N, 4) with an accuracy of 1 - strength."""
    wrong = np.random.default_rng(7).permutation(200) < 200 * strength
    return 3 * np.eye(4, dtype=np.float32)[(LABELS + wrong) % 4]


def trial(**fields):
    """A trial whose images are its logits, made worse by the strength of a perturbation."""
    subject = FakeSubject({"final": torch.nn.Identity()}, labels=LABELS, logits=softened(0.1))
    subject.perturb = lambda name, params, seed, split: torch.from_numpy(
        softened(params["strength"])
    )
    return replace(subject, **fields)


def measured(spec, subject, **params):
    measurements = list(spec.measure(spec.parse(params), (subject,), CONTEXT))
    keyed = {(m.metric, *m.coordinates.values()): m for m in measurements}
    assert len(keyed) == len(measurements)
    return keyed


SERIES = [
    {"name": "blur", "settings": [{"strength": 0.2}, {"strength": 0.4}], "seed": 5},
    {"name": "noise", "settings": [{"strength": 0.7}]},
]


def test_robustness_measures_metric_and_loss_at_each_severity():
    subject = trial()
    measurements = measured(ROBUSTNESS, subject, perturbations=SERIES, batch=64)
    assert subject.perturbations == [
        ("blur", {"strength": 0.2}, 5, "test", None),
        ("blur", {"strength": 0.4}, 5, "test", None),
        ("noise", {"strength": 0.7}, 0, "test", None),
    ]
    strengths = {("none", 0): 0.1, ("blur", 1): 0.2, ("blur", 2): 0.4, ("noise", 1): 0.7}
    for coordinates, strength in strengths.items():
        metric, loss = (
            measurements["test_metric", *coordinates],
            measurements["test_loss", *coordinates],
        )
        assert metric.value == pytest.approx(1 - strength)
        bounds = binomtest(round(200 * (1 - strength)), 200).proportion_ci(method="exact")
        assert (metric.low, metric.high) == pytest.approx((bounds.low, bounds.high))
        chances = np.exp(softened(strength).astype(np.float64))
        chances /= chances.sum(axis=1, keepdims=True)
        assert loss.value == pytest.approx(log_loss(LABELS, chances))
        assert loss.low < loss.value < loss.high
        assert (metric.n, metric.unit, loss.unit) == (200, "fraction", "nats")
        assert metric.coordinates == {
            "test_perturbation": coordinates[0],
            "severity": coordinates[1],
        }


def test_robustness_summarises_each_perturbation_and_all_with_equal_weight():
    measurements = measured(ROBUSTNESS, trial(), perturbations=SERIES)
    for name, mean in (("blur", 0.7), ("noise", 0.3), ("all", 0.5)):
        values = [
            measurements[metric, name].value
            for metric in ("mean_metric", "relative_metric", "corrected_relative_metric")
        ]
        assert values == pytest.approx([mean, mean / 0.9, (mean - 0.25) / (0.9 - 0.25)])
        row = measurements["mean_metric", name]
        assert row.low < row.value < row.high
        assert (row.interval, row.n) == ("items-t-95", 200)
        ratio = measurements["corrected_relative_metric", name]
        assert ratio.interval == "items-fieller-95"
        assert ratio.low < ratio.value < ratio.high
    assert len(measurements) == 4 * 2 + 3 * 3


def test_robustness_is_limited_to_the_first_items():
    subject = trial()
    measurements = measured(ROBUSTNESS, subject, perturbations=SERIES, limit=50)
    right = softened(0.4)[:50].argmax(axis=1) == LABELS[:50]
    assert measurements["test_metric", "blur", 2].value == pytest.approx(right.mean())
    assert {row.n for row in measurements.values()} == {50}
    assert {limit for *_, limit in subject.perturbations} == {50}


def test_robustness_of_a_multi_label_task_is_measured_by_auc():
    random = np.random.default_rng(2)
    labels = (random.random((120, 3)) < 0.4).astype(np.float32)
    logits = (labels + random.normal(0, 0.8, labels.shape)).astype(np.float32)
    worse = (labels + random.normal(0, 2, labels.shape)).astype(np.float32)

    subject = trial(
        task="multi-label", metric="auc", chance=0.5, labels=labels, logits=logits,
        perturb=lambda *_: torch.from_numpy(worse),
    )  # fmt: skip
    measurements = measured(ROBUSTNESS, subject, perturbations=SERIES[1:])
    areas = [roc_auc_score(labels, values) for values in (logits, worse)]
    assert measurements["test_metric", "none", 0].value == pytest.approx(areas[0])
    assert measurements["test_metric", "noise", 1].value == pytest.approx(areas[1])
    assert measurements["test_metric", "noise", 1].interval == "wilson-effective-95"
    relative = measurements["corrected_relative_metric", "noise"]
    assert relative.value == pytest.approx((areas[1] - 0.5) / (areas[0] - 0.5))
    logistic = torch.nn.functional.binary_cross_entropy_with_logits
    loss = logistic(torch.from_numpy(worse), torch.from_numpy(labels)).item()
    assert measurements["test_loss", "noise", 1].value == pytest.approx(loss, rel=1e-5)


def test_items_without_a_known_label_count_in_no_summary():
    random = np.random.default_rng(3)
    labels = (random.random((60, 3)) < 0.5).astype(np.float32)
    logits = (labels - 0.5 + random.normal(0, 0.3, labels.shape)).astype(np.float32)
    worse = (labels - 0.5 + random.normal(0, 1, labels.shape)).astype(np.float32)

    def summaries(labels, logits, worse):
        subject = trial(
            task="multi-label", metric="accuracy", chance=0.5, labels=labels, logits=logits,
            perturb=lambda *_: torch.from_numpy(worse),
        )  # fmt: skip
        rows = measured(ROBUSTNESS, subject, perturbations=SERIES[1:])
        return {key: (row.value, row.low, row.high) for key, row in rows.items()
                if key[0] not in {"test_metric", "test_loss"}}  # fmt: skip

    unknown = np.concatenate([labels, np.full((1, 3), np.nan, np.float32)])
    more = [np.concatenate([values, values[:1]]) for values in (logits, worse)]
    expected = summaries(labels, logits, worse)
    assert None not in {value for value, *_ in expected.values()}
    assert summaries(unknown, *more) == expected


def test_relative_metrics_are_undefined_for_a_network_at_chance():
    measurements = measured(ROBUSTNESS, trial(logits=softened(1)), perturbations=SERIES[1:])
    assert measurements["relative_metric", "all"].flag == (
        "there is no score to keep on unperturbed images"
    )
    assert measurements["corrected_relative_metric", "all"].flag == (
        "the network is not above chance on unperturbed images"
    )


def test_robustness_of_a_diverged_network_has_no_loss():
    measurements = measured(
        ROBUSTNESS, trial(logits=softened(0.1) * np.nan), perturbations=SERIES[1:]
    )
    assert measurements["test_loss", "none", 0].flag == "not finite: the network diverged"


@pytest.mark.parametrize("names", [("blur", "blur"), ("none",), ("all",)])
def test_robustness_needs_unique_names_of_perturbations(names):
    with pytest.raises(ValidationError, match=f"'{names[0]}' is ambiguous in the measurements"):
        ROBUSTNESS.parse({"perturbations": [{"name": n, "settings": [{}]} for n in names]})


def test_robustness_costs_one_pass_per_setting():
    assert ROBUSTNESS.cost(ROBUSTNESS.parse({"perturbations": SERIES})) == 3


# --- shape bias -------------------------------------------------------------------------------


class ReadCorner(torch.nn.Module):
    """Predicts the value of a corner pixel, which comes from the texture."""

    def forward(self, images):
        return torch.nn.functional.one_hot(images[:, 0, 0, 0].round().long(), 9).float()


class ReadLayout(torch.nn.Module):
    """Predicts 4 if the left half is brighter than the right, else 5."""

    def forward(self, images):
        halves = images[:, 0].unflatten(2, (2, -1)).mean(dim=(1, 3))
        answers = torch.where(halves[:, 0] > halves[:, 1], 4, 5)
        return torch.nn.functional.one_hot(answers, 9).float()


def cues(net, labels=None, **fields):
    """Images of two classes, 4 and 5, which differ in layout (shape) and in values (texture)."""
    labels = np.tile([4, 5], 30) if labels is None else labels
    images = torch.zeros(len(labels), 1, 8, 8)
    for image, label in zip(images, labels, strict=True):
        sides = (slice(0, 4), slice(4, 8))
        bright, dark = sides if label == 4 else sides[::-1]
        image[0, :, bright], image[0, :, dark] = label + 0.2, label - 0.2
    data = {"test": (images, labels)}
    return FakeSubject({"final": net}, data=data, labels=labels, **fields)


@pytest.mark.parametrize(("net", "bias"), [(ReadLayout(), 1), (ReadCorner(), 0)])
def test_shape_bias_is_1_for_predictions_by_layout_and_0_by_values(net, bias):
    measurements = measured(SHAPE_BIAS, cues(net), block=2)
    bounds = binomtest(60 * bias, 60).proportion_ci(method="exact")
    for metric, value in (("shape_bias", bias), ("shape_answers", bias)):
        row = measurements[metric,]
        assert (row.value, row.n, row.unit, row.interval) == (value, 60, "fraction", "exact-95")
        assert (row.low, row.high) == pytest.approx((bounds.low, bounds.high))
    assert measurements["texture_answers",].value == 1 - bias


def test_shape_bias_counts_only_predictions_that_follow_a_cue():
    class Partly(torch.nn.Module):
        """Predicts 4 for the first ten images of a batch, else a class of neither cue."""

        def forward(self, images):
            answers = torch.where(torch.arange(len(images)) < 10, 4, 7)
            return torch.nn.functional.one_hot(answers, 9).float()

    measurements = measured(SHAPE_BIAS, cues(Partly()), block=2, batch=64)
    assert (measurements["shape_bias",].value, measurements["shape_bias",].n) == (0.5, 10)
    assert (measurements["shape_answers",].value, measurements["shape_answers",].n) == (5 / 60, 60)
    limited = measured(SHAPE_BIAS, cues(Partly()), block=2, limit=20)
    assert limited["shape_answers",].n == 20


def test_shape_bias_is_undefined_if_no_prediction_follows_a_cue():
    class Neither(torch.nn.Module):
        def forward(self, images):
            return torch.nn.functional.one_hot(torch.full((len(images),), 8), 9).float()

    row = measured(SHAPE_BIAS, cues(Neither()), block=2)["shape_bias",]
    assert (row.value, row.n) == (None, 0)
    assert row.flag == "no image was given the class of its shape or of its texture"


def test_shape_bias_needs_classes_in_conflict():
    several = measured(SHAPE_BIAS, cues(ReadLayout(), task="multi-label"))
    assert {m.flag for m in several.values()} == {
        "an image of several labels has no one shape: this needs a multi-class task"
    }
    single = measured(SHAPE_BIAS, cues(ReadLayout(), labels=np.full(5, 4)))
    assert {m.flag for m in single.values()} == {
        "all test items are of one class: no two cues are in conflict"
    }


def test_shape_bias_lists_the_valid_block_sizes():
    with pytest.raises(SuiteError) as caught:
        measured(SHAPE_BIAS, cues(ReadLayout()), block=3)
    assert str(caught.value) == (
        "shape-bias: block 3 does not divide the side 8 of the images; choose one of 1, 2, 4, 8"
    )


def test_partners_are_uniform_over_the_items_of_other_classes():
    labels = np.asarray([2, 0, 1, 0, 2, 2])
    drawn = np.stack([texture_partners(labels, seed) for seed in range(4000)])
    for item, label in enumerate(labels):
        others = np.flatnonzero(labels != label)
        partners, counts = np.unique(drawn[:, item], return_counts=True)
        np.testing.assert_array_equal(partners, others)
        assert np.abs(counts / 4000 - 1 / len(others)).max() < 0.04
    np.testing.assert_array_equal(texture_partners(labels, 9), texture_partners(labels, 9))


def nearest_blocks(shape, texture, block):
    """The same texture transfer block by block, in float64, for one channel (H, W)."""
    half = max(1, block // 2)

    def described(image, top, left):
        image = (image - image.mean()) / image.std()
        part = image[top : top + block, left : left + block]
        if block == 1:
            return part.ravel()
        return part.reshape(2, half, 2, half).mean(axis=(1, 3)).ravel()

    height, width = shape.shape
    places = [
        (y, x)
        for y in range(0, height - block + 1, half)
        for x in range(0, width - block + 1, half)
    ]
    offered = np.stack([described(texture, *coordinates) for coordinates in places])
    result = np.zeros_like(shape)
    for y in range(0, height, block):
        for x in range(0, width, block):
            distances = ((offered - described(shape, y, x)) ** 2).sum(axis=1)
            top, left = places[int(distances.argmin())]
            result[y : y + block, x : x + block] = texture[top : top + block, left : left + block]
    return result


@pytest.mark.parametrize("block", [1, 2, 4, 8])
def test_texture_blocks_are_placed_where_they_are_most_similar_to_the_shape(block):
    images = np.random.default_rng(block).random((2, 5, 1, 16, 8))
    shapes, textures = images
    before = torch.from_numpy(shapes).float(), torch.from_numpy(textures).float()
    transferred = transfer_texture(*(images.clone() for images in before), block)
    for k in range(5):
        expected = nearest_blocks(shapes[k, 0], textures[k, 0], block)
        np.testing.assert_allclose(transferred[k, 0], expected, rtol=0, atol=1e-6)


def test_an_image_with_its_own_texture_is_unchanged():
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(transfer_texture(images, images, 4), images)


# --- a real trial -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of trials on plain images and on shuffled blocks, with both diagnostics."""
    settings = [{"severity": s} for s in (1, 5)]
    series = [{"name": "gaussian-noise", "settings": settings}]
    suite = tiny_suite(
        image={"size": 8, "channels": 1, "mean": [0.4], "std": [0.3]},
        initializations={
            "RI-T": {"name": "random", "recipe": "short"},
            "RI-same": {"name": "same-random", "recipe": "short"},
        },
        replicates=1,
        perturbations={
            "none": {"name": "identity"},
            "moved": {"name": "block-shuffle", "params": {"block": 2, "mode": "per-image"}},
        },
        diagnostics={
            "robust": {"name": "robustness", "params": {"perturbations": series, "limit": 40}},
            "shape": {"name": "shape-bias", "params": {"block": 2}},
        },
        claims={},
        scoring={**TINY["scoring"], "initialization": "RI-same"},
    )
    return run(suite, out=tmp_path_factory.mktemp("robust") / "run", jobs=1, device="cpu")


def subjects(finished):
    """A trial of each perturbation."""
    store = Store(finished.folder / finished.described["store"])
    machine = Machine(store.root, finished.folder / "cache", None, "cpu")
    resources = WorkerResources(load_registry(), store, machine)
    trials = [row for row in finished.described["jobs"] if row["kind"] == "trial"]
    return {row["perturbation"]: FinishedTrial(resources, row["id"]) for row in trials}


def test_both_diagnostics_measure_the_trials_of_a_run(finished):
    table = finished.measurements
    robust = table[(table.diagnostic == "robust") & (table.metric == "test_metric")]
    assert len(robust) == 2 * 2 * 3
    trial = table[(table.diagnostic == "trial") & (table.metric == "test_metric")]
    assert set(trial.n) == {60}
    assert set(robust.n) == {40}
    shape = table[(table.diagnostic == "shape") & (table.metric == "shape_answers")]
    assert shape.value.between(0, 1).all()


def test_under_the_identity_any_trial_has_unperturbed_images(finished):
    trials = subjects(finished)
    plain = trials["none"].images("test")
    for trial in trials.values():
        for split in ("train", "test"):
            images = trial.perturbed("identity", {}, 0, split)
            torch.testing.assert_close(images, trials["none"].images(split), rtol=0, atol=1e-6)
        assert len(trial.perturbed("identity", {}, 0, "test", 7)) == 7
    assert not torch.equal(trials["moved"].images("test"), plain)


def test_a_trials_own_perturbation_gives_its_own_images(finished):
    trial = subjects(finished)["moved"]
    used = trial._payload["perturbation"]
    for split in ("train", "test"):
        images = trial.perturbed(used["name"], used["params"], used["seed"], split)
        torch.testing.assert_close(images, trial.images(split), rtol=0, atol=1e-6)


def test_a_perturbation_of_pixels_is_applied_before_normalisation(finished):
    trial = subjects(finished)["none"]
    images = trial.perturbed("gaussian-noise", {"severity": 5}, 2, "test") * 0.3 + 0.4
    plain = trial.images("test") * 0.3 + 0.4
    assert images.min() >= -1e-6
    assert images.max() <= 1 + 1e-6
    inside = (images > 0) & (images < 1)
    assert (images - plain)[inside].std() == pytest.approx(0.1, rel=0.2)
    again = trial.perturbed("gaussian-noise", {"severity": 5}, 2, "test", 5) * 0.3 + 0.4
    torch.testing.assert_close(again, images[:5], rtol=0, atol=1e-6)


def test_unknown_and_invalid_perturbations_are_errors(finished):
    trial = subjects(finished)["none"]
    with pytest.raises(UnknownNameError, match="no perturbation named 'gausian-noise'; did you"):
        trial.perturbed("gausian-noise", {}, 0, "test")
    with pytest.raises(PluginError, match="perturbation 'low-pass': radius is required"):
        trial.perturbed("low-pass", {}, 0, "test")
    with pytest.raises(SuiteError, match="perturbation 'saturate' does not fit 8 x 8 x 1 images"):
        trial.perturbed("saturate", {"severity": 1}, 0, "test")
