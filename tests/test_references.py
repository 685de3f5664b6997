"""Each diagnostic against an independent reference: own code in float64, or a known answer.

The page of references lists them all; these are the references that no other test has.
"""

import ast
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_subject import FakeSubject, modules_of
from scipy import optimize
from torch import nn

from transferbench.identity import derive_seed
from transferbench.registry import load_registry
from transferbench.specs import DiagnosticContext
from transferbench_plugins.diagnostics.landscape.barrier import BARRIER
from transferbench_plugins.diagnostics.modules.swaps import RERANDOMISATION, REWINDING
from transferbench_plugins.diagnostics.transferability._logistic import fit_regressions

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "science" / "references.md"
CLASSES, N = 4, 50


def network(seed: int) -> nn.Module:
    """Two hidden layers and a head on 8 values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [
            ("flat", nn.Flatten()), ("stem", nn.Linear(8, 6)), ("relu", nn.ReLU()),
            ("block", nn.Linear(6, 6)), ("relu2", nn.ReLU()), ("head", nn.Linear(6, CLASSES)),
        ]  # fmt: skip
        return nn.Sequential(OrderedDict(layers)).eval()


def forward(state, images) -> np.ndarray:
    """The logits of ``network``, in float64 numpy."""
    values = images.double().numpy().reshape(len(images), -1)
    for name in ("stem", "block", "head"):
        weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
        values = values @ weight.T + bias
        values = values if name == "head" else np.maximum(values, 0)
    return values


def loss_and_accuracy(state, images, labels) -> tuple[float, float]:
    """Cross-entropy in nats and accuracy, in float64 numpy."""
    logits = forward(state, images)
    peak = logits.max(axis=1)
    total = np.log(np.exp(logits - peak[:, None]).sum(axis=1)) + peak
    own = logits[np.arange(len(labels)), labels.numpy()]
    return float((total - own).mean()), float((logits.argmax(axis=1) == labels.numpy()).mean())


def subject(seed: int) -> FakeSubject:
    generator = torch.Generator().manual_seed(9)
    data = {}
    for split in ("train", "test"):
        images = torch.randn(N, 1, 2, 4, generator=generator)
        data[split] = images, torch.randint(0, CLASSES, (N,), generator=generator)
    nets = {"init": network(seed + 10), 1: network(seed + 20), "final": network(seed)}
    labels = data["test"][1].numpy()
    return FakeSubject(
        nets, modules_of(nets["final"]), data, labels=labels, build=network, job=f"net-{seed}"
    )


def measured(spec, *subjects, **params):
    context = DiagnosticContext(torch.device("cpu"), torch.Generator().manual_seed(0), 5)
    rows = spec.measure(spec.parse(params), subjects, context)
    return {(m.metric, *m.coordinates.values()): m.value for m in rows}


# --- references -------------------------------------------------------------------------------


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


def test_every_diagnostic_has_a_reference():
    listed = {row[0].strip("`") for row in rows_of_page()}
    assert sorted(listed) == sorted(load_registry().diagnostics)


@pytest.mark.parametrize("row", rows_of_page(), ids=lambda row: row[3])
def test_a_listed_test_has_the_listed_bound(row):
    _, _, bound, test = row
    path, name = test.strip("`").split("::")
    source = source_of(path, name)
    signs = {"exact": ("==", "array_equal"), "1e-6": ("approx(", "1e-6", "TOLERANCE")}
    assert any(sign in source for sign in signs.get(bound, (bound,))), source
