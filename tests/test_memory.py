import numpy as np
import pytest
import torch

from transferbench.engine.resources import lru_cache


class Counted:
    """Counts how often a value is computed."""

    def __init__(self, value):
        self.value, self.times = value, 0

    def __call__(self):
        self.times += 1
        return self.value


def kilobyte():
    return Counted(np.zeros(1000, dtype=np.uint8))


def test_a_value_is_computed_once():
    memoize, compute = lru_cache(2000), kilobyte()
    assert memoize("a", compute) is memoize("a", compute) is compute.value
    assert compute.times == 1


def test_the_least_recently_asked_for_makes_room():
    memoize, a, b, c = lru_cache(2000), kilobyte(), kilobyte(), kilobyte()
    for key, compute in (("a", a), ("b", b), ("a", a), ("c", c), ("a", a), ("b", b)):
        memoize(key, compute)
    assert (a.times, b.times, c.times) == (1, 2, 1)


def test_what_does_not_fit_is_given_and_not_kept():
    memoize, large, small = (
        lru_cache(1500),
        Counted(np.zeros(1501, dtype=np.uint8)),
        kilobyte(),
    )
    for _ in range(2):
        assert memoize("large", large) is large.value
    memoize("small", small)
    assert large.times == 2


@pytest.mark.parametrize(
    "value",
    [
        [torch.zeros(250), torch.zeros(250)],
        {"x": (torch.zeros(250), {"y": np.zeros(250, dtype=np.float32)})},
    ],
)
def test_what_lies_inside_a_value_counts(value):
    memoize, first, second = lru_cache(2500), Counted(value), Counted(value)
    for key, compute in (("first", first), ("second", second), ("first", first)):
        memoize(key, compute)
    assert first.times == 2
