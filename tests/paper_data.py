"""Tiny data in the layouts of ImageNet, DomainNet and CheXpert, and a suite cut to its size."""

import csv

import numpy as np
from official_layouts import draw

from transferbench_plugins.datasets._domainnet_classes import CLASSES
from transferbench_plugins.datasets.chexpert import COLUMNS

SYNSETS = ("n01440764", "n01443537", "n02085620")
DOMAINS = ("real", "clipart", "quickdraw", "painting", "sketch", "infograph")
PICTURE = (24, 20)
SIDE = 16

SHORT = {
    "image.size": SIDE,
    "image.stored": SIDE + 4,
    "targets.chexpert.image.size": SIDE,
    "targets.chexpert.validation": 0.2,
    "targets.real.validation": 0.2,
    "recipes.pretrain.precision": "f32",
    "recipes.low.precision": "f32",
    # So few steps at this rate teach a network which classes there are.
    "recipes.low.epochs": 4,
    "recipes.low.batch_size": 8,
    "recipes.low.learning_rate": 0.3,
    "recipes.high.learning_rate": 0.2,
    "recipes.radiographs-P-low.precision": "f32",
    "recipes.radiographs-P-low.epochs": 2,
    "recipes.radiographs-RI-low.epochs": 2,
    "recipes.radiographs-RI-high.epochs": 2,
    "replicates": 2,
    "trials.1.targets": "[real]",
    "trials.2.targets": "[real]",
    "trials.5.initializations": "[P0-T, P60-T]",
    "trials.6.initializations": "[P0-T-high, P60-T-high]",
    "trials.7.replicates": 2,
    "diagnostics.cka.params": "{images: 8, mode: minibatch, batch: 4}",
    "diagnostics.barrier.params": "{points: 3, extrapolation: [-1, 2]}",
    "diagnostics.barrier-final.params": "{points: 3}",
    "diagnostics.basin.params": "{steps: 2, levels: 2, draws: 1}",
    "diagnostics.basin-error.params": "{steps: 2, levels: 2, draws: 1, loss: error}",
    "diagnostics.criticality.params": "{risk: error, tolerances: [0.05], alphas: 2, sigmas: [0.1],"
    " draws: 1}",
    # Blocks that divide the side; equal ones are one job.
    **{f"perturbations.block-{block}.params.block": min(8, 1 << (block.bit_length() - 1))
       for block in (112, 56, 32, 28, 16, 14, 7)},
}  # fmt: skip
"""Every kind of job of neyshabur2020 on a few images; the pre-training has its 90 epochs, and two
of its checkpoints are fine-tuned."""


def options(changes):
    """``--set`` of each change."""
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


def official_data(root):
    """A data root with the three datasets, pictures of noise."""
    for split, count in (("train", 3), ("val", 2)):
        for synset in SYNSETS:
            for index in range(count):
                path = root / "imagenet" / split / synset / f"{synset}_{index}.JPEG"
                draw(path, size=PICTURE)
    for domain in DOMAINS:
        _domain(root / "domainnet", domain)
    _radiographs(root / "chexpert")
    return root


def _domain(folder, domain, classes=6, per_class=4):
    for split in ("train", "test"):
        paths = [
            (f"{domain}/{CLASSES[label]}/{domain}_{split}_{label:03}_{index}.jpg", label)
            for label in range(classes)
            for index in range(per_class)
        ]
        for path, _ in paths:
            draw(folder / path, size=PICTURE)
        lines = (f"{path} {label}\n" for path, label in paths)
        (folder / f"{domain}_{split}.txt").write_text("".join(lines))


def _radiographs(root, patients=60):
    folder, random = "CheXpert-v1.0-small", np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        path = f"{folder}/train/patient{patient:05d}/study1/view1_frontal.jpg"
        draw(root / path, size=PICTURE, mode="L")
        findings = random.choice(["1.0", "0.0", "-1.0", ""], len(COLUMNS) - 5).tolist()
        rows.append([path, "Female", "68", "Frontal", "AP", *findings])
    with (root / folder / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
