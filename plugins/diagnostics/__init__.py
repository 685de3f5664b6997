"""The diagnostics that come with transferbench: this kind's table of contents."""

from __future__ import annotations

from transferbench.hookspecs import hookimpl
from transferbench.specs import DiagnosticSpec
from transferbench_plugins.diagnostics.agreement import AGREEMENT
from transferbench_plugins.diagnostics.aligned_barrier import ALIGNED_BARRIER
from transferbench_plugins.diagnostics.barrier import BARRIER
from transferbench_plugins.diagnostics.basin import BASIN
from transferbench_plugins.diagnostics.checkpoint_choice import CHECKPOINT_CHOICE
from transferbench_plugins.diagnostics.cka import CKA
from transferbench_plugins.diagnostics.criticality import CRITICALITY
from transferbench_plugins.diagnostics.distance import DISTANCE
from transferbench_plugins.diagnostics.h_score import H_SCORE
from transferbench_plugins.diagnostics.knn import KNN
from transferbench_plugins.diagnostics.learning_curve import LEARNING_CURVE
from transferbench_plugins.diagnostics.leep import LEEP
from transferbench_plugins.diagnostics.linear_probe import LINEAR_PROBE
from transferbench_plugins.diagnostics.logme import LOGME
from transferbench_plugins.diagnostics.misalignment import MISALIGNMENT
from transferbench_plugins.diagnostics.nce import NCE
from transferbench_plugins.diagnostics.nleep import NLEEP
from transferbench_plugins.diagnostics.procrustes import PROCRUSTES
from transferbench_plugins.diagnostics.pwcca import PWCCA
from transferbench_plugins.diagnostics.relative_drop import RELATIVE_DROP
from transferbench_plugins.diagnostics.rerandomisation import RERANDOMISATION
from transferbench_plugins.diagnostics.rewinding import REWINDING
from transferbench_plugins.diagnostics.robustness import ROBUSTNESS
from transferbench_plugins.diagnostics.shape_bias import SHAPE_BIAS
from transferbench_plugins.diagnostics.spectrum import SPECTRUM
from transferbench_plugins.diagnostics.speed import SPEED
from transferbench_plugins.diagnostics.svcca import SVCCA

__all__ = ["transferbench_diagnostics"]


@hookimpl
def transferbench_diagnostics() -> list[DiagnosticSpec]:
    """Every built-in of this kind, one a line."""
    return [
        AGREEMENT,
        ALIGNED_BARRIER,
        BARRIER,
        BASIN,
        CHECKPOINT_CHOICE,
        CKA,
        CRITICALITY,
        DISTANCE,
        H_SCORE,
        KNN,
        LEARNING_CURVE,
        LEEP,
        LINEAR_PROBE,
        LOGME,
        MISALIGNMENT,
        NCE,
        NLEEP,
        PROCRUSTES,
        PWCCA,
        RERANDOMISATION,
        RELATIVE_DROP,
        REWINDING,
        ROBUSTNESS,
        SHAPE_BIAS,
        SPECTRUM,
        SPEED,
        SVCCA,
    ]
