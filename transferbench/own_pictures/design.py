"""The suite for one's own pictures: size, blocks, epochs and replicates, by the time given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from transferbench.errors import SuiteError
from transferbench.own_pictures.look import Look, template
from transferbench.specs import Preprocessing
from transferbench.suite import Suite

__all__ = ["Cost", "Design", "choose", "first_design", "suite_content", "suite_of"]

SIZES = (224, 160, 128, 96, 64, 32)
"""Sides of images to choose from, in pixels."""
SEEN = (4000, 2000, 1000)
"""Images that a training sees, epochs times pictures.

Below that a network from a random start hardly trains, and there is nothing to compare with: length
comes before replicates and size.
"""
FEWEST, ENOUGH, MOST = 3, 5, 10
"""Replicates that a verdict needs, that are wanted of a design, and that it has at most."""
LEAST_EPOCHS = 8
MOST_EPOCHS = 60
VALIDATION = 0.2
MOST_TESTED = 500
ROUGHLY = 1.3
"""How much longer a run takes than its steps alone: several processes share the memory."""
START_SECONDS = 20
"""Of a run: processes that start, the tables and the report."""
DIAGNOSIS_SECONDS = 1.0
"""Of a diagnosis beside its forward passes: its regression, and reading the networks."""
UNBALANCED = 2.0
"""Classes of more unequal sizes are judged by the balanced accuracy."""


class Design(NamedTuple):
    """What the time decides. ``blocks``: sides of the shuffled blocks, descending to 1."""

    size: int
    seen: int
    blocks: tuple[int, ...]
    replicates: int


class Cost(NamedTuple):
    """Measured on this machine with the design ``at``, on one core.

    ``training``: seconds of one training; ``diagnoses``: of the diagnoses of one replicate.
    ``crowding``: processes for each core, with those of the run; 1 at least.
    """

    at: Design
    training: float
    diagnoses: float
    slots: int
    crowding: float = 1.0

    def seconds(self, design: Design) -> float:
        """How long the run of another design takes, about."""
        content = template()["suite"]
        arms = len(content["initializations"])
        grid = content["recipes"]["tuned"]["tune"]
        tuned = arms * len(grid["learning_rate"]) * grid["replicates"]
        trainings = tuned + arms * (1 + len(design.blocks)) * design.replicates
        pixels = design.size**2 / self.at.size**2
        training = self.training * pixels * design.seen / self.at.seen
        work = trainings * training + design.replicates * self.diagnoses * max(pixels, 1)
        # The shortest of the steps that were timed had more of a busy machine than the others.
        seconds = START_SECONDS + ROUGHLY * work / self.slots
        return float(math.sqrt(self.crowding) * seconds)


def first_design(look: Look, size: int | None) -> Design:
    """The design whose cost is measured."""
    return Design(size or min(64, _sizes(look)[0]), SEEN[-1], (1,), 1)


def _sizes(look: Look) -> Sequence[int]:
    """The sides that pictures are not enlarged to, the largest first."""
    return [size for size in SIZES if size <= look.short_side] or [SIZES[-1]]


def choose(look: Look, cost: Cost, seconds: float, size: int | None = None) -> Design:
    """The largest images with ``ENOUGH`` replicates in the time; else shorter trainings, or fewer.

    ``size``: the side of images, where it is given. Raises: ``SuiteError`` where the time is too
    short for ``FEWEST`` replicates of the smallest design, with the time that it takes.
    """
    sizes = [size] if size else _sizes(look)
    shorter = sizes[-1:]
    for least, candidates in ((ENOUGH, _of(sizes, SEEN[:1])), (FEWEST, _of(shorter, SEEN))):
        for design in candidates:
            counts = range(MOST, least - 1, -1)
            designs = (design._replace(replicates=count) for count in counts)
            chosen = next((each for each in designs if cost.seconds(each) <= seconds), None)
            if chosen is not None:
                return chosen
    smallest = Design(sizes[-1], SEEN[-1], (1,), FEWEST)
    minutes = math.ceil(cost.seconds(smallest) / 60 + 0.5)
    raise SuiteError(
        f"{max(seconds, 0) / 60:.1f} minutes are left, and the smallest comparison, {FEWEST} "
        f"replicates at {smallest.size} px, takes about {minutes} on this machine; give --minutes "
        f"{minutes} or more, or a smaller backbone"
    )


def _of(sizes: Sequence[int], seen: Sequence[int]) -> Iterator[Design]:
    for images in seen:
        for size in sizes:
            blocks = tuple(dict.fromkeys((_block(size), 1)))
            yield Design(size, images, blocks, 1)
            if len(blocks) > 1:
                yield Design(size, images, (1,), 1)


def _block(size: int) -> int:
    """The largest block that divides an image into 4 x 4 or more."""
    return max(block for block in range(1, max(size // 4, 1) + 1) if size % block == 0)


# --- the suite ----------------------------------------------------------------------------------


def suite_of(look: Look, design: Design, backbone: str, expected: Preprocessing | None) -> Suite:
    """The suite of a design. ``expected``: the normalisation of the backbone's weights."""
    return Suite.model_validate(suite_content(look, design, backbone, expected))


def suite_content(
    look: Look, design: Design, backbone: str, expected: Preprocessing | None
) -> dict[str, Any]:
    """As ``suite_of``, as it is written to a file."""
    content: dict[str, Any] = deepcopy(template()["suite"])
    content["name"] = f"own-{look.name}"
    content["summary"] = f"What pre-training brings on {look}."
    content["backbones"] = [backbone]
    mean, std = _constants(expected, look.channels)
    content["image"] = {
        "size": design.size, "channels": look.channels, "mean": mean, "std": std
    }  # fmt: skip
    content["targets"] = {look.name: _target(look, design)}
    scored = content["scoring"]["perturbation"]
    content["perturbations"] = {scored: content["perturbations"][scored]}
    for block in design.blocks:
        content["perturbations"][f"block-{block}"] = {
            "name": template()["shuffle"], "params": {"block": block}
        }  # fmt: skip
    recipe, trained = content["recipes"]["tuned"], _trained(look, design)
    recipe["epochs"] = min(max(round(design.seen / trained), 2), MOST_EPOCHS)
    recipe["batch_size"] = min(recipe["batch_size"], max(trained // 2, 1))
    content["replicates"] = design.replicates
    content["scoring"]["chance"] = {look.name: "data"}
    content["scoring"]["reference"] = {look.name: 1.0}
    return content


def _target(look: Look, design: Design) -> dict[str, Any]:
    target: dict[str, Any] = {
        "dataset": look.dataset,
        "validation": VALIDATION,
        "validation_limit": MOST_TESTED,
        "stratify": "every-class",
    }
    if look.size_of("test") > MOST_TESTED:
        target["test_limit"] = MOST_TESTED
    if look.imbalance > UNBALANCED:
        target["metric"] = "balanced-accuracy"
    if labels := _labels_per_class(look, design):
        target["labels_per_class"] = labels
    return target


def _labels_per_class(look: Look, design: Design) -> int | None:
    """Fewer pictures where a training of this length would see most of them once or twice."""
    most = design.seen // LEAST_EPOCHS
    if look.size_of("train") * (1 - VALIDATION) <= most:
        return None
    return max(most // len(look.classes), 2)


def _trained(look: Look, design: Design) -> int:
    """How many pictures a network is trained on."""
    labels = _labels_per_class(look, design)
    if labels is not None:
        return sum(min(labels, int(count)) for count in look.counts["train"])
    return max(round(look.size_of("train") * (1 - VALIDATION)), 1)


def _constants(expected: Preprocessing | None, channels: int) -> tuple[list[float], list[float]]:
    mean, std = (list(expected.mean), list(expected.std)) if expected else ([0.5], [0.5])
    if channels == 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    return mean * (channels // len(mean)), std * (channels // len(std))
