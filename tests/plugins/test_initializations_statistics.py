"""Initializations from statistics of the source: what they preserve, by numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from initialized_networks import (
    KINDS,
    SPECS,
    InitializedNetwork,
    flat,
    initialize,
    norm_names,
    rows,
    same,
)
from pydantic import ValidationError
from scipy.stats import kstest
from torch import Tensor, nn

from transferbench.errors import PluginError
from transferbench_plugins.initializations._directions import orthonormal
from transferbench_plugins.initializations._source_weights import redraw

STATISTICS = ("mean-var", "bootstrap", "weight-shuffle", "spectrum-matched", "top-directions")
IDENTITY = {
    "weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0,
}  # fmt: skip
Z = 4.5
"""Standard errors: a test over some hundred tensors fails by chance once in a thousand seeds."""


def large(result: InitializedNetwork, min_size: int = 30) -> list[str]:
    return [name for name in result.body_weights() if result.source[name].numel() >= min_size]


def is_table(values: Tensor) -> bool:
    """Tokens and position embeddings: (1, N, D)."""
    return values.ndim == 3 and len(values) == 1


# --- common to all ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STATISTICS)
def test_norm_layers_are_set_to_the_identity_or_copied(name: str, kind: str) -> None:
    identity, copied = (initialize(name, kind, norms=norms) for norms in ("identity", "source"))
    norms = norm_names(identity.net)
    assert bool(norms) == (kind != "fixup-resnet8")
    for key in norms:
        assert np.all(identity.after[key].numpy() == IDENTITY[key.rpartition(".")[2]])
    assert same(copied.after, copied.source, norms)


@pytest.mark.parametrize("name", STATISTICS)
def test_scalars_are_copied(name: str) -> None:
    result = initialize(name)
    scalars = [key for key in result.source if result.source[key].numel() == 1]
    assert "layer1.0.scale" in scalars
    assert same(result.after, result.source, scalars)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STATISTICS)
def test_all_other_tensors_are_redrawn(name: str, kind: str) -> None:
    # With a positive fraction a top direction of each tensor is copied.
    params = {"fraction": 0} if name == "top-directions" else {}
    result = initialize(name, kind, **params)
    assert result.body_weights()
    for key in result.body_weights():
        assert not torch.equal(result.after[key], result.source[key]), key


def test_norm_layers_of_any_library_are_recognised_by_their_class_name() -> None:
    class RmsNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.v = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.full((3,), 2.0))

    class GlobalResponseNorm(RmsNorm):
        """A gain next to a shortcut, whose identity is 0."""

    class NormHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.norm = nn.Parameter(torch.zeros(3)), nn.GroupNorm(1, 3)

    net = nn.ModuleDict({"rms": RmsNorm(), "gain": GlobalResponseNorm(), "head": NormHead()})
    redraw(net, net.state_dict(), "identity", lambda _, values: torch.full_like(values, 5))
    first_values = {name: float(values[0]) for name, values in net.state_dict().items()}
    assert first_values == {
        "rms.weight": 1, "rms.v": 2, "gain.weight": 5, "gain.v": 5,
        "head.weight": 5, "head.norm.weight": 1, "head.norm.bias": 0,
    }  # fmt: skip


def test_other_buffers_are_copied() -> None:
    net = nn.Module()
    net.register_buffer("index", torch.arange(4))
    redraw(net, ["index"], "identity", lambda _, values: values.flip(0))
    assert net.get_buffer("index").tolist() == [0, 1, 2, 3]


# --- mean-var and bootstrap -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_mean_var_preserves_mean_and_variance_within_sampling_error(kind: str) -> None:
    result = initialize("mean-var", kind)
    for name in large(result):
        drawn, source = flat(result.after[name]), flat(result.source[name])
        n, std = len(source), source.std()
        assert abs(drawn.mean() - source.mean()) < Z * std / math.sqrt(n), name
        # The standard error of a normal sample's variance.
        assert abs(drawn.var() / source.var() - 1) < Z * math.sqrt(2 / n), name


@pytest.mark.parametrize("kind", KINDS)
def test_mean_var_draws_are_normal_for_any_source(kind: str) -> None:
    plain = initialize("pretrained", kind)
    two_valued = {
        key: torch.where(values > 0, 2.0, -1.0) if values.numel() > 1 else values
        for key, values in plain.source.items()
    }
    result = initialize("mean-var", kind, source=two_valued)
    drawn = [
        (flat(result.after[name]) - flat(two_valued[name]).mean()) / flat(two_valued[name]).std()
        for name in large(result)
    ]
    assert kstest(np.concatenate(drawn), "norm").pvalue > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_bootstrap_draws_the_sources_entries_with_replacement(kind: str) -> None:
    result = initialize("bootstrap", kind)
    for name in large(result):
        drawn, source = flat(result.after[name]), flat(result.source[name])
        assert set(drawn) <= set(source)
        # n draws miss an entry with probability (1 - 1/n)^n; misses are negatively correlated.
        n = len(set(source))
        missed = (1 - 1 / n) ** n
        error = math.sqrt(missed * (1 - missed) / n)
        assert abs(len(set(drawn)) / n - (1 - missed)) < Z * error, name


# --- weight-shuffle ---------------------------------------------------------------------------


def shuffled_sets(values: Tensor, variant: str) -> np.ndarray:
    """The statistic that a variant preserves, in an order independent of the shuffle."""
    shape = (*values.shape, 1, 1)[:2] if values.ndim < 3 else values.shape[:2]
    shape = (1, values.numel()) if is_table(values) else shape
    kernels = values.double().numpy().reshape(*shape, -1)
    filters = kernels.reshape(len(kernels), -1)
    return {
        "all": lambda: np.sort(filters.ravel()),
        "within-filter": lambda: np.sort(filters, axis=1),
        "across-filters": lambda: filters[np.lexsort(filters.T)],
        "spatial": lambda: np.sort(kernels, axis=2),
        "channel": lambda: np.stack([filter_[np.lexsort(filter_.T)] for filter_ in kernels]),
    }[variant]()


VARIANTS = ("all", "within-filter", "across-filters", "spatial", "channel")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_shuffle_preserves_its_statistic(variant: str, kind: str) -> None:
    result = initialize("weight-shuffle", kind, variant=variant)
    moved = 0
    for name in result.body_weights():
        new, old = result.after[name], result.source[name]
        assert np.array_equal(shuffled_sets(new, variant), shuffled_sets(old, variant)), name
        moved += int((new != old).sum())
    assert moved > 0.5 * sum(result.source[name].numel() for name in result.body_weights()) or (
        variant == "spatial" and kind == "timm/test_vit"
    )


@pytest.mark.parametrize("variant", ["within-filter", "spatial", "channel"])
def test_a_shuffle_inside_filters_preserves_their_norms(variant: str) -> None:
    result = initialize("weight-shuffle", variant=variant)
    name = "layer2.0.conv1.weight"
    new, old = (
        np.linalg.norm(rows(state[name]), axis=1) for state in (result.after, result.source)
    )
    assert np.allclose(new, old, rtol=1e-12)
    for other in {"within-filter", "spatial", "channel", "all", "across-filters"} - {variant}:
        assert not same(initialize("weight-shuffle", variant=other).after, result.after)


def test_filters_are_permuted_with_their_biases() -> None:
    result = initialize("weight-shuffle", "timm/test_vit", variant="across-filters")
    name = "blocks.0.mlp.fc1"
    old, new = (
        np.column_stack([rows(state[f"{name}.weight"]), flat(state[f"{name}.bias"])])
        for state in (result.source, result.after)
    )
    order = [int(np.flatnonzero((old == row).all(axis=1))[0]) for row in new]
    assert sorted(order) == list(range(len(old)))
    assert order != sorted(order)


@pytest.mark.parametrize("variant", ["within-filter", "spatial", "channel"])
def test_filters_are_shuffled_independently(variant: str) -> None:
    source = initialize("pretrained").source
    name = "layer2.0.conv1.weight"
    count = source[name][0].numel()
    equal = torch.arange(float(count)).reshape(source[name][:1].shape).expand_as(source[name])
    drawn = initialize("weight-shuffle", variant=variant, source=source | {name: equal}).after[name]
    assert len(np.unique(rows(drawn), axis=0)) == len(drawn)


@pytest.mark.parametrize("seed", range(3))
def test_a_shuffle_is_uniform(seed: int) -> None:
    source = initialize("pretrained").source
    name = "layer3.0.conv2.weight"
    places = torch.arange(float(source[name].numel())).reshape(source[name].shape)
    moved = flat(
        initialize("weight-shuffle", seed=seed, source=source | {name: places}).after[name]
    )
    n = len(moved)
    # The rank correlation of two independent orders has standard error 1/sqrt(n - 1).
    assert abs(np.corrcoef(moved, np.arange(n))[0, 1]) < Z / math.sqrt(n - 1)
    assert (moved == np.arange(n)).sum() < 8


# --- spectra ----------------------------------------------------------------------------------


def matrix(values: Tensor) -> np.ndarray:
    return values[0].double().numpy() if is_table(values) else rows(values)


def singular(values: Tensor) -> np.ndarray:
    return np.linalg.svd(matrix(values), compute_uv=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["spectrum-matched", "top-directions"])
def test_singular_values_are_preserved(name: str, kind: str) -> None:
    result = initialize(name, kind)
    for key in result.body_weights():
        old, new = singular(result.source[key]), singular(result.after[key])
        assert np.abs(new - old).max() < 1e-5 * old.max(), key


def test_singular_directions_are_random() -> None:
    result = initialize("spectrum-matched", "timm/test_resnet")
    for name in large(result, min_size=5000):
        (u, _, v), (p, _, q) = (
            np.linalg.svd(matrix(state[name]), full_matrices=False)
            for state in (result.source, result.after)
        )
        # The product of two random unit vectors has standard deviation 1/sqrt(dimension).
        assert abs(u[:, 0] @ p[:, 0]) < Z / math.sqrt(len(u)), name
        assert abs(v[0] @ q[0]) < Z / math.sqrt(v.shape[1]), name


def test_random_directions_are_orthonormal_and_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = np.stack([orthonormal(4, 4, generator).numpy() for _ in range(2000)])
    assert np.abs(draws.transpose(0, 2, 1) @ draws - np.eye(4)).max() < 1e-12
    # Haar: E[q_ij] = 0, E[q_ij^2] = 1/4 with variance 3/24 - 1/16, and a trace with mean 0 and
    # variance 1; without fixed signs, Householder's QR would give the trace another mean.
    assert np.abs(draws.mean(0)).max() < Z * math.sqrt(1 / 4 / 2000)
    assert np.abs((draws**2).mean(0) - 1 / 4).max() < Z * math.sqrt(1 / 16 / 2000)
    assert abs(np.trace(draws, axis1=1, axis2=2).mean()) < Z / math.sqrt(2000)


def test_directions_are_orthogonal_to_those_beside_them() -> None:
    generator = torch.Generator().manual_seed(0)
    first = orthonormal(50, 20, generator)
    both = torch.cat([first, orthonormal(50, 30, generator, first)], 1).numpy()
    assert np.abs(both.T @ both - np.eye(50)).max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_top_directions_are_the_sources_and_the_rest_is_random(kind: str) -> None:
    result = initialize("top-directions", kind, fraction=0.25)
    for name in large(result, min_size=500):
        new = matrix(result.after[name])
        u, s, vt = np.linalg.svd(matrix(result.source[name]), full_matrices=False)
        k = -(-len(s) // 4)
        inside = u.T @ new @ vt.T
        assert np.abs(inside[:k, :k] - np.diag(s[:k])).max() < 1e-5 * s[0], name
        assert np.abs(inside[:k, k:]).max() < 1e-5 * s[0], name
        assert np.abs(inside[k:, :k]).max() < 1e-5 * s[0], name
        rest = inside[k:, k:] - np.diag(s[k:])
        assert len(rest) < 4 or np.linalg.norm(rest) > 0.3 * np.linalg.norm(s[k:]), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_top_directions_are_pretrained_and_spectrum_matched(kind: str) -> None:
    whole, pretrained = (
        initialize("top-directions", kind, fraction=1),
        initialize("pretrained", kind),
    )
    assert same(whole.after, pretrained.after)
    none = initialize("top-directions", kind, fraction=0, norms="identity")
    assert same(none.after, initialize("spectrum-matched", kind).after)


def test_the_fraction_of_directions_is_at_most_1() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        SPECS["top-directions"].parse({"fraction": 1.1})


# --- first-k and random-label -----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rest", ["random", "mean-var"])
def test_the_first_modules_are_the_sources(rest: str, kind: str) -> None:
    names = list(initialize("pretrained", kind).modules)
    for k in range(len(names)):
        result = initialize("first-k", kind, modules=k, rest=rest)
        first = [name for module in names[:k] for name in result.modules[module]]
        others = [name for module in names[k:-1] for name in result.modules[module]]
        assert same(result.after, result.source, first)
        if rest == "random":
            assert same(result.after, result.before, others)
        for name in set(others) & set(large(result)):
            assert not torch.equal(result.after[name], result.source[name])


def test_first_k_with_mean_var_and_no_modules_equals_mean_var() -> None:
    none = initialize("first-k", "timm/test_resnet", modules=0, rest="mean-var")
    assert same(none.after, initialize("mean-var", "timm/test_resnet").after)
    half = initialize("first-k", "timm/test_resnet", modules=2, rest="mean-var")
    norms = {name for name in norm_names(half.net) if name.startswith("layer4")}
    assert all(np.all(half.after[n].numpy() == IDENTITY[n.rpartition(".")[2]]) for n in norms)
    for name in set(large(half)) & set(half.modules["layer4.0"]):
        drawn, source = flat(half.after[name]), flat(half.source[name])
        assert abs(drawn.mean() - source.mean()) < Z * source.std() / math.sqrt(len(source))


def test_more_modules_than_the_backbone_has_are_an_error() -> None:
    with pytest.raises(PluginError) as raised:
        initialize("first-k", modules=5)
    assert str(raised.value) == (
        "initialization 'first-k' copies the first 5 modules, and this backbone has 4 before its"
        " head (stem, layer1.0, layer2.0, layer3.0); choose a smaller number, or 'pretrained' for"
        " all of them"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_random_label_copies_its_source(kind: str) -> None:
    result = initialize("random-label", kind)
    assert same(result.after, result.source, result.source)
