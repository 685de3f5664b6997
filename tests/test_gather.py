"""Gather maps, their coarsening and composition, and gathers of runs against plain indexing."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transferbench.data.gather import (
    LONG_RUN_BYTES,
    Gather,
    RunMap,
    _chunks_are_faster,
    as_words,
    chunks,
    coarsen,
)

CPU = torch.device("cpu")


@st.composite
def run_maps(draw):
    length = draw(st.sampled_from([1, 2, 3, 4, 6, 7, 8, 12, 24, 40]))
    runs = draw(st.integers(1, 12))
    maps = draw(st.integers(1, 3))
    orders = [draw(st.permutations(range(runs))) for _ in range(maps)]
    return RunMap(np.asarray(orders, dtype=np.int32), length)


def longest_by_search(index):
    """The longest valid run length, by trying all divisors."""
    for length in range(index.shape[1], 0, -1):
        if index.shape[1] % length:
            continue
        runs = index.reshape(len(index), -1, length)
        aligned = (runs[:, :, 0] % length == 0).all()
        if aligned and (runs == runs[:, :, :1] + np.arange(length)).all():
            return length
    raise AssertionError("length 1 is always valid")


@given(run_maps())
def test_coarsening_gives_the_longest_runs_of_the_same_map(runs):
    index = runs.values()
    coarse = coarsen(index)
    assert coarse.length == longest_by_search(index)
    np.testing.assert_array_equal(coarse.values(), index)


def test_coarsening_gives_the_longest_runs_common_to_all_maps():
    pairs, fours = [2, 3, 0, 1, 4, 5, 6, 7], [4, 5, 6, 7, 0, 1, 2, 3]
    assert coarsen(np.asarray([fours])).length == 4
    assert coarsen(np.asarray([pairs, fours])).length == 2


def test_runs_must_start_at_multiples_of_their_length():
    # 4 neighbours move together, but their sources are 1..4.
    assert coarsen(np.asarray([[1, 2, 3, 4, 5, 6, 7, 0]])).length == 1


def test_the_identity_is_a_single_run():
    coarse = coarsen(np.arange(24)[None])
    assert (coarse.length, coarse.is_identity) == (24, True)


@given(run_maps(), st.integers(1, 5), st.integers(0, 2**31))
def test_gather_equals_plain_indexing(runs, count, seed):
    count = len(runs.runs) if len(runs.runs) > 1 else count
    index = runs.values()
    images = np.random.default_rng(seed).integers(0, 256, (count, index.shape[1]), dtype=np.uint8)
    expected = np.take_along_axis(images, np.broadcast_to(index, images.shape), axis=1)
    source = torch.from_numpy(images.copy())
    np.testing.assert_array_equal(Gather(runs, CPU)(source).numpy(), expected)
    np.testing.assert_array_equal(source.numpy(), images, err_msg="the input was changed")


def test_a_gather_applies_to_batches_of_any_size_in_any_order():
    order = np.random.default_rng(0).permutation(8)
    gather = Gather(RunMap(order[None], 3), CPU)
    for count in (2, 5, 1, 5, 7):
        images = torch.randint(0, 256, (count, 24), dtype=torch.uint8)
        expected = images.view(count, 8, 3)[:, order].reshape(count, 24)
        assert torch.equal(gather(images), expected)


def test_gather_writes_into_the_output_buffer():
    images = torch.arange(24, dtype=torch.uint8)[None]
    out = torch.zeros_like(images)
    returned = Gather(RunMap(np.asarray([[1, 0]]), 12), CPU)(images, out)
    assert returned is out
    assert out[0].tolist() == [*range(12, 24), *range(12)]


@given(run_maps(), st.sampled_from([1, 2, 3]))
def test_keeps_channels_equals_its_definition_by_values(runs, channels):
    index = runs.values()
    expected = bool((index % channels == np.arange(index.shape[1]) % channels).all())
    assert runs.keeps_channels(channels) == expected


@pytest.mark.parametrize(("length", "word"), [(24, 8), (12, 4), (6, 2), (3, 1), (84, 4), (48, 8)])
def test_words_are_the_widest_that_divide_a_row(length, word):
    rows = torch.arange(2 * length, dtype=torch.uint8).view(2, length)
    words = as_words(rows)
    assert words.element_size() == word
    assert words.data_ptr() == rows.data_ptr()


@pytest.mark.parametrize("length", [1, 8, 300])
@pytest.mark.parametrize("maps", [1, 11])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_gather_does_not_depend_on_the_chunk_size(chunked, maps, length, monkeypatch):
    monkeypatch.setattr("transferbench.data.gather._chunks_are_faster", lambda run_bytes: chunked)
    random = np.random.default_rng(0)
    runs = RunMap(np.stack([random.permutation(6) for _ in range(maps)]), length)
    images = torch.from_numpy(random.integers(0, 256, (11, 6 * length), dtype=np.uint8))
    expected = Gather(runs, CPU)(images)
    monkeypatch.setattr("transferbench.data.gather.CHUNK_BYTES", 3 * 6 * length)
    assert torch.equal(Gather(runs, CPU)(images), expected)


def test_the_speed_of_chunks_is_measured_once_and_never_for_long_runs(monkeypatch):
    _chunks_are_faster.cache_clear()
    results = {length: _chunks_are_faster(length) for length in (3, 48, LONG_RUN_BYTES)}
    assert not results[LONG_RUN_BYTES]
    monkeypatch.setattr("transferbench.data.gather._seconds", None)
    assert {length: _chunks_are_faster(length) for length in results} == results


@given(st.integers(0, 40), st.integers(1, 3_000_000))
def test_chunks_cover_a_batch_once_and_in_order(count, row_bytes):
    covered = [index for chunk in chunks(count, row_bytes, CPU) for index in range(count)[chunk]]
    assert covered == list(range(count))


def test_other_devices_process_a_batch_at_once():
    assert list(chunks(512, math.prod((224, 224, 3)), torch.device("meta"))) == [slice(0, 512)]
