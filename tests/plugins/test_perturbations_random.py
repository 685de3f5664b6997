"""The random numbers that belong to an image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from transferbench_plugins.perturbations._image_random import ImageRandom

CPU = torch.device("cpu")
WORD = 2**64 - 1
STEP = 0x9E3779B97F4A7C15


def mixed(word):
    """The finaliser of splitmix64, in whole numbers."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


# The first draw imports torch, which no deadline foresees.
@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**40), st.integers(0, 30), st.integers(1, 5))
def test_bits_are_splitmix64_keyed_by_seed_stream_and_image(seed, image, stream, values):
    key = mixed((mixed(mixed((seed + STEP) & WORD) + stream * STEP & WORD) + image * STEP) & WORD)
    expected = [mixed((key + counter * STEP) & WORD) for counter in range(1, values + 1)]
    actual = ImageRandom(seed, np.asarray([image]), CPU).bits(values, stream)
    assert [int(word) & WORD for word in actual[0]] == expected


@pytest.mark.parametrize(
    ("draw", "law"), [(ImageRandom.uniform, "uniform"), (ImageRandom.normal, "norm")]
)
def test_draws_follow_their_law_within_an_image_and_across_images(draw, law):
    ids = np.arange(1000)
    drawn = draw(ImageRandom(11, ids, CPU), 4, 50, stream=1).double().numpy()
    for sample in (drawn[0].ravel(), drawn[:, 0, 0], drawn[:, 3, 49], drawn.ravel()[:20_000]):
        assert stats.kstest(sample, law).pvalue > 1e-4
    pairs = (
        (drawn[:-1], drawn[1:]),
        (drawn[:, :, :-1], drawn[:, :, 1:]),
        (drawn[:, :2], drawn[:, 2:]),
        (drawn, draw(ImageRandom(12, ids, CPU), 4, 50, stream=1).double().numpy()),
        (drawn, draw(ImageRandom(11, ids, CPU), 4, 50, stream=2).double().numpy()),
    )
    for a, b in pairs:
        # Uncorrelated: beyond 5 standard errors once in a million.
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)


def test_an_odd_number_of_normal_values_and_a_single_uniform_one():
    assert ImageRandom(0, np.arange(3), CPU).normal(3, 3).shape == (3, 3, 3)
    drawn = ImageRandom(0, np.arange(4), CPU).uniform()
    assert drawn.shape == (4,)
    assert len(set(drawn.tolist())) == 4


def test_uniform_draws_never_reach_1():
    assert ImageRandom(5, np.arange(50), CPU).uniform(20_000).max() < 1
