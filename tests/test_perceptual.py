"""The perceptual hash of decoded images, and what is near by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferbench.data.decoded import content_of, map_split, write_split
from transferbench.data.perceptual import NEAR_BITS, difference_hashes, near_duplicates
from transferbench.specs import DatasetSplit


def reference(image: np.ndarray) -> int:
    """Bit by bit, of sums over cells, where pixels are repeated until cells are whole."""
    height, width = image.shape
    fine = np.repeat(np.repeat(image.astype(np.int64), 8, axis=0), 9, axis=1)
    cells = fine.reshape(8, height, 9, width).sum(axis=(1, 3))
    bits = [cells[row, column] < cells[row, column + 1] for row in range(8) for column in range(8)]
    return int("".join("01"[int(bit)] for bit in bits), 2)


@pytest.mark.parametrize("shape", [(8, 9), (16, 18), (28, 28), (9, 8), (5, 7), (64, 40), (1, 1)])
def test_the_hash_is_that_of_means_over_a_grid(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype=np.uint8)
    images[0], images[1, :, : shape[1] // 2] = 7, 255
    assert difference_hashes(images).tolist() == [reference(image) for image in images]


def test_flat_images_have_no_bit_and_ramps_all() -> None:
    ramp = np.broadcast_to(np.arange(18, dtype=np.uint8), (16, 18))
    images = np.stack([np.full((16, 18), 200, np.uint8), ramp, ramp[:, ::-1]])
    assert difference_hashes(images).tolist() == [0, 2**64 - 1, 0]
    assert difference_hashes(images[:0]).tolist() == []


def test_blocks_do_not_change_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(1).integers(0, 256, (7, 16, 16), dtype=np.uint8)
    at_once = difference_hashes(images)
    monkeypatch.setattr("transferbench.data.perceptual.BLOCK_VALUES", 600)
    assert difference_hashes(images).tolist() == at_once.tolist()


HASHES = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 63), max_size=12)


@given(HASHES, HASHES)
def test_near_is_within_a_few_bits(own: list[int], others: list[int]) -> None:
    expected = sum(
        any(hash_ and other and (hash_ ^ other).bit_count() <= NEAR_BITS for other in others)
        for hash_ in own
    )
    result = near_duplicates(np.array(own, np.uint64), np.array(others, np.uint64))
    assert result == (expected, len(own))


def test_of_too_many_pairs_some_images_are_compared() -> None:
    hashes = np.arange(1, 101, dtype=np.uint64)
    assert near_duplicates(hashes, hashes, max_pairs=1000) == (10, 10)


def test_hashes_are_stored_with_a_split(tmp_path: Path) -> None:
    images = np.random.default_rng(2).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    split = DatasetSplit(images, np.arange(5), np.arange(5))
    facts = write_split(tmp_path, "train", content_of(split), (16, 16, 1))
    stored = map_split(tmp_path, "train", facts, 0)
    assert stored.hashes is not None
    assert stored.hashes.tolist() == difference_hashes(stored.images[..., 0]).tolist()
    (tmp_path / "train.hashes.npy").unlink()  # as an earlier version left it
    earlier = map_split(tmp_path, "train", facts, 0)
    assert earlier.hashes is None
    assert earlier.perceptual_hashes().tolist() == stored.hashes.tolist()
