"""Shape bias: predictions on images with the shape of one class and the texture of another.

Source: Geirhos et al. 2019, arXiv 1811.12231, for the measure. Their cue-conflict images come from
neural style transfer; here each block of a test image is replaced by the most similar block of an
image of another class, as in the texture transfer of Efros and Freeman 2001,
doi:10.1145/383259.383296, without its minimum-error seams.

Shape letters: N images, C channels, H height, W width, b side of a block, D descriptors of a
block, P blocks of an image, T candidate blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from transferbench.errors import SuiteError
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, ReportPart, Subject
from transferbench.statistics import exact_share
from transferbench_plugins.diagnostics._measurement import measurement

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["SHAPE_BIAS", "ShapeBiasParams", "texture_partners", "transfer_texture"]

METRICS = ("shape_bias", "shape_answers", "texture_answers")

NO_DECISION = "no image was given the class of its shape or of its texture"
ONE_CLASS = "all test items are of one class: no two cues are in conflict"
MULTI_LABEL = "an image of several labels has no one shape: this needs a multi-class task"


class ShapeBiasParams(Params):
    """``block``: side of the texture blocks. ``limit``: the first test images (None: all).

    ``batch``: images per forward pass. ``seed`` of the pairing: a parameter, so that all trials of
    a suite are tested on the same images.
    """

    block: Annotated[int, Field(ge=1)] = 4
    limit: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1)] = 64
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def measure(
    params: ShapeBiasParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Predictions on each test image of the trial with the texture of an image of another class.

    shape_bias: the share of the shape's class among predictions of either the shape's or the
    texture's class; one half for a network that uses neither. shape_answers and texture_answers:
    shares of all predictions.
    Units: fractions. Error: exact (Clopper and Pearson), over the images counted in ``n``.
    """
    del context  # the pairing has its own seed
    (subject,) = subjects
    shape_N, has_classes = subject.labels[: params.limit], subject.task == "multi-class"
    partner_N = texture_partners(shape_N, params.seed) if has_classes else None
    if partner_N is None:
        reason = ONE_CLASS if has_classes else MULTI_LABEL
        for metric in METRICS:
            yield measurement(metric, None, "fraction", 0, flag=reason)
        return
    predicted_N = _predictions(subject, partner_N, params)
    shape_count = int((predicted_N == shape_N).sum())
    texture_count = int((predicted_N == shape_N[partner_N]).sum())
    counts = (shape_count, shape_count, texture_count)
    totals = (shape_count + texture_count, len(shape_N), len(shape_N))
    for metric, count, n in zip(METRICS, counts, totals, strict=True):
        yield measurement(metric, exact_share(count, n), "fraction", n, missing=NO_DECISION)


def texture_partners(labels: np.ndarray, seed: int) -> np.ndarray | None:
    """For each item a random item of another class, uniformly; None if there is one class.

    Shapes: int64 (N,) to int64 (N,).
    """
    order = np.argsort(labels, kind="stable")
    _, starts, class_N, sizes = np.unique(
        labels[order], return_index=True, return_inverse=True, return_counts=True
    )
    if len(sizes) < 2:
        return None
    drawn_N = np.random.default_rng(seed).integers(0, len(labels) - sizes[class_N])
    # Indices into the items sorted by class, skipping the item's own class.
    drawn_N += np.where(drawn_N >= starts[class_N], sizes[class_N], 0)
    partner_N = np.empty(len(labels), dtype=np.int64)
    partner_N[order] = order[drawn_N]
    return partner_N


def transfer_texture(shapes: Tensor, textures: Tensor, block: int) -> Tensor:
    """Each block of ``shapes``, replaced by the most similar block of ``textures``.

    The descriptor of a block is the mean of each quarter, after standardizing each image and
    channel, so that brightness and contrast may differ. Candidate blocks are half a block apart.
    Shapes: shapes and textures (N, C, H, W); returns the same; b divides H and W.
    """
    from torch.nn.functional import fold, unfold

    stride = max(1, block // 2)
    blocks = unfold(textures, block, stride=stride)
    target_NPD = _block_descriptors(shapes, block, block)
    candidate_NTD = _block_descriptors(textures, block, stride)
    # Squared distances without the norm of the target, which does not change the minimum.
    distance_NPT = candidate_NTD.square().sum(-1)[:, None] - 2 * target_NPD @ candidate_NTD.mT
    nearest = distance_NPT.argmin(dim=2)
    selected = blocks.gather(2, nearest[:, None].expand(-1, blocks.shape[1], -1))
    return fold(selected, shapes.shape[2:], block, stride=block)


def _block_descriptors(images: Tensor, block: int, stride: int) -> Tensor:
    """The mean of each quarter of each block. Shapes: (N, C, H, W) to (N, P or T, D)."""
    from torch.nn.functional import adaptive_avg_pool2d, unfold

    n, channels = images.shape[:2]
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    scaled = centred / centred.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    blocks = unfold(scaled, block, stride=stride)
    count = blocks.shape[2]
    blocks = blocks.mT.reshape(n * count, channels, block, block)
    return adaptive_avg_pool2d(blocks, min(block, 2)).view(n, count, -1)


def _predictions(subject: Subject, partner_N: np.ndarray, params: ShapeBiasParams) -> np.ndarray:
    """The final network's class of each cue-conflict image. Shapes: int64 (N,)."""
    import torch

    images = subject.images("test", params.limit)
    _check_block(params.block, images.shape[2], images.shape[3])
    net: Module = subject.network("final")
    batches = []
    with torch.no_grad():
        for indices in torch.split(torch.arange(len(images)), params.batch):
            textures = images[torch.from_numpy(partner_N)[indices].to(images.device)]
            shapes = images[indices.to(images.device)]
            logits = net(transfer_texture(shapes, textures, params.block))
            batches.append(logits.argmax(dim=1))
    predicted_N: np.ndarray = torch.cat(batches).cpu().numpy()
    return predicted_N


def _check_block(block: int, height: int, width: int) -> None:
    side = math.gcd(height, width)
    if side % block:
        divisors = ", ".join(str(n) for n in range(1, side + 1) if side % n == 0)
        raise SuiteError(
            f"shape-bias: block {block} does not divide the side {side} of the images; choose one "
            f"of {divisors}"
        )


SHAPE_BIAS = DiagnosticSpec(
    name="shape-bias",
    version=1,
    summary="Share of predictions on cue-conflict images that follow the shape, not the texture",
    source="Geirhos et al. 2019, arXiv 1811.12231",
    license="Apache-2.0",
    params=ShapeBiasParams,
    tiny={"block": 2, "limit": 20},
    measure=measure,
    subjects="one",
    unknown_labels=True,
    metrics=frozenset(METRICS),
    ranges=dict.fromkeys(METRICS, (0, 1)),
    needs=frozenset({"images", "logits"}),
    cost=lambda params: 1.0,
    limit=lambda params: params.limit,
    report=ReportPart(
        build=f"{__package__}._robustness_report:shape_bias",
        metrics=frozenset(METRICS),
    ),
)
