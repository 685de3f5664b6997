"""Mimetic initialization: the products of attention weights, by numpy, and its errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from initialized_networks import TWO_LAYERS, InitializedNetwork, initialize, same
from torch import Tensor, nn

from transferbench.errors import PluginError
from transferbench_plugins.initializations._attention_weights import sinusoids

VIT = "timm/test_vit"
WIDTH, HEADS, BLOCKS = 64, 2, 6
Z = 4.5


def projections(result: InitializedNetwork, block: int) -> list[np.ndarray]:
    """W_Q, W_K, W_V and W_proj for row vectors, (64, 64) each."""
    qkv = result.after[f"blocks.{block}.attn.qkv.weight"].double().numpy()
    proj = result.after[f"blocks.{block}.attn.proj.weight"].double().numpy()
    return [part.T for part in (*np.split(qkv, 3), proj)]


def noise_of(product: np.ndarray, identity: float) -> np.ndarray:
    return product - identity * np.eye(len(product))


def check_gaussian(noise: np.ndarray, std: float) -> None:
    n = noise.size
    assert abs(noise.mean()) < Z * std / math.sqrt(n)
    assert abs(noise.var() / std**2 - 1) < Z * math.sqrt(2 / n)


def test_the_network_has_the_expected_size() -> None:
    result = initialize("mimetic", VIT)
    assert len([name for name in result.modules if name.startswith("blocks")]) == BLOCKS
    assert result.net.get_submodule("blocks.0.attn").num_heads == HEADS


@pytest.mark.parametrize("params", [{}, {"value_noise": 0.1, "value_identity": 0.9}])
def test_the_value_projection_product_is_near_minus_identity(params: dict[str, float]) -> None:
    result = initialize("mimetic", VIT, **params)
    alpha, beta = params.get("value_noise", 0.4), params.get("value_identity", 0.4)
    for block in range(BLOCKS):
        _, _, value, proj = projections(result, block)
        check_gaussian(noise_of(value @ proj, -beta), alpha / math.sqrt(WIDTH))
        # Both have the square roots of the singular values.
        assert np.allclose(np.linalg.norm(value, axis=0), np.linalg.norm(proj, axis=1), rtol=1e-4)


def test_the_query_key_product_of_a_head_has_low_rank_and_is_near_identity() -> None:
    result = initialize("mimetic", VIT)
    rank = WIDTH // HEADS
    for block in range(BLOCKS):
        query, key, _, _ = projections(result, block)
        for head in range(HEADS):
            of_head = slice(head * rank, (head + 1) * rank)
            product = query[:, of_head] @ key[:, of_head].T
            singular = np.linalg.svd(product, compute_uv=False)
            assert singular[rank] < 1e-5 < singular[rank - 1]
            # The trace of the rank-h approximation of .7 Z + .7 I is far above that of Z alone,
            # which has mean 0 and standard deviation .7.
            assert np.trace(product) > 5 * 0.7


def test_heads_and_layers_are_drawn_independently() -> None:
    result = initialize("mimetic", VIT)
    queries = [projections(result, block)[0][:, at : at + 32] for block in (0, 1) for at in (0, 32)]
    values = [projections(result, block)[2] for block in (0, 1)]
    assert len({matrix.tobytes() for matrix in (*queries, *values)}) == 6


def test_the_query_key_product_is_the_best_low_rank_approximation() -> None:
    result = initialize("mimetic", VIT, query_key_noise=0, query_key_identity=0.5, sinusoidal=False)
    query, key, _, _ = projections(result, 0)
    rank = WIDTH // HEADS
    product = query[:, :rank] @ key[:, :rank].T
    assert np.allclose(np.linalg.svd(product, compute_uv=False)[:rank], 0.5, atol=1e-5)
    assert np.allclose(product, product.T, atol=1e-5)
    assert np.all(np.linalg.eigvalsh(product) > -1e-5)


def test_only_attention_and_positions_change() -> None:
    result = initialize("mimetic", VIT)
    expected = {f"blocks.{block}.attn.{name}.weight"
                for block in range(BLOCKS) for name in ("qkv", "proj")} | {"pos_embed"}  # fmt: skip
    changed = {name for name in result.before
               if not torch.equal(result.before[name], result.after[name])}  # fmt: skip
    assert changed == expected
    plain = initialize("mimetic", VIT, sinusoidal=False)
    assert same(plain.before, plain.after, ["pos_embed"])


def test_position_embeddings_are_sinusoids_for_patches_and_0_for_class_tokens() -> None:
    positions = initialize("mimetic", VIT).after["pos_embed"][0]
    assert positions.shape == (2, WIDTH)
    assert not positions[0].any()
    assert positions[1].tolist() == [0.0] * 16 + [1.0] * 16 + [0.0] * 16 + [1.0] * 16


def test_sinusoids_equal_their_formula() -> None:
    embeddings = sinusoids(2, 3, 8).double().numpy()
    for y in range(2):
        for x in range(3):
            rates = [1.0, 10000**-0.5]
            expected = [
                f(axis * rate) for axis in (x, y) for f in (np.sin, np.cos) for rate in rates
            ]
            assert np.allclose(embeddings[y * 3 + x], expected, atol=1e-6)


def test_sinusoids_need_a_width_that_is_a_multiple_of_four() -> None:
    message = "width that is a multiple of 4, and the tokens have 6; set sinusoidal"
    with pytest.raises(PluginError, match=message):
        sinusoids(2, 2, 6)


class TorchAttention(nn.Module):
    """An attention layer of torch itself, on rows as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x[:, 0], x[:, 0], x[:, 0], need_weights=False)[0]


def test_torchs_attention_layer_is_supported() -> None:
    spec = TWO_LAYERS.model_copy(
        update={
            "name": "torch-attention",
            "build": lambda params, num_classes, in_chans, image_size: nn.Sequential(
                TorchAttention(), nn.Flatten(), nn.Linear(256, num_classes)
            ),
            "modules": lambda net: {"stem": ("0",), "head": ("2",)},
            "head": lambda net: net.get_submodule("2"),
        }
    )
    result = initialize("mimetic", spec)
    value = result.after["0.attn.in_proj_weight"][32:].double().numpy().T
    proj = result.after["0.attn.out_proj.weight"].double().numpy().T
    check_gaussian(noise_of(value @ proj, -0.4), 0.1)


@pytest.mark.parametrize("kind", ["fixup-resnet8", "timm/test_resnet"])
def test_a_network_without_attention_is_an_error(kind: str) -> None:
    with pytest.raises(PluginError) as raised:
        initialize("mimetic", kind)
    name = "FixupResNet" if kind == "fixup-resnet8" else "ResNet"
    assert str(raised.value) == (
        "initialization 'mimetic' sets attention, and there are no attention layers in this"
        f" backbone ({name}) with queries, keys and values of the tokens' width in one weight;"
        " choose a vision transformer, such as timm/vit_tiny_patch16_224"
    )
