"""Each diagnostic against an independent reference: own code in float64, or a known answer.

The page of references lists them all. Here are those of networks and perturbed images; those of
predictions, histories and features, and of weights, are in the modules beside this one.
"""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from references_numpy import forward, loss_and_accuracy, measured, subject
from scipy import optimize
from torch import Tensor

from transferbench.identity import derive_seed
from transferbench.registry import load_registry
from transferbench_plugins.diagnostics.landscape.barrier import BARRIER
from transferbench_plugins.diagnostics.modules.swaps import RERANDOMISATION, REWINDING
from transferbench_plugins.diagnostics.robustness.robustness import ROBUSTNESS
from transferbench_plugins.diagnostics.robustness.shape_bias import SHAPE_BIAS, texture_partners
from transferbench_plugins.diagnostics.transferability._logistic import fit_regressions

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "science" / "references.md"


# --- weights ----------------------------------------------------------------------------------


def test_the_line_between_two_networks_has_the_losses_of_averaged_weights_in_float64():
    a, b = subject(0), subject(1)
    got = measured(BARRIER, a, b, points=5)
    for weight in (0.0, 0.25, 0.5, 0.75, 1.0):
        pairs = zip(a.state().items(), b.state().values(), strict=True)
        state = {name: (1 - weight) * x.double() + weight * y.double() for (name, x), y in pairs}
        for split in ("train", "test"):
            loss, accuracy = loss_and_accuracy(state, *a.data[split])
            assert got["loss", weight, split] == pytest.approx(loss, rel=1e-6)
            assert got["metric", weight, split] == pytest.approx(accuracy, rel=1e-6)


@pytest.mark.parametrize("spec", [REWINDING, RERANDOMISATION], ids=lambda spec: spec.name)
def test_a_swapped_module_has_the_loss_of_the_mixed_weights_in_float64(spec):
    trial = subject(0)
    rewound = spec is REWINDING
    got = measured(spec, trial, **({"to": ["init", 1]} if rewound else {"draws": 1}))
    fresh = trial.fresh(derive_seed("re-randomisation", {"seed": 5, "draw": 0}))
    for module, names in trial.modules.items():
        for to in ("init", 1) if rewound else (0,):
            other = trial.state(to) if rewound else fresh
            state = trial.state() | {name: other[name] for name in names}
            loss, accuracy = loss_and_accuracy(state, *trial.data["test"])
            assert got["loss", module, to] == pytest.approx(loss, rel=1e-6)
            assert got["metric", module, to] == pytest.approx(accuracy, rel=1e-6)


@pytest.mark.parametrize("strength", [0.3, 0.01])
def test_a_probe_is_the_minimum_of_its_documented_loss(strength):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = rng.normal(size=(90, 4)) * [1, 5, 0.2, 3] + labels[:, None] + 7
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)

    def loss(parameters: np.ndarray) -> float:
        weights, bias = parameters[:12].reshape(4, 3), parameters[12:]
        logits = scaled @ weights + bias
        peak = logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits - peak).sum(axis=1)) + peak[:, 0]
        likelihood = logits[np.arange(90), labels] - total
        return float(-likelihood.mean() + strength / 2 * (weights**2).sum())

    smallest = optimize.minimize(loss, np.zeros(15), method="BFGS", options={"gtol": 1e-7}).fun
    (fitted,) = fit_regressions(features, labels, 3, [strength])
    assert loss(np.concatenate([fitted.weights.ravel(), fitted.bias])) == pytest.approx(
        smallest, rel=1e-6
    )


# --- robustness -------------------------------------------------------------------------------

SERIES = [
    {"name": "noise", "settings": [{"strength": 0.5}, {"strength": 2.0}]},
    {"name": "blur", "settings": [{"strength": 1.0}]},
]


def perturbed(images: Tensor, name: str, strength: float) -> Tensor:
    return images + strength * (
        images.flip(0) if name == "noise" else images.mean(dim=3)[..., None]
    )


def test_robustness_is_that_of_networks_on_perturbed_images_in_float64():
    trial = subject(0, chance=0.1)
    images, labels = trial.data["test"]
    trial.logits = forward(trial.state(), images).astype(np.float32)
    trial.perturb = lambda name, params, *_: perturbed(images, name, params["strength"])
    clean_loss, clean = loss_and_accuracy(trial.state(), images, labels)
    expected = {("test_loss", "none", 0): clean_loss, ("test_metric", "none", 0): clean}
    means = {}
    for series in SERIES:
        name, metrics = series["name"], []
        for severity, setting in enumerate(series["settings"], start=1):
            inputs = perturbed(images.double(), name, setting["strength"])
            loss, metric = loss_and_accuracy(trial.state(), inputs, labels)
            expected["test_loss", name, severity] = loss
            expected["test_metric", name, severity] = metric
            metrics.append(metric)
        means[name] = sum(metrics) / len(metrics)
    means["all"] = sum(means.values()) / len(means)
    for name, mean in means.items():
        expected["mean_metric", name] = mean
        expected["relative_metric", name] = mean / clean
        expected["corrected_relative_metric", name] = (mean - trial.chance) / (clean - trial.chance)
    got = measured(ROBUSTNESS, trial, perturbations=SERIES, resamples=100)
    assert got == pytest.approx(expected, rel=1e-6)


def block_means(image: np.ndarray, top: int, left: int) -> np.ndarray:
    """The four pixels of a block of side 2: the means of its quarters, after standardisation."""
    return ((image - image.mean()) / image.std())[top : top + 2, left : left + 2]


def with_texture(shape: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Each block of ``shape`` replaced by the most similar one of ``texture``: (H, W), side 2."""
    height, width = shape.shape
    offered = [(y, x) for y in range(height - 1) for x in range(width - 1)]
    result = np.empty_like(shape)
    for top in range(0, height, 2):
        for left in range(0, width, 2):
            goal = block_means(shape, top, left)
            y, x = min(offered, key=lambda at: ((block_means(texture, *at) - goal) ** 2).sum())
            result[top : top + 2, left : left + 2] = texture[y : y + 2, x : x + 2]
    return result


def test_shape_bias_counts_the_answers_of_a_network_in_float64():
    trial = subject(0)
    pixels, labels = trial.data["test"][0][:, 0].double().numpy(), trial.labels
    partners = texture_partners(labels, 0)
    images = np.stack([with_texture(*pixels[[i, j]]) for i, j in enumerate(partners)])
    predicted = forward(trial.state(), torch.from_numpy(images)).argmax(axis=1)
    shape, texture = sum(predicted == labels), sum(predicted == labels[partners])
    assert measured(SHAPE_BIAS, trial, block=2) == {
        ("shape_bias",): shape / (shape + texture),
        ("shape_answers",): shape / len(labels),
        ("texture_answers",): texture / len(labels),
    }


# --- the page ---------------------------------------------------------------------------------


def rows_of_page() -> list[tuple[str, str, str, str]]:
    """Diagnostic, reference, bound and tests of each row of the table."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def source_of(path: str, name: str) -> str:
    """The source of a test and of what it calls in its file."""
    text = (ROOT / "tests" / path).read_text("utf-8")
    functions = {node.name: node for node in ast.parse(text).body
                 if isinstance(node, ast.FunctionDef)}  # fmt: skip
    own = ast.get_source_segment(text, functions[name]) or ""
    called = [ast.get_source_segment(text, functions[f]) or "" for f in functions
              if f != name and re.search(rf"\b{f}\(", own)]  # fmt: skip
    return "\n".join([own, *called])


def test_every_diagnostic_has_a_reference_in_float64():
    listed = {row[0].strip("`") for row in rows_of_page() if "float64" in row[1]}
    assert sorted(listed) == sorted(load_registry().diagnostics)


@pytest.mark.parametrize("row", rows_of_page(), ids=lambda row: row[3])
def test_a_listed_test_has_the_listed_bound(row):
    _, _, bound, test = row
    path, name = test.strip("`").split("::")
    source = source_of(path, name)
    signs = {"exact": ("==", "array_equal"), "1e-6": ("approx(", "1e-6", "TOLERANCE")}
    assert any(sign in source for sign in signs.get(bound, (bound,))), source
