"""Module diagnostics against forward passes of copied networks, numpy and known results."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from fake_subject import HISTORY, NETWORKS, both_splits, equal, untrained_trial
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_suite import TINY, tiny_suite
from torch import nn
from torch.optim.swa_utils import update_bn

from transferbench.api import run
from transferbench.errors import StoreError
from transferbench.identity import derive_seed
from transferbench.specs import DiagnosticContext
from transferbench.statistics import exact_share
from transferbench_plugins.diagnostics.modules.criticality import (
    CRITICALITY,
    CriticalityParams,
    best_epoch,
    criticality,
)
from transferbench_plugins.diagnostics.modules.swaps import RERANDOMISATION, REWINDING
from transferbench_plugins.diagnostics.weights import misalignment as misalignment_module
from transferbench_plugins.diagnostics.weights.misalignment import (
    MISALIGNMENT,
    misalignment,
    patch_covariance,
)
from transferbench_plugins.diagnostics.weights.spectrum import SPECTRUM, singular_values

SPECS = (CRITICALITY, MISALIGNMENT, RERANDOMISATION, REWINDING, SPECTRUM)
CPU = torch.device("cpu")
GRID = {"alphas": 3, "sigmas": [0.01, 0.1], "draws": 2, "limit": 9}


def context(seed=0):
    return DiagnosticContext(CPU, torch.Generator().manual_seed(seed), seed)


def rows(spec, trial, seed=0, **params):
    """Measurements by (metric, *coordinates)."""
    measurements = list(spec.measure(spec.parse(params), [trial], context(seed)))
    keyed = {(m.metric, *m.coordinates.values()): m for m in measurements}
    assert len(keyed) == len(measurements)
    return keyed


def naive(trial, state, split, limit=None):
    """Loss and metric of a copied network without prefix cache: the reference for all fast paths.

    Its batch statistics are those that torch finds of the train images.
    """
    net = copy.deepcopy(trial.net)
    net.load_state_dict(state)
    if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        update_bn([trial.images("train", limit if split == "train" else None)], net)
        net.eval()
    labels = trial.targets(split, limit)
    with torch.no_grad():
        logits = net(trial.images(split, limit))
    loss = F.cross_entropy(logits.double(), labels).item()
    return loss, float((logits.argmax(1) == labels).double().mean())


def with_module(base, other, names):
    return {**base, **{name: other[name] for name in names}}


# --- rewinding and re-randomisation -------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_a_rewound_network_is_the_final_network_with_one_initial_module(network):
    trial = untrained_trial(network, n=12)
    measured = rows(REWINDING, trial, to=["init", 1])
    final = trial.state("final")
    whole = naive(trial, final, "test")
    assert (
        measured["loss", "none", "final"].value,
        measured["metric", "none", "final"].value,
    ) == whole
    for to in ("init", 1):
        state = trial.state(to)
        expected = {"all": naive(trial, state, "test")} | {
            module: naive(trial, with_module(final, state, names), "test")
            for module, names in trial.modules.items()
        }
        for module, (loss, metric) in expected.items():
            assert measured["loss", module, to].value == loss
            assert measured["metric", module, to].value == metric
            assert measured["drop", module, to].value == whole[1] - metric
        body = [whole[1] - expected[module][1] for module in [*trial.modules][:-1]]
        assert measured["mean_body_drop", to].value == pytest.approx(np.mean(body), abs=1e-15)
        assert measured["worst_body_drop", to].value == max(body)
    assert len({loss for loss, _ in expected.values()}) == len(expected)


def test_rewinding_all_modules_gives_the_initial_network_and_none_the_final_network():
    trial = untrained_trial()
    measured = rows(REWINDING, trial)
    assert measured["loss", "all", "init"].value == naive(trial, trial.state("init"), "test")[0]
    assert measured["loss", "none", "final"].value == naive(trial, trial.state("final"), "test")[0]


@pytest.mark.parametrize("spec", [REWINDING, RERANDOMISATION])
def test_stored_batch_statistics_do_not_matter(spec):
    """They are recomputed, as swapped weights change the inputs of the layers behind them."""
    trial, other = untrained_trial("batch-norm", n=6), untrained_trial("batch-norm", n=6)
    for which in other.networks:
        state = other.state(which)
        running = [name for name in state if name.endswith(("running_mean", "running_var"))]
        other.alter(which, {name: state[name] + 1 for name in running})
    first, second = rows(spec, trial), rows(spec, other)
    assert {key: m.value for key, m in first.items()} == {key: m.value for key, m in second.items()}
    assert len({m.value for key, m in first.items() if key[0] == "loss"}) > len(trial.modules)


def test_a_level_has_an_exact_interval_and_counts_test_images():
    measured = rows(REWINDING, untrained_trial(), limit=9)["metric", "stem", "init"]
    expected = exact_share(round(measured.value * 9), 9)
    assert (measured.low, measured.high, measured.interval) == (
        expected.low,
        expected.high,
        "exact-95",
    )
    assert (measured.n, measured.unit) == (9, "fraction")


@pytest.mark.parametrize("metric", ["auc", "accuracy"])
def test_a_multi_label_metric_has_no_exact_interval(metric):
    trial = untrained_trial()
    trial.task, trial.metric = "multi-label", metric
    trial.data = both_splits(trial.images("test"), F.one_hot(trial.targets("test"), 4).float())
    measured = rows(REWINDING, trial)["metric", "stem", "init"]
    assert measured.interval is None
    assert 0 < measured.value < 1


def test_a_diverged_network_has_no_loss_and_is_flagged():
    trial = untrained_trial()
    names = trial.modules["layer2.0"]
    init = trial.state("init")
    trial.alter("init", {n: torch.full_like(init[n], 1e30) for n in names})
    measured = rows(REWINDING, trial)["loss", "layer2.0", "init"]
    assert measured.value is None
    assert measured.flag == "not finite, or not defined on these images"


def test_an_epoch_that_was_not_stored_is_an_error_that_lists_the_stored_epochs():
    with pytest.raises(
        StoreError, match=r"epoch 7: the trial stored no .*epochs: 1, 2, 3\); rewind"
    ):
        rows(REWINDING, untrained_trial(), to=[7])


def test_a_rerandomised_module_comes_from_a_fresh_network():
    trial = untrained_trial()
    measured = rows(RERANDOMISATION, trial, seed=5, draws=2)
    final = trial.state("final")
    for draw in range(2):
        fresh = trial.fresh(derive_seed("re-randomisation", {"seed": 5, "draw": draw}))
        assert not equal(fresh, trial.state("init"))
        for module, names in trial.modules.items():
            expected, _ = naive(trial, with_module(final, fresh, names), "test")
            assert measured["loss", module, draw].value == expected
    assert measured["loss", "stem", 0].value != measured["loss", "stem", 1].value
    again = rows(RERANDOMISATION, trial, seed=6, draws=2)
    assert again["loss", "stem", 0].value != measured["loss", "stem", 0].value


# --- criticality: the map -----------------------------------------------------------------------


def naive_map(trial, end, path, grid, seed=0):
    """(module, alpha, sigma) -> (loss, metric) of each noise sample, from ``naive``."""
    generator = torch.Generator().manual_seed(seed)
    seeds = torch.randint(2**62, (len(trial.modules),), generator=generator).tolist()
    parameters = dict(trial.net.named_parameters())
    start, last = trial.state("init"), trial.state(end)
    cells = {}
    for (module, names), module_seed in zip(trial.modules.items(), seeds, strict=True):
        drawn = torch.Generator().manual_seed(module_seed)
        noise = [
            {n: torch.randn(last[n].shape, generator=drawn) for n in names if n in parameters}
            for _ in range(grid["draws"])
        ]
        if path == "direct":
            points = {
                a: {
                    n: torch.lerp(start[n], last[n], a) if start[n].is_floating_point() else last[n]
                    for n in names
                }
                for a in np.linspace(0, 1, grid["alphas"]).tolist()
            }
        else:
            end_epoch = 4 if end == "final" else 2
            stored = {t / end_epoch: trial.state(t) for t in trial.epochs if t < end_epoch}
            points = {0.0: start, **stored, 1.0: last}
        for alpha, point in points.items():
            for sigma in (0.0, *grid["sigmas"]):
                states = [
                    {n: point[n] + sigma * u[n] if n in u else point[n] for n in names}
                    for u in noise[: 1 if sigma == 0 else None]
                ]
                cells[module, alpha, sigma] = [
                    naive(trial, with_module(last, s, names), "train", grid["limit"])
                    for s in states
                ]
    return cells


SMALL = {"alphas": 2, "sigmas": [0.05], "draws": 2, "limit": 3}


@pytest.mark.parametrize(
    ("network", "path", "end", "grid"),
    [
        ("norm-free", "direct", "final", GRID),
        ("norm-free", "optimisation", "final", GRID),
        ("norm-free", "optimisation", "best", GRID),
        ("batch-norm", "direct", "final", SMALL),
        ("vit", "direct", "best", SMALL),
    ],
)
def test_the_map_equals_that_of_complete_forward_passes_bit_for_bit(network, path, end, grid):
    trial = untrained_trial(network, n=12)
    measured = rows(CRITICALITY, trial, **grid, paths=[path], ends=[end])
    expected = naive_map(trial, end, path, grid)
    cells = {key: m for key, m in measured.items() if key[0] in {"loss", "metric"}}
    assert len(cells) == 2 * len(expected)
    for (module, alpha, sigma), draws in expected.items():
        coordinates = (module, path, end, alpha, sigma)
        loss, metric = np.array(draws).mean(axis=0)
        assert cells["loss", *coordinates].value == loss
        assert cells["metric", *coordinates].value == metric
        assert (cells["loss", *coordinates].n, cells["loss", *coordinates].unit) == (
            grid["limit"],
            "nats",
        )


def test_the_distance_of_a_point_is_over_parameters_only():
    trial = untrained_trial("batch-norm", n=3)
    measured = rows(CRITICALITY, trial, **{**GRID, "sigmas": [0.1], "draws": 1}, ends=["final"])
    start, last = trial.state("init"), trial.state("final")
    names = [n for n in trial.modules["layer2.0"] if "running" not in n and "batches" not in n]
    expected = math.sqrt(sum(((last[n] - start[n]).double() ** 2).sum().item() for n in names))
    distance = measured["distance", "layer2.0", "direct", "final", 1.0].value
    assert distance == pytest.approx(expected, rel=1e-6)
    half = measured["distance", "layer2.0", "direct", "final", 0.5].value
    assert half == pytest.approx(expected / 2, rel=1e-6)
    stored = trial.state(1)
    expected = math.sqrt(sum(((stored[n] - start[n]).double() ** 2).sum().item() for n in names))
    quarter = measured["distance", "layer2.0", "optimisation", "final", 0.25].value
    assert quarter == pytest.approx(expected, rel=1e-6)


# --- criticality: mu ----------------------------------------------------------------------------

ALPHAS, SIGMAS = np.linspace(0, 1, 5), (0.1, 0.5, 1.0)


def bowl(curvature=1.0):
    """Risks (1 - alpha)^2 + curvature sigma^2 with a distance of 2 alpha."""
    return (1 - ALPHAS[:, None]) ** 2 + curvature * np.array([0, *SIGMAS]) ** 2, 2 * ALPHAS


def test_mu_is_the_smallest_squared_ratio_of_distance_to_noise_over_feasible_cells():
    risks, distances = bowl()
    result = criticality(risks, ALPHAS, distances, SIGMAS, 0.32)
    # alpha = 0.5 tolerates sigma = 0.1 (0.26): 100; 0.75 tolerates 0.5 (0.3125): 2.25 / 0.25 = 9.
    assert result == (9.0, 0.75, 0.5, 0.5, 0.5)


def test_a_module_that_can_be_fully_rewound_is_not_critical():
    risks, distances = bowl()
    result = criticality(risks, ALPHAS, distances, SIGMAS, math.inf)
    assert result == (0.0, 0.0, 1.0, 0.0, 1.0)


def test_a_module_that_tolerates_no_noise_of_the_grid_is_infeasible():
    risks, distances = bowl(curvature=1000)
    assert criticality(risks, ALPHAS, distances, SIGMAS, 0.01) == (None, None, None, 1.0, 0.0)
    nothing = (None, None, None, None, None)
    assert criticality(risks, ALPHAS, distances, SIGMAS, -1.0) == nothing
    assert criticality(risks, ALPHAS, distances, SIGMAS, None) == nothing
    assert criticality(risks * np.nan, ALPHAS, distances, SIGMAS, math.inf) == nothing


def test_a_module_that_did_not_move_is_not_critical_for_any_noise():
    risks, distances = bowl(curvature=1000)
    result = criticality(risks, ALPHAS, 0 * distances, SIGMAS, 0.01)
    assert result == (0.0, None, None, 1.0, 0.0)


def test_the_ranges_are_connected_to_the_end():
    risks, distances = bowl()
    risks[2, 0] = 9  # a barrier at alpha = 0.5 ends the feasible range
    risks[-1, 2] = 9  # and one at sigma = 0.5
    result = criticality(risks, ALPHAS, distances, SIGMAS, 1.0)
    assert (result.alpha_low, result.sigma_high) == (0.75, 0.1)


@given(
    st.lists(st.floats(0, 2) | st.just(math.nan), min_size=20, max_size=20),
    st.lists(st.floats(0, 2), min_size=2, max_size=2),
)
def test_mu_never_rises_with_epsilon_and_is_the_minimum_over_feasible_cells(values, epsilons):
    risks, distances = np.array(values).reshape(5, 4), 2 * ALPHAS
    low, high = (criticality(risks, ALPHAS, distances, SIGMAS, e).mu for e in sorted(epsilons))
    cells = [
        distances[a] ** 2 / sigma**2
        for a in range(5)
        for s, sigma in enumerate(SIGMAS, start=1)
        if risks[a, s] <= max(epsilons)
    ]
    assert high == (pytest.approx(min(cells)) if cells else None)
    assert low is None or high <= low


def test_epsilon_is_the_risk_at_the_end_plus_the_tolerance():
    trial = untrained_trial()
    tolerances = [0.0, 0.001, 0.01, 100.0]
    measured = rows(CRITICALITY, trial, **GRID, tolerances=tolerances, ends=["final"])
    epsilon = naive(trial, trial.state("final"), "train", GRID["limit"])[0]
    for module in trial.modules:
        coordinates = (module, "direct", "final")
        risks = np.array(
            [
                [measured["loss", *coordinates, a, s].value for s in (0.0, *GRID["sigmas"])]
                for a in (0.0, 0.5, 1.0)
            ]
        )
        distances = np.array([measured["distance", *coordinates, a].value for a in (0.0, 0.5, 1.0)])
        for tolerance in tolerances:
            expected = criticality(
                risks, np.array([0, 0.5, 1]), distances, GRID["sigmas"], epsilon + tolerance
            )
            assert measured["mu", *coordinates, tolerance].value == expected.mu
            assert expected.alpha_low is not None, "the end is always feasible"
        assert measured["mu", *coordinates, 100.0].value == 0
    for modules, chosen in (("all", [*trial.modules]), ("body", [*trial.modules][:-1])):
        mus = [measured["mu", m, "direct", "final", 0.01].value for m in chosen]
        total = measured["mu_total", modules, "direct", "final", 0.01]
        assert total.value == (None if None in mus else pytest.approx(sum(mus)))


def test_the_error_may_be_the_risk():
    trial = untrained_trial()
    of_loss = rows(CRITICALITY, trial, **GRID, tolerances=[1.0], ends=["final"])
    of_error = rows(CRITICALITY, trial, **GRID, tolerances=[1.0], ends=["final"], risk="error")
    huge = {**GRID, "sigmas": [1.0]}
    assert all(m.value == 0 for key, m in of_error.items() if key[0] == "mu")
    assert of_loss.keys() == of_error.keys()
    strict = rows(CRITICALITY, trial, **huge, tolerances=[0.0], ends=["final"], risk="error")
    coordinates = ("layer3.0", "direct", "final")
    end = 1 - naive(trial, trial.state("final"), "train", 9)[1]
    feasible = [
        a
        for a in (0.0, 0.5, 1.0)
        if 1 - strict["metric", *coordinates, a, 1.0].value <= end + 1e-12
    ]
    assert (strict["mu", *coordinates, 0.0].value is None) == (not feasible)


def test_an_infeasible_module_is_named_in_the_flag_of_the_total():
    trial = untrained_trial()
    init = trial.state("init")
    trial.alter("final", {n: init[n] for n in trial.modules["layer1.0"]})
    params = {**GRID, "sigmas": [1.0], "tolerances": [0.0], "ends": ["final"]}
    # The labels are the network's predictions: any other network is worse.
    net = trial.network()
    with torch.no_grad():
        trial.data = both_splits(trial.images("test"), net(trial.images("test")).argmax(1))
    measured = rows(CRITICALITY, trial, **params)
    head = measured["mu", "head", "direct", "final", 0.0]
    assert head.value is None
    assert head.flag == "infeasible: no cell of the grid keeps the risk"
    untouched = measured["mu", "layer1.0", "direct", "final", 0.0]
    assert (untouched.value, untouched.flag) == (0.0, None)
    where = measured["mu_sigma", "layer1.0", "direct", "final", 0.0]
    assert (where.value, where.flag) == (None, "the module ends where it started")
    noise = measured["sigma_high", "head", "direct", "final", 0.0]
    assert (noise.value, noise.flag) == (0.0, "less than the smallest noise of the grid")
    total = measured["mu_total", "all", "direct", "final", 0.0]
    assert total.value is None
    assert total.flag.startswith("infeasible: no cell of the grid keeps the risk of ")
    assert "head" in total.flag
    assert "layer1.0" not in total.flag


def test_a_path_without_stored_epochs_is_flagged():
    trial = untrained_trial("batch-norm", n=3)
    for epoch in (1, 2, 3):
        del trial.networks[epoch]
    params = {**GRID, "sigmas": [0.01], "draws": 1, "ends": ["final"], "tolerances": [9.0]}
    measured = rows(CRITICALITY, trial, **params)
    alone = "no epoch between was kept: the path is its two ends"
    assert measured["mu", "stem", "direct", "final", 9.0].flag is None
    assert measured["mu", "stem", "optimisation", "final", 9.0].flag == alone
    assert measured["mu_total", "body", "optimisation", "final", 9.0].flag == alone


def test_a_diverged_network_is_infeasible():
    trial = untrained_trial()
    trial.alter("final", {n: t * math.inf for n, t in trial.state("final").items()})
    measured = rows(CRITICALITY, trial, **GRID, ends=["final"], paths=["direct"])
    assert measured["mu", "stem", "direct", "final", 0.1].value is None
    cell = measured["loss", "stem", "direct", "final", 1.0, 0.0]
    assert (cell.value, cell.flag) == (None, "not finite, or not defined on these images")


def test_the_best_epoch_is_the_first_maximum_or_else_the_last():
    assert best_epoch(HISTORY) == 2
    assert best_epoch([{"epoch": 0, "validation_metric": None}, {"epoch": 3}]) == 3
    diverged = {"epoch": 4, "validation_metric": 1.0, "validation_loss": None}
    assert best_epoch([*HISTORY, diverged]) == 2


def test_noise_levels_ascend():
    with pytest.raises(ValidationError, match=r"noise levels must ascend.*\[0.1, 0.01\] do not"):
        CriticalityParams(sigmas=(0.1, 0.01))


# --- spectrum -----------------------------------------------------------------------------------


def test_singular_values_are_those_of_numpy():
    random = np.random.default_rng(0)
    low_rank = random.standard_normal((12, 3)) @ random.standard_normal((3, 20))
    graded = np.diag(10.0 ** -np.arange(8))
    weights = {
        "wide": random.standard_normal((5, 40)),
        "tall": random.standard_normal((40, 5)),
        "wide too": random.standard_normal((5, 40)) * 1e-4,
        "low rank": low_rank,
        "graded": graded,
        "zero": np.zeros((5, 40)),
    }
    tensors = {name: torch.from_numpy(w.astype(np.float32)) for name, w in weights.items()}
    spectra = singular_values(tensors)
    assert [*spectra] == [*weights]
    for name, weight in tensors.items():
        expected = np.linalg.svd(weight.numpy().astype(np.float64), compute_uv=False)
        assert np.abs(spectra[name] - expected).max() <= 1e-10 * expected[0]


def test_every_layer_of_every_state_has_a_spectrum():
    trial = untrained_trial("batch-norm")
    measured = rows(SPECTRUM, trial, of=["final", "init", 2], top=3)
    layers = [n for n, t in trial.state().items() if n.endswith("weight") and t.ndim > 1]
    for of in ("final", "init", 2):
        for name in layers:
            (module,) = [m for m, names in trial.modules.items() if name in names]
            matrix = trial.state(of)[name].flatten(1).double().numpy()
            expected = np.linalg.svd(matrix, compute_uv=False)
            for index in range(min(3, len(expected))):
                row = measured["singular_value", module, name, of, index]
                assert row.value == pytest.approx(expected[index], abs=1e-10 * expected[0])
                assert (row.n, row.unit) == (len(expected), "weight")
            shares = expected / expected.sum()
            summary = {
                "spectral_norm": np.linalg.norm(matrix, 2),
                "frobenius_norm": np.linalg.norm(matrix),
                "stable_rank": np.linalg.norm(matrix) ** 2 / np.linalg.norm(matrix, 2) ** 2,
                "effective_rank": np.exp(-(shares * np.log(shares)).sum()),
            }
            for metric, value in summary.items():
                assert measured[metric, module, name, of].value == pytest.approx(value, rel=1e-9)
    tops = [key for key in measured if key[0] == "singular_value"]
    assert len(measured) - len(tops) == 4 * 3 * len(layers)


def test_ranks_of_known_matrices():
    trial = untrained_trial()
    state = trial.state("final")
    tensors = {
        "fc.weight": torch.eye(4, 16),
        "conv1.weight": torch.ones_like(state["conv1.weight"]),
        "layer1.0.conv2.weight": torch.zeros_like(state["layer1.0.conv2.weight"]),
        "layer1.0.conv1.weight": torch.full_like(state["layer1.0.conv1.weight"], math.nan),
    }
    trial.alter("final", tensors)
    measured = rows(SPECTRUM, trial, of=["final"])
    for metric in ("stable_rank", "effective_rank"):
        assert measured[metric, "head", "fc.weight", "final"].value == pytest.approx(4)
        assert measured[metric, "stem", "conv1.weight", "final"].value == pytest.approx(1)
        zero = measured[metric, "layer1.0", "layer1.0.conv2.weight", "final"]
        assert (zero.value, zero.flag) == (None, "every weight is zero")
        broken = measured[metric, "layer1.0", "layer1.0.conv1.weight", "final"]
        assert (broken.value, broken.flag) == (None, "weights are not finite")
    # A non-finite matrix does not affect others of its shape.
    assert measured["spectral_norm", "layer1.0", "layer1.0.conv2.weight", "final"].value == 0


# --- misalignment -------------------------------------------------------------------------------


def turned(angle, eigenvalues):
    c, s = math.cos(angle), math.sin(angle)
    q = np.array([[c, -s], [s, c]])
    return q @ np.diag(eigenvalues) @ q.T


@pytest.mark.parametrize("angle", [0.0, 0.2, math.pi / 4, 1.0])
def test_misalignment_in_the_plane_is_known(angle):
    a, b = 4.0, 0.5
    c, s = math.cos(angle), math.sin(angle)
    along = [c * c * a + s * s * b, s * s * a + c * c * b]
    against = [c * c / a + s * s / b, s * s / a + c * c / b]
    roots = sum(math.sqrt(x * y) for x, y in zip(along, against, strict=True))
    value = misalignment(np.diag([1.0, 3.0]), turned(angle, [a, b]))
    assert value == pytest.approx(math.sqrt(max(roots - 2, 0)), abs=1e-7)
    assert (value < 1e-6) == (angle == 0)


def test_the_axes_inside_an_eigenspace_do_not_matter():
    filters = np.zeros((3, 3))
    filters[:2, :2], filters[2, 2] = turned(0.4, [3.0, 1.0]), 2.0
    value = misalignment(np.diag([5.0, 5.0, 1.0]), filters)
    # tr B tr B^-1 over the plane is (3 + 1) (1/3 + 1) = 16/3.
    assert value == pytest.approx(math.sqrt(math.sqrt(16 / 3) + 1 - 3))


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}])
def test_the_covariance_of_patches_is_that_of_windows_inside_the_images(options):
    layer = nn.Conv2d(2, 4, 3, **options)
    images = torch.randn(11, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    stride, dilation = options.get("stride", 1), options.get("dilation", 1)
    reach = 2 * dilation + 1
    windows = np.lib.stride_tricks.sliding_window_view(
        images.double().numpy(), (reach, reach), axis=(2, 3)
    )[:, :, ::stride, ::stride, ::dilation, ::dilation]
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 18)
    expected = np.cov(patches, rowvar=False, bias=True)
    assert np.abs(patch_covariance(images, layer) - expected).max() < 1e-12


def correlated_trial(n=40):
    """Smooth images: their patches have distinct eigenvalues."""
    trial = untrained_trial(n=n)
    smooth = F.avg_pool2d(F.pad(trial.images("test"), (1, 1, 1, 1)), 3, 1)
    trial.data = both_splits(smooth, trial.targets("test"))
    return trial


def test_filters_drawn_along_the_axes_of_the_patches_are_aligned_and_others_are_not():
    trial = correlated_trial()
    layer = nn.Conv2d(3, 400, 3, bias=False)
    patches = patch_covariance(trial.images("train"), layer)
    eigenvalues, axes = np.linalg.eigh(patches)
    random = np.random.default_rng(0)
    drawn = random.standard_normal((400, 27))
    scales = np.linspace(1, 6, 27)
    for state, values in (("final", drawn * scales @ axes.T), ("init", drawn * scales)):
        trial.networks[state].conv1 = copy.deepcopy(layer)
        weight = torch.from_numpy(values.reshape(400, 3, 3, 3)).float()
        trial.alter(state, {"conv1.weight": weight})
    measured = rows(MISALIGNMENT, trial)
    aligned = measured["misalignment", "conv1", "final"].value
    reference = measured["misalignment_random", "conv1", "final"]
    assert aligned < 0.5 * reference.low
    assert measured["misalignment", "conv1", "init"].value > 0.8 * reference.value
    assert (reference.n, reference.interval) == (20, "student-t-95")
    assert measured["misalignment", "conv1", "final"].n == 400
    assert 0 < measured["shrinkage", "conv1", "final"].value < 0.3
    assert eigenvalues[0] > 0


def test_large_patches_are_compared_with_few_random_axes(monkeypatch):
    trial = correlated_trial(n=8)
    every = rows(MISALIGNMENT, trial, rotations=20)
    monkeypatch.setattr(misalignment_module, "ROTATION_WORK", 5 * 27**3 + 1)
    five = rows(MISALIGNMENT, trial, rotations=20)
    monkeypatch.setattr(misalignment_module, "ROTATION_WORK", 1)
    three, two = rows(MISALIGNMENT, trial, rotations=20), rows(MISALIGNMENT, trial, rotations=2)
    key = "misalignment_random", "conv1", "final"
    assert [measured[key].n for measured in (every, five, three, two)] == [20, 5, 3, 2]
    key = "misalignment", "conv1", "final"
    assert every[key] == five[key] == three[key]


def test_patches_too_large_for_their_axes_are_flagged(monkeypatch):
    monkeypatch.setattr(misalignment_module, "MAX_VALUES", 26)
    (measured,) = rows(MISALIGNMENT, correlated_trial(n=8)).values()
    assert measured.flag == (
        "patches of 27 values, more than 26: their axes take too much memory and time"
    )


def test_an_undefined_misalignment_is_flagged():
    trial = correlated_trial(n=8)
    weight = trial.state()["conv1.weight"]
    trial.alter("final", {"conv1.weight": torch.ones_like(weight)})
    trial.alter("init", {"conv1.weight": weight * math.nan})
    measured = rows(MISALIGNMENT, trial)
    reason = "the filters have no invertible covariance: they do not vary, or are not finite"
    assert measured["misalignment", "conv1", "final"].flag == reason
    assert measured["misalignment", "conv1", "init"].flag == reason
    trial.modules = {"head": trial.modules["head"]}
    (nothing,) = rows(MISALIGNMENT, trial).values()
    assert (
        nothing.flag == "the first module has no convolution that reads every channel of the images"
    )


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_states_and_generators_are_not_modified_and_values_are_deterministic(spec):
    trial = untrained_trial()
    before = {which: trial.state(which) for which in trial.networks}
    drawn, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # must stay unchanged
    first = list(spec.measure(spec.parse(spec.tiny), [trial], context()))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert (np.random.get_state()[1] == legacy).all()  # noqa: NPY002  # must stay unchanged
    assert all(equal(trial.state(which), state) for which, state in before.items())
    assert first == list(spec.measure(spec.parse(spec.tiny), [trial], context()))


def test_costs_grow_with_the_parameters():
    costs = [spec.cost(spec.parse({})) for spec in (REWINDING, RERANDOMISATION, CRITICALITY)]
    assert costs == sorted(costs)
    assert REWINDING.cost(REWINDING.parse({"to": ["init", "best"]})) > costs[0]
    assert RERANDOMISATION.cost(RERANDOMISATION.parse({"draws": 4})) > costs[1]
    assert CRITICALITY.cost(CRITICALITY.parse({"draws": 4})) > costs[2]


def test_a_run_measures_the_modules_of_its_trials(tmp_path):
    diagnostics = {spec.name: {"name": spec.name, "params": spec.tiny} for spec in SPECS}
    suite = tiny_suite(diagnostics=diagnostics, claims={}, replicates=1, trials=[
        {"perturbations": ["none"]}
    ], recipes={"short": TINY["recipes"]["short"] | {"epochs": 1}})  # fmt: skip
    finished = run(suite, out=tmp_path / "run", jobs=1, device="cpu")
    assert not finished.failed
    table = finished.measurements
    losses = table[(table.metric == "loss") & (table.module == "stem")]
    for name in ("rewinding", "re-randomisation"):
        of_random = losses[(losses.diagnostic == name) & (losses.initialization == "RI-T")]
        assert len(of_random) == 1
        assert of_random.value.notna().all()
    rewound, drawn = (
        losses[(losses.diagnostic == name) & (losses.initialization == "RI-T")].value.item()
        for name in ("rewinding", "re-randomisation")
    )
    assert rewound != drawn, "a fresh network is another draw than the one training started from"
    assert set(table.diagnostic) == {"trial", *diagnostics}
