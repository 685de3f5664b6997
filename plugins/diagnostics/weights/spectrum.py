"""Spectra of weight matrices: singular values of each layer, and how many of them count.

Source: Neyshabur et al. 2020, arXiv 2008.11687, appendix; effective rank of Roy and Vetterli,
EUSIPCO 2007.

Shape letters: O outputs of a layer, I inputs (channels x kernel), R = min(O, I), B matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, Subject

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SPECTRUM", "SpectrumParams", "layer_weights", "singular_values"]

SMALL = 1e-4
"""Below this share of the largest, a root of the Gram matrix's eigenvalue is not exact enough.

An eigenvalue is exact to about 1e-16 of the largest, its root s to 1e-16 / s of it.
"""

State = Mapping[str, "Tensor"]


class SpectrumParams(Params):
    """``of``: states: ``final``, ``init`` (the body is P's if fine-tuned), ``best``, kept epochs.

    ``top``: how many singular values of each layer are published.
    """

    of: Annotated[
        tuple[Literal["final", "init", "best"] | Annotated[int, Field(ge=0)], ...],
        Field(min_length=1),
    ] = ("final", "init")
    top: Annotated[int, Field(ge=0)] = 10


def measure(
    params: SpectrumParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """The ``top`` singular values of each layer's weight, largest first, and their summary.

    A convolution counts as the matrix (O, channels x kernel). stable_rank = ||W||_F^2 / ||W||_2^2;
    effective_rank = exp of the entropy of the singular values over their sum.
    Units: weight for singular values and norms. ``n``: singular values of the layer.
    Error: 1e-10 of the largest singular value.
    """
    del context  # nothing is drawn, and numpy computes
    (subject,) = subjects
    owners = {name: module for module, names in subject.modules.items() for name in names}
    for of in params.of:
        weights = layer_weights(subject.state(of), subject.modules)
        for name, values_R in singular_values(weights).items():
            place: dict[str, str | int] = {"module": owners[name], "layer": name, "of": of}
            yield from _top(values_R, place, params.top)
            yield from _summary(values_R, place)


def layer_weights(state: State, modules: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """The weights that are matrices, as (O, I), from input to output.

    Embeddings of positions, class tokens and scales of norms are no maps from input to output.
    """
    names = [name for module in modules.values() for name in module]
    return {
        name: state[name].flatten(1)
        for name in names
        if name.endswith("weight") and state[name].ndim > 1
    }


def singular_values(weights: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """All singular values of each (O, I) matrix: float64 (R,), descending; equal shapes at once.

    Computed by numpy on the CPU, which forms only half of a Gram matrix: with torch's it takes
    1.7 times as long for the layers of a ResNet-50 (1.03 s and 0.60 s, one thread).
    Error: 1e-10 of the largest, from the eigenvalues of the smaller Gram matrix, or from an SVD
    where some are too small for that. NaN for a matrix that is not finite.
    """
    shapes: dict[tuple[int, ...], list[str]] = {}
    for name, weight in weights.items():
        shapes.setdefault(tuple(weight.shape), []).append(name)
    found: dict[str, np.ndarray] = {}
    for names in shapes.values():
        matrices_BOI = np.stack([weights[name].double().cpu().numpy() for name in names])
        found |= zip(names, _spectra(matrices_BOI), strict=True)
    return {name: found[name] for name in weights}


def _spectra(matrices_BOI: np.ndarray) -> np.ndarray:
    """Shapes: (B, O, I) to (B, R)."""
    broken_B = ~np.isfinite(matrices_BOI).all(axis=(1, 2))
    matrices_BOI[broken_B] = 0.0
    turned_BIO = matrices_BOI.swapaxes(1, 2)
    wide = matrices_BOI.shape[1] <= matrices_BOI.shape[2]
    gram_BRR = matrices_BOI @ turned_BIO if wide else turned_BIO @ matrices_BOI
    squares_BR = np.linalg.eigvalsh(gram_BRR)[:, ::-1]
    values_BR: np.ndarray = np.sqrt(squares_BR.clip(min=0))
    inexact_B = values_BR[:, -1] < SMALL * values_BR[:, 0]
    if inexact_B.any():
        values_BR[inexact_B] = np.linalg.svd(matrices_BOI[inexact_B], compute_uv=False)
    values_BR[broken_B] = np.nan
    return values_BR


# --- what is published ------------------------------------------------------------------------


def _top(values_R: np.ndarray, place: dict[str, str | int], top: int) -> Iterator[Measurement]:
    for index, value in enumerate(values_R[:top]):
        yield _row("singular_value", "weight", value, values_R, {**place, "index": index})


def _summary(values_R: np.ndarray, place: dict[str, str | int]) -> Iterator[Measurement]:
    largest, square = values_R[0], (values_R**2).sum()
    yield _row("spectral_norm", "weight", largest, values_R, place)
    yield _row("frobenius_norm", "weight", square**0.5, values_R, place)
    zero = largest == 0
    stable_rank = np.nan if zero else square / largest**2
    yield _row("stable_rank", "rank", stable_rank, values_R, place)
    yield _row("effective_rank", "rank", _effective_rank(values_R), values_R, place)


def _row(
    metric: str, unit: str, value: float, values_R: np.ndarray, place: dict[str, str | int]
) -> Measurement:
    missing = "every weight is zero" if np.isfinite(values_R).all() else "weights are not finite"
    return Measurement(
        metric=metric,
        value=None if np.isnan(value) else float(value),
        unit=unit,
        n=len(values_R),
        coordinates=dict(place),
        flag=missing if np.isnan(value) else None,
    )


def _effective_rank(values_R: np.ndarray) -> float:
    """Source: Roy and Vetterli, EUSIPCO 2007. NaN for a matrix of zeros."""
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
    needs=frozenset({"init_state"}),
)
