"""The built-in initializations."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl
from transferbench.specs import InitializationSpec
from transferbench_plugins.initializations.data_aligned import DATA_ALIGNED
from transferbench_plugins.initializations.data_dependent import DATA_DEPENDENT
from transferbench_plugins.initializations.entries import BOOTSTRAP, MEAN_VAR
from transferbench_plugins.initializations.first_k import FIRST_K
from transferbench_plugins.initializations.lsuv import LSUV
from transferbench_plugins.initializations.mimetic import MIMETIC
from transferbench_plugins.initializations.pretrained import PRETRAINED, RANDOM_LABEL
from transferbench_plugins.initializations.random_draw import RANDOM, SAME_RANDOM, SECOND_RANDOM
from transferbench_plugins.initializations.spectrum import SPECTRUM_MATCHED, TOP_DIRECTIONS
from transferbench_plugins.initializations.weight_shuffle import WEIGHT_SHUFFLE

__all__ = ["transferbench_initializations"]


@hookimpl
def transferbench_initializations() -> list[InitializationSpec]:
    """All built-in initializations."""
    return [
        BOOTSTRAP,
        DATA_ALIGNED,
        DATA_DEPENDENT,
        FIRST_K,
        LSUV,
        MEAN_VAR,
        MIMETIC,
        PRETRAINED,
        RANDOM,
        RANDOM_LABEL,
        SAME_RANDOM,
        SECOND_RANDOM,
        SPECTRUM_MATCHED,
        TOP_DIRECTIONS,
        WEIGHT_SHUFFLE,
    ]
