"""Initializations with the singular values of the source, and random or its top directions.

Shape letters: F filters (outputs), E entries of a filter, R = min(F, E), k top directions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from transferbench_plugins.initializations._source_specs import StatisticsParams, redrawing_spec

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["SPECTRUM_MATCHED", "TOP_DIRECTIONS"]


class TopParams(StatisticsParams):
    """``fraction``: the fraction of singular directions that are kept, rounded up.

    0 equals spectrum-matched, and 1 pretrained: norm layers are the source's by default.
    """

    fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    norms: Literal["identity", "source"] = "source"


def _rotated(values: Tensor, fraction: float, generator: Generator) -> Tensor:
    """``values`` with the same singular values and top directions, and other directions random.

    U diag(s) V^T with the first k columns of U and V of the source and the rest from the Haar
    distribution of the complement. Error: singular values to 1e-12 relative to the largest, before
    rounding to float32.
    """
    import torch

    from transferbench_plugins.initializations._directions import orthonormal
    from transferbench_plugins.initializations._source_weights import as_matrix

    u_FR, s_R, vt_RE = torch.linalg.svd(as_matrix(values), full_matrices=False)
    # The subtraction rounds 0.55 * 20 = 11.000000000000002 to 11.
    k = math.ceil(fraction * len(s_R) - 1e-9)
    if k == len(s_R):
        return values
    left, right = u_FR[:, :k], vt_RE[:k].T
    new_left = orthonormal(len(u_FR), len(s_R) - k, generator, left)
    new_right = orthonormal(vt_RE.shape[1], len(s_R) - k, generator, right)
    rotated: Tensor = torch.cat([left, new_left], 1) * s_R @ torch.cat([right, new_right], 1).T
    return rotated


SPECTRUM_MATCHED = redrawing_spec(
    "spectrum-matched",
    "Keeps the singular values of each of P's weights; their directions are random (Haar)",
    "The spectra of Neyshabur, Sedghi, Zhang, NeurIPS 2020, appendix,"
    " https://arxiv.org/abs/2008.11687",
    lambda values, params, generator: _rotated(values, 0, generator),
)

TOP_DIRECTIONS = redrawing_spec(
    "top-directions",
    "Keeps P's singular values and its top singular directions; the rest are random",
    "Proposed in the conclusion of Neyshabur, Sedghi, Zhang, NeurIPS 2020,"
    " https://arxiv.org/abs/2008.11687",
    lambda values, params, generator: _rotated(values, params.fraction, generator),
    TopParams,
    tiny={"fraction": 0.25},
)
