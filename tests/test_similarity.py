"""Debiased CKA against Szekely's form in float64, its invariances and its peers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from transferbench.analysis.cka import Hsic, centre_, cka, debiased_cka, hsic, squared_widths

N, SIZES_A, SIZES_B = 37, (5, 90, 12), (64, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layers(sizes: Sequence[int], seed: int, n: int = N) -> list[Tensor]:
    """Features that share a part, around a mean far from 0."""
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


def szekely(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741  # K and L are the Gram matrices' names
    return float((u_centred(k) * u_centred(l)).sum() / (len(k) * (len(k) - 3)))


def ratio(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741  # as above
    return szekely(k, l) / np.sqrt(szekely(k, k) * szekely(l, l))


def plain(x: Tensor, y: Tensor) -> float:
    """The biased estimator."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


# --- values -----------------------------------------------------------------------------------


def test_it_is_szekelys_form_for_every_pair() -> None:
    expected = [[ratio(linear(x), linear(y)) for y in B] for x in A]
    assert debiased_cka(A, B).numpy() == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("bandwidth", [0.4, 1.0])
def test_an_rbf_kernel_is_as_wide_as_a_fraction_of_the_median_distance(bandwidth: float) -> None:
    expected = [[ratio(rbf(x, bandwidth), rbf(y, bandwidth)) for y in B] for x in A]
    assert debiased_cka(A, B, bandwidth).numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_the_median_of_many_images_is_that_of_evenly_spaced_ones() -> None:
    features = layers((3,), 5, n=2500)
    (found,) = squared_widths(features, 2.0)
    (expected,) = squared_widths([features[0][::3]], 2.0)
    assert found == expected
    assert float(found) == pytest.approx(4 * float(squared_widths(features, 1.0)))


@pytest.mark.parametrize("bandwidth", [None, 0.7])
@pytest.mark.parametrize("tile", [1, 5, 16, 36, 37, 500])
def test_no_number_depends_on_the_tiles(tile: int, bandwidth: float | None) -> None:
    a, b = [[centre_(x.clone()) for x in given] for given in (A, B)]
    widths = None
    if bandwidth is not None:
        widths = squared_widths(a, bandwidth), squared_widths(b, bandwidth)
    found, expected = hsic(a, b, widths, tile), hsic(a, b, widths, N)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_hsic_itself_is_szekelys_also_for_large_features() -> None:
    a, b = [[centre_(100 * x) for x in given] for given in (A, B)]
    found = hsic(a, b, tile=10)
    for row, x in enumerate(a):
        own = szekely(linear(x), linear(x))
        assert float(found.own_a[row]) == pytest.approx(own, rel=1e-5)
        for column, y in enumerate(b):
            size = np.sqrt(own * szekely(linear(y), linear(y)))
            expected = szekely(linear(x), linear(y))
            assert float(found.cross[row, column]) == pytest.approx(expected, abs=1e-6 * size)


def test_minibatches_are_averaged_before_the_ratio() -> None:
    parts = [slice(0, 20), slice(20, 37)]
    found = cka(
        hsic([centre_(x[part].clone()) for x in A], [centre_(y[part].clone()) for y in B])
        for part in parts
    )

    def mean(x: Tensor, y: Tensor) -> float:
        return float(np.mean([szekely(linear(x[part]), linear(y[part])) for part in parts]))

    expected = [[mean(x, y) / np.sqrt(mean(x, x) * mean(y, y)) for y in B] for x in A]
    assert found.numpy() == pytest.approx(np.array(expected), abs=1e-6)
    whole = debiased_cka(A, B).numpy()
    assert np.abs(found.numpy() - whole).max() > 1e-3


def test_a_package_agrees() -> None:
    peer = pytest.importorskip("cka", reason="pytorch-cka is not installed: nothing to agree with")
    a, b = [[x.double() - x.double().mean(0) for x in given] for given in (A, B)]
    expected = peer.cka_from_features(a, b)
    assert debiased_cka(A, B).clamp(0, 1).numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_another_package_agrees() -> None:
    peer = pytest.importorskip("cka_pytorch.hsic", reason="cka-pytorch is not installed")
    x, y = (features.double() @ features.double().T for features in (A[1], B[0]))

    def found(k: Tensor, other: Tensor) -> Tensor:
        return peer.hsic1(k[None], other[None])[0]

    expected = found(x, y) / torch.sqrt(found(x, x) * found(y, y))
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
    ids=["rotated", "scaled", "huge", "minute", "shifted", "reversed"],
)
def test_it_does_not_change_when_features_are(change) -> None:
    expected = debiased_cka(A, B)
    found = debiased_cka([change(x) for x in A], B)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bandwidth", [None, 0.7])
def test_equal_features_have_one(bandwidth: float | None) -> None:
    for other in (A, [x.clone() for x in A]):
        found = debiased_cka(A, other, bandwidth)
        assert found.diagonal().numpy() == pytest.approx(1, abs=1e-6)
        assert torch.allclose(found, found.T, atol=1e-6)


def test_independent_wide_features_have_none() -> None:
    x, y = torch.randn(2, 64, 1000, generator=generator())
    assert plain(x, y) > 0.9
    assert abs(float(debiased_cka([x], [y]))) < 0.05


def test_a_large_mean_costs_no_digits() -> None:
    """Where the same formula on features as they are loses the second decimal."""
    a, b = [[x + 1000 for x in given] for given in (A, B)]
    exact = [[ratio(linear(x - 1000), linear(y - 1000)) for y in b] for x in a]
    assert debiased_cka(a, b).numpy() == pytest.approx(np.array(exact), abs=1e-4)
    uncentred = cka([hsic(a, b)]).numpy()
    assert not (np.abs(uncentred - np.array(exact)) < 1e-2).all()


def test_bfloat16_products_are_close() -> None:
    a, b = [[x.bfloat16() for x in layers((64, 300), seed, n=300)] for seed in (1, 2)]
    expected = [[ratio(linear(x), linear(y)) for y in b] for x in a]
    assert debiased_cka(a, b).numpy() == pytest.approx(np.array(expected), abs=2e-3)


# --- what has no similarity -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_that_do_not_vary_have_no_number(dtype: torch.dtype) -> None:
    flat = (torch.full((N, 6), 0.3) + torch.arange(6)).to(dtype)
    found = debiased_cka([flat, A[0].to(dtype)], [A[0].to(dtype)])
    assert found.isnan().flatten().tolist() == [True, False]
    assert torch.equal(centre_(flat.clone()), torch.zeros_like(flat))
    assert hsic([centre_(flat)], [A[0].to(dtype)]).own_a.tolist() == [0]


def test_rounding_is_no_variation() -> None:
    noisy = 5 + 1e-7 * torch.randn(N, 40, generator=generator())
    assert debiased_cka([noisy], B).isnan().all()
    assert not debiased_cka([5 + 1e-3 * A[0]], B).isnan().any()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_features_that_are_not_finite_have_no_number(value: float) -> None:
    broken = A[0].clone()
    broken[3, 2] = value
    assert debiased_cka([broken, A[0]], B).isnan().tolist() == [[True, True], [False, False]]
    assert not hsic([centre_(broken)], B).own_a.isfinite().any()


def test_features_given_are_only_read() -> None:
    before = [x.clone() for x in (*A, *B)]
    debiased_cka(A, B)
    debiased_cka(A, B, 1.0)
    assert all(torch.equal(x, y) for x, y in zip((*A, *B), before, strict=True))


def test_too_few_images_are_told() -> None:
    with pytest.raises(ValueError, match="needs 4 images or more, found 3"):
        debiased_cka([A[0][:3]], [B[0][:3]])
    assert debiased_cka([A[0][:4]], [B[0][:4]]).shape == (1, 1)


def test_other_images_are_told() -> None:
    with pytest.raises(ValueError, match=r"features of the same images, found \[36, 37\] of them"):
        debiased_cka(A, [B[0], B[1][1:]])


def test_sums_of_one_part_are_that_part() -> None:
    one = Hsic(torch.tensor([[2.0]]), torch.tensor([4.0]), torch.tensor([1.0]))
    assert cka([one]).item() == cka([one, one]).item() == 1
