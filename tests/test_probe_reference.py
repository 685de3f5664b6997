"""The linear probe beside a probe of scikit-learn's own, within half a point of accuracy."""

import re

import numpy as np
import pytest
import timm
import torch
from command_line import cli, suite_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny_suite import TINY

import transferbench
from transferbench.engine.finished_trial import FinishedTrial
from transferbench.engine.resources import Machine, WorkerResources
from transferbench.errors import DataError
from transferbench.runner.options import Options
from transferbench.runner.planning import plan_suite
from transferbench.suite import Suite
from transferbench_plugins.backbones._imagenet_packages import file_of
from transferbench_plugins.diagnostics.transferability import linear_probe
from transferbench_plugins.diagnostics.transferability._source_outputs import SourceOutputs

HALF_A_POINT = 0.005
BACKBONE = "tf_efficientnet_lite0"


def classifier(strength, n):
    """A probe with another solver than the diagnostic's."""
    model = LogisticRegression(C=1 / (strength * n), solver="newton-cg", max_iter=2000, tol=1e-8)
    return make_pipeline(StandardScaler(), model)


# --- synthetic features -------------------------------------------------------------------------


def sample(n, noise, seed, d=24, classes=5):
    """Features (N, D) of overlapping classes, in units of their own, and labels (N,)."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(classes, d))
    labels = np.arange(n) % classes
    spread = np.geomspace(0.01, 100, d)
    return spread * (centres[labels] + noise * random.normal(size=(n, d))), labels


def outputs(features, labels):
    return SourceOutputs(features, np.zeros((len(labels), 1)), labels, 5, None, None)


@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_the_probe_is_as_good_as_one_chosen_by_cross_validation(noise):
    train, test = sample(500, noise, seed=1), sample(4000, noise, seed=2)
    measured = {
        row.metric: row.value
        for row in linear_probe._probe(
            linear_probe.ProbeParams(), "accuracy", 0, outputs(*train), outputs(*test)
        )
    }
    same = classifier(measured["probe_strength"], 500).fit(*train)
    assert measured["probe_test_metric"] == pytest.approx(same.score(*test), abs=1 / 4000)
    grid = {"logisticregression__C": [1 / (500 * s) for s in (1, 0.1, 1e-2, 1e-3, 1e-4)]}
    chosen = GridSearchCV(classifier(1, 500), grid, cv=5).fit(*train)
    assert measured["probe_test_metric"] == pytest.approx(chosen.score(*test), abs=HALF_A_POINT)
    assert 0.4 < chosen.score(*test) < 0.999


# --- features of real weights -------------------------------------------------------------------

PROBED = {
    "backbones": [f"timm/{BACKBONE}"],
    "image": {"size": 64, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3},
    "sources": {},
    "targets": {
        "handwriting": {
            "dataset": {"name": "openmoji", "params": {"style": "line", "test_share": 0.5}},
            "labels_per_class": 10, "validation": 0.3,
        }
    },
    "perturbations": {"none": {"name": "identity"}},
    "replicates": 1,
    "claims": {},
    "diagnostics": {
        "probe": {
            "name": "linear-probe", "pairs": [{"a": "P-T", "b": "P", "replicates": "same"}]
        }
    },
}  # fmt: skip


def network():
    """timm's network with the tensors of the file, which are in its order."""
    net = timm.create_model(BACKBONE, num_classes=1000).eval()
    tensors = torch.load(file_of(BACKBONE), weights_only=True).values()
    net.load_state_dict(dict(zip(net.state_dict(), tensors, strict=True)))
    return net


def features(images):
    net = network()
    with torch.no_grad():
        parts = [net.forward_head(net.forward_features(part), pre_logits=True)
                 for part in torch.split(images, 50)]  # fmt: skip
    return torch.cat(parts).double().numpy()


@pytest.mark.slow
def test_the_probe_of_imagenet_weights_on_icons_is_that_of_scikit_learn(tmp_path):
    try:
        file_of(BACKBONE)
    except DataError as error:
        pytest.skip(str(error))
    recipes = {"short": TINY["recipes"]["short"] | {"epochs": 1}}
    suite = TINY | PROBED | {"recipes": recipes}
    said = cli("run", suite_file(tmp_path, suite), "--weights", "imagenet", "--offline",
               "--out", tmp_path / "run", "--jobs", 1, "--device", "cpu")  # fmt: skip
    assert said.code == 0, said.err
    table = transferbench.Run(tmp_path / "run").measurements
    value = table[table["diagnostic"] == "probe"].set_index("metric")["value"]
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    (caption,) = re.findall("<figcaption>The same test images.*?</figcaption>", report)
    assert "Licence: CC-BY-SA-4.0. Source: All emojis designed by OpenMoji" in caption

    options = Options(backbones=(), weights="imagenet", out=tmp_path / "run")
    planned = plan_suite(Suite.model_validate(suite), options)
    (trial,) = [cell.job for cell in planned.plan.cells if cell.initialization == "P-T"]
    machine = Machine(planned.store.root, planned.store.datasets, None, "cpu")
    subject = FinishedTrial(WorkerResources(planned.registry, planned.store, machine), trial)
    train, test = [
        (features(subject.images(split)), subject.targets(split).numpy())
        for split in ("train", "test")
    ]
    probe = classifier(value["probe_strength"], len(train[1])).fit(*train)
    assert len(test[1]) == 203
    assert value["probe_test_metric"] == pytest.approx(probe.score(*test), abs=HALF_A_POINT)
    assert probe.score(*test) > 0.5  # where the largest class has 0.31
