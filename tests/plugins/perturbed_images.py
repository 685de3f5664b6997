"""Images to perturb, and a registered perturbation applied to them."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from transferbench_plugins.perturbations import transferbench_perturbations

SPECS = {spec.name: spec for spec in transferbench_perturbations() if spec.build}


def smooth_images(count, side, channels=3, seed=0):
    """Float32 (N, C, H, W) in [0, 1] at 256 levels, with structure at several scales."""
    noise = np.random.default_rng(seed).random((count, channels, side, side))
    images = sum(gaussian_filter(noise, (0, 0, s, s), mode="wrap") * s for s in (1, side / 8))
    low, high = images.min(axis=(2, 3), keepdims=True), images.max(axis=(2, 3), keepdims=True)
    return torch.from_numpy(np.rint((images - low) / (high - low) * 255) / 255).float()


def perturb(name, images, seed=3, ids=None, **params):
    spec = SPECS[name]
    height, width = images.shape[2:]
    ids = np.arange(len(images)) if ids is None else np.asarray(ids)
    return spec.build(spec.parse(params), (height, width, images.shape[1]), seed)(images, ids)
