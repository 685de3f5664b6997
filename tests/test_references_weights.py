"""Diagnostics of weights and of the loss around them against their formulas in float64 numpy."""

import math
from collections import OrderedDict
from itertools import pairwise, permutations, product

import numpy as np
import pytest
import torch
from fake_subject import FakeSubject, modules_of
from numpy.lib.stride_tricks import sliding_window_view
from references_numpy import CLASSES, forward, log_softmax, loss_and_accuracy, measured, subject
from scipy.stats import norm
from torch import nn

from transferbench_plugins.diagnostics.landscape.barrier import ALIGNED_BARRIER
from transferbench_plugins.diagnostics.landscape.basin import BASIN
from transferbench_plugins.diagnostics.modules.criticality import CRITICALITY
from transferbench_plugins.diagnostics.weights.misalignment import MISALIGNMENT

SEED = 5  # of the contexts in which diagnostics are measured


def normal(state, names, seed: int) -> dict[str, torch.Tensor]:
    """The noise that a seed draws for these parameters."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(state[name].shape, generator=generator) for name in names}


def moved(state, direction, by: float) -> dict[str, torch.Tensor]:
    """The weights plus a multiple of a direction, in float64."""
    return {name: tensor.double() + by * direction[name].double() if name in direction else tensor
            for name, tensor in state.items()}  # fmt: skip


# --- basin ------------------------------------------------------------------------------------


def mean_on_line(positions, values) -> float:
    """The mean of a function that is linear between these positions."""
    parts = zip(pairwise(positions), pairwise(values), strict=True)
    total = sum((q - p) * (u + v) / 2 for (p, q), (u, v) in parts)
    return total / (positions[-1] - positions[0])


def mean_and_deviation(losses: dict[float, float]) -> tuple[float, float]:
    """Mean and mean absolute deviation of losses by position."""
    mu = mean_on_line(list(losses), losses.values())
    return mu, mean_on_line(list(losses), [abs(loss - mu) for loss in losses.values()])


def test_a_basin_is_that_of_definition_3_1_with_losses_in_float64():
    a, b = subject(0), subject(1)
    names = [name for name, _ in a.net.named_parameters()]
    line = {name: b.state()[name].double() - a.state()[name].double() for name in names}
    size = sum(tensor.numel() for tensor in line.values())
    length = math.sqrt(sum(float((tensor**2).sum()) for tensor in line.values()))
    tolerance, draws, sigmas = 0.055, 4, (0.01, 0.1, 1.0)

    def loss(position: float, noise=None, sigma: float = 0) -> float:
        state = moved(moved(a.state(), line, position), noise or {}, sigma)
        return loss_and_accuracy(state, *a.data["test"])[0]

    scan = {step / 4: loss(step / 4) for step in range(-4, 9)}
    cap = max(scan[0], scan[1]) + tolerance
    low = min(p for p in scan if p <= 0 and all(scan[q] <= cap for q in scan if p <= q <= 0))
    high = max(p for p in scan if p >= 1 and all(scan[q] <= cap for q in scan if 1 <= q <= p))
    mu, epsilon = mean_and_deviation({p: scan[p] for p in scan if low <= p <= high})
    _, between = mean_and_deviation({p: scan[p] for p in scan if 0 <= p <= 1})
    expected = {("a_lo",): low, ("a_hi",): high, ("mu",): mu, ("epsilon",): epsilon}
    expected["epsilon_segment",] = between
    expected |= {("loss", p): value for p, value in scan.items()}
    ends = (loss(low) + loss(high)) / 2 - mu
    expected["escape_noise", 0] = expected["escape_extrapolation", 0] = ends
    noises = [normal(a.state(), names, SEED + draw) for draw in range(draws)]
    # The medians of equally likely parts of |nu|, in units of delta.
    steps = [norm.ppf(0.5 + (draw + 0.5) / (2 * draws)) for draw in range(draws)]
    reached = {0.0: [], ends: []}
    for sigma in sigmas:
        noisy = [loss(end, noise, sigma) for end in (low, high) for noise in noises]
        reach = [sigma * math.sqrt(size) * step / length for step in steps]
        beyond = [loss(low - x) for x in reach] + [loss(high + x) for x in reach]
        curves = [sum(values) / (2 * draws) - mu for values in (noisy, beyond)]
        expected["escape_noise", sigma], expected["escape_extrapolation", sigma] = curves
        for base, levels in reached.items():
            if all(curve - base >= 2 * epsilon for curve in curves):
                levels.append(sigma)
    expected["delta",] = min(reached[0.0]) * math.sqrt(size)
    expected["delta_excess",] = min(reached[ends]) * math.sqrt(size)
    got = measured(BASIN, a, b, tolerance=tolerance, steps=4, sigmas=(0.01, 1.0), levels=3, draws=4)
    got = {(metric, *position): value for (metric, _, _, *position), value in got.items()}
    assert got == pytest.approx(expected, rel=1e-6)


# --- criticality ------------------------------------------------------------------------------


SIGMAS, TOLERANCES = (0.05, 0.3), (0.02, 0.3)


def rewindable_trial() -> FakeSubject:
    """A network that fits its labels, from weights that fit them less."""
    trial = subject(0, history=[{"epoch": t, "validation_metric": 0.5} for t in range(3)])
    trial.alter("final", {name: 3 * tensor for name, tensor in trial.state().items()})
    direction = normal(trial.state(), trial.state(), 1)
    for which, by in (("init", 1.0), (1, 0.3)):
        trial.alter(which, moved(trial.state(), direction, by))
    images = trial.images("train")
    trial.data["train"] = images, torch.from_numpy(forward(trial.state(), images).argmax(axis=1))
    return trial


def paths_of(trial: FakeSubject, names) -> dict[str, dict[float, dict[str, torch.Tensor]]]:
    """The weights of a module by path and alpha."""
    start, middle, end = ({name: trial.state(which)[name].double() for name in names}
                          for which in ("init", 1, "final"))  # fmt: skip
    way = {name: end[name] - start[name] for name in names}
    return {
        "direct": {alpha: moved(start, way, alpha) for alpha in (0, 0.5, 1)},
        "optimisation": {0: start, 0.5: middle, 1: end},
    }


def minima(losses, distances, largest: float) -> dict[str, float | None]:
    """mu and the feasible ranges of a map of losses by alpha and sigma."""
    feasible = {cell for cell, loss in losses.items() if loss <= largest}
    levels = (0, *SIGMAS)
    alphas = [a for a in distances if all((x, 0) in feasible for x in distances if x >= a)]
    sigmas = [s for s in levels if all((1, x) in feasible for x in levels if x <= s)]
    ratios = [distances[a] ** 2 / s**2 for a, s in feasible if s]
    return {"mu": min(ratios), "alpha_low": min(alphas), "sigma_high": max(sigmas)}


def test_criticality_is_the_minimum_over_a_map_of_losses_in_float64():
    trial = rewindable_trial()
    final, data = trial.state(), trial.data["train"]
    risk = loss_and_accuracy(final, *data)[0]
    seeds = torch.randint(2**62, (3,), generator=torch.Generator().manual_seed(0)).tolist()
    expected, mus = {}, {}
    for (module, names), seed in zip(trial.modules.items(), seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        noises = [{name: torch.randn(final[name].shape, generator=generator) for name in names}
                  for _ in range(2)]  # fmt: skip
        for path, points in paths_of(trial, names).items():
            at, distances, losses = (module, path, "final"), {}, {}
            for alpha, point in points.items():
                squares = [((point[name] - points[0][name]) ** 2).sum() for name in names]
                distances[alpha] = expected["distance", *at, alpha] = math.sqrt(sum(squares))
                for sigma in (0, *SIGMAS):
                    states = [moved(final | point, noise, sigma) for noise in noises]
                    loss = sum(loss_and_accuracy(state, *data)[0] for state in states) / 2
                    losses[alpha, sigma] = expected["loss", *at, alpha, sigma] = loss
            for tolerance in TOLERANCES:
                values = minima(losses, distances, risk + tolerance)
                expected |= {(name, *at, tolerance): value for name, value in values.items()}
                mus.setdefault((path, "final", tolerance), []).append(values["mu"])
    for key, (*body, head) in mus.items():
        expected["mu_total", "body", *key] = sum(body)
        expected["mu_total", "all", *key] = sum(body) + head
    got = measured(CRITICALITY, trial, alphas=3, sigmas=SIGMAS, draws=2, tolerances=TOLERANCES,
                   ends=["final"])  # fmt: skip
    assert {key: got[key] for key in expected} == pytest.approx(expected, rel=1e-6)


# --- a convolutional network: aligned barrier, misalignment -----------------------------------


class Convolution(nn.Module):
    """One convolution of six filters, the mean over the image, and a head."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, bias=False)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, images):
        return self.fc(self.conv1(images).relu().mean((2, 3)))


def patches(images) -> np.ndarray:
    """The windows of side 3 of each image, in float64: (N, P, 9)."""
    pixels = images[:, 0].double().numpy()
    return sliding_window_view(pixels, (3, 3), (1, 2)).reshape(len(images), -1, 9)


def convolutional_trial(seed: int) -> FakeSubject:
    data = {}
    generator = torch.Generator().manual_seed(9)
    for split in ("train", "test"):
        data[split] = torch.randn(50, 1, 6, 6, generator=generator), torch.zeros(50)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nets = OrderedDict((which, Convolution().eval()) for which in ("final", "init"))
    for tensor in (tensor for net in nets.values() for tensor in net.parameters()):
        tensor.data.mul_(3)
    return FakeSubject(nets, modules_of(nets["final"], "fc"), data, job=f"conv-{seed}")


def channels_of(state, images) -> np.ndarray:
    """The outputs of the convolution: (N, P, 6)."""
    return patches(images) @ state["conv1.weight"].reshape(6, 9).T


def logits_of(state, images, scale=1.0, shift=0.0) -> np.ndarray:
    """The outputs with the channels scaled and shifted, in float64."""
    pooled = np.maximum(channels_of(state, images) * scale + shift, 0).mean(axis=1)
    return pooled @ state["fc.weight"].T + state["fc.bias"]


def loss_and_metric(logits, labels) -> tuple[float, float]:
    truth = labels.numpy()
    loss = -log_softmax(logits)[np.arange(len(truth)), truth].mean()
    return float(loss), float((logits.argmax(axis=1) == truth).mean())


def matched(a, b) -> dict[str, np.ndarray]:
    """``b`` with the best of all orders of its channels, by its inner product with ``a``."""
    products = a["conv1.weight"] @ b["conv1.weight"].T + a["fc.weight"].T @ b["fc.weight"]
    orders = map(list, permutations(range(6)))
    return reordered(b, max(orders, key=lambda order: products[range(6), order].sum()))


def reordered(state, order: list[int]) -> dict[str, np.ndarray]:
    """The same network with its channels in another order."""
    conv, fc = state["conv1.weight"][order], state["fc.weight"][:, order]
    return state | {"conv1.weight": conv, "fc.weight": fc}


def in_float64(trial: FakeSubject) -> dict[str, np.ndarray]:
    state = {name: tensor.double().numpy() for name, tensor in trial.state().items()}
    return state | {"conv1.weight": state["conv1.weight"].reshape(6, 9)}


def curve(a, b, data, calibration=None) -> list[tuple[float, float]]:
    """Loss and metric at five points; with images, the channels' statistics are restored there."""
    values = []
    for weight in (0, 0.25, 0.5, 0.75, 1):
        state, affine = {name: (1 - weight) * a[name] + weight * b[name] for name in a}, ()
        if calibration is not None:
            outputs = [channels_of(net, calibration) for net in (a, b, state)]
            mean_a, mean_b, mean = (x.mean(axis=(0, 1)) for x in outputs)
            std_a, std_b, std = (np.sqrt(x.var(axis=(0, 1)) + 1e-5) for x in outputs)
            scale = ((1 - weight) * std_a + weight * std_b) / std
            affine = scale, (1 - weight) * mean_a + weight * mean_b - mean * scale
        values.append(loss_and_metric(logits_of(state, data[0], *affine), data[1]))
    return values


def aligned_trials() -> tuple[FakeSubject, FakeSubject]:
    """A trial that fits its labels, and it changed and with its channels in another order."""
    first, second = convolutional_trial(0), convolutional_trial(1)
    outputs = {split: logits_of(in_float64(first), images)
               for split, (images, _) in first.data.items()}  # fmt: skip
    centre = outputs["train"].mean(axis=0)
    first.alter("final", {"fc.bias": first.state()["fc.bias"] - torch.from_numpy(centre)})
    for trial in (first, second):
        trial.data = {split: (images, torch.from_numpy((outputs[split] - centre).argmax(axis=1)))
                      for split, (images, _) in first.data.items()}  # fmt: skip
    changed = moved(first.state(), second.state(), 0.3)
    second.alter("final", reordered(changed, [3, 0, 5, 1, 4, 2]))
    return first, second


def test_an_aligned_barrier_is_that_of_the_best_order_of_channels_in_float64():
    trials = aligned_trials()
    a, b = map(in_float64, trials)
    data, expected = trials[0].data, {}
    for split, alignment in product(("train", "test"), ("before", "matched", "repaired")):
        other = b if alignment == "before" else matched(a, b)
        images = data["train"][0] if alignment == "repaired" else None
        points, at = np.array(curve(a, other, data[split], images)), (split, alignment)
        for name, sign, values in (("loss", 1, points[:, 0]), ("metric", -1, points[:, 1])):
            expected |= {(name, k / 4, *at): value for k, value in enumerate(values)}
            excess = sign * (values - np.linspace(values[0], values[-1], 5))
            expected[f"barrier_{name}_sup", *at] = max(excess)
            expected[f"barrier_{name}_mid", *at] = excess[2]
        for height in ("sup", "mid"):
            of_ends = expected[f"barrier_metric_{height}", *at] / points[[0, -1], 1].mean()
            expected[f"barrier_metric_relative_{height}", *at] = of_ends
    # Barriers are differences of losses near 1.
    assert measured(ALIGNED_BARRIER, *trials, points=5) == pytest.approx(
        expected, rel=1e-6, abs=1e-7
    )


def shrunk_covariance(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Ledoit and Wolf's covariance and shrinkage (2004, doi:10.1016/S0047-259X(03)00096-4)."""
    n, size = rows.shape
    centred = rows - rows.mean(axis=0)
    covariance = centred.T @ centred / n
    sphere = np.trace(covariance) / size * np.eye(size)
    spread = sum(((np.outer(x, x) - covariance) ** 2).sum() for x in centred) / n**2
    shrinkage = min(1.0, spread / ((covariance - sphere) ** 2).sum())
    return (1 - shrinkage) * covariance + shrinkage * sphere, shrinkage


def misaligned(axes: np.ndarray, filters: np.ndarray) -> float:
    """M for eigenspaces of one axis each: the columns."""
    inverse = np.linalg.inv(filters)
    roots = [math.sqrt((v @ filters @ v) * (v @ inverse @ v)) for v in axes.T]
    return math.sqrt(sum(roots) - len(filters))


@pytest.mark.parametrize("of", ["final", "init"])
def test_misalignment_is_its_formula_on_patches_and_shrunk_filters_in_float64(of):
    trial, rng = convolutional_trial(0), np.random.default_rng(SEED)
    _, axes = np.linalg.eigh(np.cov(patches(trial.data["train"][0]).reshape(-1, 9).T))
    weight = trial.state(of)["conv1.weight"].double().numpy().reshape(6, 9)
    filters, shrinkage = shrunk_covariance(weight)
    random = [misaligned(np.linalg.qr(rng.standard_normal((9, 9)))[0], filters) for _ in range(3)]
    assert measured(MISALIGNMENT, trial, rotations=3, of=[of]) == pytest.approx({
        ("misalignment", "conv1", of): misaligned(axes, filters),
        ("shrinkage", "conv1", of): shrinkage,
        ("misalignment_random", "conv1", of): sum(random) / 3,
    }, rel=1e-6)  # fmt: skip
