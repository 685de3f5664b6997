"""Images as a JPEG file of low quality would give them back.

The lossy part of the format, on batches: colours to luma and chroma, chroma at half the side,
8 x 8 cosine transforms, quantisation, and back, with the roundings of the common library.

Error: 95% of the 8-bit values are within 1 of what Pillow decodes, at qualities from 7 to 80. The
rest belongs to blocks where one coefficient lies so near the border of two steps that the integer
transform of the library rounds it to the other.

Shape letters: N images, C channels, H height, W width, B blocks of 64 values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from transferbench.specs import ImageShape
from transferbench_plugins.perturbations.corruptions._severities import (
    SeverityParams,
    constant,
    corruption,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["JPEG", "compressed", "quantisation"]

# ITU-T T.81, Annex K.1: tables for luma and chroma at quality 50.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# JFIF 1.02: luma and the two chroma of red, green, blue.
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
)
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def quantisation(quality: int) -> tuple[np.ndarray, np.ndarray]:
    """The steps of luma and of chroma at a quality from 1 to 100.

    Shapes: float64 (8, 8) each.
    Source: libjpeg, jpeg_quality_scaling.
    """
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    luma, chroma = (
        np.clip((np.asarray(table) * percent + 50) // 100, 1, 255).astype(np.float64)
        for table in (_LUMA, _CHROMA)
    )
    return luma, chroma


def _cosines() -> np.ndarray:
    """The orthonormal cosine transform of 8 values. Shapes: float64 (8, 8)."""
    k, x = np.arange(8)[:, None], np.arange(8)
    rows = np.cos((2 * x + 1) * k * np.pi / 16) / 2
    rows[0] /= np.sqrt(2)
    return rows


def _rounded(values: Tensor) -> Tensor:
    """Halves away from zero, as the library does, also where rounding left them just below."""
    return values.sign() * (values.abs() + (0.5 + 1e-6)).floor()


def compressed(images: Tensor, quality: int) -> Tensor:
    """8-bit values after compression.

    Shapes: images float (N, C, H, W), whole numbers from 0 to 255, C of 1 or 3; float64 of them.
    """
    import torch

    height, width = images.shape[2:]
    luma, chroma = quantisation(quality)
    values = images.double()
    if images.shape[1] == 1:
        return _coded(values, luma)
    offset = values.new_tensor([0.0, 128.0, 128.0]).view(1, 3, 1, 1)
    planes = _rounded(_mixed(values, _TO_YCC) + offset)
    halved = _coded(_halved(planes[:, 1:]), chroma)
    doubled = _doubled(halved[..., : -(-height // 2), : -(-width // 2)])[..., :height, :width]
    decoded = torch.cat([_coded(planes[:, :1], luma), doubled], dim=1)
    return _rounded(_mixed(decoded - offset, _TO_RGB)).clamp_(0, 255)


def _mixed(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Every pixel multiplied by a matrix. Shapes: (N, 3, H, W)."""
    import torch

    return torch.einsum("dc,nchw->ndhw", images.new_tensor(matrix), images)


def _padded(planes: Tensor, down: int, across: int) -> Tensor:
    """The last row and column repeated up to a multiple of ``down`` and of ``across``."""
    from torch.nn.functional import pad

    height, width = planes.shape[2:]
    return pad(planes, (0, -width % across, 0, -height % down), mode="replicate")


def _halved(planes: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, halves rounded down in even columns and up in odd ones.

    Source: libjpeg, h2v2_downsample.
    """
    from torch.nn.functional import avg_pool2d

    sums = avg_pool2d(_padded(planes, down=2, across=16), 2) * 4
    sums[..., 0::2] += 1
    sums[..., 1::2] += 2
    return (sums / 4).floor()


def _doubled(planes: Tensor) -> Tensor:
    """Twice the side, three quarters from the nearer pixel, the roundings up and down in turn.

    Source: libjpeg, h2v2_fancy_upsample.
    """
    from torch.nn.functional import interpolate

    sixteenths = interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False) * 16
    sixteenths[..., 0::2] += 8
    sixteenths[..., 1::2] += 7
    return (sixteenths / 16).floor()


def _coded(planes: Tensor, steps: np.ndarray) -> Tensor:
    """Planes after their blocks were transformed, quantised and transformed back.

    Shapes: float64 (N, C, H, W), whole numbers from 0 to 255.
    """
    import torch
    from torch.nn.functional import fold, unfold

    height, width = planes.shape[2:]
    padded = _padded(planes, 8, 8)
    size = padded.shape[2:]
    stacked = padded.reshape(-1, 1, *size) - 128
    # Both axes at once: 64 values of a block to its 64 coefficients.
    cosines = torch.from_numpy(np.kron(_cosines(), _cosines())).to(planes.device)
    step = torch.from_numpy(steps.reshape(64, 1)).to(planes.device)
    # The library's transform gives coefficients in eighths.
    coefficients = _rounded(cosines @ unfold(stacked, 8, stride=8) * 8) / 8
    blocks = cosines.T @ (_rounded(coefficients / step) * step)
    whole = fold(blocks, size, 8, stride=8).view(padded.shape)
    return _rounded(whole + 128).clamp_(0, 255)[..., :height, :width]


def _jpeg(
    params: SeverityParams,
    image_shape: ImageShape,
    seed: int,  # noqa: ARG001  # the seam's signature
) -> Callable[[Tensor, np.ndarray], Tensor]:
    quality = constant(params, image_shape, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7))

    def apply(images: Tensor, image_ids: np.ndarray) -> Tensor:
        del image_ids  # nothing is drawn
        values = (images * 255).round_().clamp_(0, 255)
        return (compressed(values, quality) / 255).float()

    return apply


JPEG = corruption("jpeg", "compressed as a JPEG file of low quality", _jpeg)
