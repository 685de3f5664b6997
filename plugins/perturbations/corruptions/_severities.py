"""The five severities of the common corruptions, with two tables of constants.

The constants were published twice: for 224 px (ImageNet-C) and, weaker, for 32 px (CIFAR-10-C).
An image uses the table whose side is nearer in ratio: that for 32 px up to 84 px, else that for
224 px. Lengths in pixels are scaled by side / 224 or side / 32, but never below those for 32 px,
where a shorter blur would change nothing. At 32 and 224 px all constants are the published ones.

Left out: ``frost``, which needs photographs of frost, and ``spatter``, which is defined by an edge
detector that cannot be batched. A mean over these corruptions is therefore not the mCE.

Rejected: the package ``imagecorruptions`` and the released code, which draw from the global
generators, one image at a time.

Source: arXiv 1903.12261; released code, imagenet_c/corruptions.py and make_cifar_c.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from transferbench.specs import ImageShape, Params, PerturbationSpec
from transferbench_plugins.perturbations._image_random import ImageRandom, on_batches

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["corruption", "length_scale", "needs_colour"]

SMALL, LARGE = 32, 224
SMALLEST = 8


class SeverityParams(Params):
    """The published severity, 1 to 5."""

    severity: Annotated[int, Field(ge=1, le=5)]


def _table(side: int) -> int:
    return LARGE if side > math.sqrt(SMALL * LARGE) else SMALL


def length_scale(images: Tensor) -> float:
    """The factor of published lengths in pixels, for images (N, C, H, W)."""
    side = min(images.shape[2:])
    scale = side / _table(side)
    return scale if _table(side) == LARGE else max(1.0, scale)


def _fits(params: SeverityParams, image_shape: ImageShape) -> str | None:  # noqa: ARG001  # protocol
    """An error message for images that are smaller than the kernels."""
    side = min(image_shape[:2])
    if side >= SMALLEST:
        return None
    return f"a side of {side} px is below its kernels; use images of {SMALLEST} px or more"


def needs_colour(params: Any, image_shape: ImageShape) -> str | None:  # noqa: ARG001  # protocol
    """An error message for grey images."""
    if image_shape[2] == 3:
        return None
    return f"{image_shape[2]} channel has no colours; use it on images of 3 channels"


def corruption(
    name: str,
    summary: str,
    corrupt: Callable[[Tensor, Any, ImageRandom], Tensor],
    constants: Mapping[int, Sequence[Any]],
    check: Callable[[Any, ImageShape], str | None] = _fits,
    *,
    version: int = 1,
    ordered: bool = True,
) -> PerturbationSpec:
    """The spec of one corruption.

    ``corrupt(images, constant, random)`` returns new images, which are then clamped to [0, 1].
    ``constants``: by severity, for the published sides of 32 and 224 px.
    ``ordered``: whether the distance to the images grows with the severity.
    """

    def apply(images: Tensor, params: SeverityParams, random: ImageRandom) -> Tensor:
        constant = constants[_table(min(images.shape[2:]))][params.severity - 1]
        return corrupt(images, constant, random).clamp_(0, 1)

    return PerturbationSpec(
        name=name,
        version=version,
        summary=summary,
        source="Hendrycks and Dietterich 2019, arXiv 1903.12261: ImageNet-C, CIFAR-10-C",
        license="Apache-2.0",
        params=SeverityParams,
        tiny={"severity": 3},
        build=on_batches(apply),
        stage="pixels",
        check=check,
        severity=lambda params, image_shape: float(params.severity),
        severity_is_distance=ordered,
    )
