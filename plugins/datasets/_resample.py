"""Resizing of greyscale scans to the image size of a suite."""

from __future__ import annotations

import numpy as np

__all__ = ["resize_grey"]


def resize_grey(images: np.ndarray, size: int) -> np.ndarray:
    """Square images of side ``size`` by Pillow's bicubic filter, antialiased when shrinking.

    Shapes: uint8 (N, H, W) to uint8 (N, size, size, 1); unchanged where H = W = size.
    """
    from PIL import Image  # slow to import

    if images.shape[1:] != (size, size):
        resized = [
            Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
            for image in images
        ]
        images = np.stack([np.asarray(image) for image in resized])
    return images[..., None]
