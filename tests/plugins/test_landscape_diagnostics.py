"""The diagnostics of weight space on networks and losses with known results."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import timm
import torch
from fake_subject import HISTORY, FakeSubject, modules_of
from pydantic import ValidationError
from scipy.stats import norm
from torch import nn

from transferbench.errors import SuiteError
from transferbench.metrics import Evaluation
from transferbench.specs import DiagnosticContext
from transferbench_plugins.backbones.fixup import FIXUP_RESNET8
from transferbench_plugins.diagnostics import transferbench_diagnostics
from transferbench_plugins.diagnostics.landscape._basin_search import Segment
from transferbench_plugins.diagnostics.landscape.barrier import (
    ALIGNED_BARRIER,
    BARRIER,
    _barriers,
)
from transferbench_plugins.diagnostics.landscape.basin import BASIN, measure_segment
from transferbench_plugins.diagnostics.weights.distance import DISTANCE

CLASSES = 3
SPLITS = {"train": 40, "test": 30}


def drawn(seed):
    """Images and targets of both splits."""
    data = {}
    for split, count in SPLITS.items():
        generator = torch.Generator().manual_seed(seed + len(split))
        images = torch.randn(count, 1, 16, 16, generator=generator)
        targets = images.flatten(1)[:, :CLASSES].argmax(1)
        data[split] = images.contiguous(memory_format=torch.channels_last), targets
    return data


def trial(net, init=None, *, head="fc", data_seed=0, **fields):
    """A trial that started from ``init``."""
    networks = {"init": init, "final": net, "best": net}
    fields.setdefault("history", HISTORY)
    return FakeSubject(networks, modules_of(net, head), drawn(data_seed), **fields)


def fixup():
    return FIXUP_RESNET8.build(FIXUP_RESNET8.parse({"width": 4}), CLASSES, 1, 16)


BUILDERS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, CLASSES)),
    "fixup": fixup,
    "resnet": lambda: timm.create_model("test_resnet", num_classes=CLASSES, in_chans=1),
    "vit": lambda: timm.create_model(
        "test_vit", num_classes=CLASSES, in_chans=1, img_size=16, patch_size=8
    ),
}


def built(name, seed=0, scale=0.2, **fields):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = BUILDERS[name]().eval()
        init = copy.deepcopy(net)
        with torch.no_grad():
            for tensor in net.parameters():
                tensor.add_(scale * torch.randn(tensor.shape))
    fields.setdefault("head", {"linear": "1", "vit": "head"}.get(name, "fc"))
    return trial(net, init, job=f"{name}-{seed}", **fields)


def measure(spec, *nets, **params):
    """Measurements by (metric, *coordinates), which are unique."""
    context = DiagnosticContext(torch.device("cpu"), torch.Generator().manual_seed(0), 3)
    measured = list(spec.measure(spec.parse(params), nets, context))
    keyed = {(m.metric, *m.coordinates.values()): m for m in measured}
    assert len(keyed) == len(measured)
    return keyed


def test_they_are_registered_with_their_costs():
    specs = {spec.name: spec for spec in transferbench_diagnostics()}
    for spec in (ALIGNED_BARRIER, BARRIER, BASIN, DISTANCE):
        assert specs[spec.name] is spec
        assert spec.accepts(spec.tiny)
        assert spec.subjects == "pair"
    assert DISTANCE.cost(DISTANCE.parse({})) == 0
    assert BARRIER.cost(BARRIER.parse({"points": 21})) == 40
    assert BASIN.cost(BASIN.parse({})) == 61 + 4 * 13 * 8
    assert BARRIER.limit(BARRIER.parse({"limit": 7})) == 7


@pytest.mark.parametrize("name", ["fixup", "resnet", "vit"])
@pytest.mark.parametrize("spec", [ALIGNED_BARRIER, BARRIER, BASIN, DISTANCE], ids=lambda s: s.name)
def test_every_kind_of_network_is_measured_and_not_modified(spec, name):
    a, b = built(name, 0), built(name, 1)
    before = copy.deepcopy([a.net.state_dict(), b.net.state_dict()])
    got = measure(spec, a, b, **spec.tiny)
    assert any(m.value is not None for m in got.values())
    for net, state in zip((a.net, b.net), before, strict=True):
        assert not net.training
        assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())


# --- distance ---------------------------------------------------------------------------------


def flat(state, names):
    return np.concatenate([state[name].double().numpy().ravel() for name in names])


@pytest.mark.parametrize("name", ["fixup", "resnet"])
def test_a_distance_is_that_of_the_flattened_parameters(name):
    a, b = built(name, 0), built(name, 1)
    for tensor in (t for key, t in a.net.state_dict().items() if "running" in key):
        tensor.add_(100)  # batch statistics do not count
    got = measure(DISTANCE, a, b)
    parameters = [key for key, _ in a.net.named_parameters()]
    places = {
        "body": [key for key in parameters if not key.startswith("fc")],
        **{module: [k for k in names if k in parameters] for module, names in a.modules.items()},
    }
    for position, names in places.items():
        x, y = flat(a.state(), names), flat(b.state(), names)
        assert got["l2", position].value == pytest.approx(np.linalg.norm(x - y), rel=1e-9)
        assert (got["l2", position].n, got["l2", position].unit) == (len(x), "l2")
        scale = math.sqrt(np.linalg.norm(x) * np.linalg.norm(y))
        normalised = got["l2_normalised", position].value
        assert normalised == pytest.approx(np.linalg.norm(x - y) / scale, rel=1e-9)
        p, q = x - flat(a.state("init"), names), y - flat(b.state("init"), names)
        cosine = p @ q / (np.linalg.norm(p) * np.linalg.norm(q))
        assert got["cosine", position].value == pytest.approx(cosine, rel=1e-6)


def test_a_trial_and_its_source_have_a_body_distance_but_no_cosine():
    source, trial = built("fixup", 0), built("fixup", 1)
    trial.networks["init"].load_state_dict(source.state())
    with torch.no_grad():
        source.net.fc = nn.Linear(source.net.fc.in_features, 7)
    got = measure(DISTANCE, trial, source)
    assert got["l2", "body"].value > 0
    assert not any(metric == "cosine" for metric, _ in got)
    assert (got["l2", "head"].value, got["l2", "head"].flag) == (
        None,
        "the heads have different shapes",
    )


def test_a_network_that_did_not_move_has_no_cosine():
    a, b = built("fixup", 0, scale=0.0), built("fixup", 1)
    assert measure(DISTANCE, a, b)["cosine", "body"].flag == "one of them did not move"


def test_weights_of_zero_have_no_normalised_distance():
    a, b = built("linear", 0), built("linear", 1)
    with torch.no_grad():
        a.net[1].bias.zero_()
        a.net[1].weight.zero_()
    assert measure(DISTANCE, a, b)["l2_normalised", "head"].flag == "one of them is 0 everywhere"


@pytest.mark.parametrize("wild", [math.nan, math.inf])
def test_weights_that_are_not_finite_have_no_distance_and_no_match(wild):
    a, b = built("resnet", 0), built("resnet", 1)
    with torch.no_grad():
        next(b.net.conv1.parameters())[0] = wild
    got = measure(DISTANCE, a, b)
    why = "the weights are not finite: diverged"
    assert {got[metric, "conv1"].flag for metric in ("l2", "l2_normalised", "cosine")} == {why}
    assert got["l2", "body"].flag == why
    assert got["l2", "head"].value > 0
    got = measure(ALIGNED_BARRIER, a, b, points=3, limit=8, calibration=8)
    assert got["barrier_loss_sup", "test", "matched"].flag == (
        "weights that are not finite cannot be matched: diverged"
    )


# --- barrier ----------------------------------------------------------------------------------


def naive_point(a, b, weight, split, images=None):
    """Loss and accuracy of a separate network with the averaged weights."""
    net = copy.deepcopy(a.net)
    state = {
        key: ((1 - weight) * x.double() + weight * b.net.state_dict()[key].double()).to(x.dtype)
        for key, x in a.net.state_dict().items()
    }
    net.load_state_dict(state)
    if images is not None:
        torch.optim.swa_utils.update_bn([images], net)
    with torch.no_grad():
        logits = net.eval()(a.images(split))
    loss = nn.functional.cross_entropy(logits, a.targets(split))
    return float(loss), float((logits.argmax(1) == a.targets(split)).float().mean())


@pytest.mark.parametrize("name", ["fixup", "resnet", "vit"])
def test_the_curve_equals_that_of_networks_with_averaged_weights(name):
    a, b = built(name, 0), built(name, 1)
    calibration = a.images("train") if name == "resnet" else None
    got = measure(BARRIER, a, b, points=5, extrapolation=(-1, 2))
    weights = sorted({key[1] for key in got if key[0] == "loss"})
    assert weights == [position / 4 for position in range(-4, 9)]
    for split, count in SPLITS.items():
        for weight in weights:
            loss, accuracy = naive_point(a, b, weight, split, calibration)
            assert got["loss", weight, split].value == pytest.approx(loss, rel=2e-4)
            point = got["metric", weight, split]
            # A tie of two logits may be decided either way.
            assert point.value == pytest.approx(accuracy, abs=1.01 / count)
            assert (point.n, point.unit) == (count, "fraction")


def test_the_height_is_the_excess_over_the_chord():
    a, b = built("fixup", 0), built("fixup", 1)
    got = measure(BARRIER, a, b, points=5, extrapolation=(-1, 2))
    for split in SPLITS:
        for metric, sign in (("loss", 1), ("metric", -1)):
            values = sign * np.array(
                [got[metric, position / 4, split].value for position in range(5)]
            )
            excess = values - np.linspace(values[0], values[-1], 5)
            sup, mid = got[f"barrier_{metric}_sup", split], got[f"barrier_{metric}_mid", split]
            assert sup.value == pytest.approx(max(excess.max(), 0), abs=1e-12)
            assert mid.value == pytest.approx(excess[2], abs=1e-12)
        ends = -(values[0] + values[-1]) / 2
        for which in ("sup", "mid"):
            relative = got[f"barrier_metric_relative_{which}", split].value
            expected = got[f"barrier_metric_{which}", split].value / ends
            assert relative == pytest.approx(expected)


@pytest.mark.parametrize("name", ["fixup", "resnet", "vit"])
def test_a_network_has_no_barrier_to_itself(name):
    net = built(name)
    got = measure(BARRIER, net, net)
    barriers = [m.value for key, m in got.items() if key[0].startswith("barrier")]
    assert len(barriers) == 12
    assert set(barriers) == {0.0}


def test_a_convex_loss_has_no_barrier():
    got = measure(BARRIER, built("linear", 0), built("linear", 1))
    for split in SPLITS:
        assert got["barrier_loss_sup", split].value == 0
        assert got["barrier_loss_mid", split].value < 0


def test_networks_trained_on_different_images_are_evaluated_on_both():
    a, b = built("linear", 0), built("linear", 1)
    b.data = {"train": drawn(5)["train"], "test": a.data["test"]}
    point = measure(BARRIER, a, b)["loss", 0.0, "train"]
    with torch.no_grad():
        logits = a.net(torch.cat([a.images("train"), b.images("train")]))
        both = torch.cat([a.targets("train"), b.targets("train")])
        expected = nn.functional.cross_entropy(logits, both)
    assert (point.value, point.n) == (pytest.approx(float(expected), rel=1e-5), 80)


def test_networks_tested_on_other_images_are_not_compared():
    with pytest.raises(SuiteError, match=r"linear-0 and linear-1 .* different images; compare"):
        measure(BARRIER, built("linear", 0), built("linear", 1, data_seed=1))


def test_a_limit_takes_a_random_subset():
    net = built("linear")
    got = measure(BARRIER, net, net, limit=10)
    assert got["loss", 0.0, "test"].n == 10
    with torch.no_grad():
        logits = net.net(net.images("test", 10))
    first = float(nn.functional.cross_entropy(logits, net.targets("test", 10)))
    assert got["loss", 0.0, "test"].value != pytest.approx(first)


@pytest.mark.parametrize("spec", [ALIGNED_BARRIER, BARRIER, BASIN], ids=lambda s: s.name)
def test_heads_of_different_shapes_cannot_be_interpolated(spec):
    a, b = built("fixup", 0), built("fixup", 1)
    b.net.fc = nn.Linear(b.net.fc.in_features, 7)
    got = measure(spec, a, b)
    assert {m.flag for m in got.values()} == {
        "no line between these networks: fc.bias is (3,) in one and (7,) in the other"
    }
    assert len(got) in {6, 12, 24}


def test_networks_of_different_layers_cannot_be_interpolated():
    (flag,) = {m.flag for m in measure(BARRIER, built("resnet"), built("fixup")).values()}
    assert flag == "no line between these networks: only one of them has bn1.bias"


def test_a_curve_that_is_not_finite_has_no_barrier():
    a, b = built("linear", 0), built("linear", 1)
    with torch.no_grad():
        b.net[1].bias.fill_(torch.nan)
    got = measure(BARRIER, a, b)
    assert got["loss", 0.5, "test"].flag == "not finite or not defined here"
    barrier = got["barrier_loss_sup", "test"]
    assert (barrier.value, barrier.flag) == (None, "a point between the ends has no finite value")


def heights(metrics, losses):
    """The barriers of a curve with these values at equally spaced points."""
    points = [Evaluation(*pair) for pair in zip(losses, metrics, strict=True)]
    rows = _barriers(np.linspace(0, 1, len(points)).tolist(), points, 30, {})
    return {row.metric: row.value for row in rows}


def test_near_the_better_end_a_barrier_exceeds_the_mean_of_the_ends():
    """At a quarter the chord from 0.9 to 0.1 is 0.7 high, and the mean of the ends 0.5."""
    drop = heights([0.9, 0.0, 0.2, 0.1, 0.1], [0.0] * 5)
    assert drop["barrier_metric_relative_sup"] == pytest.approx(0.7 / 0.5)
    assert drop["barrier_metric_relative_mid"] == pytest.approx((0.5 - 0.2) / 0.5)


def test_barriers_are_within_the_declared_ranges():
    draws, reached = np.random.default_rng(0), {}
    for _ in range(500):
        metrics = draws.uniform(size=5) ** draws.integers(1, 9)
        for metric, value in heights(metrics.tolist(), draws.exponential(size=5).tolist()).items():
            low, high = BARRIER.ranges.get(metric, (-math.inf, math.inf))
            assert low - 1e-12 <= value <= high + 1e-12
            reached[metric] = max(reached.get(metric, 0), value)
    assert reached["barrier_metric_relative_sup"] > 1.2


def test_two_networks_with_a_metric_of_zero_have_no_relative_barrier():
    a, b = built("linear", 0), built("linear", 1)
    a.targets = b.targets = lambda split, limit=None: torch.full((SPLITS[split],), 2)
    with torch.no_grad():
        for net in (a.net, b.net):
            net[1].bias[2] = -1e4
    relative = measure(BARRIER, a, b)["barrier_metric_relative_sup", "test"]
    assert (relative.value, relative.flag) == (None, "the metric is 0 at both ends")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"points": 10}, "points must be odd, so that one is the midpoint, not 10"),
        ({"splits": ["test", "test"]}, "splits names train, test or both, each once"),
        ({"extrapolation": (0.5, 1)}, "less than or equal to 0"),
    ],
)
def test_an_invalid_grid_is_refused(params, message):
    with pytest.raises(ValidationError, match=message):
        BARRIER.parse(params)


# --- aligned barrier --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fixup", "resnet"])
def test_a_permutation_of_channels_is_undone(name):
    from transferbench.analysis.weight_matching import (
        permute_state,
        random_permutations,
        residual_axes,
    )

    a, b = built(name), built(name)
    state = a.net.state_dict()
    axes = residual_axes(state, a.modules["head"])
    draws = random_permutations(state, axes, torch.Generator().manual_seed(1))
    b.net.load_state_dict(permute_state(state, axes, draws))
    got = measure(ALIGNED_BARRIER, a, b, points=3)
    assert (
        abs(got["loss", 0.5, "test", "before"].value - got["loss", 0, "test", "before"].value)
        > 0.01
    )
    for alignment in ("matched", *(["repaired"] if name == "fixup" else [])):
        values = [got["loss", weight, "test", alignment].value for weight in (0, 0.5, 1)]
        assert values == pytest.approx([values[0]] * 3, rel=1e-4)
        assert abs(got["barrier_loss_sup", "test", alignment].value) < 1e-3


def test_the_curve_before_alignment_is_that_of_barrier():
    a, b = built("fixup", 0), built("fixup", 1)
    plain, aligned = measure(BARRIER, a, b, points=3), measure(ALIGNED_BARRIER, a, b, points=3)
    for key, measurement in plain.items():
        assert aligned[*key, "before"].value == measurement.value
    ends = [aligned["loss", 1.0, "test", name].value for name in ("before", "matched", "repaired")]
    assert ends == pytest.approx([ends[0]] * 3, rel=1e-3)


def test_a_network_with_batch_statistics_is_not_repaired_again():
    alignments = {key[-1] for key in measure(ALIGNED_BARRIER, built("resnet"), built("resnet", 1))}
    assert alignments == {"before", "matched"}
    unrepaired = measure(ALIGNED_BARRIER, built("fixup"), built("fixup", 1), repair=False)
    assert {key[-1] for key in unrepaired} == {"before", "matched"}


def test_a_transformer_is_flagged_as_unmatchable():
    got = measure(ALIGNED_BARRIER, built("vit", 0), built("vit", 1), points=3)
    matched = {key: m for key, m in got.items() if key[-1] == "matched"}
    assert len(matched) == 12
    assert all(m.value is None and "numbers its channels" in m.flag for m in matched.values())
    assert got["barrier_loss_sup", "test", "before"].value is not None


class Turned(nn.Module):
    """Named like a residual network, but its channels are reversed before the head."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, bias=False)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.fc(self.conv1(x).relu().mean((2, 3)).flip(1))


def test_a_network_with_misleading_names_is_flagged_as_unmatchable():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = trial(Turned())
    flag = measure(ALIGNED_BARRIER, net, net)["barrier_loss_sup", "test", "matched"].flag
    assert flag.startswith("renumbering the channels of Turned by torchvision's names changed")


# --- basin ------------------------------------------------------------------------------------

SIZE = 400


def bowl(loss, **params):
    """The basin around -1 and 1 on the first of SIZE axes, for a loss function of the weights."""
    a, b = ({"w": torch.zeros(SIZE, dtype=torch.float64)} for _ in range(2))
    a["w"][0], b["w"][0] = -1.0, 1.0
    segment = Segment(a, b, ["w"])

    def losses(states):
        return [float(loss(state["w"])) for state in states]

    parsed = BASIN.parse({"tolerance": 1.0, "sigmas": (1e-3, 1.0), "levels": 31, **params})
    measured = list(measure_segment(parsed, segment, losses, SIZE, 0))
    return {(m.metric, *list(m.coordinates.values())[2:]): m for m in measured}


def quadratic(w):
    return (w * w).sum()


def test_a_quadratic_bowl():
    got = bowl(quadratic, steps=200)
    # The cap of 2 is reached at x = sqrt(2); positions are measured from -1 in units of 2.
    half = math.floor(math.sqrt(2) * 100) / 100
    assert got["a_lo",].value == pytest.approx((1 - half) / 2)
    assert got["a_hi",].value == pytest.approx((1 + half) / 2)
    assert got["a_lo",].flag is None
    mu = half**2 / 3
    crossing = math.sqrt(mu)  # where x^2 equals its mean
    epsilon = 2 * (mu * crossing - crossing**3 / 3) / half
    assert got["mu",].value == pytest.approx(mu, rel=1e-4)
    assert got["epsilon",].value == pytest.approx(epsilon, rel=1e-3)
    assert got["epsilon_segment",].value == pytest.approx(4 / 9 / math.sqrt(3), rel=1e-3)
    # At the ends the loss already exceeds mu + 2 epsilon: the literal delta is degenerate.
    assert half**2 - mu < 2 * epsilon or got["delta",].flag == "at the smallest sigma tried"


def test_the_curves_of_a_quadratic_bowl():
    got = bowl(quadratic, steps=20, draws=64)
    end, mu = 2 * got["a_hi",].value - 1, got["mu",].value
    assert end == pytest.approx(1.4)
    assert got["escape_noise", 0].value == pytest.approx(end**2 - mu)
    quantiles = norm.ppf(0.5 + (np.arange(64) + 0.5) / 128)
    for (metric, *position), measurement in got.items():
        if metric == "escape_noise":
            expected = end**2 - mu + SIZE * position[0] ** 2
            assert measurement.value == pytest.approx(expected, rel=0.05, abs=0.05)
        if metric == "escape_extrapolation" and position[0] > 0:
            steps = position[0] * math.sqrt(SIZE) * quantiles
            expected = ((end + steps) ** 2).mean() - mu
            assert measurement.value == pytest.approx(expected, rel=1e-6)


def test_delta_excess_counts_the_loss_that_noise_adds():
    got = bowl(quadratic, steps=20, draws=64)
    epsilon = got["epsilon",].value
    sigmas = sorted({key[1] for key in got if key[0] == "escape_noise" and key[1] > 0})
    sigma_excess = next(
        sigma
        for sigma in sigmas
        if all(
            got[curve, sigma].value - got[curve, 0].value >= 2 * epsilon
            for curve in ("escape_noise", "escape_extrapolation")
        )
    )
    assert got["delta_excess",].value == pytest.approx(sigma_excess * math.sqrt(SIZE))
    # Noise adds n sigma^2 = delta^2, so delta_excess is about sqrt(2 epsilon) or more.
    assert got["delta_excess",].value >= math.sqrt(2 * epsilon) * 0.9
    assert got["delta",].value < got["delta_excess",].value


def test_a_flat_bottom_has_walls_at_a_distance():
    def flat(w):
        return torch.relu(w.norm() - 1.2) ** 2

    got = bowl(flat, steps=20, tolerance=1e-9)
    assert (got["a_lo",].value, got["a_hi",].value) == (pytest.approx(-0.1), pytest.approx(1.1))
    assert got["epsilon",].value == pytest.approx(0, abs=1e-12)
    smallest = got["delta",]
    assert (smallest.value, smallest.flag) == (
        pytest.approx(1e-3 * math.sqrt(SIZE)),
        "at the smallest sigma tried",
    )
    wide = bowl(lambda w: 0.1 + flat(w) + 0.01 * w[0].abs(), steps=20, tolerance=0.002)
    assert 0 < wide["epsilon",].value < 0.01
    assert wide["delta_excess",].value > 0.1


def test_a_double_well_is_no_basin():
    got = bowl(lambda w: (w[0] ** 2 - 1) ** 2 + (w[1:] ** 2).sum(), tolerance=0.5)
    for metric in ("a_lo", "a_hi", "mu", "epsilon", "delta", "delta_excess"):
        assert (got[metric,].value, got[metric,].flag) == (
            None,
            "not a basin: loss 1 at 0.5 of the way is above 0.5",
        )
    assert got["epsilon_segment",].value > 0.2
    assert not any(metric.startswith("escape") for metric, *_ in got)


def test_a_plain_without_walls_is_flagged():
    got = bowl(lambda w: 0.5 - 0.1 * w[0].abs().tanh())
    for end, position in (("a_lo", -1), ("a_hi", 2)):
        assert (got[end,].value, got[end,].flag) == (
            position,
            "boundary not found: the basin reaches the end of the scan",
        )
    assert got["delta_excess",].flag == "no wall: not reached up to sigma 1"


def test_an_infinite_loss_is_a_wall():
    got = bowl(lambda w: 0.1 + 0.1 * w[0] ** 2 if w.norm() < 2 else math.inf, scan=(-2, 3))
    assert got["a_hi",].value == pytest.approx(1.45)
    assert got["escape_noise", 1.0].flag == "not finite"
    assert got["delta_excess",].value is not None


def test_an_infinite_barrier_is_no_basin():
    got = bowl(lambda w: math.inf if w[0].abs() < 0.5 else 1.0)
    assert got["a_lo",].flag == "not a basin: loss inf at 0.3 of the way is above 2"
    assert got["epsilon_segment",].flag == "not finite"


def test_a_basin_of_networks_is_scanned_for_either_loss():
    a, b = built("resnet", 0), built("resnet", 1)
    scanned = {"steps": 2, "levels": 2, "draws": 1, "limit": 20, "tolerance": 50}
    line = measure(BARRIER, a, b, points=3, splits=["test"], extrapolation=(-1, 2))
    for loss, unit in (("loss", "nats"), ("error", "fraction")):
        got = measure(BASIN, a, b, **(scanned | {"loss": loss, "limit": None}))
        for position in (-1, -0.5, 0, 0.5, 1, 1.5, 2):
            point = got["loss", "test", loss, position]
            if loss == "loss":
                expected = line["loss", position, "test"].value
            else:
                expected = 1 - line["metric", position, "test"].value
            assert point.value == pytest.approx(expected, rel=1e-5)
            assert (point.unit, point.n) == (unit, SPLITS["test"])
        assert got["a_lo", "test", loss].value == -1


def test_noise_is_added_to_weights_and_not_to_batch_statistics():
    net = built("resnet")
    state = net.net.state_dict()
    names = [name for name, _ in net.net.named_parameters()]
    moved = Segment(state, state, names).noisy(0.5, 0.1, seed=1)
    for name, tensor in state.items():
        assert torch.equal(moved[name], tensor) == (name not in names)
    drawn = torch.cat([(moved[name] - state[name]).flatten() for name in names])
    assert float(drawn.std()) == pytest.approx(0.1, rel=0.02)
    assert Segment(state, state, names).size == len(drawn)


def test_noise_levels_ascend():
    with pytest.raises(ValidationError, match="sigmas are the smallest and the largest, in this"):
        BASIN.parse({"sigmas": (1.0, 0.1)})


def test_a_network_has_no_basin_with_itself():
    net = built("linear")
    assert {m.flag for m in measure(BASIN, net, net).values()} == {"the two networks are one"}
