"""Grey images brought to the size a suite asks for, one way for every dataset of scans."""

from __future__ import annotations

import numpy as np

__all__ = ["resize_grey"]


def resize_grey(images: np.ndarray, size: int) -> np.ndarray:
    """Square images of side ``size`` by Pillow's bicubic filter, antialiased where it shrinks.

    Shapes: uint8 (N, H, W) to uint8 (N, size, size, 1); equal sizes are left as they are.
    """
    from PIL import Image  # listing plugins stays fast

    if images.shape[1:] != (size, size):
        resized = [
            Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
            for image in images
        ]
        images = np.stack([np.asarray(image) for image in resized])
    return images[..., None]
