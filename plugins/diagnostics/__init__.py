"""The built-in diagnostics, one package per family.

training: learning curves, speed, gain of pre-training, choice of the pre-training checkpoint.
mistakes: agreement of two networks' errors; recall, precision and confusion of each class.
features: similarity of two networks' features, module by module.
weights: distances, spectra and alignment of weights.
landscape: loss and metric on the line between two networks.
modules: module rewinding, re-randomisation and criticality.
transferability: scores of a source network on a target, without fine-tuning.
robustness: metric and loss on perturbed test images, shape bias.
"""

from __future__ import annotations

from transferbench.hookspecs import hookimpl
from transferbench.specs import DiagnosticSpec
from transferbench_plugins.diagnostics.features.canonical_correlation import PWCCA, SVCCA
from transferbench_plugins.diagnostics.features.cka import CKA
from transferbench_plugins.diagnostics.features.procrustes import PROCRUSTES
from transferbench_plugins.diagnostics.landscape.barrier import ALIGNED_BARRIER, BARRIER
from transferbench_plugins.diagnostics.landscape.basin import BASIN
from transferbench_plugins.diagnostics.mistakes.agreement import AGREEMENT
from transferbench_plugins.diagnostics.mistakes.per_class import PER_CLASS
from transferbench_plugins.diagnostics.modules.criticality import CRITICALITY
from transferbench_plugins.diagnostics.modules.swaps import RERANDOMISATION, REWINDING
from transferbench_plugins.diagnostics.robustness.robustness import ROBUSTNESS
from transferbench_plugins.diagnostics.robustness.shape_bias import SHAPE_BIAS
from transferbench_plugins.diagnostics.training.checkpoint_choice import CHECKPOINT_CHOICE
from transferbench_plugins.diagnostics.training.learning_curve import LEARNING_CURVE
from transferbench_plugins.diagnostics.training.relative_drop import RELATIVE_DROP
from transferbench_plugins.diagnostics.training.speed import SPEED
from transferbench_plugins.diagnostics.transferability.h_score import H_SCORE
from transferbench_plugins.diagnostics.transferability.knn import KNN
from transferbench_plugins.diagnostics.transferability.leep import LEEP, NCE, NLEEP
from transferbench_plugins.diagnostics.transferability.linear_probe import LINEAR_PROBE
from transferbench_plugins.diagnostics.transferability.logme import LOGME
from transferbench_plugins.diagnostics.weights.distance import DISTANCE
from transferbench_plugins.diagnostics.weights.misalignment import MISALIGNMENT
from transferbench_plugins.diagnostics.weights.spectrum import SPECTRUM

__all__ = ["transferbench_diagnostics"]


@hookimpl
def transferbench_diagnostics() -> list[DiagnosticSpec]:
    """All built-in diagnostics, sorted by name."""
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
        PER_CLASS,
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
