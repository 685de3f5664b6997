"""An image folder of noise, as a user lays it out."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["noise_pictures"]


def noise_pictures(root: Path, counts: Mapping[str, int], classes: Iterable[str], size=8) -> Path:
    """``root`` with so many pictures a class in each split, ``0.png`` and so on; all differ."""
    draw = np.random.default_rng(0)
    for split, count in counts.items():
        for name in classes:
            folder = root / "image-folder" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root
