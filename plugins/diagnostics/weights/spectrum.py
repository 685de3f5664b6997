"""Spectra of weight matrices: singular values and effective ranks of each layer.

Source: Neyshabur et al. 2020, arXiv 2008.11687, appendix; effective rank of Roy and Vetterli,
EUSIPCO 2007.

Shape letters: O outputs of a layer, I inputs (channels x kernel), R = min(O, I), B matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, ReportPart, Subject
from transferbench_plugins.diagnostics._measurement import measurement

if TYPE_CHECKING:
    from torch import Tensor

    from transferbench.networks.modules import StateDict

__all__ = ["SPECTRUM", "SpectrumParams", "layer_weights", "singular_values"]

SMALL = 1e-4
"""Singular values below this share of the largest are too inexact from the Gram matrix.

Its eigenvalues are exact to about 1e-16 of the largest, so a singular value s to 1e-16 / s.
"""

NO_STATE = "external weights are a final state alone"


class SpectrumParams(Params):
    """``of``: states: ``final``, ``init`` (P's body if fine-tuned), ``best`` or stored epochs.

    ``top``: the number of singular values per layer that are published.
    """

    of: Annotated[
        tuple[Literal["final", "init", "best"] | Annotated[int, Field(ge=0)], ...],
        Field(min_length=1),
    ] = ("final", "init")
    top: Annotated[int, Field(ge=0)] = 10


def measure(
    params: SpectrumParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The ``top`` singular values of each layer's weight, descending, norms and ranks.

    A convolution is the matrix (O, channels x kernel). stable_rank = ||W||_F^2 / ||W||_2^2;
    effective_rank = exp of the entropy of the singular values over their sum.
    Units: weight for singular values and norms. ``n``: the layer's singular values.
    Error: 1e-10 of the largest singular value.
    """
    del context  # no randomness; numpy on the CPU
    (subject,) = subjects
    owners = {name: module for module, names in subject.modules.items() for name in names}
    for of in params.of:
        if not subject.history and of != "final":
            yield measurement("singular_value", None, "weight", 0, {"of": of}, flag=NO_STATE)
            continue
        weights = layer_weights(subject.state(of), subject.modules)
        for name, values_R in singular_values(weights).items():
            coordinates = {"module": owners[name], "layer": name, "of": of}
            finite = np.isfinite(values_R).all()
            missing = "every weight is zero" if finite else "weights are not finite"
            for metric, unit, value, index in _summaries(values_R, params.top):
                at = {**coordinates, **index}
                yield measurement(metric, value, unit, len(values_R), at, missing=missing)


def layer_weights(state: StateDict, modules: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Weights of linear and convolutional layers as matrices (O, I), from input to output.

    Position embeddings, class tokens and scales of normalisations are not linear maps.
    """
    names = [name for module in modules.values() for name in module]
    return {
        name: state[name].flatten(1)
        for name in names
        if name.endswith("weight") and state[name].ndim > 1
    }


def singular_values(weights: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """All singular values of each (O, I) matrix, descending: float64 (R,).

    Matrices of equal shape are batched. numpy computes only half of a Gram matrix: torch takes 1.7
    times as long for the layers of a ResNet-50 (1.03 s and 0.60 s, one thread).
    Error: 1e-10 of the largest, from the eigenvalues of the smaller Gram matrix, or from an SVD
    if some are too small for that. NaN for a matrix that is not finite.
    """
    shapes: dict[tuple[int, ...], list[str]] = {}
    for name, weight in weights.items():
        shapes.setdefault(tuple(weight.shape), []).append(name)
    values: dict[str, np.ndarray] = {}
    for names in shapes.values():
        matrices_BOI = np.stack([weights[name].double().cpu().numpy() for name in names])
        values |= zip(names, _spectra(matrices_BOI), strict=True)
    return {name: values[name] for name in weights}


def _spectra(matrices_BOI: np.ndarray) -> np.ndarray:
    """Shapes: (B, O, I) to (B, R)."""
    non_finite_B = ~np.isfinite(matrices_BOI).all(axis=(1, 2))
    matrices_BOI[non_finite_B] = 0.0
    transposed_BIO = matrices_BOI.swapaxes(1, 2)
    wide = matrices_BOI.shape[1] <= matrices_BOI.shape[2]
    gram_BRR = matrices_BOI @ transposed_BIO if wide else transposed_BIO @ matrices_BOI
    squares_BR = np.linalg.eigvalsh(gram_BRR)[:, ::-1]
    values_BR: np.ndarray = np.sqrt(squares_BR.clip(min=0))
    inexact_B = values_BR[:, -1] < SMALL * values_BR[:, 0]
    if inexact_B.any():
        values_BR[inexact_B] = np.linalg.svd(matrices_BOI[inexact_B], compute_uv=False)
    values_BR[non_finite_B] = np.nan
    return values_BR


# --- measurements -----------------------------------------------------------------------------


def _summaries(values_R: np.ndarray, top: int) -> Iterator[tuple[str, str, float, dict[str, int]]]:
    """Metric, unit and value, NaN if undefined, and the index of a singular value."""
    for index, value in enumerate(values_R[:top]):
        yield "singular_value", "weight", value, {"index": index}
    largest, square = values_R[0], (values_R**2).sum()
    yield "spectral_norm", "weight", largest, {}
    yield "frobenius_norm", "weight", square**0.5, {}
    yield "stable_rank", "rank", np.nan if largest == 0 else square / largest**2, {}
    yield "effective_rank", "rank", _effective_rank(values_R), {}


def _effective_rank(values_R: np.ndarray) -> float:
    """NaN for a matrix of zeros. Source: Roy and Vetterli, EUSIPCO 2007."""
    if values_R[0] == 0 or np.isnan(values_R[0]):
        return np.nan
    shares = values_R[values_R > 0] / values_R.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


SPECTRUM = DiagnosticSpec(
    name="spectrum",
    version=1,
    summary="Singular values, stable rank and effective rank of each layer's weight",
    source="Neyshabur et al. 2020, arXiv 2008.11687, appendix; Roy and Vetterli, EUSIPCO 2007",
    license="Apache-2.0",
    params=SpectrumParams,
    tiny={"top": 2},
    measure=measure,
    subjects="one",
    unknown_labels=True,
    metrics=frozenset(
        {"effective_rank", "frobenius_norm", "singular_value", "spectral_norm", "stable_rank"}
    ),
    ranges=dict.fromkeys(
        ("effective_rank", "frobenius_norm", "singular_value", "spectral_norm", "stable_rank"),
        (0, math.inf),
    ),
    needs=frozenset({"init_state", "history"}),
    needs_of_source="state",
    epochs=lambda params: [of for of in params.of if isinstance(of, int)],
    report=ReportPart(
        build=f"{__package__}._spectrum_report:spectra",
        metrics=frozenset(
            {"singular_value", "spectral_norm", "frobenius_norm", "stable_rank", "effective_rank"}
        ),
    ),
)
