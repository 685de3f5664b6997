"""JPEG compression at low quality.

Pillow encodes and decodes each image, as in the released code. Rejected: ``torchvision.io``, whose
codecs for CPU and CUDA are different libraries, and a JPEG in tensors (kornia; version 1 of this
plugin), which rounds differently from all of them.

The values depend on the libjpeg that Pillow was built with.

Shape letters: N images, C channels, H height, W width.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from transferbench_plugins.perturbations._image_random import ImageRandom
from transferbench_plugins.perturbations.corruptions._severities import corruption

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["JPEG", "compressed"]


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """An image, encoded at a quality from 1 to 100 and decoded again.

    Shapes: uint8 (H, W, C), C of 1 or 3; returns the same.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
        file, "JPEG", quality=quality
    )
    return np.asarray(Image.open(file)).reshape(image.shape)


def _jpeg(images: Tensor, quality: int, _: ImageRandom) -> Tensor:
    import torch

    bytes_NHWC = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    decoded_NHWC = np.stack([compressed(image, quality) for image in bytes_NHWC])
    decoded = torch.from_numpy(decoded_NHWC).permute(0, 3, 1, 2)
    return decoded.to(images.device, images.dtype) / 255


JPEG = corruption(
    "jpeg",
    "JPEG compression at low quality",
    _jpeg,
    {32: (80, 65, 58, 50, 40), 224: (25, 18, 15, 10, 7)},
    version=2,
)
