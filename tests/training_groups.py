"""Small trainings of every kind, to be run alone and together."""

import numpy as np
import torch
from test_pipeline import per_image, shared
from torch import nn

from transferbench.data.perturbation import CompiledPerturbation
from transferbench.data.pipeline import ImagePipeline
from transferbench.specs import RateFactor
from transferbench.suite import Augmentation, Recipe
from transferbench.training import DataSplit, Execution, TaskData, Training
from transferbench.training.processes import ALONE

CPU = torch.device("cpu")
SIDE = 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Network(nn.Module):
    """Convolution, batch statistics, dropout: all that a step changes or draws."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            self.dropout = nn.Dropout(0.3)
            self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.dropout(self.body(x).mean((2, 3))))


class Layers(nn.Module):
    """Without batch statistics."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Linear(3 * SIDE * SIDE, 5)
            self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(torch.relu(self.body(x.flatten(1))))


def recipe_of(**changes):
    fields = {
        "optimizer": "sgd", "learning_rate": 0.05, "epochs": 3, "batch_size": 8, "momentum": 0.9,
        "weight_decay": 0.01, "schedule": {"name": "cosine", "warmup_epochs": 1},
        "evaluate_test": "every", "evaluate_train": "every",
    }  # fmt: skip
    return Recipe.model_validate(fields | changes)


def data_of(
    seed, perturbation=None, augmentation=None, task="multi-class", *, unknown=False, device=CPU
):
    rng = np.random.default_rng(seed)

    def split(n, augmented=None):
        images = torch.from_numpy(rng.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8))
        labels = torch.from_numpy(rng.integers(0, 3, n))
        if task == "multi-label":
            labels = torch.from_numpy(rng.integers(0, 2, (n, 3)).astype(np.float32))
            if unknown:
                labels[1::3, 0] = torch.nan
        images, labels = images.to(device), labels.to(device)
        return DataSplit(ImagePipeline(images, MEAN, STD, perturbation, augmented), labels)

    metric = "accuracy" if task == "multi-class" else "auc"
    return TaskData(task, metric, 3, split(27, augmentation), split(21), split(13))


def scaled(images, ids):
    return images * torch.from_numpy(1 + ids % 3).view(-1, 1, 1, 1).to(images.device)


AUGMENTATION = Augmentation(flip=True, shift=1, rotate=10.0)
PERTURBATIONS = {
    "shared": shared()[1],
    "per-image": per_image(keeps_channels=False)[1],
    "transform": CompiledPerturbation("fake", "pixels", transform=scaled),
}
FEATURES = {
    "plain": {},
    "adamw": {"recipe": {"optimizer": "adamw", "learning_rate": 0.01}},
    "no-momentum": {"recipe": {"momentum": 0.0}},
    "mixup": {"recipe": {"mixup": 0.4}},
    "smoothing": {"recipe": {"label_smoothing": 0.1}},
    "clipping": {"recipe": {"gradient_clip": 0.05}},
    "steps": {"recipe": {"schedule": {"name": "step", "milestones": [1, 2]}}},
    "constant": {"recipe": {"schedule": {"name": "constant"}}},
    "bf16": {"recipe": {"precision": "bf16"}},
    "augmentation": {"data": {"augmentation": AUGMENTATION}},
    "multi-label": {
        "data": {"task": "multi-label"}, "recipe": {"mixup": 0.4, "label_smoothing": 0.1}
    },
    "unknown-labels": {"data": {"task": "multi-label", "unknown": True}},
    "frozen": {"frozen": True},
    "rate-factors": {"factors": [RateFactor(pattern="bias", factor=0.1)]},
    "micro-batches": {"network": Layers, "micro_batch": 3},
    "sparse": {"recipe": {"evaluate_test": "last", "evaluate_train": "last"}},
}  # fmt: skip
for name, kind in PERTURBATIONS.items():
    FEATURES[f"perturbed-{name}"] = {"data": {"perturbation": kind}}
    FEATURES[f"perturbed-{name}-augmented"] = {
        "data": {"perturbation": kind, "augmentation": AUGMENTATION}
    }


def training_of(seed, feature, *, captured=False, device=CPU, processes=ALONE, sharded=False):
    """The training number ``seed`` with a feature: of its own weights, data and rate."""
    options = FEATURES[feature] if isinstance(feature, str) else feature
    net = options.get("network", Network)(seed).to(device)
    rate = options.get("recipe", {}).get("learning_rate", 0.05) * (1 + seed)
    recipe = recipe_of(**options.get("recipe", {}) | {"learning_rate": rate})
    only_head = None
    if options.get("frozen"):
        net.body.requires_grad_(requires_grad=False)
        only_head = net.head
    # Batches of evaluation that leave a rest.
    execution = Execution(
        device,
        options.get("micro_batch"),
        evaluation_batch=6,
        captured=captured,
        processes=processes,
        sharded=sharded,
    )
    data = data_of(seed, **options.get("data", {}), device=device)
    return Training(net, data, recipe, execution, options.get("factors", ()), only_head=only_head)
