"""Shape bias: what a network sees in an image with the shape of one class, the texture of another.

Source: Geirhos et al. 2019, arXiv 1811.12231, for the measure. Their images are made by a style
network; here the blocks of one test image are put where they look most like those of another, by
the texture transfer of Efros and Freeman 2001, doi:10.1145/383259.383296, without its seams.

Shape letters: N images, C channels, H height, W width, b side of a block, D values that describe a
block, P blocks of an image, T blocks to take from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from transferbench.errors import SuiteError
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject
from transferbench.statistics import wilson

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["SHAPE_BIAS", "ShapeBiasParams", "partners", "textured"]

NO_DECISION = "no image was given the class of its shape or of its texture"
ONE_CLASS = "all test items are of one class: no two cues are in conflict"
MULTI_LABEL = "an image of several labels has no one shape: this needs a multi-class task"


class ShapeBiasParams(Params):
    """The side of the blocks that texture is taken in, how many test images, and their pairing.

    ``seed`` is a parameter so that all trials of a suite are shown the same images.
    """

    block: Annotated[int, Field(ge=1)] = 4
    limit: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1)] = 64
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def measure(
    params: ShapeBiasParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """Every image the trial was tested on as a shape, with the texture of one of another class.

    shape_bias: of the answers that name the class of the shape or of the texture, the share that
    name the shape; one half where a network heeds neither. shape_answers and texture_answers: of
    all answers.
    Units: fractions. Error: Wilson over the images counted in ``n``.
    """
    del context  # the pairing has its own seed, see ShapeBiasParams
    (subject,) = subjects
    if subject.task != "multi-class":
        yield from _nothing(MULTI_LABEL)
        return
    shape_N = subject.labels[: params.limit]
    partner_N = partners(shape_N, params.seed)
    if partner_N is None:
        yield from _nothing(ONE_CLASS)
        return
    answer_N = _answers(subject, partner_N, params)
    shapes = int((answer_N == shape_N).sum())
    textures = int((answer_N == shape_N[partner_N]).sum())
    yield _share("shape_bias", shapes, shapes + textures)
    yield _share("shape_answers", shapes, len(shape_N))
    yield _share("texture_answers", textures, len(shape_N))


def partners(labels: np.ndarray, seed: int) -> np.ndarray | None:
    """For each item another, drawn uniformly from those of other classes; None if there are none.

    Shapes: int64 (N,) to int64 (N,).
    """
    order = np.argsort(labels, kind="stable")
    _, starts, class_N, sizes = np.unique(
        labels[order], return_index=True, return_inverse=True, return_counts=True
    )
    if len(sizes) < 2:
        return None
    drawn_N = np.random.default_rng(seed).integers(0, len(labels) - sizes[class_N])
    # In the order by class, an item's own class is skipped.
    drawn_N += np.where(drawn_N >= starts[class_N], sizes[class_N], 0)
    partner_N = np.empty(len(labels), dtype=np.int64)
    partner_N[order] = order[drawn_N]
    return partner_N


def textured(shapes: Tensor, textures: Tensor, block: int) -> Tensor:
    """The layout of one image made of the blocks of another.

    A block is described by the means of its quarters, in each image and channel counted from the
    mean and in units of the deviation, so that neither has to be as bright as the other. Every
    block of ``shapes`` is replaced by the block of ``textures`` most like it, from places half a
    block apart.
    Shapes: shapes and textures (N, C, H, W); returns the same; b divides H and W.
    """
    from torch.nn.functional import fold, unfold

    stride = max(1, block // 2)
    taken = unfold(textures, block, stride=stride)
    wanted_NPD = _described(shapes, block, block)
    offered_NTD = _described(textures, block, stride)
    # The square of a distance without that of the wanted block, which moves no minimum.
    distance_NPT = offered_NTD.square().sum(-1)[:, None] - 2 * wanted_NPD @ offered_NTD.mT
    nearest = distance_NPT.argmin(dim=2)
    chosen = taken.gather(2, nearest[:, None].expand(-1, taken.shape[1], -1))
    return fold(chosen, shapes.shape[2:], block, stride=block)


def _described(images: Tensor, block: int, stride: int) -> Tensor:
    """The quarters of every block. Shapes: (N, C, H, W) to (N, P or T, D)."""
    from torch.nn.functional import adaptive_avg_pool2d, unfold

    count, channels = images.shape[:2]
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    scaled = centred / centred.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    blocks = unfold(scaled, block, stride=stride)
    places = blocks.shape[2]
    blocks = blocks.mT.reshape(count * places, channels, block, block)
    return adaptive_avg_pool2d(blocks, min(block, 2)).view(count, places, -1)


def _answers(subject: Subject, partner_N: np.ndarray, params: ShapeBiasParams) -> np.ndarray:
    """The class that the final network gives to each image of two cues. Shapes: int64 (N,)."""
    import torch

    images = subject.images("test", params.limit)
    _check(params.block, images.shape[2], images.shape[3])
    net: Module = subject.network("final")
    answers = []
    with torch.no_grad():
        for places in torch.split(torch.arange(len(images)), params.batch):
            textures = images[torch.from_numpy(partner_N)[places].to(images.device)]
            shown = textured(images[places.to(images.device)], textures, params.block)
            answers.append(net(shown).argmax(dim=1).cpu())
    answer_N: np.ndarray = torch.cat(answers).numpy()
    return answer_N


def _check(block: int, height: int, width: int) -> None:
    side = math.gcd(height, width)
    if side % block:
        divisors = ", ".join(str(n) for n in range(1, side + 1) if side % n == 0)
        raise SuiteError(
            f"shape-bias: block {block} does not divide the side {side} of the images; choose one "
            f"of {divisors}"
        )


def _share(metric: str, count: int, n: int) -> Measurement:
    share = wilson(count, n)
    return Measurement(
        metric=metric,
        value=share.value,
        unit="fraction",
        n=n,
        flag=NO_DECISION if share.value is None else None,
        **share.fields(),
    )


def _nothing(why: str) -> Iterator[Measurement]:
    for metric in ("shape_bias", "shape_answers", "texture_answers"):
        yield Measurement(metric=metric, unit="fraction", n=0, flag=why)


SHAPE_BIAS = DiagnosticSpec(
    name="shape-bias",
    version=1,
    summary="Of the answers to images of two cues, the share that follow the shape",
    source="Geirhos et al. 2019, arXiv 1811.12231",
    license="Apache-2.0",
    params=ShapeBiasParams,
    tiny={"block": 2, "limit": 20},
    measure=measure,
    subjects="one",
    needs=frozenset({"images", "logits"}),
    cost=lambda params: 1.0,
    limit=lambda params: params.limit,
)
