"""Debiased CKA between all layers of two networks, from tiles of their Gram matrices.

CKA = HSIC(K, L) / sqrt(HSIC(K, K) * HSIC(L, L)) with the unbiased estimator of HSIC in all three
places: independent wide features get a value near 0, where the biased estimator gives 0.9 for 64
images of 1,000 features. In exact arithmetic it does not depend on the features' mean; in floating
point it does: centre them first.

A tile holds the same rows and columns of the Gram matrices of all layers, so that one matrix
product serves all pairs of layers; tiles below the diagonal are transposes of those above.

Rejected: torch-cka, cka-pytorch and pytorch-cka, with errors of 0.03 to 0.07 on the features of
networks (benchmarks B8 and B9).

Source: Kornblith et al. 2019, arXiv 1905.00414 (CKA, the RBF bandwidth); Szekely and Rizzo 2014,
doi:10.1214/14-AOS1255 (the unbiased estimator); Nguyen, Raghu, Kornblith 2021, arXiv 2010.15327
(its mean over minibatches).

Shape letters: A, B layers of the two networks, L layers of one, N images, D features of a layer,
T and U images of a tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["MIN_IMAGES", "Hsic", "centre_", "cka", "hsic", "squared_widths"]

MIN_IMAGES = 4
"""The estimator divides by N - 3."""

MEDIAN_IMAGES = 1024
"""Number of images for the median distance: half a million distances."""

ROUNDING = 1e-6

SCALE_IMAGES = 32
"""Number of images for the scale of a layer's features."""

TILES = {"cpu": 192, "cuda": 2048}
"""Maximum number of images of a tile: on a CPU the tiles of all layers should fit into the cache,
on a GPU few large products are faster."""

Features = Sequence[Tensor]
Widths = tuple[Tensor, Tensor]


class Hsic(NamedTuple):
    """Unbiased HSIC of all pairs of layers and of each layer with itself, float64.

    Shapes: cross (A, B), own_a (A,), own_b (B,).
    """

    cross: Tensor
    own_a: Tensor
    own_b: Tensor


def centre_(features: Tensor) -> Tensor:
    """Subtract each feature's mean over the images, in place, and return the features.

    Features that vary by less than ``ROUNDING`` of the mean's norm become exactly 0: they are
    constant up to rounding.

    Shapes: (N, D).
    """
    exact = features.to(torch.promote_types(features.dtype, torch.float32))
    # Summing in float64 takes thirty times longer, and the mean's last digits do not matter.
    mean = exact.mean(0)
    deviation = torch.linalg.vector_norm(exact.sub_(mean)) / len(features) ** 0.5
    is_constant = deviation <= ROUNDING * torch.linalg.vector_norm(mean)
    if exact.device.type != "cpu":
        exact.masked_fill_(is_constant, 0.0)  # without a wait for the device
    elif is_constant:
        exact.zero_()
    return features if exact is features else features.copy_(exact)


def cka(parts: Iterable[Hsic]) -> Tensor:
    """CKA from the HSIC of one or more sets of images: the ratio of the means.

    The mean of the ratios would be biased.

    Shapes: float64 (A, B), at most 1, NaN where the features of a layer do not vary or are not
    finite.
    Error: of linear kernels below 1e-6 for float32 features, of the order of 1e-4 for bfloat16; of
    RBF kernels below 1e-4 for float32 (3e-5 measured): squared distances lose digits.
    """
    cross, own_a, own_b = (torch.stack(values).sum(0) for values in zip(*parts, strict=True))
    ratio: Tensor = cross / torch.sqrt(own_a[:, None] * own_b[None, :])
    return ratio.where(ratio.isfinite(), torch.nan)


def squared_widths(features: Features, bandwidth: float) -> Tensor:
    """The squared width of each layer's RBF kernel: (``bandwidth`` * median distance) ** 2.

    Shapes: features (N, D) each; returns (L,).
    Error: the median is over the pairs of at most 1,024 images, evenly spaced.
    """
    medians = [_median_squared_distance(layer) for layer in features]
    return bandwidth**2 * torch.stack(medians)


def _median_squared_distance(features: Tensor) -> Tensor:
    step = -(-len(features) // MEDIAN_IMAGES)
    subset = features[::step].float()
    return torch.pdist(subset).square().quantile(0.5)


def hsic(
    features_a: Features,
    features_b: Features,
    widths: Widths | None = None,
    tile: int | None = None,
) -> Hsic:
    """Unbiased HSIC of all pairs of layers, exact over all images.

    Features must be centred and are not modified; products are computed in their precision and
    summed in float64. ``widths``: the squared widths of RBF kernels; None: linear kernels.

    Shapes: features (N, D); widths (A,) and (B,).
    Error: below 1e-6 of sqrt(own_a * own_b) for float32 features, below 1e-4 with RBF kernels.
    Memory: besides the features, A + B tiles and rows of N numbers: 3% of the Gram matrices for
    12 layers and 3,072 images.
    Raises: ``ValueError`` for fewer than four images or unequal numbers of images.
    """
    n = _count(features_a, features_b)
    a = _Layers(features_a, None if widths is None else widths[0])
    b = a if features_b is features_a else _Layers(features_b, widths and widths[1])
    trace = torch.zeros(len(features_a), len(features_b), dtype=torch.float64, device=a.device)
    for rows, columns in _tiles(n, tile or TILES.get(a.device.type, max(TILES.values()))):
        tile_a = a.tile(rows, columns)
        tile_b = tile_a if b is a else b.tile(rows, columns)
        trace += _twice_off_diagonal(rows, columns) * (tile_a @ tile_b.T)
    dot = a.rows @ b.rows.T
    cross = _unbiased(trace, a.total[:, None] * b.total[None, :], dot, n)
    return Hsic(cross * a.scale[:, None] * b.scale[None, :], a.own_hsic(n), b.own_hsic(n))


def _count(features_a: Features, features_b: Features) -> int:
    counts = sorted({len(features) for features in (*features_a, *features_b)})
    if len(counts) != 1:
        raise ValueError(
            f"all layers must have the features of the same images, found {counts} of them"
        )
    if counts[0] < MIN_IMAGES:
        raise ValueError(
            f"the unbiased estimator needs {MIN_IMAGES} images or more, found {counts[0]}"
        )
    return counts[0]


def _tiles(n: int, max_size: int) -> Iterator[tuple[slice, slice]]:
    """The tiles on and above the diagonal of an (n, n) matrix, of about equal size."""
    size = -(-n // -(-n // max_size))
    parts = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    for number, rows in enumerate(parts):
        for columns in parts[number:]:
            yield rows, columns


def _twice_off_diagonal(rows: slice, columns: slice) -> int:
    return 1 if rows == columns else 2


def _unbiased(trace: Tensor, totals: Tensor, dot: Tensor, n: int) -> Tensor:
    """HSIC from tr(KL), 1'K1 * 1'L1 and 1'KL1, with zero diagonals of K and L."""
    return (trace + totals / ((n - 1) * (n - 2)) - 2 * dot / (n - 2)) / (n * (n - 3))


class _Layers:
    """The Gram matrices of one network, computed in tiles, and their sums for HSIC.

    Linear Gram matrices are divided by ``scale``, the mean squared norm of a layer's first
    features, so that the squares of their entries neither overflow nor underflow in float32.
    """

    def __init__(self, features: Features, squared_widths: Tensor | None) -> None:
        self._features = features
        self._squared_widths = squared_widths
        self.device = features[0].device
        self.rows = torch.zeros(
            len(features), len(features[0]), dtype=torch.float64, device=self.device
        )
        self._own = torch.zeros_like(self.rows[:, 0])
        if squared_widths is None:
            self.scale = _scale(features)
        else:
            self.scale = torch.ones_like(self._own)
            self._norms = torch.stack([_squared_norms(layer) for layer in features])

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A tile of the Gram matrices with zero diagonal, (L, T * U); adds it to the sums."""
        gram = self._products(rows, columns)
        if self._squared_widths is None:
            gram *= self.scale.reciprocal().float()[:, None, None]
        else:
            self._to_rbf(gram, self._squared_widths, rows, columns)
        if rows == columns:
            gram.diagonal(dim1=1, dim2=2).zero_()
        else:
            self.rows[:, columns] += gram.sum(1)
        self.rows[:, rows] += gram.sum(2)
        flat = gram.flatten(1)
        self._own += _twice_off_diagonal(rows, columns) * torch.linalg.vecdot(flat, flat)
        return flat

    def _products(self, rows: slice, columns: slice) -> Tensor:
        """Layers may differ in dtype: with autocast to bfloat16 some stay in float32."""
        shape = len(self._features), rows.stop - rows.start, columns.stop - columns.start
        gram = torch.empty(shape, device=self.device)
        for layer, features in enumerate(self._features):
            if features.dtype == torch.float32:
                torch.mm(features[rows], features[columns].T, out=gram[layer])
            else:
                gram[layer] = features[rows] @ features[columns].T
        return gram

    def _to_rbf(self, gram: Tensor, squared_widths: Tensor, rows: slice, columns: slice) -> None:
        """exp(-d^2 / (2 w^2)) with d^2 = |x|^2 + |y|^2 - 2xy, in place."""
        gram *= -2
        gram += self._norms[:, rows, None]
        gram += self._norms[:, None, columns]
        # Rounding may make the squared distance of two equal images negative.
        gram.clamp_(min=0).div_(-2 * squared_widths[:, None, None]).exp_()

    @property
    def total(self) -> Tensor:
        """The sum of each Gram matrix, (L,)."""
        return self.rows.sum(1)

    def own_hsic(self, n: int) -> Tensor:
        """HSIC of each layer with itself, (L,)."""
        dot = torch.linalg.vecdot(self.rows, self.rows)
        return _unbiased(self._own, self.total.square(), dot, n) * self.scale.square()


def _scale(features: Features) -> Tensor:
    """The mean squared norm of each layer's first features, float64 (L,); 1 where it is 0."""
    norms = torch.stack(
        [_squared_norms(layer[:SCALE_IMAGES]).double().mean() for layer in features]
    )
    return norms.where(norms != 0, 1.0)


def _squared_norms(features: Tensor) -> Tensor:
    """The squared norm of each row, float32 (N,)."""
    norms: Tensor = torch.linalg.vector_norm(features, dim=1, dtype=torch.float32)
    return norms.square()
