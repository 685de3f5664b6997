"""Which trainings are compiled: a rule of the planned work alone, and how many forms are kept."""

from __future__ import annotations

import os
from pathlib import Path

from transferbench.suite import Recipe

__all__ = ["keep_compiled_in", "pays"]

STEP_PIXELS = 128 * 224**2
"""Of the images of a step: below it a captured step, with others in one graph, is faster."""
PIXELS = 5e10
"""Of the images of all steps: a million at 224 px.

Compiling ResNet-50 took 50 s on an H100 and saved 60 us an image, Fixup ResNet-50 26 s and 87 us:
they pay from 0.8 and 0.3 million images of 224 px on.
"""
CACHE = "TORCHINDUCTOR_CACHE_DIR"
FORMS = 256
"""Of one function that are kept: networks share the code of their layers."""


def pays(device_type: str, recipe: Recipe, steps: int, side: int) -> bool:
    """Whether a training of so many steps on images of ``side`` px is compiled by default.

    Another run of the job on such a device decides the same.
    """
    step = recipe.batch_size * side**2
    return device_type == "cuda" and step >= STEP_PIXELS and steps * step >= PIXELS


def keep_compiled_in(folder: Path) -> None:
    """Keep compiled code in ``folder`` for later workers, unless the environment names another.

    What a worker has compiled for a shape, it uses for all networks of that shape.
    """
    from torch._dynamo import config  # it takes as long as a small training
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # To import torch's compiler may set the variable to its own default.
    if os.environ.get(CACHE, default_cache_dir()) == default_cache_dir():
        os.environ[CACHE] = str(folder)
    # Beyond its limit torch would silently compute eagerly.
    config.cache_size_limit = FORMS
