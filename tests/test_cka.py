"""Debiased CKA against Szekely's formula in float64, its invariances and other packages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from debiased_cka import debiased_cka
from torch import Tensor

from transferbench.analysis.cka import Hsic, centre_, cka, hsic, squared_widths

N, SIZES_A, SIZES_B = 37, (5, 90, 12), (64, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layers(sizes: Sequence[int], seed: int, n: int = N) -> list[Tensor]:
    """Features with a common component, around a mean far from 0."""
    shared = torch.randn(n, 4, generator=generator(99))
    draw = generator(seed)
    return [
        torch.randn(n, size, generator=draw)
        + shared @ torch.randn(4, size, generator=draw)
        + 3 * torch.randn(size, generator=draw)
        for size in sizes
    ]


A, B = layers(SIZES_A, 1), layers(SIZES_B, 2)


def linear(features: Tensor) -> np.ndarray:
    x = features.double().numpy()
    return x @ x.T


def rbf(features: Tensor, bandwidth: float) -> np.ndarray:
    x = features.double().numpy()
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    median = np.median(squared[np.triu_indices(len(x), 1)])
    return np.exp(-squared / (2 * bandwidth**2 * median))


def u_centred(gram: np.ndarray) -> np.ndarray:
    """Szekely and Rizzo 2014, equation (2.5)."""
    k, n = gram.copy(), len(gram)
    np.fill_diagonal(k, 0)
    sums = k.sum(0)
    k = k - sums[:, None] / (n - 2) - sums[None] / (n - 2) + k.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(k, 0)
    return k


def szekely(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741  # K and L are the usual names
    return float((u_centred(k) * u_centred(l)).sum() / (len(k) * (len(k) - 3)))


def ratio(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741  # as above
    return szekely(k, l) / np.sqrt(szekely(k, k) * szekely(l, l))


def biased(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    return float((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


# --- values -----------------------------------------------------------------------------------


def test_it_equals_szekelys_formula_for_all_pairs() -> None:
    expected = [[ratio(linear(x), linear(y)) for y in B] for x in A]
    assert debiased_cka(A, B).numpy() == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("bandwidth", [0.4, 1.0])
def test_bandwidth_is_a_fraction_of_the_median_distance(bandwidth: float) -> None:
    expected = [[ratio(rbf(x, bandwidth), rbf(y, bandwidth)) for y in B] for x in A]
    assert debiased_cka(A, B, bandwidth).numpy() == pytest.approx(np.array(expected), abs=1e-5)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_an_rbf_kernel_of_many_images_is_within_its_documented_error(offset: float) -> None:
    generator = torch.Generator().manual_seed(4)
    a = torch.randn(200, 60, generator=generator) * torch.logspace(0, -3, 60) + offset
    b = (a + 0.1 * torch.randn(200, 60, generator=generator)).relu()
    for bandwidth in (0.2, 0.5, 1.0):
        expected = ratio(rbf(a, bandwidth), rbf(b, bandwidth))
        assert float(debiased_cka([a], [b], bandwidth)) == pytest.approx(expected, abs=1e-4)


def test_the_median_of_many_images_is_that_of_an_evenly_spaced_subset() -> None:
    features = layers((3,), 5, n=2500)
    (width,) = squared_widths(features, 2.0)
    (expected,) = squared_widths([features[0][::3]], 2.0)
    assert width == expected
    assert float(width) == pytest.approx(4 * float(squared_widths(features, 1.0)))


@pytest.mark.parametrize("bandwidth", [None, 0.7])
@pytest.mark.parametrize("tile", [1, 5, 16, 36, 37, 500])
def test_hsic_does_not_depend_on_the_tile_size(tile: int, bandwidth: float | None) -> None:
    a, b = [[centre_(x.clone()) for x in features] for features in (A, B)]
    widths = None
    if bandwidth is not None:
        widths = squared_widths(a, bandwidth), squared_widths(b, bandwidth)
    tiled, expected = hsic(a, b, widths, tile), hsic(a, b, widths, N)
    torch.testing.assert_close(tuple(tiled), tuple(expected), rtol=1e-5, atol=1e-6)


def test_hsic_equals_szekelys_formula_also_for_large_features() -> None:
    a, b = [[centre_(100 * x) for x in features] for features in (A, B)]
    tiled = hsic(a, b, tile=10)
    for row, x in enumerate(a):
        own = szekely(linear(x), linear(x))
        assert float(tiled.own_a[row]) == pytest.approx(own, rel=1e-5)
        for column, y in enumerate(b):
            size = np.sqrt(own * szekely(linear(y), linear(y)))
            expected = szekely(linear(x), linear(y))
            assert float(tiled.cross[row, column]) == pytest.approx(expected, abs=1e-6 * size)


def test_minibatches_are_averaged_before_the_ratio() -> None:
    parts = [slice(0, 20), slice(20, 37)]
    averaged = cka(
        hsic([centre_(x[part].clone()) for x in A], [centre_(y[part].clone()) for y in B])
        for part in parts
    )

    def mean(x: Tensor, y: Tensor) -> float:
        return float(np.mean([szekely(linear(x[part]), linear(y[part])) for part in parts]))

    expected = [[mean(x, y) / np.sqrt(mean(x, x) * mean(y, y)) for y in B] for x in A]
    assert averaged.numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert np.abs(averaged.numpy() - debiased_cka(A, B).numpy()).max() > 1e-3


def test_it_equals_pytorch_cka() -> None:
    package = pytest.importorskip("cka", reason="pytorch-cka is not installed")
    a, b = [[x.double() - x.double().mean(0) for x in features] for features in (A, B)]
    expected = package.cka_from_features(a, b)
    assert debiased_cka(A, B).clamp(0, 1).numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_it_equals_cka_pytorch() -> None:
    package = pytest.importorskip("cka_pytorch.hsic", reason="cka-pytorch is not installed")
    x, y = (features.double() @ features.double().T for features in (A[1], B[0]))

    def peer_hsic(k: Tensor, other: Tensor) -> Tensor:
        return package.hsic1(k[None], other[None])[0]

    expected = peer_hsic(x, y) / torch.sqrt(peer_hsic(x, x) * peer_hsic(y, y))
    assert float(debiased_cka(A, B)[1, 0]) == pytest.approx(float(expected), abs=1e-6)


# --- invariances ------------------------------------------------------------------------------


def orthogonal(size: int) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator(3)))[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x @ orthogonal(x.shape[1]),
        lambda x: 1e-3 * x,
        lambda x: 1e12 * x,
        lambda x: 1e-12 * x,
        lambda x: x + 7,
        lambda x: x[:, torch.arange(x.shape[1] - 1, -1, -1)],
    ],
    ids=["rotated", "scaled", "huge", "tiny", "shifted", "reversed"],
)
def test_it_is_invariant_to_transforms_of_the_features(change) -> None:
    expected = debiased_cka(A, B)
    transformed = debiased_cka([change(x) for x in A], B)
    torch.testing.assert_close(transformed, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bandwidth", [None, 0.7])
def test_equal_features_have_cka_1(bandwidth: float | None) -> None:
    for other in (A, [x.clone() for x in A]):
        similarity = debiased_cka(A, other, bandwidth)
        assert similarity.diagonal().numpy() == pytest.approx(1, abs=1e-6)
        assert torch.allclose(similarity, similarity.T, atol=1e-6)


def test_independent_wide_features_have_cka_near_0() -> None:
    x, y = torch.randn(2, 64, 1000, generator=generator())
    assert biased(x, y) > 0.9
    assert abs(float(debiased_cka([x], [y]))) < 0.05


def test_a_large_mean_costs_no_precision() -> None:
    """Without centring, the second decimal is wrong."""
    a, b = [[x + 1000 for x in features] for features in (A, B)]
    exact = [[ratio(linear(x - 1000), linear(y - 1000)) for y in b] for x in a]
    assert debiased_cka(a, b).numpy() == pytest.approx(np.array(exact), abs=1e-4)
    uncentred = cka([hsic(a, b)]).numpy()
    assert not (np.abs(uncentred - np.array(exact)) < 1e-2).all()


def test_bfloat16_products_are_close() -> None:
    a, b = [[x.bfloat16() for x in layers((64, 300), seed, n=300)] for seed in (1, 2)]
    expected = [[ratio(linear(x), linear(y)) for y in b] for x in a]
    assert debiased_cka(a, b).numpy() == pytest.approx(np.array(expected), abs=2e-3)


# --- undefined similarities -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cka_of_constant_features_is_nan(dtype: torch.dtype) -> None:
    constant = (torch.full((N, 6), 0.3) + torch.arange(6)).to(dtype)
    similarity = debiased_cka([constant, A[0].to(dtype)], [A[0].to(dtype)])
    assert similarity.isnan().flatten().tolist() == [True, False]
    assert torch.equal(centre_(constant.clone()), torch.zeros_like(constant))
    assert hsic([centre_(constant)], [A[0].to(dtype)]).own_a.tolist() == [0]


def test_features_that_are_constant_up_to_rounding_are_constant() -> None:
    noisy = 5 + 1e-7 * torch.randn(N, 40, generator=generator())
    assert debiased_cka([noisy], B).isnan().all()
    assert not debiased_cka([5 + 1e-3 * A[0]], B).isnan().any()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_cka_of_features_that_are_not_finite_is_nan(value: float) -> None:
    broken = A[0].clone()
    broken[3, 2] = value
    assert debiased_cka([broken, A[0]], B).isnan().tolist() == [[True, True], [False, False]]
    assert not hsic([centre_(broken)], B).own_a.isfinite().any()


def test_features_are_not_modified() -> None:
    before = [x.clone() for x in (*A, *B)]
    debiased_cka(A, B)
    debiased_cka(A, B, 1.0)
    assert all(torch.equal(x, y) for x, y in zip((*A, *B), before, strict=True))


def test_too_few_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="needs 4 images or more, found 3"):
        debiased_cka([A[0][:3]], [B[0][:3]])
    assert debiased_cka([A[0][:4]], [B[0][:4]]).shape == (1, 1)


def test_unequal_numbers_of_images_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"features of the same images, found \[36, 37\] of them"):
        debiased_cka(A, [B[0], B[1][1:]])


def test_repeated_parts_do_not_change_the_ratio() -> None:
    part = Hsic(torch.tensor([[2.0]]), torch.tensor([4.0]), torch.tensor([1.0]))
    assert cka([part]).item() == cka([part, part]).item() == 1
