"""What an entry costs: its size, and what one of its networks takes to train on the targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from transferbench.errors import TransferbenchError
from transferbench.leaderboard.scores import Candidate
from transferbench.plan.tuning import TRAINED
from transferbench.registry import Registry
from transferbench.suite import TRIAL, TUNING

__all__ = ["Cost", "cost_of"]

PASSES = 3
"""Forward passes that a training step takes: the backward pass takes two.

Source: Kaplan et al. 2020, arXiv 2001.08361, section 2.1.
"""


@dataclass(frozen=True)
class Cost:
    """``trained_images``: of one network of the scored arm on all scoring targets, by epoch.

    ``passes``: forward passes that each takes. ``all_images``: of all trainings on targets and of
    tuning. ``parameters``, and ``multiply_adds`` of one image's forward pass: None where the
    backbone is not installed.
    """

    parameters: int | None
    multiply_adds: int | None
    trained_images: int
    passes: int
    trainings: int
    all_images: int

    @property
    def training(self) -> int | None:
        """Multiply-adds of training one network of the scored arm on all scoring targets."""
        if self.multiply_adds is None or not self.trained_images:
            return None
        return self.passes * self.multiply_adds * self.trained_images


def cost_of(candidate: Candidate, registry: Registry) -> Cost:
    """The cost of an entry; its network is built here, so that nobody need be believed."""
    scoring, jobs = candidate.suite.scoring, candidate.bundle.plan.by_id
    images = dict(_trained_images(candidate))
    scored: dict[str, list[int]] = {target: [] for target in scoring.chance}
    payload: dict[str, Any] = {}
    for row in candidate.bundle.records:
        is_scored = row.perturbation == scoring.perturbation and row.target in scored
        if row.metric == "n_train" and is_scored and row.initialization == scoring.initialization:
            scored[row.target].append(images.get(row.job, 0))
            payload = jobs[row.job].payload
    tuned = sum(row.value or 0 for row in candidate.bundle.records
                if row.diagnostic == TUNING and row.metric == TRAINED)  # fmt: skip
    parameters, multiply_adds = _counted(payload, registry) if payload else (None, None)
    return Cost(
        parameters=parameters,
        multiply_adds=multiply_adds,
        trained_images=round(sum(fmean(each) for each in scored.values() if each)),
        passes=1 if payload.get("frozen") else PASSES,
        trainings=sum("recipe" in job.payload for job in jobs.values()),
        all_images=round(sum(images.values()) + tuned),
    )


def _trained_images(candidate: Candidate) -> Iterator[tuple[str, int]]:
    """Job of a trial -> the images that it trained on, counted in each epoch."""
    jobs = candidate.bundle.plan.by_id
    for row in candidate.bundle.records:
        if row.diagnostic == TRIAL and row.metric == "n_train" and row.value is not None:
            yield row.job, round(row.value * jobs[row.job].payload["recipe"]["epochs"])


def _counted(payload: dict[str, Any], registry: Registry) -> tuple[int, int] | tuple[None, None]:
    """Parameters and multiply-adds of the network of a trial; None where it cannot be built."""
    # torch takes seconds to import, and boards without a site do without it.
    from transferbench.networks.modules import build_network
    from transferbench.networks.multiply_adds import forward_multiply_adds

    planned, image = payload["backbone"], payload["image"]
    try:
        spec = registry.backbone(planned["name"])
        if spec.version != planned["version"]:
            return None, None
        net = build_network(
            spec, spec.parse(planned["params"]), num_classes=payload["dataset"]["classes"],
            in_chans=image["channels"], image_size=image["size"], init_seed=0, head_seed=0,
        )  # fmt: skip
    except TransferbenchError:
        return None, None
    parameters = sum(each.numel() for each in net.parameters())
    return parameters, forward_multiply_adds(net, image["channels"], image["size"])
