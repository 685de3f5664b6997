"""Misalignment: deviation of the first layer's filters from the principal axes of its inputs.

A is the covariance of the patches that the layer reads, V_i its distinct eigenspaces; B is the
covariance of the filters, in D dimensions. M = sqrt(sum_i sqrt(tr(B | V_i) tr(B^-1 | V_i)) - D):
0 if B has the eigenspaces of A, larger the less they are aligned.

Source: Maennel et al., "What do neural networks learn when trained with random labels?", NeurIPS
2020, arXiv 2006.10455.

Shape letters: N images, C channels, H height, W width, F filters, D values of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from transferbench.records import Coordinate, Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec, Params, ReportPart, Subject
from transferbench.statistics import student_t
from transferbench_plugins.diagnostics._measurement import measurement

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Conv2d

__all__ = ["MISALIGNMENT", "MisalignmentParams", "misalignment", "patch_covariance"]

DEGENERATE = 1e-7
"""Neighbouring eigenvalues closer than this share of the largest belong to one eigenspace.

Patches are float32: directions without variance (the colours of grey images) come out near this.
"""

BATCH_SIZE = 8
"""Images whose patches are in memory at the same time."""

ROTATION_WORK = 20 * 1536**3
"""Rotations times D^3, the work of one: twenty of D = 1536, which take half a minute."""

MIN_ROTATIONS = 3
"""Random axes hardly differ where D is large: the interval over few of them is narrow."""

MAX_VALUES = 4096
"""Of a patch: its axes take 8 D^2 bytes and some minutes."""

NO_LAYER = "the first module has no convolution that reads every channel of the images"
TOO_LARGE = "patches of {} values, more than {}: their axes take too much memory and time"
NO_COVARIANCE = "the filters have no invertible covariance: they do not vary, or are not finite"


class MisalignmentParams(Params):
    """``of``: states: ``final``, ``init``, ``best`` or stored epochs. ``limit``: train images.

    ``rotations``: the number of random sets of axes in the comparison; fewer, but at least 3, are
    drawn for patches of more than 1,536 values (32 px in colour have 3,072).
    """

    of: Annotated[
        tuple[Literal["final", "init", "best"] | Annotated[int, Field(ge=0)], ...],
        Field(min_length=1),
    ] = ("final", "init")
    limit: Annotated[int, Field(ge=1)] = 500
    rotations: Annotated[int, Field(ge=2)] = 20


def measure(
    params: MisalignmentParams, subjects: Sequence[Subject], context: DiagnosticContext
) -> Iterator[Measurement]:
    """M of the first convolution in each state, and of the same filters on random axes.

    The covariance of few filters is not invertible: it is shrunk towards a sphere (Ledoit and
    Wolf 2004), by ``shrinkage``. Shrinkage lowers M: compare it with ``misalignment_random``.
    ``n``: filters; rotations for misalignment_random.
    Units: none, as in the source. Error: Student-t over rotations.
    """
    (subject,) = subjects
    images = subject.images("train", params.limit)
    name, layer = _first_convolution(subject, images.shape[1])
    if layer is None:
        yield measurement("misalignment", None, "misalignment", 0, flag=NO_LAYER)
        return
    size = layer.weight[0].numel()
    if size > MAX_VALUES:
        yield measurement(
            "misalignment", None, "misalignment", 0, flag=TOO_LARGE.format(size, MAX_VALUES)
        )
        return
    eigenvalues_D, axes_DD = np.linalg.eigh(patch_covariance(images, layer))
    states = [_covariance(subject.state(of)[f"{name}.weight"]) for of in params.of]
    rotations = max(MIN_ROTATIONS, min(params.rotations, ROTATION_WORK // size**3))
    random: list[list[float]] = [[] for _ in states]
    # Each set of axes once, one at a time: those of 32 px patches in colour take 75 MB.
    for random_DD in _random_axes(size, min(rotations, params.rotations), context.seed):
        for values, state in zip(random, states, strict=True):
            values.append(_misalignment(eigenvalues_D, random_DD, state))
    for of, state, values in zip(params.of, states, random, strict=True):
        own = _misalignment(eigenvalues_D, axes_DD, state)
        yield from _measurements(own, values, state, {"layer": name, "of": of})


def _first_convolution(subject: Subject, channels: int) -> tuple[str, Conv2d | None]:
    from torch import nn

    net = subject.network("init")
    for state_name in next(iter(subject.modules.values())):
        name = state_name.rpartition(".")[0]
        layer = net.get_submodule(name)
        if isinstance(layer, nn.Conv2d) and layer.weight.shape[1] == channels:
            return name, layer
    return "", None


def patch_covariance(images: Tensor, layer: Conv2d) -> np.ndarray:
    """The covariance of the input patches of ``layer`` on (N, C, H, W) images: float64 (D, D).

    Patches that overlap the padding are excluded.
    """
    import torch

    kernel = (layer.kernel_size[0], layer.kernel_size[1])
    dilation, stride = (layer.dilation[0], layer.dilation[1]), (layer.stride[0], layer.stride[1])
    size = layer.weight[0].numel()
    total_D = torch.zeros(size, dtype=torch.float64, device=images.device)
    squares_DD = torch.zeros(size, size, dtype=torch.float64, device=images.device)
    n = 0
    for batch in torch.split(images, BATCH_SIZE):
        columns = torch.nn.functional.unfold(batch, kernel, dilation=dilation, stride=stride)
        rows = columns.transpose(1, 2).reshape(-1, size).double()
        total_D += rows.sum(dim=0)
        squares_DD += rows.T @ rows
        n += len(rows)
    mean_D = total_D / n
    covariance_DD: np.ndarray = (squares_DD / n - mean_D[:, None] * mean_D).cpu().numpy()
    return covariance_DD


class _FilterCovariance(NamedTuple):
    """The shrunk covariance (D, D) of ``n`` filters and its inverse: none where it is singular."""

    n: int
    matrices: tuple[np.ndarray, ...] = ()
    shrinkage: float = 0.0


def misalignment(patches_DD: np.ndarray, filters_DD: np.ndarray) -> float:
    """M of two covariances; ``filters_DD`` is positive definite."""
    eigenvalues_D, axes_DD = np.linalg.eigh(patches_DD)
    filters = _FilterCovariance(0, (filters_DD, np.linalg.inv(filters_DD)))
    return _misalignment(eigenvalues_D, axes_DD, filters)


def _misalignment(
    eigenvalues_D: np.ndarray, axes_DD: np.ndarray, filters: _FilterCovariance
) -> float:
    """M for the axes in the columns of ``axes_DD``; NaN for a singular covariance."""
    if not filters.matrices:
        return math.nan
    is_start_D = np.diff(eigenvalues_D, prepend=-np.inf) > DEGENERATE * eigenvalues_D[-1]
    starts = np.flatnonzero(is_start_D)
    variances, precisions = (
        np.add.reduceat(((matrix_DD @ axes_DD) * axes_DD).sum(axis=0), starts)
        for matrix_DD in filters.matrices
    )
    return float(np.sqrt(max(np.sqrt(variances * precisions).sum() - len(axes_DD), 0.0)))


def _random_axes(size: int, rotations: int, seed: int) -> Iterator[np.ndarray]:
    """Haar-random orthogonal matrices. Source: Mezzadri 2007, arXiv math-ph/0609050."""
    rng = np.random.default_rng(seed)
    for _ in range(rotations):
        q, r = np.linalg.qr(rng.standard_normal((size, size)))
        yield q * np.sign(np.diag(r))


# --- measurements -----------------------------------------------------------------------------


def _measurements(
    own: float, random: Sequence[float], filters: _FilterCovariance, at: dict[str, Coordinate]
) -> Iterator[Measurement]:
    n, unit = filters.n, "misalignment"
    if not filters.matrices:
        yield measurement("misalignment", None, unit, n, at, flag=NO_COVARIANCE)
        return
    yield measurement("misalignment", own, unit, n, at)
    yield measurement("shrinkage", filters.shrinkage, "fraction", n, at)
    reference = student_t(random)
    yield measurement("misalignment_random", reference, unit, reference.n, at)


def _covariance(weight: Tensor) -> _FilterCovariance:
    from sklearn.covariance import ledoit_wolf

    filters_FD = weight.flatten(1).double().numpy()
    n = len(filters_FD)
    if n < 2 or not np.isfinite(filters_FD).all():
        return _FilterCovariance(n)
    covariance_DD, shrinkage = ledoit_wolf(filters_FD)
    eigenvalues_D = np.linalg.eigvalsh(covariance_DD)
    if eigenvalues_D[0] <= 1e-12 * eigenvalues_D[-1]:
        return _FilterCovariance(n)
    inverse_DD = np.linalg.inv(covariance_DD)
    return _FilterCovariance(n, (covariance_DD, inverse_DD), float(shrinkage))


MISALIGNMENT = DiagnosticSpec(
    name="misalignment",
    version=1,
    summary="Deviation of the first layer's filters from the principal axes of input patches",
    source="Maennel et al., NeurIPS 2020, arXiv 2006.10455",
    license="Apache-2.0",
    params=MisalignmentParams,
    tiny={"limit": 8, "rotations": 2},
    measure=measure,
    subjects="one",
    unknown_labels=True,
    metrics=frozenset({"misalignment", "misalignment_random", "shrinkage"}),
    ranges=dict.fromkeys(("misalignment", "misalignment_random"), (0, math.inf)),
    needs=frozenset({"init_state", "images"}),
    epochs=lambda params: [of for of in params.of if isinstance(of, int)],
    cost=lambda params: 1.0,
    limit=lambda params: params.limit,
    report=ReportPart(
        build=f"{__package__}._spectrum_report:misalignment",
        metrics=frozenset({"misalignment", "misalignment_random", "shrinkage"}),
    ),
)
